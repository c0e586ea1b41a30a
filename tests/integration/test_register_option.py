"""`--register`: two cameras that nobody calibrated are registered from their own footage, or it is said why not."""

from __future__ import annotations

import threading

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from rtfuse.align.calibration import load_calibration, rgb_pixels_of_ir
from rtfuse.capture import open_source
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.cli.registering import BesideWatch
from rtfuse.types import Frame, Fused, Pair, Stamp

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


@pytest.mark.slow
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


def write_video(path, images):
    """Write images (H, W) or (H, W, 3) as lossless video of 30 Hz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "gray" if images[0].ndim == 2 else "bgr0"
        for image in images:
            frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray" if image.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("how", [[], ["ir.flip=horizontal"]])
def test_run_says_it_of_recordings_as_they_are_shown(rtfuse, tmp_path, how):
    source = "synthetic:?duration_s=1&noise=0&ir_size=320x240&size=320x240"
    ir, rgb = (list(open_source(source, stream)) for stream in ("ir", "rgb"))
    for name, frames in {
        "rgb": [frame.image for frame in rgb],
        "same": [frame.image for frame in ir],
        "beside": [np.roll(frame.image, 10, 1) for frame in ir],
    }.items():
        turned = [x[:, ::-1] if how and name != "rgb" else x for x in frames]
        write_video(tmp_path / f"{name}.mkv", turned)
    for name in ("same", "beside"):
        given = ["--ir", tmp_path / f"{name}.mkv", "--rgb", tmp_path / "rgb.mkv", "--fuser", "pyramid"]
        done = rtfuse("run", *given, *how, "--publish", "off", "--speed", "max")
        assert done.returncode == 0, done.stderr
        assert ("--register finds" in done.stdout) is (name == "beside")


def seen_by(images):
    """Show pairs of images to a watch; return its notes, and the threads that gave them."""
    said = []
    watch = BesideWatch(lambda line: said.append((line, threading.current_thread().name)))
    for k, (ir, rgb) in enumerate(images):
        pair = Pair(*(Frame(stream, x, k, k, Stamp.ARRIVAL, k) for stream, x in (("ir", ir), ("rgb", rgb))))
        watch.write(Fused(rgb, None, pair, None, "test"))
    watch.close()
    return said


def street(shift=0):
    ir, rgb = (next(iter(open_source("synthetic:?noise=0", stream))).image for stream in ("ir", "rgb"))
    return np.roll(ir, shift, 1), rgb


def test_a_watch_says_it_once_and_no_frame_waits_for_it():
    assert seen_by([street()] * 3) == []
    ((line, thread),) = seen_by([street(20)] * 3)
    assert "20 px beside RGB" in line
    assert thread == "rtfuse-beside"


def test_a_watch_says_nothing_of_what_it_cannot_tell():
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 4), np.uint8)
    assert seen_by([(noise[..., 3], noise[..., :3])] * 20) == []
    assert seen_by([(noise[:50, :50, 3], noise[..., :3])]) == []
