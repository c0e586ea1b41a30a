"""Registration by a depth camera against a yard whose depth is known at every pixel."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from rtfuse.align.aligner import ir_pixels_of_rgb_grid
from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.align.plane import MovingPlane
from rtfuse.align.settings import Align, DepthSettings, DepthStream, Ground
from rtfuse.align.source import DepthRegistration, filled
from rtfuse.capture.synthetic.solids import Yard
from rtfuse.errors import CalibrationError
from rtfuse.types import DepthFrame
from tools.depth_cases import aligner_by_depth, calibration_of, counts_of, errors_px, ground_of, map_of

YARD = Yard(size_wh=(320, 240), ir_size_wh=(320, 240), toe_deg=0.5)
SOURCE = DepthStream(uri="depth.mkv")


@pytest.fixture(scope="module")
def truth():
    return YARD.truth()


def test_everything_that_thermal_sees_lies_right_and_most_of_what_is_hidden_is_masked(truth):
    aligner = aligner_by_depth(YARD, counts_of(truth.depth_m))
    shown, off = aligner.valid > 0, errors_px(YARD, truth, map_of(aligner))
    for z in (3, 5, 8):
        person = (truth.name == f"person at {z} m") & truth.visible
        assert np.nanmedian(off[person & shown]) < 0.01
        assert shown[person].mean() > 0.95
    seen = truth.visible & np.isfinite(truth.depth_m)
    inside = ((truth.ir_xy >= 0) & (truth.ir_xy <= np.array([319, 239]))).all(-1)
    hidden = inside & ~truth.visible & np.isfinite(truth.depth_m)
    assert hidden.sum() > 500
    assert shown[hidden].mean() < 0.15
    assert shown[seen].mean() > 0.98
    assert aligner.depth.mode == "source"
    assert aligner.depth.known == pytest.approx(np.isfinite(truth.depth_m).mean(), abs=0.01)
    assert (aligner(np.full((240, 320), 200, np.uint8))[hidden & ~shown] == 0).all()


def test_without_any_depth_all_is_as_with_the_plane_or_the_ground():
    nothing = DepthFrame(np.zeros((240, 320), np.uint16), 0)
    for ground in (None, ground_of(YARD)):
        settings = Align(depth=DepthSettings(source=SOURCE, ground=ground))
        plane = MovingPlane(calibration_of(YARD, 15.0), settings)
        base = plane.fit((240, 320), (240, 320))
        assert base.depth.mode == ("plane" if ground is None else "ground")
        made = plane.newest(base, nothing)
        assert made.depth.known == 0
        reached = made.valid == 255
        assert reached.mean() > 0.7
        assert np.abs(map_of(made) - map_of(base))[reached].max() < 0.01


def test_one_depth_frame_is_computed_once_and_the_plane_can_move():
    plane = MovingPlane(calibration_of(YARD, 15.0), Align(depth=DepthSettings(source=SOURCE)))
    base, depth = plane.fit((240, 320), (240, 320)), DepthFrame(np.full((240, 320), 5000, np.uint16), 0)
    made = plane.newest(base, depth)
    assert plane.newest(base, depth) is made
    assert plane.newest(base, DepthFrame(depth.counts, 1)) is not made
    assert plane.newest(base) is base


def test_lenses_are_within_a_tenth_of_a_pixel_from_one_metre_on_and_a_fifth_at_half():
    c = calibration_of(YARD, 15.0)
    ir, rgb = (msgspec.structs.replace(x, dist=d) for x, d in ((c.ir, (-0.2, 0.05, 0, 0)), (c.rgb, (-0.1, 0.02, 0, 0))))
    c = msgspec.structs.replace(c, ir=ir, rgb=rgb, t_rgb_from_ir_m=(0.1, 0.01, -0.03))
    base = MovingPlane(c, Align(depth=DepthSettings(source=SOURCE))).fit((240, 320), (240, 320))
    by_depth = DepthRegistration(c, 0)
    for m in (0.5, 1.0, 3.0, 12.0, 60.0):
        made = by_depth(base, DepthFrame(np.full((240, 320), round(1000 * m), np.uint16), 0))
        right = ir_pixels_of_rgb_grid(msgspec.structs.replace(c, plane_m=m))
        assert np.abs(map_of(made) - right)[made.valid > 0].max() < (0.2 if m < 1 else 0.1), m


def test_small_depth_and_other_units_are_taken_and_another_picture_is_refused(truth):
    base = MovingPlane(calibration_of(YARD, 15.0), Align(depth=DepthSettings(source=SOURCE))).fit(
        (240, 320), (240, 320)
    )
    whole = DepthRegistration(calibration_of(YARD, 15.0), 0)(base, DepthFrame(np.full((240, 320), 4000, np.uint16), 0))
    small = DepthRegistration(calibration_of(YARD, 15.0), 0, unit_mm=2)
    made = small(base, DepthFrame(np.full((120, 160), 2000, np.uint16), 0))
    assert (map_of(made) == map_of(whole)).all()
    with pytest.raises(CalibrationError, match="depth is 320x200 and RGB 320x240"):
        small(base, DepthFrame(np.zeros((200, 320), np.uint16), 0))


def test_unknown_pixels_take_the_farther_side_and_far_ones_stay_unknown():
    counts = np.zeros((20, 200), np.uint16)
    counts[:, :10], counts[:, 14:20] = 1000, 9000
    whole = filled(counts)
    assert (whole[:, 12:14] == 9000).all()
    assert (whole[:, 30] == 9000).all()
    assert (whole[:, 100:] == 0).all()
    assert (whole[counts > 0] == counts[counts > 0]).all()


def test_a_hot_place_is_where_its_own_depth_puts_it(truth):
    aligner = aligner_by_depth(YARD, counts_of(truth.depth_m))
    y, x = np.argwhere((truth.name == "person at 3 m") & truth.visible)[200]
    assert aligner.place(tuple(truth.ir_xy[y, x])) == pytest.approx((x, y), abs=1.5)


def test_depth_needs_a_pose():
    settings = Align(depth=DepthSettings(source=SOURCE))
    with pytest.raises(CalibrationError, match=r"--depth.*no calibration"):
        MovingPlane(None, settings)
    flat = Camera(size_wh=(320, 240))
    with pytest.raises(CalibrationError, match=r"--depth.*homography"):
        MovingPlane(Calibration(ir=flat, rgb=flat, H_rgb_from_ir=matrix3(np.eye(3))), settings)
    with pytest.raises(CalibrationError, match=r"align\.depth\.ground"):
        MovingPlane(None, Align(depth=DepthSettings(source=SOURCE, ground=Ground(height_m=1))))
