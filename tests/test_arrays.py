"""`rtfuse.fuse` of two arrays: what `rtfuse fuse` makes of the same images as files, bit for bit."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

import rtfuse
from rtfuse import arrays
from rtfuse.errors import CalibrationError, ConfigError, SourceUnreadable, UnknownFuser

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "configs/calibration_example.yaml"


@pytest.fixture(scope="module")
def images():
    """Thermal counts (96, 128) uint16 and RGB (96, 128, 3) uint8, with edges, noise and colour."""
    rng = np.random.default_rng(1)
    counts = rng.normal(8000, 30, (96, 128))
    counts[30:60, 40:70] += 900
    rgb = rng.normal(60, 12, (96, 128, 3))
    rgb[:, 64:] += (60, 20, 110)
    return counts.astype(np.uint16), np.clip(rgb, 0, 255).astype(np.uint8)


def by_files(folder, ir, rgb, *options, fuser="pyramid"):
    """Return what `rtfuse fuse ir.png rgb.png` makes of two images, those of three channels in R, G, B order."""
    for name, image in (("ir", ir), ("rgb", rgb)):
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[2] if image.ndim == 3 else 1)
        cv2.imwrite(str(folder / f"{name}.png"), image if order is None else cv2.cvtColor(image, order))
    paths = [str(folder / name) for name in ("ir.png", "rgb.png")]
    chosen = ["--fuser", fuser] if fuser else []
    command = [sys.executable, "-m", "rtfuse", "fuse", *paths, "-o", str(folder / "o.png"), *chosen, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    return cv2.imread(str(folder / "o.png"))[..., ::-1]


class OnGpu:
    """Refuses to become an array, as a tensor on a GPU does."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("copy it\nto the host first")


def eight(ir):
    """Return counts as a picture of 8 bits."""
    return np.clip((ir.astype(int) - 7900) // 5, 0, 255).astype(np.uint8)


KINDS = {
    "counts": lambda ir, rgb: (ir, rgb),
    "luma": lambda ir, rgb: (eight(ir), rgb),
    "thermal of another size": lambda ir, rgb: (cv2.resize(ir, (80, 60)), rgb),
    "thermal with a telemetry row's size": lambda ir, rgb: (cv2.resize(ir, (160, 122)), cv2.resize(rgb, (160, 120))),
    "thermal (H, W, 1)": lambda ir, rgb: (ir[..., None], rgb),
    "thermal in colour": lambda ir, rgb: (cv2.applyColorMap(eight(ir), cv2.COLORMAP_JET), rgb),
    "grey RGB": lambda ir, rgb: (ir, rgb[..., 1]),
    "RGBA": lambda ir, rgb: (ir, np.dstack([rgb, np.full(rgb.shape[:2], 99, np.uint8)])),
    "RGB of 16 bits": lambda ir, rgb: (ir, rgb.astype(np.uint16) * 201 + 7),
    "odd sizes": lambda ir, rgb: (ir[:95, :127], rgb[:93, :125]),
    "a scene of one value": lambda ir, rgb: (np.full_like(ir, 8000), rgb),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_two_arrays_give_what_the_command_line_gives(tmp_path, images, kind):
    ir, rgb = KINDS[kind](*images)
    kept = ir.copy(), rgb.copy()
    fused = rtfuse.fuse(ir, rgb, fuser="pyramid")
    assert np.array_equal(fused, by_files(tmp_path, ir, rgb))
    assert np.array_equal(ir, kept[0])
    assert np.array_equal(rgb, kept[1])


@pytest.mark.slow
def test_auto_is_the_network_of_the_command_line(tmp_path, images):
    assert np.array_equal(rtfuse.fuse(*images), by_files(tmp_path, *images, fuser=None))


def test_a_calibration_is_the_command_lines(tmp_path, images):
    loaded = arrays.load_calibration(CALIBRATION)
    ir, rgb = (cv2.resize(image, c.size_wh) for image, c in zip(images, (loaded.ir, loaded.rgb), strict=True))
    fused = rtfuse.fuse(ir, rgb, fuser="pyramid", calibration=CALIBRATION)
    assert np.array_equal(fused, by_files(tmp_path, ir, rgb, "--calib", str(CALIBRATION)))
    assert np.array_equal(fused, rtfuse.fuse(ir, rgb, fuser="pyramid", calibration=loaded))
    assert not np.array_equal(fused, rtfuse.fuse(ir, rgb, fuser="pyramid"))
    with pytest.raises(CalibrationError, match="the thermal stream is 128x96"):
        rtfuse.fuse(images[0], rgb, fuser="pyramid", calibration=loaded)


def test_hot_places_are_the_command_lines(tmp_path, images):
    fused = rtfuse.fuse(*images, fuser="pyramid", keep_hot=0.05)
    assert np.array_equal(fused, by_files(tmp_path, *images, "fuse.keep_hot=0.05"))
    assert not np.array_equal(fused, rtfuse.fuse(*images, fuser="pyramid"))
    with pytest.raises(ConfigError, match=r"fuse\.keep_hot: expected `float` <= 0\.25"):
        rtfuse.fuse(*images, fuser="pyramid", keep_hot=0.5)


def test_counts_are_not_saturated(images):
    ir, rgb = images
    fused = rtfuse.fuse(ir, np.full_like(rgb, 20), fuser="pyramid").mean(axis=2)
    assert fused[35:55, 45:65].mean() > fused[:25, :].mean() + 50
    assert fused[:25].std() < 60
    assert np.array_equal(rtfuse.fuse(ir, rgb, fuser="pyramid"), rtfuse.fuse(ir.astype(">u2"), rgb, fuser="pyramid"))


def test_views_and_read_only_arrays_are_taken(images):
    ir, rgb = images
    expected = rtfuse.fuse(ir[::2, ::-2].copy(), rgb[::2, ::-2].copy(), fuser="pyramid")
    flipped = ir[::2, ::-2]
    flipped.setflags(write=False)
    assert np.array_equal(rtfuse.fuse(flipped, rgb[::2, ::-2], fuser="pyramid"), expected)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    assert np.array_equal(rtfuse.fuse(ir, bgr[..., ::-1], fuser="pyramid"), rtfuse.fuse(ir, rgb, fuser="pyramid"))


def test_the_result_is_the_callers(images):
    ir, rgb = images
    first = rtfuse.fuse(ir, rgb, fuser="pyramid")
    kept = first.copy()
    second = rtfuse.fuse(np.zeros_like(ir), rgb // 2, fuser="pyramid")
    assert np.array_equal(first, kept)
    assert not np.shares_memory(first, second)
    assert not np.shares_memory(first, rgb)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ir, rgb: (ir / 65535, rgb), "thermal must be .* float64: scale its range"),
        (lambda ir, rgb: (ir, rgb / 255), "RGB must be .* float64: scale its range"),
        (lambda ir, rgb: (np.where(ir > 8500, np.nan, ir), rgb), "float64: it has values that are not finite"),
        (lambda ir, rgb: (ir.tolist(), rgb), "thermal must be .* int64"),
        (lambda ir, rgb: (ir.astype(np.int16), rgb), "int16: .* counts as uint16"),
        (lambda ir, rgb: (ir > 8500, rgb), "bool"),
        (lambda ir, rgb: (ir[:0], rgb), r"\(0, 128\) uint16: the array is empty"),
        (lambda ir, rgb: (ir, rgb[:, :0]), r"\(96, 0, 3\) uint8: the array is empty"),
        (lambda ir, rgb: (ir, np.moveaxis(rgb, -1, 0)), r"\(3, 96, 128\) uint8: put the channels last"),
        (lambda ir, rgb: (ir[None], rgb), r"\(1, 96, 128\) uint16: put the channels last"),
        (lambda ir, rgb: (ir, rgb[..., :2]), r"\(96, 128, 2\) uint8: give one image"),
        (lambda ir, rgb: (ir, np.stack([rgb, rgb])), r"\(2, 96, 128, 3\) uint8: give one image"),
        (lambda ir, rgb: (ir[0], rgb), r"\(128,\) uint16: give one image"),
        (lambda ir, rgb: (None, rgb), "object"),
        (lambda ir, rgb: (["a"], rgb), "thermal must be"),
        (lambda ir, rgb: ([], rgb), r"thermal must be .*, got \(0,\) float64: the array is empty"),
        (lambda ir, rgb: (ir, [[]]), r"RGB must be .*, got \(1, 0\) float64: the array is empty"),
        (
            lambda ir, rgb: ([[1, 2], [3]], rgb),
            "thermal must be .*, got a list that NumPy makes no array of: .*inhomog",
        ),
        (
            lambda ir, rgb: (ir, OnGpu()),
            "RGB must be .*, got a OnGpu that NumPy makes no array of: copy it to the host",
        ),
    ],
)
def test_an_array_that_is_no_image_is_refused_in_one_line(images, change, said):
    ir, rgb = change(*images)
    with pytest.raises(SourceUnreadable, match=said) as error:
        rtfuse.fuse(ir, rgb, fuser="pyramid")
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_an_unknown_fuser_is_named(images):
    with pytest.raises(UnknownFuser, match="did you mean 'pyramid'"):
        rtfuse.fuse(*images, fuser="piramid")


def said_of(ir, rgb):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rtfuse.fuse(ir, rgb, fuser="pyramid")
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def test_doubtful_images_are_warned_of_where_they_are_given(images):
    ir, rgb = images
    coloured = cv2.applyColorMap(eight(ir), cv2.COLORMAP_JET)[..., ::-1]
    assert said_of(ir, rgb) == []
    assert said_of(np.dstack([eight(ir)] * 3), rgb) == []
    (colour,) = said_of(coloured, rgb)
    assert colour.startswith("thermal is in false colours (opencv-jet)")
    (natural,) = said_of(np.dstack([rgb[..., k][::-1] for k in range(3)]), rgb)
    assert natural.startswith("thermal is in colour")
    (swapped,) = said_of(rgb, eight(ir))
    assert "rtfuse.fuse(ir, rgb)" in swapped
    (turned,) = said_of(np.ascontiguousarray(ir.T), rgb)
    assert turned.startswith("thermal is 96x128 and RGB 128x96: one of them seems to be turned")


def test_the_fuser_is_opened_once(images, monkeypatch):
    opened = []
    monkeypatch.setattr(arrays, "open_fuser", lambda name: opened.append(name) or rtfuse.open_fuser(name))
    arrays._opened.cache_clear()
    for _ in range(3):
        rtfuse.fuse(*images, fuser="pyramid")
    assert opened == ["pyramid"]


def test_the_name_is_the_function_however_it_is_imported():
    code = (
        "import numpy as np, rtfuse; from rtfuse.fuse.registry import open_fuser; import rtfuse.fuse.deflicker;"
        "from rtfuse import fuse; assert fuse is rtfuse.fuse;"
        "print(fuse(np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8), fuser='pyramid').shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "(8, 8, 3)\n"
    assert list(inspect.signature(arrays.fuse).parameters) == ["ir", "rgb", "fuser", "calibration", "keep_hot"]


def test_help_and_signature_are_those_of_the_function():
    assert inspect.signature(rtfuse.fuse) == inspect.signature(arrays.fuse)
    text = pydoc.plain(pydoc.render_doc(rtfuse.fuse))
    assert "rtfuse.fuse - Fuse a thermal and an RGB image of one moment" in text
    assert "rtfuse.fuse(ir: " in text
    for line in inspect.getdoc(arrays.fuse).splitlines():
        assert line.strip() in text
