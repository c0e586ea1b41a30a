"""Correct the shift of thermal on RGB near a known place, on real pairs; refuse where nothing stands out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from calib.register.shift import beside_px, shifted
from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.capture.stills import read_image
from rtfuse.errors import CalibrationError

SMALL_WH = (320, 240)


def pair(footage, name):
    """A registered pair; thermal is made smaller, as a camera with a photo in the same file has it."""
    ir, rgb = (read_image(str(footage / "pairs" / "msrs" / s / name), s) for s in ("ir", "rgb"))
    return cv2.resize(ir, SMALL_WH, interpolation=cv2.INTER_AREA), rgb


def start_off(rgb, off_xy):
    """A calibration that lays thermal `off_xy` RGB pixels from where it belongs."""
    h, w = rgb.shape[:2]
    H = np.diag([w / SMALL_WH[0], h / SMALL_WH[1], 1.0])
    H[:2, 2] = (np.diag(H)[:2] - 1) / 2 + off_xy
    return Calibration(ir=Camera(size_wh=SMALL_WH), rgb=Camera(size_wh=(w, h)), H_rgb_from_ir=matrix3(H))


@pytest.mark.parametrize("off_xy", [(0, 0), (14, -9), (-20, 17)])
@pytest.mark.parametrize("name", ["00103D.jpg", "00462D.jpg", "00750N.jpg", "01045N.jpg"])
def test_the_shift_is_found(footage, name, off_xy):
    ir, rgb = pair(footage, name)
    start = start_off(rgb, off_xy)
    moved = np.array(shifted(ir, rgb, start).H_rgb_from_ir) - np.array(start.H_rgb_from_ir)
    assert np.abs(moved[:2, 2] + off_xy).max() < 5
    moved[:2, 2] = 0
    assert not moved.any()


def test_other_scenes_are_refused(footage):
    names = ["00103D.jpg", "00462D.jpg", "00750N.jpg", "01045N.jpg"]
    for k, name in enumerate(names):
        ir, _ = pair(footage, name)
        _, rgb = pair(footage, names[(k + 2) % 4])
        with pytest.raises(CalibrationError, match="no shift of thermal stands out"):
            shifted(ir, rgb, start_off(rgb, (0, 0)))


def test_a_shift_beyond_the_search_is_refused(footage):
    ir, rgb = pair(footage, "00103D.jpg")
    with pytest.raises(CalibrationError, match="no shift"):
        shifted(ir, rgb, start_off(rgb, (90, 0)))


@pytest.mark.slow
@pytest.mark.footage
def test_pairs_beside_each_other_are_told_and_registered_ones_are_not(footage):
    for name in sorted(p.name for p in (footage / "misaligned" / "rgb").iterdir()):
        ir, rgb = (
            read_image(str(footage / "misaligned" / f / name), s) for f, s in (("ir_warped", "ir"), ("rgb", "rgb"))
        )
        assert beside_px(ir, rgb) > 0.015 * rgb.shape[1], name
    for folder in ("msrs", "roadscene"):
        for path in sorted((footage / "pairs" / folder / "ir").iterdir())[::10]:
            rgb = next((footage / "pairs" / folder / "rgb").glob(f"{path.stem}.*"))
            off_px = beside_px(read_image(str(path), "ir"), read_image(str(rgb), "rgb"))
            assert not off_px, path.name
