"""The yard of `solids` against points, planes and pictures that are computed another way."""

from __future__ import annotations

import numpy as np
import pytest

from rtfuse.align.calibration import Calibration, Camera, ir_pixels_of_rgb, matrix3, vector3
from rtfuse.capture.synthetic.solids import Face, Solids, Yard

SMALL = {"size_wh": (160, 120), "ir_size_wh": (128, 96)}
POSES = {
    "side by side": Yard(**SMALL, baseline_m=0.3),
    "turned, on a slope": Yard(
        **SMALL, baseline_m=0.05, lower_m=0.04, pitch_deg=6, slope_deg=3, yaw_deg=8, toe_deg=1.5
    ),
}


def calibration_of(yard, plane_m):
    """The yard's rig as `calib stereo` would write it."""
    cameras = {s: Camera(size_wh=yard.camera(s).size_wh, K=matrix3(yard.camera(s).K)) for s in ("ir", "rgb")}
    pose = {"R_rgb_from_ir": matrix3(yard.R_rgb_from_ir), "t_rgb_from_ir_m": vector3(yard.t_rgb_from_ir_m)}
    return Calibration(**cameras, **pose, plane_m=plane_m)


def pixels_of(hw):
    return np.stack(np.meshgrid(np.arange(hw[1], dtype=float), np.arange(hw[0], dtype=float)), -1).reshape(-1, 2)


@pytest.mark.parametrize("yard", POSES.values(), ids=POSES)
@pytest.mark.parametrize("stream", ["rgb", "ir"])
def test_a_face_is_drawn_where_its_points_are_projected(yard, stream):
    camera = yard.camera(stream)
    corner, across, down = np.array([-0.7, -0.4, 4.0]), np.array([1.5, 0.1, 0.6]), np.array([0.0, 1.1, -0.2])
    depth, number, place = Solids([Face("it", corner, across, down, (0, 0, 0), 0)]).seen(camera)
    places = np.random.default_rng(0).uniform(0, 1, (400, 2))
    xy, z = camera.project(corner + places[:, :1] * across + places[:, 1:] * down)
    x, y = np.rint(xy).astype(int).T
    assert ((x > 0) & (y > 0) & (x < camera.size_wh[0]) & (y < camera.size_wh[1])).all()
    drawn = number[y, x] == 0  # a point within half a pixel of an edge may round to a pixel outside
    assert drawn.mean() > 0.9
    assert np.abs(depth[y, x] - z)[drawn].max() < 0.03
    exact, at = camera.project(camera.lifted(pixels_of(depth.shape), np.where(number < 0, 1.0, depth).ravel()))
    assert np.abs(exact - pixels_of(depth.shape)).max() < 1e-9
    inside = number.ravel() == 0
    u, v = place.reshape(-1, 2)[inside].T
    points = corner + u[:, None] * across + v[:, None] * down
    assert np.abs(camera.project(points)[0] - pixels_of(depth.shape)[inside]).max() < 1e-6
    assert np.abs(at[inside] - camera.project(points)[1]).max() < 1e-9


@pytest.mark.parametrize("yard", POSES.values(), ids=POSES)
def test_places_in_thermal_are_those_of_the_calibration_at_each_pixel_s_distance(yard):
    truth = yard.truth()
    for name in ("ground", "person at 3 m", "person at 8 m"):
        rows, columns = np.nonzero(truth.name == name)
        for k in range(0, len(rows), max(1, len(rows) // 20)):
            y, x = rows[k], columns[k]
            c = calibration_of(yard, float(truth.depth_m[y, x]))
            assert ir_pixels_of_rgb(np.array([[x, y]], float), c)[0] == pytest.approx(truth.ir_xy[y, x], abs=1e-6)


@pytest.mark.parametrize("yard", POSES.values(), ids=POSES)
def test_hidden_pixels_are_those_before_which_thermal_sees_something_nearer(yard):
    truth, thermal = yard.truth(), yard.camera("ir")
    points = yard.camera("rgb").lifted(pixels_of(truth.depth_m.shape), truth.depth_m.clip(0, 1e6).ravel())
    depth = yard.world().seen(thermal)[0]
    expected = thermal.project(points)[1].reshape(truth.depth_m.shape)
    x, y = np.moveaxis(np.rint(truth.ir_xy).astype(int), -1, 0)
    inside = (x >= 1) & (y >= 1) & (x < depth.shape[1] - 1) & (y < depth.shape[0] - 1)
    nine = np.stack(
        [depth[np.where(inside, y, 1) + dy, np.where(inside, x, 1) + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    )
    near_all = inside & np.isfinite(truth.depth_m) & (nine.max(0) < 1.2 * nine.min(0))  # no edge within a pixel
    there = np.abs(nine - expected).min(0) < 0.15 * expected
    hidden = nine.max(0) < 0.7 * expected
    assert near_all.sum() > 5000
    assert truth.visible[near_all & there].mean() > 0.995  # the ground right behind a foot is as near, and hidden
    assert not truth.visible[near_all & hidden].any()
    assert (~truth.visible & inside).sum() > 20


def test_both_pictures_show_the_same_edges_and_people_are_warm():
    yard = POSES["side by side"]
    rgb, ir, truth = (
        yard.world().picture(yard.camera("rgb"), "rgb"),
        yard.world().picture(yard.camera("ir"), "ir"),
        yard.truth(),
    )
    assert (rgb.shape, rgb.dtype, ir.shape, ir.dtype) == ((120, 160, 3), np.uint8, (96, 128), np.uint8)
    x, y = np.moveaxis(np.rint(truth.ir_xy).astype(int).clip(0, (127, 95)), -1, 0)
    people = np.char.startswith(truth.name, "person") & truth.visible
    assert np.median(ir[y, x][people]) > 180
    assert np.median(ir[y, x][~people & truth.visible]) < 120
    moved = yard.world(2.0).picture(yard.camera("rgb"), "rgb")
    assert (moved != rgb).mean() > 0.01


def test_near_things_have_the_parallax_of_their_distance():
    for baseline in (0.05, 0.1, 0.3):
        yard = Yard(**SMALL, baseline_m=baseline)
        truth = yard.truth()
        f = yard.camera("ir").K[0, 0]
        far = calibration_of(yard, 1e5)
        beyond = ir_pixels_of_rgb(pixels_of((120, 160)), far).reshape(120, 160, 2)
        for name in ("person at 3 m", "person at 14 m"):
            here = truth.name == name
            assert (beyond - truth.ir_xy)[here][:, 0] == pytest.approx(f * baseline / truth.depth_m[here], abs=1e-2)
