"""`rtfuse fuse` as a process: complete, ordered, with the RGB stream's times, rate and size."""

from __future__ import annotations

import os
import signal
import time

import cv2
import numpy as np
import pytest
from scenes import video_times, write_video

from rtfuse.capture import open_source
from rtfuse.capture.recordings import Recording
from rtfuse.fuse import open_fuser


def test_unequal_rates_give_every_rgb_frame_at_its_own_time(rtfuse, tmp_path):
    ir = write_video(tmp_path / "ir.mp4", 18, fps=9, gray=True, size_wh=(48, 32))
    rgb = write_video(tmp_path / "rgb.mp4", 60, fps=30)
    done = rtfuse("fuse", ir, rgb, "-o", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert video_times(tmp_path / "o.mp4") == video_times(rgb)
    info = Recording(str(tmp_path / "o.mp4"), "rgb").info
    assert info.size_wh == (64, 48)
    assert info.rate_hz == 30
    assert "60 in" in done.stdout
    assert str(tmp_path / "o.mp4") in done.stdout


def test_side_by_side_and_picture(rtfuse, tmp_path):
    ir, rgb = write_video(tmp_path / "ir.mp4", 12, gray=True), write_video(tmp_path / "rgb.mp4", 12)
    done = rtfuse("fuse", ir, rgb, "-o", tmp_path / "o.mkv", "--side-by-side", "--picture", tmp_path / "p.png")
    assert done.returncode == 0, done.stderr
    assert Recording(str(tmp_path / "o.mkv"), "rgb").info.size_wh == (192, 48)
    assert cv2.imread(str(tmp_path / "p.png")).shape == (48, 192, 3)


def test_an_input_is_never_replaced(rtfuse, tmp_path):
    ir, rgb = write_video(tmp_path / "ir.mp4", 12, gray=True), write_video(tmp_path / "rgb.mp4", 12)
    before = rgb.read_bytes()
    (tmp_path / "link.mp4").symlink_to(rgb)
    for output in (rgb, tmp_path / "link.mp4"):
        done = rtfuse("fuse", ir, rgb, "-o", output, "--force")
        assert done.returncode != 0
        assert "is the input" in done.stderr
    assert rgb.read_bytes() == before


def test_a_recording_of_both_streams_gives_each_its_own(rtfuse, tmp_path):
    street = "synthetic:?live=1&size=96x64&ir_size=64x48"
    flight = tmp_path / "flight.mkv"
    done = rtfuse("record", "--ir", street, "--rgb", street, "-o", flight, "--duration", "2")
    assert done.returncode == 0, done.stderr
    done = rtfuse("fuse", flight, flight, "-o", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert "64x48" in done.stdout
    assert Recording(str(tmp_path / "o.mp4"), "rgb").info.size_wh == (96, 64)
    assert Recording(str(flight), "ir").info.size_wh == (64, 48)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_single_images_with_sixteen_bit_thermal(rtfuse, tmp_path, suffix):
    counts = np.full((48, 64), 8000, np.uint16)
    counts[10:30, 20:40] = 9000
    cv2.imwrite(str(tmp_path / "t.tiff"), counts)
    cv2.imwrite(str(tmp_path / "v.png"), np.full((96, 128, 3), 20, np.uint8))
    done = rtfuse("fuse", tmp_path / "t.tiff", tmp_path / "v.png", "-o", tmp_path / f"o.{suffix}")
    assert done.returncode == 0, done.stderr
    fused = cv2.imread(str(tmp_path / f"o.{suffix}"))
    assert fused.shape == (96, 128, 3)
    assert fused[30:50, 50:70].mean() > fused[80:, :].mean() + 50


def test_folders_to_folder(rtfuse, tmp_path):
    for name in ("ir", "rgb"):
        (tmp_path / name).mkdir()
        for k in range(4):
            cv2.imwrite(str(tmp_path / name / f"{k}.png"), np.full((16, 20, 3), 40 * k, np.uint8))
    done = rtfuse("fuse", tmp_path / "ir", tmp_path / "rgb", "-o", tmp_path / "out", "--fps", "10")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 4


def test_ctrl_c_leaves_no_half_written_file(start, tmp_path):
    process = start("fuse", "synthetic:?duration_s=3600", "synthetic:?duration_s=3600", "-o", tmp_path / "o.mp4")
    wait_for_partial(tmp_path)
    process.signal(signal.SIGINT)
    assert process.end(5) == 130
    assert not list(tmp_path.iterdir())
    assert "was not written" in process.output


def test_ctrl_c_while_an_input_gives_nothing_is_said(start, tmp_path):
    """Opening a pipe waits inside the system, where nothing can interrupt it."""
    pipe = tmp_path / "ir.mkv"
    os.mkfifo(pipe)
    process = start("fuse", pipe, "synthetic:?duration_s=1", "-o", tmp_path / "o.mp4")
    time.sleep(5)
    process.signal(signal.SIGINT)
    process.wait_for("o.mp4 was not written", 10)
    assert process.end(5) == 130


def wait_for_partial(folder):
    """Wait until the output has begun to be written under its temporary name."""
    deadline = time.monotonic() + 30
    while not any(p.stat().st_size > 50_000 for p in folder.iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.footage
@pytest.mark.parametrize(("clip", "frames"), [("0113_1714", 560), ("0117_1605", 407), ("1230_1202", 205)])
def test_real_clips_are_complete_and_carry_thermal_targets(rtfuse, footage, tmp_path, clip, frames):
    ir, rgb = footage / "clips" / clip / "ir.mp4", footage / "clips" / clip / "rgb.mp4"
    done = rtfuse("fuse", ir, rgb, "-o", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    times = video_times(tmp_path / "o.mp4")
    assert len(times) == frames
    assert times == video_times(rgb)
    hot_fused, hot_rgb = [], []
    streams = Recording(str(ir), "ir"), Recording(str(rgb), "rgb"), Recording(str(tmp_path / "o.mp4"), "rgb")
    for a, b, c in zip(*streams, strict=True):
        hot = a.image >= np.percentile(a.image, 99)
        hot_rgb.append(b.image[hot].mean())
        hot_fused.append(c.image[hot].mean())
    assert np.mean(hot_fused) > np.mean(hot_rgb) + 10


@pytest.mark.footage
def test_real_stills(rtfuse, footage, tmp_path):
    done = rtfuse("fuse", footage / "clips/nato_camp/ir", footage / "clips/nato_camp/rgb", "-o", tmp_path / "o.mp4")
    assert done.returncode == 0, done.stderr
    assert len(video_times(tmp_path / "o.mp4")) == 32
    raw = footage / "raw/flir_t640"
    done = rtfuse("fuse", raw / "ir16.png", raw / "rgb.jpg", "-o", tmp_path / "o.png")
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "o.png")).shape == cv2.imread(str(raw / "rgb.jpg")).shape


def test_the_network_fuses_unless_another_fuser_is_named(rtfuse, tmp_path):
    ir, rgb = (next(iter(open_source("synthetic:?seed=3&size=160x120", stream))).image for stream in ("ir", "rgb"))
    cv2.imwrite(str(tmp_path / "ir.png"), ir)
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[..., ::-1])
    done = rtfuse("fuse", tmp_path / "ir.png", tmp_path / "rgb.png", "-o", tmp_path / "o.png", literally=True)
    assert done.returncode == 0, done.stderr
    assert "fused by ufuser" in done.stdout
    assert np.array_equal(cv2.imread(str(tmp_path / "o.png"))[..., ::-1], open_fuser("ufuser")(ir, rgb))


@pytest.mark.footage
@pytest.mark.parametrize("kind", ["pet", "spect", "ct"])
def test_medical_pairs_keep_their_colour(rtfuse, footage, tmp_path, kind):
    mri, other = (footage / "medical" / f"mri_{kind}" / name / "19.png" for name in ("mri", kind))
    done = rtfuse("fuse", mri, other, "-o", tmp_path / "fused.png", literally=True)
    assert done.returncode == 0, done.stderr
    fused, colour, structure = (cv2.imread(str(p)) for p in (tmp_path / "fused.png", other, mri))
    y, *chroma = cv2.split(cv2.cvtColor(fused, cv2.COLOR_BGR2YCrCb).astype(int))
    old, *kept = cv2.split(cv2.cvtColor(colour, cv2.COLOR_BGR2YCrCb).astype(int))
    safe = (fused.min(-1) > 0) & (fused.max(-1) < 255)
    assert all(np.abs(a - b)[safe].max() <= 1 for a, b in zip(chroma, kept, strict=True))
    tissue = structure.max(-1) > 40
    assert np.corrcoef(y[tissue] - 0.5 * old[tissue], structure.max(-1)[tissue])[0, 1] > 0.5
