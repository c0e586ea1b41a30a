"""The calibration file: what it holds comes back, what does not fit is refused; modes, fields and warps are right."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.align.aligner import Aligner, ir_pixels_of_rgb_grid
from rtfuse.align.calibration import (
    Calibration,
    Camera,
    Quality,
    SensorMode,
    ir_pixels_of_rgb,
    load_calibration,
    matrix3,
    rgb_pixels_of_ir,
    save_calibration,
)
from rtfuse.bench.stages import example_calibration
from rtfuse.errors import CalibrationError, OutputUnwritable

K = ((560.0, 0.0, 322.0), (0.0, 561.0, 250.0), (0.0, 0.0, 1.0))
BARREL = (-0.3, 0.11, 0.001, -0.0005, -0.02)
IR = Camera(size_wh=(640, 512), K=K, dist=BARREL)
RGB = Camera(size_wh=(640, 480), K=((600.0, 0, 325.0), (0, 605.0, 236.0), (0, 0, 1.0)), dist=(-0.1, 0.02, 0, 0, 0))
TURNED = matrix3(cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0])
POSE = Calibration(ir=IR, rgb=RGB, R_rgb_from_ir=TURNED, t_rgb_from_ir_m=(0.06, 0.003, -0.002), plane_m=6.0)


def test_a_file_gives_back_what_was_written(tmp_path):
    quality = Quality(method="boards", pair_error_px=0.2, views=20, distance_m=(0.5, 2.0))
    whole = msgspec.structs.replace(
        POSE, quality=quality, ir_offset_ms=-11.5, ir_offset_std_ms=0.3, R_std_deg=(0.1, 0.2, 0.3), t_std_m=(1e-4,) * 3
    )
    save_calibration(whole, tmp_path / "c.yaml")
    assert load_calibration(tmp_path / "c.yaml") == whole
    assert "version: 1" in (tmp_path / "c.yaml").read_text()
    assert quality.verdict == "good"
    with pytest.raises(OutputUnwritable, match="nowhere"):
        save_calibration(whole, tmp_path / "nowhere" / "c.yaml")
    with pytest.raises(CalibrationError, match="needs H_rgb_from_ir"):
        save_calibration(msgspec.structs.replace(POSE, plane_m=None), tmp_path / "d.yaml")
    assert not (tmp_path / "d.yaml").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("ir: {size_wh: [64, 48], modes: [{size_wh: [64, 48]}]}", "one size twice"),
        ("ir: {size_wh: [64, 48], modes: [{size_wh: [32, 24], binning: [3, 3]}]}", "beyond the calibrated image"),
        ("ir: {size_wh: [64, 48], modes: [{size_wh: [32, 24], crop_xy: [40, 0]}]}", "beyond the calibrated image"),
        ("ir: {size_wh: [64, 48], K: [[0.0, 0, 1], [0, 1, 1], [0, 0, 1]]}", "positive focal lengths"),
        ("field_px: [[[0, 0], [0, 0]]]", "at least two rows"),
        ("field_px: [[[0, 0], [0, 0]], [[0, 0]]]", "at least two rows"),
        ("version: 2", "version"),
        ("quality: {method: guess, pair_error_px: 1, views: 3}", "quality"),
        ("colour: red", "colour"),
        ("ir: {size_wh: [64, 48]}\nir: {size_wh: [64, 48]}", "the key ir occurs twice"),
        ("plane_m: .nan", "plane_m: want a finite number"),
    ],
)
def test_faults_are_named(tmp_path, change, fault):
    lines = {
        "ir": "ir: {size_wh: [64, 48]}",
        "rgb": "rgb: {size_wh: [64, 48]}",
        "H": "H_rgb_from_ir: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]",
    }
    lines[change.partition(":")[0]] = change
    (tmp_path / "c.yaml").write_text("\n".join(lines.values()))
    with pytest.raises(CalibrationError, match=fault) as e:
        load_calibration(tmp_path / "c.yaml")
    assert "c.yaml" in str(e.value)


@settings(max_examples=30, deadline=None)
@given(st.floats(20, 600), st.floats(20, 440))
def test_there_and_back_again(x, y):
    there = ir_pixels_of_rgb(np.array([[x, y]]), POSE)
    assert rgb_pixels_of_ir(there, POSE)[0] == pytest.approx([x, y], abs=1e-3)
    H = Calibration(ir=IR, rgb=RGB, H_rgb_from_ir=matrix3(np.array([[1.05, 0.02, -9], [-0.01, 1.06, 4], [1e-5, 0, 1]])))
    assert rgb_pixels_of_ir(ir_pixels_of_rgb(np.array([[x, y]]), H), H)[0] == pytest.approx([x, y], abs=1e-3)


def test_a_binned_mode_sees_what_the_whole_image_sees():
    """Average a thermal picture 2×2 and cut the RGB one: warping them is binning and cutting the whole warp."""
    ir = msgspec.structs.replace(IR, modes=(SensorMode(size_wh=(320, 256), binning=(2.0, 2.0)),))
    rgb = msgspec.structs.replace(RGB, modes=(SensorMode(size_wh=(400, 300), crop_xy=(100.0, 60.0)),))
    c = msgspec.structs.replace(POSE, ir=ir, rgb=rgb)
    noise = np.random.default_rng(0).normal(0, 1, (512, 640))
    picture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    whole = Aligner((512, 640), (480, 640), c)(picture)[60:360, 100:500]
    small = cv2.resize(picture, (320, 256), interpolation=cv2.INTER_AREA)
    part = Aligner((256, 320), (300, 400), c)(small)
    assert np.abs(part.astype(int) - whole).max() <= 4
    shifted = Aligner((256, 320), (300, 400), msgspec.structs.replace(c, ir=Camera(size_wh=(320, 256), K=K)))(small)
    assert np.abs(shifted.astype(int) - whole).max() > 20  # the test can tell
    with pytest.raises(CalibrationError, match="640x480 or 400x300, but the RGB stream is 320x240"):
        Aligner((256, 320), (240, 320), c)


def test_a_smooth_field_moves_what_it_says():
    flat = Camera(size_wh=(640, 480))
    plain = Calibration(ir=flat, rgb=flat, H_rgb_from_ir=matrix3(np.eye(3)))
    x, y = np.meshgrid(np.linspace(0, 639, 21), np.linspace(0, 479, 16))

    def bend(x, y):
        return np.stack([3 * np.sin(x / 90) + 0.01 * y, 2 * np.cos(y / 70)], -1)

    table = tuple(tuple((float(a), float(b)) for a, b in row) for row in bend(x, y))
    c = msgspec.structs.replace(plain, field_px=table)
    u, v = np.meshgrid(np.arange(640), np.arange(480))
    want = np.stack([u, v], -1) + bend(u, v)
    assert np.abs(ir_pixels_of_rgb_grid(c) - want).max() < 0.04


def test_opencv_and_grid_sample_look_up_the_same_place():
    """A picture whose grey levels are positions tells where each warp has looked: within 0.01 px of each other."""
    aligner = Aligner((512, 640), (480, 640), POSE)
    y, x = np.mgrid[:512, :640].astype(np.float32)
    assert aligner.valid is None
    grid = torch.from_numpy(aligner.grid)[None]
    for ramp, truth in ((x, 0), (y, 1)):
        by_cv = cv2.remap(ramp, ir_pixels_of_rgb_grid(POSE), None, cv2.INTER_LINEAR)
        by_torch = torch.nn.functional.grid_sample(torch.from_numpy(ramp)[None, None], grid, align_corners=True)
        assert np.abs(by_cv - by_torch[0, 0].numpy()).max() < 0.01
        assert np.abs(by_cv - ir_pixels_of_rgb_grid(POSE)[..., truth]).max() < 0.01


def test_the_aligner_uses_the_exact_map():
    """In 16 bits, a ramp of 100 counts a pixel: what `Aligner` makes of it is exact but for rounding."""
    ramp = np.tile((np.arange(640) * 100).astype(np.uint16), (512, 1))
    aligner = Aligner((512, 640), (480, 640), POSE)
    assert np.abs(aligner(ramp) / 100 - ir_pixels_of_rgb_grid(POSE)[..., 0]).max() < 0.011


def test_the_thermal_cameras_offset_reaches_the_pairer(tmp_path):
    from rtfuse.config import load_config
    from rtfuse.pipeline.build import open_rig

    c = msgspec.structs.replace(example_calibration((128, 96)), ir_offset_ms=-12.5)
    save_calibration(c, tmp_path / "c.yaml")
    scene = "synthetic:?size=128x96&duration_s=1"
    given = [f"ir.uri={scene}", f"rgb.uri={scene}", f"align.calib={tmp_path / 'c.yaml'}", "fuse.fuser=pyramid"]
    rig = open_rig(load_config(None, [*given, "ir.offset_ms=2"]))
    assert rig.pairer.offset_ns["ir"] == -10_500_000
