"""A calibration that cannot be right is refused with its number; one that may be right but looks wrong is told."""

from __future__ import annotations

import math
import re

import cv2
import msgspec
import numpy as np
import pytest
import yaml

from rtfuse.align.calibration import (
    Calibration,
    Camera,
    SensorMode,
    fault_of,
    load_calibration,
    matrix3,
    save_calibration,
)
from rtfuse.align.doubts import doubts
from rtfuse.arrays import fuse
from rtfuse.errors import CalibrationError

RIG = """
version: 1
ir:
  {size_wh: [640, 512], K: [[560.0, 0, 319.5], [0, 560.0, 255.5], [0, 0, 1.0]], dist: [-0.3, 0.11, 0.001, 0, 0]}
rgb:
  {size_wh: [640, 480], K: [[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1.0]], dist: [-0.05, 0.01, 0, 0, 0]}
R_rgb_from_ir: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
t_rgb_from_ir_m: [0.06, 0.0, 0.0]
plane_m: 10.0
"""
FLAT = """
ir: {size_wh: [640, 512]}
rgb: {size_wh: [640, 480]}
H_rgb_from_ir: [[1.07, 0.0, -22.0], [0.0, 1.07, -34.0], [0.0, 0.0, 1.0]]
"""
TURNED = cv2.Rodrigues(np.array([0.0, np.pi - 0.1, 0.0]))[0].tolist()
FAR = cv2.Rodrigues(np.array([0.0, 1.2, 0.0]))[0].tolist()


def changed(text, path, value):
    """Return the file's text with the value at a path, such as `ir.K.0.2`, replaced."""
    tree = yaml.safe_load(text)
    *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    part = tree
    for step in way:
        part = part[step]
    part[last] = value
    return yaml.safe_dump(tree)


@pytest.mark.parametrize(
    ("text", "path", "value", "fault"),
    [
        (RIG, "t_rgb_from_ir_m.0", math.nan, r"t_rgb_from_ir_m\.0: want a finite number"),
        (RIG, "ir.dist.1", math.inf, r"ir\.dist\.1: want a finite number"),
        (RIG, "rgb.K.0.0", math.nan, r"rgb\.K\.0\.0: want a finite number"),
        (RIG, "t_rgb_from_ir_m", [60.0, 1.0, 0.0], "60.0083 m apart.*millimetres"),
        (RIG, "t_rgb_from_ir_m", [6.0, 0.0, 0.0], "6 m apart.*centi- or millimetres"),
        (RIG, "plane_m", 10_000.0, "millimetres"),
        (RIG, "plane_m", 1e6, "want 0.02 to 100000 m"),
        (RIG, "plane_m", 0.01, "kilometres"),
        (RIG, "t_rgb_from_ir_m", [0.0, 0.0, 12.0], "12 m apart"),
        (RIG.replace("plane_m: 10.0", "plane_m: 1.0"), "t_rgb_from_ir_m", [0.0, 0.0, 1.5], "behind the thermal"),
        (RIG, "R_rgb_from_ir", TURNED, "174 degrees apart: one looks backwards"),
        (RIG, "R_rgb_from_ir", FAR, "does not reach.*69 degrees apart"),
        (RIG, "R_rgb_from_ir.0.0", -1.0, "not a rotation"),
        (RIG, "ir.K.0.0", 1e6, "fx is 1e.06 px.*micrometres"),
        (RIG, "ir.K.1.1", 4.2, "fy is 4.2 px.*millimetres"),
        (RIG, "rgb.K.0.0", 60_000.0, "fx is 60000 px and fy 600"),
        (RIG, "rgb.K.0.2", 5000.0, "principal point 5000, 239.5 is far from the middle"),
        (RIG, "rgb.K", [[1200.0, 0, 640], [0, 1200.0, 480], [0, 0, 1.0]], "for images of about 1280x960"),
        (RIG, "ir.K.1.0", 1.0, r"ir\.K\[1\]\[0\] is 1; want 0"),
        (RIG, "ir.K.0.1", 0.5, r"ir\.K\[0\]\[1\] is 0.5; want 0"),
        (RIG, "ir.K", [[560.0, 0, 0], [0, 560.0, 0], [319.5, 255.5, 1.0]], "transposed, as MATLAB"),
        (RIG, "ir.K", [[0.0, 0, 0], [0, 0, 0], [0, 0, 1.0]], "not calibrated"),
        (RIG, "ir.dist", [-3.0, 0.11, 0, 0, 0], "folds"),
        (RIG, "ir.dist", [30.0, 0, 0, 0, 0], "outer pixels"),
        (RIG, "ir.dist", [-0.3, 0.11, 0.5, 0, 0], "p1 and p2 are 0.5"),
        (RIG, "ir.size_wh", [64_000, 51_200], "sides of 1 to 32766"),
        (RIG, "ir.size_wh", [160, 9128], "a wrong digit?"),
        (RIG, "ir_offset_ms", -12_500.0, "micro- or nanoseconds"),
        (RIG, "field_px", [[[900.0, 0], [0, 0]], [[0, 0], [0, 0]]], "half of thermal's picture"),
        (FLAT, "H_rgb_from_ir.0.2", 9000.0, "does not reach.*puts its middle at"),
        (FLAT, "H_rgb_from_ir", [[1.0, 0, 0], [0, 0.1, 200], [0, 0, 1]], "stretched to a line"),
        (FLAT, "H_rgb_from_ir", [[0.01, 0, 320], [0, 0.01, 240], [0, 0, 1]], "times as wide"),
        (FLAT, "H_rgb_from_ir", [[1.0, 0, 0], [2.0, 0, 0], [0, 0, 1]], "cannot be inverted"),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, text, path, value, fault):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    load_calibration(file)
    file.write_text(changed(text, path, value))
    with pytest.raises(CalibrationError, match=fault) as e:
        load_calibration(file)
    assert "\n" not in str(e.value)
    assert "c.yaml" in str(e.value)


@pytest.mark.parametrize(
    ("text", "path", "value", "doubt"),
    [
        (RIG, "t_rgb_from_ir_m.0", 0.061, None),
        (FLAT, "H_rgb_from_ir.0.0", 1.05, None),
        (FLAT, "H_rgb_from_ir.0.2", 630.0, "thermal reaches 2.1% of the RGB picture: H_rgb_from_ir puts its middle"),
        (RIG, "R_rgb_from_ir", cv2.Rodrigues(np.array([0, 1.05, 0]))[0].tolist(), "thermal reaches .*60 degrees apart"),
        (FLAT, "H_rgb_from_ir", [[-1.07, 0, 660], [0, 1.07, -34], [0, 0, 1]], "mirrors thermal"),
        (RIG, "rgb.K.0.2", 120.0, "principal point at 120, 240 of a 640x480 image"),
        (RIG, "rgb.K.1.1", 350.0, "fx is 600 px and fy 350"),
        (RIG, "quality", {"method": "boards", "pair_error_px": 12.0, "views": 9}, "not good: 12.0 RGB px"),
        (RIG, "quality", {"method": "register", "pair_error_px": 2.0, "views": 9}, "may be 2.0 RGB px off"),
    ],
)
def test_what_looks_wrong_is_told(tmp_path, text, path, value, doubt):
    (tmp_path / "c.yaml").write_text(changed(text, path, value))
    found = list(doubts(load_calibration(tmp_path / "c.yaml")))
    assert len(found) == (doubt is not None)
    if doubt is not None:
        assert re.search(doubt, found[0])


def test_the_reverse_transform_is_recognised():
    """A small thermal camera, and a homography from RGB to thermal: its picture would be a stamp."""
    ir, rgb = Camera(size_wh=(160, 120)), Camera(size_wh=(1920, 1080))
    H = np.array([[11.0, 0, 80.0], [0, 11.0, -120.0], [0, 0, 1]])
    assert list(doubts(Calibration(ir=ir, rgb=rgb, H_rgb_from_ir=matrix3(H)))) == []
    (doubt,) = doubts(Calibration(ir=ir, rgb=rgb, H_rgb_from_ir=matrix3(np.linalg.inv(H))))
    assert doubt.startswith("thermal reaches 0.")
    assert doubt.endswith("is it ir from rgb?")


def real_lenses():
    """Return lenses of real cameras: wide, fisheye, telescope, tiny, square pixels or not."""
    return [
        Camera(size_wh=(160, 120), K=((105.0, 0, 80), (0, 104.0, 60), (0, 0, 1)), dist=(-0.35, 0.13, 0, 0, 0)),
        Camera(size_wh=(32, 24), K=((32.0, 0, 15.5), (0, 32.0, 11.5), (0, 0, 1.0))),
        Camera(size_wh=(640, 512), K=((41_667.0, 0, 320), (0, 41_667.0, 256), (0, 0, 1.0))),
        Camera(size_wh=(1440, 1080), K=((1500.0, 0, 720), (0, 2000.0, 540), (0, 0, 1.0))),
        Camera(
            size_wh=(1920, 1080),
            K=((860.0, 0, 960), (0, 862.0, 540), (0, 0, 1.0)),
            dist=(-0.25, 0.09, 0.0006, -0.0001, -0.016),
        ),
        Camera(
            size_wh=(1280, 1024),
            K=((320.0, 0, 640), (0, 320.0, 512), (0, 0, 1.0)),
            dist=(-0.02, 0.003, -0.002, 0.0002),
            model="fisheye",
        ),
        Camera(
            size_wh=(1024, 768),
            K=((504.0, 0, 511), (0, 504.0, 387), (0, 0, 1.0)),
            dist=(3.7, 2.3, 1e-5, -2e-5, 0.11, 4.05, 3.6, 0.63),
        ),
    ]


@pytest.mark.parametrize("camera", real_lenses(), ids=lambda c: f"{c.size_wh[0]}x{c.size_wh[1]} {c.model}")
def test_real_lenses_are_taken(camera):
    rgb = msgspec.structs.replace(camera, modes=())
    pose = {"R_rgb_from_ir": matrix3(np.eye(3)), "t_rgb_from_ir_m": (0.02, 0.0, 0.0), "plane_m": 50.0}
    assert fault_of(Calibration(ir=camera, rgb=rgb, **pose)) == ""


def test_a_file_is_written_only_if_it_can_be_read_again(tmp_path):
    c = msgspec.convert(yaml.safe_load(RIG), Calibration)
    broken = msgspec.structs.replace(c, t_rgb_from_ir_m=(math.nan, 0.0, 0.0))
    with pytest.raises(CalibrationError, match="not written"):
        save_calibration(broken, tmp_path / "c.yaml")
    assert not list(tmp_path.iterdir())
    with pytest.raises(CalibrationError, match="want a finite number"):
        fuse(np.zeros((512, 640), np.uint8), np.zeros((480, 640, 3), np.uint8), fuser="pyramid", calibration=broken)


def test_a_mode_that_thermal_does_not_reach_is_told():
    c = msgspec.convert(yaml.safe_load(FLAT), Calibration)
    c = msgspec.structs.replace(c, rgb=Camera(size_wh=(640, 480), modes=(SensorMode(size_wh=(64, 48)),)))
    assert list(doubts(c)) == []
    assert "thermal reaches 2.0% of the RGB picture" in next(iter(doubts(c, reach=0.02)))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("%YAML:1.0\n---\ncamera_matrix: !!opencv-matrix\n", "calib convert"),
        ("cam0: {camera_model: pinhole}\n", "calib convert"),
        ("<?xml version='1.0'?><opencv_storage/>", "calib convert"),
        ("ir: &a [*a]\n", "c.yaml"),
        ("ir: !!timestamp x\n", "c.yaml"),
        (f"ir: {'9' * 5000}\n", "c.yaml"),
        ("ir: 2026-13-45\n", "c.yaml"),
        ("a: &a [1,1]\n" + "".join(f"b{k}: &b{k} [{', '.join(['*a'] * 9)}]\n" for k in range(9)), "aliases"),
        (RIG.replace("560.0", "5:60.0"), "Expected `float`, got `str`"),
        (RIG.replace("560.0", "5_60.0"), "Expected `float`, got `str`"),
        ("[" * 2000, "nested too deep"),
    ],
)
def test_yaml_that_is_no_calibration_ends_in_one_line(tmp_path, text, fault):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(CalibrationError, match=fault) as e:
        load_calibration(tmp_path / "c.yaml")
    assert "\n" not in str(e.value)


def test_numbers_with_an_exponent_alone_are_numbers(tmp_path):
    (tmp_path / "c.yaml").write_text(RIG.replace("0.001", "1e-3").replace("10.0\n", "1E+1\n"))
    c = load_calibration(tmp_path / "c.yaml")
    assert (c.ir.dist[2], c.plane_m) == (0.001, 10.0)
