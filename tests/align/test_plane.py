"""The distance of registration: exact where it is set, moved evenly, and nothing changes where it is not used."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from scenes import make_frame

from rtfuse.align.aligner import Aligner, ir_pixels_of_rgb_grid
from rtfuse.align.calibration import Calibration, Camera, SensorMode, matrix3, save_calibration, vector3
from rtfuse.align.plane import MovingPlane, map_at
from rtfuse.align.settings import Align, DepthSettings
from rtfuse.capture.synthetic.solids import Yard
from rtfuse.config import load_config
from rtfuse.errors import CalibrationError
from rtfuse.fuse import open_fuser
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.stages import Stages
from rtfuse.types import Depth, Pair

YARD = Yard(size_wh=(320, 240), ir_size_wh=(256, 192), baseline_m=0.1, toe_deg=0.5)
HW = {"ir_hw": (192, 256), "rgb_hw": (240, 320)}
BARREL = (-0.34, 0.12, 0.001, -0.0005, -0.02)


def calibration(plane_m=15.0, **lens):
    ir, rgb = (Camera(size_wh=YARD.camera(s).size_wh, K=matrix3(YARD.camera(s).K), **lens) for s in ("ir", "rgb"))
    R, t = matrix3(YARD.R_rgb_from_ir), vector3(YARD.t_rgb_from_ir_m)
    return Calibration(ir=ir, rgb=rgb, R_rgb_from_ir=R, t_rgb_from_ir_m=t, plane_m=plane_m)


def at(**depth):
    return Align(depth=DepthSettings(**depth))


def places(aligner):
    """Return the places of RGB pixels in thermal, in pixels, as engines get them."""
    return (aligner.grid.astype(float) + 1) * (np.array(aligner.ir_hw[::-1]) - 1) / 2


def reached(plane, target_m):
    """Each aligner on the way, until the plane is there."""
    seen, until = [plane.newest(None)], time.monotonic() + 60
    while seen[-1].depth is None or seen[-1].depth.plane_m != target_m:
        assert time.monotonic() < until
        time.sleep(0.001)
        if (newest := plane.newest(None)) is not seen[-1]:
            seen.append(newest)
    return seen


def waited(plane, holds):
    """The first newest aligner for which this holds."""
    until = time.monotonic() + 60
    while not holds(aligner := plane.newest(None)):
        assert time.monotonic() < until
        time.sleep(0.001)
    return aligner


def test_a_rig_that_sets_no_distance_gets_the_calibration_s_own_warp_bit_for_bit():
    c, threads = calibration(dist=BARREL), threading.active_count()
    plane, plain = MovingPlane(c, Align()), Aligner(**HW, calibration=c)
    made = plane.fit(**HW)
    assert made.grid.tobytes() == plain.grid.tobytes()
    assert made.valid.tobytes() == plain.valid.tobytes()
    assert made.depth is None
    assert plane.newest(made) is made
    assert plane.target_m == 15.0
    assert threading.active_count() == threads
    assert MovingPlane(None, Align()).fit((48, 64), (48, 64)).grid is None
    assert MovingPlane(None, Align()).target_m is None


def test_a_distance_of_the_settings_takes_the_calibration_s_place():
    made = MovingPlane(calibration(), at(plane_m=4.0)).fit(**HW)
    assert made.grid.tobytes() == Aligner(**HW, calibration=calibration(4.0)).grid.tobytes()
    assert made.depth == Depth(4.0, 4.0)
    x, y = made.place((128.0, 90.0))
    assert (x, y) == pytest.approx(Aligner(**HW, calibration=calibration(4.0)).place((128.0, 90.0)))


@pytest.mark.parametrize(
    "lens",
    [{}, {"dist": BARREL}, {"dist": (-0.05, 0.01, -0.003, 0.001), "model": "fisheye"}],
    ids=["none", "barrel", "fisheye"],
)
@pytest.mark.parametrize("plane_m", [1.0, 15.0, 1000.0])
def test_the_map_of_a_move_is_the_whole_map(lens, plane_m):
    c = calibration(plane_m, **lens)
    whole = ir_pixels_of_rgb_grid(c)
    inside = ((whole > -5) & (whole < np.array([261, 197]))).all(-1)
    assert inside.mean() > 0.5
    assert np.abs(map_at(c, **HW) - whole)[inside].max() < 0.02


def test_the_map_of_a_move_holds_for_other_modes_of_the_cameras_and_refuses_unknown_sizes():
    c = calibration(3.0, dist=BARREL)
    c = msgspec.structs.replace(
        c, rgb=msgspec.structs.replace(c.rgb, modes=(SensorMode(size_wh=(157, 101), crop_xy=(3, 20), binning=(2, 2)),))
    )
    whole = ir_pixels_of_rgb_grid(c, (256, 192), (157, 101))
    assert whole.shape == (101, 157, 2)
    assert np.abs(map_at(c, (192, 256), (101, 157)) - whole).max() < 0.02
    with pytest.raises(CalibrationError, match="made for RGB images"):
        map_at(c, (192, 256), (100, 100))


def test_a_plane_behind_a_part_of_the_picture_is_computed_pixel_by_pixel():
    c = msgspec.structs.replace(calibration(0.3), t_rgb_from_ir_m=(0.1, 0.0, 0.299))
    assert np.array_equal(map_at(c, **HW), ir_pixels_of_rgb_grid(c))


def test_thermal_lies_on_a_person_at_each_distance_and_not_at_the_other():
    """Ground truth: the front of each person is a plane of its own, and its place in thermal is traced."""
    truth = YARD.truth()
    for person_m in (3.0, 8.0):
        front_m = person_m - 0.15
        front = (truth.name == f"person at {person_m:g} m") & (np.abs(truth.depth_m - front_m) < 1e-6) & truth.visible
        assert front.sum() > 100
        for plane_m in (front_m, 15.0):
            plane = MovingPlane(calibration(30.0), at(move_ms=0))
            plane.fit(**HW)
            plane.move(plane_m)
            error = np.linalg.norm(places(reached(plane, plane_m)[-1]) - truth.ir_xy, axis=-1)
            f_b = YARD.camera("ir").K[0, 0] * 0.1
            assert np.abs(error[front] - f_b * abs(1 / front_m - 1 / plane_m)).max() < 0.03


def test_a_move_goes_evenly_in_inverse_distance_in_a_thread_that_ends():
    plane = MovingPlane(calibration(), at(move_ms=400))
    first = plane.fit(**HW)
    plane.move(3.0)
    assert plane.target_m == 3.0
    seen = reached(plane, 3.0)
    assert seen[0] is first or seen[0].depth.target_m == 3.0
    way = [1 / a.depth.plane_m for a in seen if a.depth is not None]
    assert way == sorted(way)
    assert all(a.depth.target_m == 3.0 for a in seen if a.depth is not None)
    assert np.abs(places(seen[-1]) - places(Aligner(**HW, calibration=calibration(3.0)))).max() < 0.02
    until = time.monotonic() + 10
    while any(t.name == "rtfuse-plane" for t in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.001)
    plane.move(None)
    assert reached(plane, 15.0)[-1].depth == Depth(15.0, 15.0)


def test_steps_follow_the_clock_and_another_target_is_taken_on_the_way():
    now = [0.0]
    plane = MovingPlane(calibration(), at(move_ms=1000), clock=lambda: now[0])
    plane.fit(**HW)
    plane.move(5.0)
    begun = waited(plane, lambda aligner: aligner.depth is not None)
    assert begun.depth.plane_m == pytest.approx(15.0)
    assert begun.depth.target_m == 5.0
    now[0] = 0.5
    half = 2 / (1 / 15 + 1 / 5)
    seen = waited(plane, lambda aligner: aligner.depth.plane_m < 14)
    assert seen.depth.plane_m == pytest.approx(half)
    plane.move(50.0)
    waited(plane, lambda aligner: aligner.depth.target_m == 50.0)
    now[0] = 10.0
    assert reached(plane, 50.0)[-1].depth == Depth(50.0, 50.0)
    plane.close()


def test_a_new_size_on_the_way_is_fitted_at_the_target():
    c = calibration(dist=BARREL)
    c = msgspec.structs.replace(
        c, rgb=msgspec.structs.replace(c.rgb, modes=(SensorMode(size_wh=(160, 120), binning=(2, 2)),))
    )
    now = [0.0]
    plane = MovingPlane(c, at(move_ms=1000), clock=lambda: now[0])
    plane.fit(**HW)
    plane.move(4.0)
    small = plane.fit((192, 256), (120, 160))
    assert small.depth == Depth(4.0, 4.0)
    now[0] = 5.0
    plane.close()
    assert plane.newest(None) is small


@pytest.mark.parametrize(
    ("given", "plane_m", "words"),
    [
        (None, 3.0, "no calibration.*calib stereo"),
        ("homography", 3.0, "homography.*calib stereo"),
        ("pose", 0.001, "0.02"),
        ("pose", 12_000.0, "millimetres"),
        ("homography", None, "homography"),
    ],
)
def test_a_distance_that_cannot_be_is_refused_and_the_error_says_what_to_do(given, plane_m, words):
    flat = Camera(size_wh=(256, 192)), Camera(size_wh=(320, 240))
    c = {
        None: None,
        "pose": calibration(),
        "homography": Calibration(ir=flat[0], rgb=flat[1], H_rgb_from_ir=matrix3(np.diag([1.25, 1.25, 1]))),
    }[given]
    plane = MovingPlane(c, Align())
    with pytest.raises(CalibrationError, match=words):
        plane.move(plane_m)
    if plane_m is not None:
        with pytest.raises(CalibrationError, match=f"align.depth.plane_m.*{words}"):
            MovingPlane(c, at(plane_m=plane_m))
    made = plane.fit(**HW)
    assert made.depth is None
    assert plane.newest(made) is made


def test_a_distance_at_which_thermal_shows_nothing_of_rgb_is_told(caplog):
    c = msgspec.structs.replace(calibration(), t_rgb_from_ir_m=(0.9, 0.0, 0.0))
    plane = MovingPlane(c, at(move_ms=0))
    plane.fit(**HW)
    plane.move(0.5)
    reached(plane, 0.5)
    plane.close()
    assert any("thermal reaches 0.0%" in r.getMessage() for r in caplog.records)


def test_a_thermal_frame_that_is_shown_again_is_warped_again_and_not_seen_twice_by_the_gain_control():
    plane = MovingPlane(calibration(), at(move_ms=0))
    stages = Stages(
        plane.fit(**HW), open_fuser("pyramid"), load_config(None, ["fuse.steady=false"]), fit=plane.fit, plane=plane
    )
    ir, rgb = make_frame("ir", size_wh=(256, 192)), make_frame("rgb", size_wh=(320, 240))
    followed = []
    shown = stages.agc.shown
    stages.agc.shown = lambda frame: followed.append(frame) or shown(frame)
    before = stages.process(Pair(ir, rgb))
    plane.move(2.0)
    reached(plane, 2.0)
    after = stages.process(replace(Pair(ir, rgb), reused=True))
    assert followed == [ir]
    assert (before.depth, after.depth) == (None, Depth(2.0, 2.0))
    assert (before.aligned != after.aligned).mean() > 0.2
    assert np.array_equal(after.aligned, stages.aligner(ir.image))
    assert after.valid is stages.aligner.valid


class Failing(MovingPlane):
    """Cannot make the aligner of 3 m."""

    def _made(self, sizes, plane_m, target_m, *, whole=False):
        if plane_m == 3.0:
            raise MemoryError("no memory")
        return super()._made(sizes, plane_m, target_m, whole=whole)


def test_a_move_that_fails_is_told_and_the_next_one_works(caplog):
    plane = Failing(calibration(), at(move_ms=0))
    made = plane.fit(**HW)
    plane.move(3.0)
    assert waited(plane, lambda _: plane.target_m == 15.0) is made
    assert any("stays at 15 m; moving to 3 m failed: MemoryError" in r.getMessage() for r in caplog.records)
    plane.move(5.0)
    assert reached(plane, 5.0)[-1].depth == Depth(5.0, 5.0)


@pytest.mark.parametrize("name", ["pyramid", "student"])
def test_fusers_and_engines_follow_each_new_warp(name):
    """Engines keep what they made of a warp: a picture after moves is that of a rig that stood there all the time."""
    if name == "student":
        pytest.importorskip("openvino")
    fuser, config = open_fuser(name), load_config(None, ["fuse.steady=false"])

    def last(moves):
        plane = MovingPlane(calibration(dist=BARREL), at(move_ms=0))
        stages = Stages(plane.fit(**HW), fuser, config, fit=plane.fit, plane=plane)
        stages.prepare()
        for k, plane_m in enumerate(moves):
            if plane_m is not None:
                plane.move(plane_m)
                reached(plane, plane_m)
            pair = Pair(make_frame("ir", k, size_wh=(256, 192)), make_frame("rgb", k, size_wh=(320, 240)))
            fused = stages.process(pair, aligned=False)
        return fused.picture.luma

    assert np.array_equal(last([None, 3.0, 8.0, 2.0]), last([2.0, None, None, None]))
    assert not np.array_equal(last([2.0, None, None, None]), last([None] * 4))


def test_a_rig_is_opened_at_the_distance_of_its_settings(tmp_path):
    c = msgspec.structs.replace(calibration(), ir=Camera(size_wh=(320, 240), K=calibration().rgb.K))
    save_calibration(c, tmp_path / "c.yaml")
    both = ["ir.uri=synthetic:?size=320x240", "rgb.uri=synthetic:?size=320x240", f"align.calib={tmp_path / 'c.yaml'}"]
    with open_rig(load_config(None, [*both, "fuse.fuser=pyramid", "align.depth.plane_m=3.5"])) as rig:
        assert rig.plane.target_m == 3.5
        assert rig.aligner.depth == Depth(3.5, 3.5)
    with pytest.raises(CalibrationError, match="no calibration"):
        open_rig(load_config(None, [*both[:2], "fuse.fuser=pyramid", "align.depth.plane_m=3.5"]))


def test_the_errors_at_other_distances_are_those_of_the_baseline_at_the_present_plane():
    plane = MovingPlane(calibration(), at(plane_m=10.0))
    f_b = YARD.camera("rgb").K[0, 0] * 0.1
    assert plane.errors_px() == pytest.approx(
        {m: f_b * abs(1 / m - 0.1) for m in (2.0, 5.0, 10.0, 20.0, 50.0)}, rel=0.02, abs=0.01
    )
    assert MovingPlane(None, Align()).errors_px() == {}
