"""The plane of the ground against a yard whose depth is known at every pixel."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest

from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.align.ground import down_of, ground_m
from rtfuse.align.plane import MovingPlane
from rtfuse.align.settings import Align, DepthSettings, Ground
from rtfuse.capture.synthetic.solids import Yard
from rtfuse.config import load_config
from rtfuse.errors import CalibrationError, ConfigError
from rtfuse.types import Depth
from tools.depth_cases import calibration_of, ground_of

SMALL = {"size_wh": (320, 240), "ir_size_wh": (320, 240), "baseline_m": 0.1, "toe_deg": 0.5}
YARDS = {
    "level": Yard(**SMALL),
    "looking down": Yard(**SMALL, pitch_deg=8),
    "on a slope": Yard(**SMALL, slope_deg=3, pitch_deg=2),
    "turned on a slope": Yard(**SMALL, slope_deg=3, yaw_deg=12, pitch_deg=4, lower_m=0.05),
}


def errors(aligner, yard, truth):
    xy = (aligner.grid.astype(float) + 1) * (np.array(aligner.ir_hw[::-1]) - 1) / 2
    return np.where(truth.visible, np.linalg.norm(xy - truth.ir_xy, axis=-1), np.nan)


def plane_of(yard, plane_m=15.0, ground=None, **settings):
    return MovingPlane(calibration_of(yard, plane_m), Align(depth=DepthSettings(ground=ground, **settings)))


@pytest.mark.parametrize("yard", YARDS.values(), ids=YARDS)
def test_thermal_lies_on_the_ground_and_on_what_touches_it_at_every_distance(yard):
    truth = yard.truth()
    fixed = errors(plane_of(yard).fit((240, 320), (240, 320)), yard, truth)
    known = errors(plane_of(yard, ground=ground_of(yard)).fit((240, 320), (240, 320)), yard, truth)
    near = (truth.name == "ground") & (truth.depth_m < 14.9)
    assert near.sum() > 5000
    assert np.nanmax(known[near]) < 0.01
    assert np.nanmedian(fixed[near]) > 1
    for z in (3, 5, 8):
        rows, columns = np.nonzero((truth.name == f"person at {z} m") & np.isfinite(known))
        if not len(rows) or rows.max() >= 239:  # the feet are outside of the picture
            continue
        feet = rows >= rows.max()
        assert np.median(known[rows[feet], columns[feet]]) < 0.3
        assert np.median(fixed[rows[feet], columns[feet]]) > 1


@pytest.mark.parametrize("yard", YARDS.values(), ids=YARDS)
def test_beyond_the_plane_and_above_the_horizon_all_is_as_with_the_plane(yard):
    truth = yard.truth()
    fixed, known = (plane_of(yard, ground=g).fit((240, 320), (240, 320)) for g in (None, ground_of(yard)))
    beyond = (truth.depth_m > 15.1) & (truth.name != "ground") & np.isfinite(truth.depth_m)
    above = truth.name == "sky"
    pixels = np.stack(np.meshgrid(np.arange(320.0), np.arange(240.0)), -1).reshape(-1, 2)
    far = ground_m(pixels, calibration_of(yard, 15.0), ground_of(yard)).reshape(240, 320)
    assert far.max() == pytest.approx(15.0)
    assert (far[above] == far.max()).all()
    assert np.abs(fixed.grid - known.grid)[far == far.max()].max() < 1e-6
    assert ((far == far.max()) & beyond).sum() > 500
    rows = far[:, 160]
    assert np.abs(np.diff(1 / rows)).max() < 0.01  # no step in inverse distance


def test_down_is_where_pitch_and_roll_say():
    assert down_of(Ground(height_m=1)) == pytest.approx([0, 1, 0])
    assert down_of(Ground(height_m=1, pitch_deg=90)) == pytest.approx([0, 0, 1], abs=1e-12)
    assert down_of(Ground(height_m=1, roll_deg=90)) == pytest.approx([1, 0, 0], abs=1e-12)


def test_the_plane_beyond_the_ground_moves_too():
    yard = YARDS["looking down"]
    plane = plane_of(yard, ground=ground_of(yard), move_ms=0)
    first = plane.fit((240, 320), (240, 320))
    assert first.depth == Depth(15.0, 15.0, "ground")
    plane.move(40.0)
    until = time.monotonic() + 60
    while (moved := plane.newest(first)).depth != Depth(40.0, 40.0, "ground"):
        assert time.monotonic() < until
        time.sleep(0.001)
    truth = yard.truth()
    on_ground = (truth.name == "ground") & (truth.depth_m < 38)
    assert np.nanmax(errors(moved, yard, truth)[on_ground]) < 0.1
    back = truth.name == "back wall"
    before, after = (np.nanmedian(errors(a, yard, truth)[back]) for a in (first, moved))
    assert after < 0.3 * before


def test_the_ground_needs_a_pose_and_a_height():
    config = load_config(None, ["align.depth.ground.height_m=1.8", "align.depth.ground.pitch_deg=4"])
    assert config.align.depth.ground == Ground(height_m=1.8, pitch_deg=4.0)
    with pytest.raises(ConfigError, match="height_m"):
        load_config(None, ["align.depth.ground.pitch_deg=4"])
    with pytest.raises(CalibrationError, match=r"align\.depth\.ground.*no calibration"):
        MovingPlane(None, config.align)
    flat = Camera(size_wh=(320, 240))
    homography = Calibration(ir=flat, rgb=flat, H_rgb_from_ir=matrix3(np.eye(3)))
    with pytest.raises(CalibrationError, match=r"align\.depth\.ground.*homography"):
        MovingPlane(homography, config.align)
    both = msgspec.structs.replace(config.align.depth, plane_m=30.0)
    assert MovingPlane(calibration_of(YARDS["level"], 15.0), Align(depth=both)).fit(
        (240, 320), (240, 320)
    ).depth == Depth(30.0, 30.0, "ground")
