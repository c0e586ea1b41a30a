"""Warps against geometry computed another way, and the mask that goes with them."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.align.aligner import Aligner, ir_pixels_of_rgb_grid
from rtfuse.align.calibration import Calibration, Camera, load_calibration
from rtfuse.errors import CalibrationError

K_IR = ((410.0, 0.0, 160.0), (0.0, 415.0, 130.0), (0.0, 0.0, 1.0))
K_RGB = ((600.0, 0.0, 325.0), (0.0, 605.0, 236.0), (0.0, 0.0, 1.0))
BARREL = (-0.34, 0.12, 0.001, -0.0005, -0.02)
IR_WH, RGB_WH = (320, 256), (640, 480)


def matrix(m):
    return tuple(tuple(float(x) for x in row) for row in np.asarray(m))


def rotation(degrees):
    return cv2.Rodrigues(np.radians(np.array(degrees, float)))[0]


def homography(H, **cameras):
    sizes = {"ir": Camera(size_wh=IR_WH), "rgb": Camera(size_wh=RGB_WH)}
    return Calibration(**(sizes | cameras), H_rgb_from_ir=matrix(H))


def stereo(R, t, plane_m, dist_ir=BARREL, dist_rgb=(-0.1, 0.02, 0, 0, 0)):
    return Calibration(
        ir=Camera(size_wh=IR_WH, K=K_IR, dist=dist_ir),
        rgb=Camera(size_wh=RGB_WH, K=K_RGB, dist=dist_rgb),
        R_rgb_from_ir=matrix(R),
        t_rgb_from_ir_m=tuple(t),
        plane_m=plane_m,
    )


def test_identity_is_free_of_copies_and_mask():
    ir = np.random.default_rng(0).integers(0, 255, (48, 64), np.uint8)
    aligner = Aligner((48, 64), (48, 64))
    assert aligner(ir) is ir
    assert aligner.valid is None


def test_other_sizes_are_stretched_onto_the_rgb_grid():
    ir = np.full((30, 40), 77, np.uint8)
    assert np.array_equal(Aligner((30, 40), (48, 64))(ir), np.full((48, 64), 77, np.uint8))


def test_whole_pixel_shift_is_exact_and_masks_what_is_out_of_reach():
    H = np.array([[1, 0, 7], [0, 1, -5], [0, 0, 1]])
    ir = np.random.default_rng(0).integers(1, 255, (48, 64), np.uint8)
    size = Camera(size_wh=(64, 48))
    aligner = Aligner((48, 64), (48, 64), homography(H, ir=size, rgb=size), seam_px=0)
    warped = aligner(ir)
    assert np.array_equal(warped[:43, 7:], ir[5:, :57])
    assert not warped[43:].any()
    assert not warped[:, :7].any()
    assert np.array_equal(aligner.valid == 255, warped > 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-0.2, 0.2), min_size=4, max_size=4), st.floats(-30, 30), st.floats(-30, 30))
def test_homography_sends_points_where_it_says(linear, dx, dy):
    H = np.eye(3)
    H[:2, :2] += np.reshape(linear, (2, 2))
    H[:2, 2] = dx, dy
    xy = ir_pixels_of_rgb_grid(homography(H)).astype(float)
    for x, y in [(0, 0), (639, 0), (320, 240), (17, 401)]:
        back = H @ [*xy[y, x], 1]
        assert back[:2] / back[2] == pytest.approx([x, y], abs=2e-3)


def test_pose_and_distortion_agree_with_projecting_points_of_the_plane():
    """Points on the plane, projected into both cameras by OpenCV, land on each other."""
    R, t, plane_m = rotation([1.0, -2.0, 0.5]), (0.08, -0.01, 0.02), 6.0
    c = stereo(R, t, plane_m)
    rng = np.random.default_rng(3)
    points = np.column_stack([rng.uniform(-1.2, 1.2, 200), rng.uniform(-1, 1, 200), np.full(200, plane_m)])
    in_rgb, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.array(K_RGB), np.array(c.rgb.dist))
    in_ir, _ = cv2.projectPoints((points - t) @ R, np.zeros(3), np.zeros(3), np.array(K_IR), np.array(BARREL))
    xy = ir_pixels_of_rgb_grid(c)
    looked_up = cv2.remap(xy, in_rgb.astype(np.float32), None, cv2.INTER_LINEAR).reshape(-1, 2)
    assert np.abs(looked_up - in_ir.reshape(-1, 2)).max() < 0.02


def test_a_pose_and_its_homography_agree():
    R, t, d = np.eye(3), np.array([0.1, 0.0, 0.0]), 8.0
    pose = stereo(R, t, d)
    H = np.array(K_RGB) @ (R + np.outer(t, [0, 0, 1]) / d) @ np.linalg.inv(np.array(K_IR))
    flat = Calibration(ir=pose.ir, rgb=pose.rgb, H_rgb_from_ir=matrix(H))
    assert np.abs(ir_pixels_of_rgb_grid(pose) - ir_pixels_of_rgb_grid(flat)).max() < 1e-2


def test_fisheye_agrees_with_opencv():
    dist = (-0.02, 0.003, -0.001, 0.0)
    c = Calibration(
        ir=Camera(size_wh=IR_WH, K=K_IR, dist=dist, model="fisheye"),
        rgb=Camera(size_wh=RGB_WH, K=K_RGB),
        R_rgb_from_ir=matrix(np.eye(3)),
        t_rgb_from_ir_m=(0.0, 0.0, 0.0),
        plane_m=5.0,
    )
    ray = np.linalg.inv(np.array(K_RGB)) @ [100, 50, 1]
    want, _ = cv2.fisheye.projectPoints(ray[None, None], np.zeros(3), np.zeros(3), np.array(K_IR), np.array(dist))
    assert ir_pixels_of_rgb_grid(c)[50, 100] == pytest.approx(want.ravel(), abs=1e-3)


def test_the_seam_rises_smoothly_from_the_edge_of_thermal():
    H = np.array([[1.2, 0, 100], [0, 1.2, 80], [0, 0, 1]])
    valid = Aligner(IR_WH[::-1], RGB_WH[::-1], homography(H), seam_px=20).valid
    row = valid[230].astype(int)
    rise = row[95:140]
    assert row[:100].max() == 0
    assert row[130:460].min() == 255
    assert np.diff(rise).min() >= 0
    assert np.diff(rise).max() < 255 / 20 * 2
    assert np.count_nonzero((rise > 0) & (rise < 255)) in range(17, 23)


def test_pixels_behind_the_thermal_camera_are_not_valid():
    c = stereo(rotation([0, 179.0, 0]), (0, 0, 0), 5.0)
    valid = Aligner(IR_WH[::-1], RGB_WH[::-1], c).valid
    assert valid is not None
    assert valid.max() == 0


def test_size_mismatch_says_both_sizes():
    with pytest.raises(CalibrationError, match=r"320x256.*160x120"):
        Aligner((120, 160), (480, 640), homography(np.eye(3)))


def write(tmp_path, **changes):
    tree = msgspec.to_builtins(stereo(np.eye(3), (0.1, 0, 0), 5.0)) | changes
    path = tmp_path / "calibration.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not ...}))
    return path


def test_file_round_trip(tmp_path):
    assert load_calibration(write(tmp_path)) == stereo(np.eye(3), (0.1, 0, 0), 5.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plane_m": ...}, "needs H_rgb_from_ir, or all of"),
        ({"H_rgb_from_ir": np.eye(3).tolist()}, "both"),
        ({"plane_m": -1.0}, "plane_m"),
        ({"R_rgb_from_ir": (2 * np.eye(3)).tolist()}, "not a rotation"),
        ({"plan_m": 3}, "plan_m"),
        ({"ir": {"size_wh": [320, 256]}}, "needs K"),
        ({"ir": {"size_wh": [320, 256], "K": list(K_IR), "dist": [0.1]}}, "coefficients"),
        ({"ir": {"size_wh": [320]}}, "size_wh"),
        ({"version": 2}, "version"),
    ],
)
def test_wrong_files_are_refused_with_the_fault(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(CalibrationError, match=message) as caught:
        load_calibration(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_yaml_or_absent_are_refused(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(CalibrationError, match="No such file"):
        load_calibration(path)
    path.write_bytes(b"\x00\xff{]")
    with pytest.raises(CalibrationError, match=r"c\.yaml"):
        load_calibration(path)
    path.write_text("")
    with pytest.raises(CalibrationError, match=r"c\.yaml"):
        load_calibration(path)
