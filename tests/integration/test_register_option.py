"""`--register`: two cameras that nobody calibrated are registered from their own footage, or it is said why not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.align.calibration import load_calibration, rgb_pixels_of_ir
from rtfuse.capture import open_source
from rtfuse.capture.synthetic.scene import SyntheticScene

WARPED = "synthetic:?duration_s=3&warp=1&ir_size=320x240"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["fuse", "run"])
def test_the_transform_is_found_kept_and_used_the_next_time(rtfuse, tmp_path, command):
    output = tmp_path / "street.mp4"
    given = ["fuse", WARPED, WARPED, "-o", output, "--fuser", "pyramid"]
    if command == "run":
        given = ["run", "--ir", WARPED, "--rgb", WARPED, "--record", output, "--publish", "off", "--fuser", "pyramid"]
    done = rtfuse(*given, "--register")
    assert done.returncode == 0, done.stderr
    kept = tmp_path / "street-calibration.yaml"
    assert f"{kept} written, estimated error" in done.stdout
    assert "thermal is stretched" not in done.stdout
    assert output.stat().st_size > 10_000
    found = load_calibration(kept)
    corners = np.array([[40.0, 30], [280, 30], [40, 210], [280, 210], [160, 120]])
    truth = cv2.perspectiveTransform(corners[None], SyntheticScene.from_uri(WARPED).H_rgb_from_ir)[0]
    assert np.linalg.norm(rgb_pixels_of_ir(corners, found) - truth, axis=1).max() < 4
    assert cv2.imread(str(tmp_path / "street-registration.jpg")).shape == (960, 1280, 3)
    again = rtfuse(*given, "--register")
    assert again.returncode == 2
    assert f"--calib {kept}" in again.stderr


def test_a_scene_that_tells_nothing_is_refused_with_the_reason(rtfuse, tmp_path):
    for name, shape in (("ir", (240, 320)), ("rgb", (240, 320, 3))):
        (tmp_path / name).mkdir()
        for k in range(3):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.random.default_rng(k).integers(0, 255, shape, np.uint8))
    done = rtfuse("fuse", tmp_path / "ir", tmp_path / "rgb", "-o", tmp_path / "out", "--fuser", "pyramid", "--register")
    assert done.returncode == 2
    assert "error: --register:" in done.stderr
    assert "without it thermal is stretched over RGB" in " ".join(done.stderr.split())
    assert not list(tmp_path.glob("out*"))


def test_a_calibration_and_its_search_are_one_too_many(rtfuse, tmp_path):
    done = rtfuse("fuse", WARPED, WARPED, "-o", tmp_path / "o.mp4", "--calib", tmp_path / "c.yaml", "--register")
    assert done.returncode == 2
    assert "give one of the two" in " ".join(done.stderr.split())


def test_thermal_beside_rgb_is_said_and_a_registered_pair_is_not(rtfuse, tmp_path):
    ir, rgb = (next(iter(open_source("synthetic:?noise=0", stream))).image for stream in ("ir", "rgb"))
    cv2.imwrite(str(tmp_path / "rgb.png"), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    for name, shift in (("same", 0), ("beside", 20)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.roll(ir, shift, 1))
        done = rtfuse("fuse", tmp_path / f"{name}.png", tmp_path / "rgb.png", "-o", tmp_path / f"f_{name}.png")
        assert done.returncode == 0, done.stderr
        assert ("--register finds" in done.stdout) is bool(shift)
