"""`rtfuse fuse` on folders of stills: the pairs, read back from the pixels; what it says; what it refuses."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

BITS, BLOCK = 6, 10


def numbered(k, *, size_wh=(64, 48), channels=1):
    """A picture with `k` in blocks at its top: bright is 1."""
    image = np.full((48, 64), 90, np.uint8)
    image[24:, :32] = 150
    for bit in range(BITS):
        left = 2 + BLOCK * bit
        image[4:14, left : left + BLOCK] = 230 if k >> bit & 1 else 25
    image = cv2.resize(image, size_wh, interpolation=cv2.INTER_NEAREST)
    return image if channels == 1 else cv2.merge([image] * channels)


def number(panel):
    """Read the number of `numbered` back."""
    panel = cv2.resize(panel, (64, 48), interpolation=cv2.INTER_AREA)
    cells = [panel[6:12, 4 + BLOCK * bit : BLOCK * (bit + 1)].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, value in enumerate(cells) if value > 128)


def counts(k, low=8000, high=9000):
    """The same in 16 bits."""
    return (low + (high - low) * (numbered(k) / 255.0)).astype(np.uint16)


def put(folder, files):
    """Write {name: image} below a folder."""
    for name, image in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = image(int(re.findall(r"\d+", name)[-1])) if callable(image) else image
        assert cv2.imwrite(str(path), image)
    return folder


def ir(k):
    return numbered(k)


def rgb(k):
    return numbered(k, channels=3)


def named(form, numbers, kind):
    return {form.format(k): kind(k) for k in numbers}


def shown(folder):
    """Return {output's name: (number of thermal, number of RGB)} of a folder of side-by-side pictures."""
    pairs = {}
    for path in sorted(folder.rglob("*.png")):
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        w = image.shape[1] // 3
        pairs[path.relative_to(folder).as_posix()] = number(image[:, :w]), number(image[:, w : 2 * w])
    return pairs


ALL = range(1, 7)
CASES = {
    # case: thermal files, RGB files, options, numbers that are paired, what is said
    "one missing": (
        named("{:04d}.png", [k for k in ALL if k != 4], ir),
        named("{:04d}.png", ALL, rgb),
        [],
        [1, 2, 3, 5, 6],
        ["RGB: 1 of 6 without a partner, left out: 0004.png", "1 rgb: without a partner"],
    ),
    "missing on both sides": (
        named("{:04d}.png", [1, 2, 4, 5, 6], ir),
        named("{:04d}.png", [1, 2, 3, 4, 5], rgb),
        [],
        [1, 2, 4, 5],
        ["thermal: 1 of 5 without a partner, left out: 0006.png", "RGB: 1 of 5 without a partner, left out: 0003.png"],
    ),
    "suffixes, kinds, zeros": (
        named("FLIR_{:04d}.tiff", ALL, counts),
        named("FLIR_{}_rgb.jpg", ALL, rgb),
        [],
        ALL,
        ["6 pairs by name", "drops none"],
    ),
    "clutter": (
        named("{:04d}.png", ALL, ir) | named("._{:04d}.png", ALL, ir),
        named("{:04d}.png", ALL, rgb) | named(".{:04d}.png", ALL, ir),
        [],
        ALL,
        ["drops none"],
    ),
    "by order": (
        named("DJI_{}.png", [1, 3, 5], ir),
        named("DJI_{}.png", [2, 4, 6, 8], rgb),
        ["--pair", "order"],
        {2: 1, 4: 3, 6: 5},
        ["3 pairs by order", "RGB: 1 of 4 without a partner, left out: DJI_8.png"],
    ),
    "other sizes and depths": (
        named("{}.png", [1, 2], ir) | named("{}.png", [3], counts),
        {"1.png": rgb(1), "2.png": numbered(2, size_wh=(80, 60), channels=3), "3.png": rgb(3)},
        [],
        [1, 2, 3],
        ["3 pairs by name", "drops none"],
    ),
    "subfolders": (
        named("day/lwir/{}.png", [1, 2], ir) | named("night/lwir/{}.png", [3], ir),
        named("day/visible/{}.png", [1, 2], rgb) | named("night/visible/{}.png", [3, 4], rgb),
        ["--recursive"],
        [1, 2, 3],
        ["RGB: 1 of 4 without a partner, left out: night/visible/4.png"],
    ),
    "a sequence": (
        named("{}.png", [1, 2, 4], counts),
        named("{}.png", [1, 2, 3, 4], rgb),
        ["--sequence"],
        [1, 2, 4],
        ["25 Hz; 3 pairs by name", "RGB: 1 of 4 without a partner"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_folders_are_paired_and_keep_their_names(rtfuse, tmp_path, case):
    thermal, colour, options, expected, said = CASES[case]
    a, b = put(tmp_path / "ir", thermal), put(tmp_path / "rgb", colour)
    done = rtfuse("fuse", a, b, "-o", tmp_path / "out", "--side-by-side", *options)
    assert done.returncode == 0, done.stderr
    expected = expected if isinstance(expected, dict) else {k: k for k in expected}
    found = shown(tmp_path / "out")
    assert {v: i for i, v in found.values()} == expected
    stems = {name.rpartition(".")[0] for name in colour}
    assert {name.rpartition(".")[0] for name in found} <= stems
    text = " ".join(done.stdout.split())
    assert not [line for line in said if line not in text], text


def test_one_folder_of_both_and_pages_and_times(rtfuse, tmp_path):
    both = put(tmp_path / "both", named("DJI_{}_T.png", ALL, ir) | named("DJI_{}_V.png", ALL, rgb))
    done = rtfuse("fuse", both, both, "-o", tmp_path / "a", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert list(shown(tmp_path / "a").values()) == [(k, k) for k in ALL]

    cv2.imwritemulti(str(tmp_path / "stack.tif"), [counts(k) for k in ALL])
    colour = put(tmp_path / "rgb", named("{}.png", ALL, rgb))
    done = rtfuse("fuse", tmp_path / "stack.tif", colour, "-o", tmp_path / "b", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert list(shown(tmp_path / "b").values()) == [(k, k) for k in ALL]

    start = 1_700_000_000
    slow = put(tmp_path / "slow", {f"{start + k / 4!r}.png": ir(4 * k) for k in range(4)})
    fast = put(tmp_path / "fast", {f"{start + k / 16 + 0.01:.2f}.png": rgb(k) for k in range(16)})
    done = rtfuse("fuse", slow, fast, "-o", tmp_path / "c", "--side-by-side")
    assert done.returncode == 2
    assert "--pair time pairs them by the times in their names" in done.stderr
    done = rtfuse("fuse", slow, fast, "-o", tmp_path / "c", "--side-by-side", "--pair", "time")
    assert done.returncode == 0, done.stderr
    assert list(shown(tmp_path / "c").values()) == [(k, k) for k in (0, 4, 8, 12)]
    assert "RGB: 12 of 16 without a partner" in done.stdout


def test_each_still_is_fused_as_if_it_were_alone(rtfuse, tmp_path):
    bases = {1: 7000, 2: 9000, 3: 7600}
    thermal = put(tmp_path / "ir", {f"{k}.tiff": counts(k, base, base + 300) for k, base in bases.items()})
    colour = put(tmp_path / "rgb", {f"{k}.png": rgb(k).astype(np.uint16) * (257 if k == 1 else 16) for k in bases})
    done = rtfuse("fuse", thermal, colour, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "skew" not in done.stdout
    alone = tmp_path / "alone.png"
    assert rtfuse("fuse", thermal / "3.tiff", colour / "3.png", "-o", alone).returncode == 0
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "3.png")), cv2.imread(str(alone)))
    done = rtfuse("fuse", thermal, colour, "-o", tmp_path / "video", "--sequence")
    assert done.returncode == 0, done.stderr
    assert not np.array_equal(cv2.imread(str(tmp_path / "video" / "3.png")), cv2.imread(str(alone)))


def test_pictures_that_cannot_be_read_are_named_with_their_partners(rtfuse, tmp_path):
    thermal = put(tmp_path / "ir", named("{}_ir.png", ALL, ir))
    colour = put(tmp_path / "rgb", named("{}_rgb.png", ALL, rgb))
    (thermal / "1_ir.png").write_bytes(b"")
    (colour / "5_rgb.png").write_bytes(b"cut")
    (thermal / "3_ir.png").unlink()
    (thermal / "3_ir.png").symlink_to(tmp_path / "nowhere.png")
    done = rtfuse("fuse", thermal, colour, "-o", tmp_path / "out", "--side-by-side")
    assert done.returncode == 2
    assert list(shown(tmp_path / "out").values()) == [(k, k) for k in (2, 4, 6)]
    assert "thermal: 1 of 6 without a partner, left out: 3_ir.png (a broken link)" in done.stdout
    assert "RGB: 1 of 6 without a partner, left out: 3_rgb.png" in done.stdout
    assert "thermal: 1 of 5 cannot be read: 1_ir.png (partner 1_rgb.png)" in done.stdout
    assert "RGB: 1 of 5 cannot be read: 5_rgb.png (partner 5_ir.png)" in done.stdout
    assert "incomplete input" in done.stderr


def test_doubts_and_mixed_sizes_for_a_video_are_refused_before_an_output_exists(rtfuse, tmp_path):
    thermal = put(tmp_path / "ir", named("{}.png", range(4), ir))
    colour = put(tmp_path / "rgb", named("{}.png", range(1, 5), rgb))
    done = rtfuse("fuse", thermal, colour, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "say which: --pair name or --pair order" in done.stderr
    put(colour, {"0.png": numbered(0, size_wh=(80, 60), channels=3)})
    done = rtfuse("fuse", thermal, colour, "-o", tmp_path / "out.mp4")
    assert done.returncode == 2
    assert "one size and depth" in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"ir", "rgb"}


def test_run_pairs_folders_by_name_too(rtfuse, tmp_path):
    thermal = put(tmp_path / "ir", named("{}.png", [1, 2, 3, 5, 6], ir))
    colour = put(tmp_path / "rgb", named("{}.png", ALL, rgb))
    done = rtfuse("run", "--ir", thermal, "--rgb", colour, "--publish", "off", "--fps", "10")
    assert done.returncode == 0, done.stderr
    assert "5 in" in done.stdout
    assert "RGB: 1 of 6 without a partner, left out: 4.png" in done.stdout
    assert "10 Hz; 5 pairs by name" in done.stdout


@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (("data/ir", "data/rgb"), "data"),
        (("data/ir/*.png", "data/rgb/*.png"), "data/rgb"),
        (("data/ir", "data/rgb/*.png"), "data/rgb"),
        (("data/ir", "data/rgb"), "data/rgb/../ir"),
        (("data/ir/*.png", "data/rgb/*.png"), "."),
    ],
)
def test_a_folder_that_holds_inputs_is_no_output(rtfuse, tmp_path, inputs, output):
    put(tmp_path / "data" / "ir", named("{}.png", range(2), ir))
    put(tmp_path / "data" / "rgb", named("{}.png", range(2), rgb))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    done = rtfuse("fuse", *inputs, "-o", output, "--force", cwd=tmp_path)
    assert done.returncode == 2
    assert "the input" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_what_else_lies_in_an_output_folder_stays(rtfuse, tmp_path):
    put(tmp_path / "ir", named("{}.png", range(2), ir))
    put(tmp_path / "rgb", named("{}.png", range(2), rgb))
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    (out / "0.png").write_text("an earlier picture")
    done = rtfuse("fuse", "../ir", "../rgb", "-o", ".", "--force", "--side-by-side", cwd=out)
    assert done.returncode == 0, done.stderr
    assert "1 other file" in done.stderr
    assert (out / "thesis.txt").read_text() == "years"
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "thesis.txt"]
    assert cv2.imread(str(out / "0.png")) is not None
