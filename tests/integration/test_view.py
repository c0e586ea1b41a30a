"""`rtfuse view` into files and pipes, read by real consumers."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import islice

import av
import cv2
import numpy as np
import pytest
from scenes import make_frame

from rtfuse.capture.v4l2 import V4l2Source
from rtfuse.errors import ConfigError, DeviceUnavailable, OutputUnwritable
from rtfuse.picture import Picture
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Frame, Fused, Pair, Stamp
from rtfuse.view.camera import CameraOutput, _encoded

ENV = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}


def image_of(grey, size_wh):
    w, h = size_wh
    image = np.full((h, w, 3), grey, np.uint8)
    image[: h // 2, : w // 2] = 200, 40, 40
    return image


def fused(k, size_wh, grey=90):
    image = image_of(grey, size_wh)
    ir = make_frame("ir", k, size_wh=size_wh)
    t_ns = 10**9 + k * 40_000_000
    return Fused(image, image[..., 1].copy(), Pair(ir, Frame("rgb", image, k, t_ns, Stamp.ARRIVAL, t_ns)), None, "x")


class Playing:
    """A publisher that publishes one picture again and again; `grey` and `size_wh` may change."""

    def __init__(self, endpoint):
        self.publisher = Publisher([Offer(endpoint, planes=("fused", "ir"))])
        self.endpoint, self.grey, self.size_wh, self.written = endpoint, 90, (64, 48), 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def _play(self):
        while not self._over.wait(0.01):
            self.publisher.write(fused(self.written, self.size_wh, self.grey))
            self.written += 1

    def close(self):
        self._over.set()
        self._thread.join(10)
        self.publisher.close()


@pytest.fixture
def playing(endpoint):
    playing = Playing(endpoint)
    yield playing
    playing.close()


@pytest.fixture
def view():
    """Start `rtfuse view` with its output in a pipe; what still runs at the end is killed."""
    running = []

    def start(*args, stdout=subprocess.PIPE):
        command = [sys.executable, "-m", "rtfuse", "view", *map(str, args)]
        running.append(subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, env=ENV))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("form", "size_wh", "topic"),
    [("y4m", (64, 48), "fused"), ("y4m", (65, 49), "fused"), ("y4m", (64, 48), "ir"), ("mjpeg", (65, 49), "fused")],
)
def test_ffmpeg_reads_the_pipe(playing, view, form, size_wh, topic):
    playing.size_wh = size_wh
    data, errors = view(playing.endpoint, "--pipe", form, "--frames", 4, "--topic", topic).communicate(timeout=60)
    assert b"4 frames received" in errors, errors
    with av.open(io.BytesIO(data), format="yuv4mpegpipe" if form == "y4m" else "mjpeg") as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) == 4
    sent = image_of(90, size_wh)
    if topic == "ir":
        sent = np.dstack([sent[..., 1]] * 3)
    for image in images:
        assert image.shape == sent.shape
        for y, x in ((4, 4), (40, 50)):
            assert np.abs(image[y, x].astype(int) - sent[y, x]).max() <= 4


def test_gstreamer_reads_the_pipe(playing, view, tmp_path):
    launch, inspect = shutil.which("gst-launch-1.0"), shutil.which("gst-inspect-1.0")
    if not launch or not inspect or subprocess.run([inspect, "rawvideoparse"], capture_output=True).returncode:
        if os.environ.get("RTFUSE_REQUIRE_CLIENTS"):
            pytest.fail("RTFUSE_REQUIRE_CLIENTS is set, but there is no gst-launch-1.0 with rawvideoparse")
        pytest.skip("needs gstreamer1.0-tools and gstreamer1.0-plugins-base")
    process = view(playing.endpoint, "--pipe", "raw", "--frames", 5)
    pipeline = (
        "fdsrc ! rawvideoparse width=64 height=48 format=rgb framerate=25/1 ! videoconvert ! video/x-raw,format=GRAY8"
    )
    out = tmp_path / "gray"
    done = subprocess.run(
        [launch, "-q", *pipeline.split(), "!", "filesink", f"location={out}"],
        stdin=process.stdout, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    gray = np.frombuffer(out.read_bytes(), np.uint8).reshape(-1, 48, 64)
    assert len(gray) == 5
    assert abs(int(gray[0, 40, 50]) - 90) <= 20  # GStreamer gives gray in the limited range


def test_a_reader_that_goes_away_ends_it_quietly(playing, view):
    process = view(playing.endpoint, "--pipe", "raw")
    assert len(process.stdout.read(64 * 48 * 3)) == 64 * 48 * 3
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(20) == 0
    assert b"frames received" in errors
    assert b"Traceback" not in errors
    assert b"BrokenPipe" not in errors


def test_a_slow_reader_sees_new_frames_and_ctrl_c_ends_what_waits_for_it(playing, view):
    playing.size_wh = (640, 480)  # larger than what a pipe holds
    size = 640 * 480 * 3
    process = view(playing.endpoint, "--pipe", "raw")
    assert process.stdout.read(size)[-1] == 90
    for grey in range(91, 111):  # while nothing is read
        playing.grey, written = grey, playing.written
        while playing.written < written + 3:
            threading.Event().wait(0.005)
    values = [process.stdout.read(size)[-1] for _ in range(3)]
    assert values[-1] == 110, values
    process.terminate()
    assert process.wait(20) == 0


def test_what_cannot_be_piped_is_refused_in_one_line(playing, view, tmp_path):
    master, slave = os.openpty()
    try:
        for args, stdout in (
            (["--pipe", "avi"], subprocess.PIPE),
            (["--pipe", "y4m"], slave),
            (["--pipe", "y4m", "--save", tmp_path / "x.mkv"], subprocess.PIPE),
            (["--pipe", "/dev/null"], subprocess.PIPE),
            (["--pipe", "/dev/video97"], subprocess.PIPE),
            (["--pipe", tmp_path / "x.y4m"], subprocess.PIPE),
        ):
            process = view(playing.endpoint, *args, stdout=stdout)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 2
            assert b"--pipe" in errors
            assert b"Traceback" not in errors
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(("form", "bytesperline"), [("YUYV", 128), ("YUYV", 160), ("YU12", 64), ("RGB3", 192)])
def test_a_device_gets_the_picture_in_its_format(form, bytesperline):
    image = image_of(90, (64, 48))
    data = np.frombuffer(_encoded(Picture.of_rgb(image), form, bytesperline), np.uint8)
    if form == "YU12":
        back = cv2.cvtColor(data.reshape(72, 64), cv2.COLOR_YUV2RGB_I420)
    else:
        lines = data.reshape(48, bytesperline)[:, : 64 * (2 if form == "YUYV" else 3)]
        back = lines.reshape(48, 64, -1)
        back = cv2.cvtColor(back, cv2.COLOR_YUV2RGB_YUY2) if form == "YUYV" else back
    assert np.abs(back.astype(int) - image).mean() < 2


LOOPBACK = os.environ.get("RTFUSE_TEST_LOOPBACK")
loopback = pytest.mark.skipif(not LOOPBACK, reason="RTFUSE_TEST_LOOPBACK names no v4l2loopback device")


@pytest.mark.camera
@pytest.mark.timeout(300)
@loopback
def test_a_loopback_device_shows_the_rig_as_a_camera(playing, view):
    playing.size_wh = (161, 121)
    process = view(playing.endpoint, "--pipe", LOOPBACK)
    (w, h), end, seen = (160, 120), time.monotonic() + 120, 0
    while seen < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        try:  # no camera yet, before the first picture
            camera = V4l2Source(LOOPBACK, "rgb")
        except DeviceUnavailable:
            time.sleep(0.2)
            continue
        with contextlib.closing(camera):
            assert camera.info.size_wh == (w, h)
            for frame in islice(camera, 3):
                seen += 1
                assert np.abs(frame.image.astype(int) - image_of(90, (w, h))).mean() < 3
    process.send_signal(2)
    assert process.wait(60) == 0


@pytest.mark.camera
@pytest.mark.timeout(300)
@loopback
def test_a_camera_and_a_device_in_use_take_no_pictures():
    with pytest.raises(ConfigError, match="is a camera, not an output"):
        CameraOutput(os.environ["RTFUSE_TEST_CAMERAS"].split(",")[0])
    for _ in range(2):  # the second time it has been given back
        with contextlib.closing(CameraOutput(LOOPBACK)) as output:
            output.show(Picture.of_rgb(image_of(90, (64, 48))))
            with pytest.raises(OutputUnwritable, match="another program writes into it"):
                CameraOutput(LOOPBACK)
            output.show(Picture.of_rgb(image_of(90, (128, 96))))  # another size: scaled
            with contextlib.closing(V4l2Source(LOOPBACK, "rgb")) as camera:
                assert camera.info.size_wh == (64, 48)


def test_a_rig_that_goes_and_comes_back_is_said_once_each(view, endpoint):
    process = view(endpoint, "--stats", stdout=subprocess.PIPE)
    said = []
    for _ in range(2):
        rig = Playing(endpoint)
        try:
            while not said or b"frames/s" not in said[-1]:
                said.append(process.stdout.readline())
        finally:
            rig.close()
        while b"is gone" not in said[-1]:
            said.append(process.stdout.readline())
    process.terminate()
    rest, _ = process.communicate(timeout=20)
    told = [line for line in [*said, *rest.splitlines()] if b"the rig on" in line]
    assert [b"is back" in line for line in told] == [False, True, False]


def test_a_film_has_every_frame_at_its_time(playing, view, tmp_path):
    film = tmp_path / "seen.mkv"
    process = view(playing.endpoint, "--save", film, "--frames", 10)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert b"10 frames received, saved in" in said
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
    steps = np.diff([float(frame.time) for frame in frames])
    assert (len(frames), frames[0].width, frames[0].height) == (10, 64, 48)
    assert np.allclose(steps, np.maximum(1, np.rint(steps / 0.04)) * 0.04, atol=0.002)  # some may have been lost
    assert view(playing.endpoint, "--save", film, "--frames", 1).wait(60) == 2
    assert view(playing.endpoint, "--save", film, "--frames", 1, "--force").wait(60) == 0
