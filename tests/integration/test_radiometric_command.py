"""`rtfuse fuse FLIR.jpg`: one file is a pair; thermal lies where the file says; what is not used is said."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tests import flirs

W, H, PHOTO_WH = 160, 120, (640, 480)


def scene(rng):
    """A photo of dark shapes, and thermal counts of the same shapes as it sees them through a known homography."""
    photo = np.full((PHOTO_WH[1], PHOTO_WH[0], 3), 170, np.uint8)
    for _ in range(60):
        x, y, w, h = rng.integers((0, 0, 20, 15), (620, 460, 90, 70))
        cv2.rectangle(photo, (x, y), (x + w, y + h), tuple(int(c) for c in rng.integers(20, 250, 3)), -1)
    return photo


def stored(photo, real_to_ir, offset_xy, true_shift=(0, 0)):
    """A radiometric file whose numbers say where thermal lies, while it lies `true_shift` photo pixels from there."""
    scale = PHOTO_WH[0] / (real_to_ir * W)
    centre = (np.array(PHOTO_WH) - 1) / 2 + offset_xy + true_shift
    x0, y0 = centre - scale * (np.array([W, H]) - 1) / 2
    rgb_from_ir = np.array([[scale, 0, x0], [0, scale, y0]])
    luma = cv2.GaussianBlur(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), (0, 0), scale / 2)
    seen = cv2.warpAffine(luma, rgb_from_ir, (W, H), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    counts = (15000 + 8 * seen.astype(np.uint16)).astype(np.uint16)
    records = [flirs.camera((W, H)), flirs.pixels(counts, "png"), flirs.photo(photo), flirs.pip(real_to_ir, offset_xy)]
    return flirs.rjpeg(flirs.fff(*records)), luma


def off_px(side_by_side, luma):
    """Return the shift of thermal against the photo's shapes, in RGB pixels, by phase correlation inside its reach."""
    fused = cv2.imread(str(side_by_side))
    thermal = fused[:, : PHOTO_WH[0], 0].astype(np.float32)
    ys, xs = np.nonzero(thermal)
    box = slice(ys.min() + 24, ys.max() - 24), slice(xs.min() + 24, xs.max() - 24)
    a, b = (cv2.Laplacian(cv2.GaussianBlur(x.astype(np.float32), (0, 0), 4), cv2.CV_32F)[box] for x in (thermal, luma))
    return np.hypot(*cv2.phaseCorrelate(a, b, cv2.createHanningWindow(a.shape[::-1], cv2.CV_32F))[0])


@pytest.mark.parametrize("true_shift", [(0, 0), (14, -9)])
def test_one_file_is_a_pair_and_thermal_lies_on_the_photo(rtfuse, tmp_path, true_shift):
    data, luma = stored(scene(np.random.default_rng(5)), 1.8, (-30, 20), true_shift)
    (tmp_path / "FLIR1.jpg").write_bytes(data)
    done = rtfuse("fuse", tmp_path / "FLIR1.jpg", "-o", tmp_path / "o.png", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert "moved to where the two agree" in done.stdout
    assert cv2.imread(str(tmp_path / "o.png")).shape == (PHOTO_WH[1], 3 * PHOTO_WH[0], 3)
    assert off_px(tmp_path / "o.png", luma) < 3


def test_a_folder_of_them(rtfuse, tmp_path):
    (tmp_path / "in").mkdir()
    lumas = []
    for k, offset in enumerate([(-30, 20), (40, 5)]):
        data, luma = stored(scene(np.random.default_rng(k)), 1.8, offset)
        (tmp_path / "in" / f"FLIR{k}.jpg").write_bytes(data)
        lumas.append(luma)
    alone = flirs.rjpeg(flirs.fff(flirs.camera((W, H)), flirs.pixels(np.ones((H, W), np.uint16))))
    (tmp_path / "in" / "ALONE.jpg").write_bytes(alone)
    cv2.imwrite(str(tmp_path / "in" / "plain.jpg"), np.full((48, 64, 3), 9, np.uint8))
    done = rtfuse("fuse", tmp_path / "in", "-o", tmp_path / "out", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 files" in done.stdout
    assert "1 of 4 hold thermal alone, without a photo, left out: ALONE.jpg" in done.stdout
    assert "1 of 4 hold no temperatures, left out: plain.jpg" in done.stdout
    for path, luma in zip(sorted((tmp_path / "out").iterdir()), lumas, strict=True):
        assert off_px(path, luma) < 3


def test_numbers_are_kept_where_registration_is_not_sure(rtfuse, tmp_path):
    """A wall of one temperature gives registration no hold."""
    photo = scene(np.random.default_rng(1))
    counts = np.random.default_rng(2).normal(15000, 3, (H, W)).astype(np.uint16)
    records = [flirs.camera((W, H)), flirs.pixels(counts), flirs.photo(photo), flirs.pip(2.0, (0, 0))]
    (tmp_path / "a.jpg").write_bytes(flirs.rjpeg(flirs.fff(*records)))
    done = rtfuse("fuse", tmp_path / "a.jpg", "fuse.steady=false", "-o", tmp_path / "o.png", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert "own numbers alone" in done.stdout
    ys, xs = np.nonzero(cv2.imread(str(tmp_path / "o.png"))[:, : PHOTO_WH[0], 0])
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((160, 479, 120, 359), abs=3)


def test_a_thermal_file_and_another_rgb_picture(rtfuse, tmp_path):
    photo = scene(np.random.default_rng(3))
    data, _ = stored(photo, 2.0, (0, 0))
    (tmp_path / "a.jpg").write_bytes(data)
    cv2.imwrite(str(tmp_path / "rgb.png"), photo[:, :400, ::-1])
    done = rtfuse("fuse", tmp_path / "a.jpg", tmp_path / "rgb.png", "-o", tmp_path / "o.png", "--side-by-side")
    assert done.returncode == 0, done.stderr
    assert "thermal is in colour" not in done.stdout
    assert cv2.imread(str(tmp_path / "o.png"))[:, :400, 0].all()  # stretched: the numbers hold for the photo alone


def test_dji_is_told_to_need_its_own_library(rtfuse, tmp_path):
    shown = cv2.imencode(".jpg", scene(np.random.default_rng(4)))[1].tobytes()
    parts = b"\xff\xe1\x00\x0cExif\0\0DJI\0" + b"\xff\xe3\xc0\x02" + bytes(0xC000)
    (tmp_path / "DJI_1_T.JPG").write_bytes(shown[:2] + parts + shown[2:])
    cv2.imwrite(str(tmp_path / "DJI_1_V.JPG"), scene(np.random.default_rng(4)))
    done = rtfuse("fuse", tmp_path / "DJI_1_T.JPG", tmp_path / "DJI_1_V.JPG", "-o", tmp_path / "o.png")
    assert done.returncode == 0, done.stderr
    assert "only DJI's own library reads" in " ".join(done.stdout.split())


def test_what_one_input_cannot_do(rtfuse, tmp_path):
    (tmp_path / "a.jpg").write_bytes(
        flirs.rjpeg(flirs.fff(flirs.camera((W, H)), flirs.pixels(np.ones((H, W), np.uint16))))
    )
    cv2.imwrite(str(tmp_path / "plain.jpg"), np.full((48, 64, 3), 9, np.uint8))
    for name, said in (("a.jpg", "holds thermal alone"), ("plain.jpg", "give RGB too")):
        done = rtfuse("fuse", tmp_path / name, "-o", tmp_path / "o.png")
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


def test_the_real_one(rtfuse, footage, tmp_path):
    done = rtfuse("fuse", footage / "rjpeg" / "FLIR_T640.jpg", "-o", tmp_path / "fused.png")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "fused.png")).shape == (1944, 2592, 3)
    assert "25.5 to 97.9 °C" in done.stdout
    assert "moved to where the two agree" in done.stdout
