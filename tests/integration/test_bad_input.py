"""Wrong input: one clear line, status 2, no traceback, and no output left behind."""

from __future__ import annotations

import os
import socket

import cv2
import numpy as np
import pytest
from scenes import write_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Two recordings that belong together."""
    folder = tmp_path_factory.mktemp("clip")
    return write_video(folder / "ir.mp4", 30, gray=True), write_video(folder / "rgb.mp4", 30)


def one_line(done, *words, status=2):
    """The command failed with one line on stderr that has all the words, and without a traceback."""
    assert done.returncode == status, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stdout
    for word in words:
        assert str(word) in lines[0]


def test_missing_files(rtfuse, clip, tmp_path):
    one_line(rtfuse("fuse", "nowhere.mp4", clip[1], "-o", tmp_path / "o.mp4"), "thermal", "not found", "nowhere.mp4")
    one_line(rtfuse("fuse", clip[0], "nowhere.mp4", "-o", tmp_path / "o.mp4"), "RGB", "not found", "nowhere.mp4")
    one_line(rtfuse("run", "--ir", "nowhere.mp4", "--rgb", clip[1], "--publish", "off"), "nowhere.mp4")
    one_line(rtfuse("run", "--ir", clip[0]), "rgb.uri", "--rgb")


def test_an_argument_that_is_given_as_an_option(rtfuse, clip):
    one_line(rtfuse("fuse", "--ir", clip[0], "--rgb", clip[1]), "--ir", "an argument: ", "fuse IR [RGB]")
    done = rtfuse("fuse", "--irr", clip[0])
    one_line(done, "--irr")
    assert "argument" not in done.stderr


def test_files_that_are_no_video(rtfuse, clip, tmp_path):
    (tmp_path / "notes.mp4").write_text("notes\n" * 500)
    (tmp_path / "empty.mp4").touch()
    one_line(rtfuse("fuse", clip[0], tmp_path / "notes.mp4", "-o", tmp_path / "o.mp4"), "notes.mp4", "not a video")
    one_line(rtfuse("fuse", tmp_path / "empty.mp4", clip[1], "-o", tmp_path / "o.mp4"), "empty.mp4", "is empty")
    assert not (tmp_path / "o.mp4").exists()


def test_a_truncated_file_is_fused_as_far_as_it_goes_and_the_loss_reported(rtfuse, tmp_path):
    ir = write_video(tmp_path / "ir.mkv", 120, gray=True, codec="libx264", size_wh=(128, 96))
    rgb = write_video(tmp_path / "rgb.mkv", 120, codec="libx264", size_wh=(128, 96))
    rgb.write_bytes(rgb.read_bytes()[: rgb.stat().st_size * 2 // 3])
    one_line(rtfuse("fuse", ir, rgb, "-o", tmp_path / "o.mp4"), "rgb frames truncated", "the rest was fused")
    assert (tmp_path / "o.mp4").stat().st_size > 1000


def test_streams_that_never_overlap(rtfuse, clip, tmp_path):
    late = write_video(tmp_path / "late.mkv", 30, start_s=20)
    done = rtfuse("fuse", clip[0], late, "-o", tmp_path / "o.mp4")
    one_line(done, "never overlap", "thermal 0.00 to 1.00 s", "RGB 20.00 to 21.00 s")
    assert not list(tmp_path.glob("*o.*"))


def test_wrong_calibration_files(rtfuse, clip, tmp_path):
    sizes = "ir: {size_wh: [160, 120]}\nrgb: {size_wh: [64, 48]}\n"
    path = tmp_path / "c.yaml"
    path.write_text(sizes + "H_rgb_from_ir: [[1, 0, 0], [0, 1, 0], [0, 0, 1]]\n")
    output = ["-o", tmp_path / "o.mp4"]
    one_line(rtfuse("fuse", *clip, *output, "--calib", path), "160x120", "64x48")
    path.write_text(sizes)
    one_line(rtfuse("fuse", *clip, *output, "--calib", path), "c.yaml", "needs H_rgb_from_ir")
    one_line(rtfuse("fuse", *clip, *output, "--calib", tmp_path / "absent.yaml"), "absent.yaml")


def test_unknown_fuser_and_missing_weights(rtfuse, clip, tmp_path):
    one_line(rtfuse("fuse", *clip, "-o", tmp_path / "o.mp4", "--fuser", "magic"), "'magic'", "pyramid", "ufuser")
    done = rtfuse("fuse", *clip, "-o", tmp_path / "o.mp4", "--fuser", "ufuser", "fuse.weights=absent.safetensors")
    one_line(done, "absent.safetensors")


def test_a_port_in_use(rtfuse, clip):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        one_line(rtfuse("run", "--ir", clip[0], "--rgb", clip[1], "--publish", endpoint), endpoint, "in use")


def test_addresses_are_checked_before_anything_is_opened(rtfuse, clip):
    """The sources do not exist: an error about them would come later."""
    run = ["run", "--ir", "no.mp4", "--rgb", "no.mp4"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one_line(rtfuse(*run, "--web", f":{port}"), port, "in use")
        one_line(rtfuse(*run, "--publish", f"tcp://127.0.0.1:{port}"), port, "in use")
    one_line(rtfuse(*run, "--web", "here"), "web.address", "here")
    one_line(rtfuse(*run, "--publish", "off", "--web", "0", "--boxes", "5556"), "web.detections", "5556")


def test_endpoints_that_cannot_be(rtfuse, clip):
    for endpoint, word in [("carrier-pigeon://x", "carrier-pigeon"), ("tcp://0.0.0.0:5999", "--insecure")]:
        one_line(rtfuse("run", "--ir", clip[0], "--rgb", clip[1], "--publish", endpoint), word)


def test_a_camera_that_is_absent(rtfuse):
    done = rtfuse("run", "--ir", "/dev/video97", "--rgb", "synthetic:", "--publish", "off")
    one_line(done, "/dev/video97", "camera", "degraded.start=any")
    one_line(rtfuse("run", "--ir", "97", "--rgb", "synthetic", "--publish", "off"), "/dev/video97")


def test_a_folder_without_permission(rtfuse, clip, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    if os.geteuid() == 0:  # root writes everywhere but into what is no folder, or a read-only file system
        folder = "/proc/sys"
    one_line(rtfuse("fuse", *clip, "-o", f"{folder}/o.mp4"), "cannot be written")
    one_line(rtfuse("fuse", *clip, "-o", tmp_path / "absent" / "o.mp4"), "cannot be written", "No such file")


def test_config_typos(rtfuse, clip, tmp_path):
    path = tmp_path / "rig.yaml"
    path.write_text("sync: {tolerence_ms: 5}\n")
    one_line(rtfuse("run", "--config", path), "rig.yaml", "sync.tolerence_ms", "did you mean sync.tolerance_ms")
    one_line(rtfuse("fuse", *clip, "-o", tmp_path / "o.mp4", "sync.policy=loose"), "sync.policy", "lead, strict")
    one_line(rtfuse("run", "--ir", clip[0], "--rgb", clip[1], "--speed", "fast"), "playback.speed", "max")
    one_line(rtfuse("run", "--ir", "synthetic:?sead=3", "--rgb", "synthetic:"), "sead")
    one_line(rtfuse("run", "--ir", clip[0], "--rgb", clip[1], "--size", "big"), "big", "640x480")


def test_an_existing_output_is_kept(rtfuse, clip, tmp_path):
    (tmp_path / "o.mp4").write_text("precious")
    one_line(rtfuse("fuse", *clip, "-o", tmp_path / "o.mp4"), "exists", "--force")
    assert (tmp_path / "o.mp4").read_text() == "precious"


def test_an_output_is_named_beside_the_input_if_none_is_given(rtfuse, clip, tmp_path):
    rgb = tmp_path / "flight.mp4"
    rgb.write_bytes(clip[1].read_bytes())
    done = rtfuse("fuse", clip[0], rgb)
    assert done.returncode == 0, done.stderr
    assert f"writing {tmp_path}/flight-fused.mp4" in done.stdout
    assert (tmp_path / "flight-fused.mp4").stat().st_size > 1000
    one_line(rtfuse("fuse", clip[0], rgb), "flight-fused.mp4", "exists", "--force")


def test_usage_errors(rtfuse, clip):
    one_line(rtfuse("fuse", clip[0]), "RGB")
    one_line(rtfuse("fuze"), "fuze")
    one_line(rtfuse("fuse", *clip, "-o", "o.xyz"), ".xyz", ".mp4")
    one_line(rtfuse("run", "--frames", "many"), "--frames")


def test_a_video_does_not_fit_into_one_image(rtfuse, clip, tmp_path):
    one_line(rtfuse("fuse", *clip, "-o", tmp_path / "o.png"), "several frames")
    assert not list(tmp_path.iterdir())


def test_damaged_images_are_named(rtfuse, clip, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "b.png").write_bytes(b"\x89PNG but not really")
    done = rtfuse("fuse", tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "o.png")
    one_line(done, "b.png", "cannot be read as an image")


def test_sizes_of_a_batch_that_cannot_be(rtfuse):
    one_line(rtfuse("bench", "--batch", "2"), "--batch", "--engines")
    one_line(rtfuse("bench", "--engines", "openvino", "--batch", "1,x"), "--batch", "1,x", "1,4")
