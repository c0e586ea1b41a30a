"""Network cameras, against a real RTSP server process on the loopback device: `tools/rtsp_server.py`.

It needs GStreamer's bindings for the system's Python; without them these tests skip, unless RTFUSE_REQUIRE_RTSP is set.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from rtfuse.capture import open_source
from rtfuse.capture.network import NetworkStream
from rtfuse.capture.reconnect import Reconnecting
from rtfuse.errors import DeviceUnavailable, SourceLost
from rtfuse.observe.health import Health, State
from rtfuse.types import Stamp

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


def server_possible() -> bool:
    try:
        return subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


pytestmark = [
    pytest.mark.rtsp,
    pytest.mark.skipif(
        not (server_possible() or os.environ.get("RTFUSE_REQUIRE_RTSP")), reason="needs GStreamer's RTSP server"
    ),
]


class Server:
    """A network camera that can be killed, started again with other settings, stopped and continued."""

    def __init__(self) -> None:
        with closing(socket.socket()) as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.process: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/camera"

    def start(self, *options: str) -> None:
        command = [PYTHON, str(ROOT / "tools/rtsp_server.py"), "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().startswith("rtsp://")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None


@pytest.fixture
def server():
    made = Server()
    yield made
    made.kill()


@pytest.mark.parametrize("options", [(), ("--codec", "mjpeg")])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_frames_carry_the_camera_s_own_time(server, options, transport):
    server.start(*options)
    with closing(NetworkStream(server.uri, "rgb", transport=transport)) as source:
        frames = list(islice(source, 60))
        assert source.info.size_wh == (320, 240)
        assert source.info.rate_hz is None or 29 <= source.info.rate_hz <= 31
    assert {f.stamp for f in frames} == {Stamp.STREAM}
    taken = np.array([f.t_ns for f in frames]) / 1e6
    steps = np.diff(taken) / np.diff([f.frame_id for f in frames])
    assert abs(np.median(steps) - 33.3) < 0.5
    assert np.abs(steps - 33.3).max() < 6
    ages = np.array([f.arrival_ns - f.t_ns for f in frames]) / 1e6
    assert ages.min() >= 0
    assert np.median(ages) < 100
    assert np.std(frames[30].image) > 5


def test_the_password_is_never_told(server, caplog):
    server.start("--user", "anna:hush-hush")
    uri = server.uri.replace("://", "://anna:hush-hush@")
    with closing(open_source(uri, "rgb")) as source:
        assert "hush" not in str(source.info)
        next(iter(source))
    wrong = uri.replace("hush-hush", "hush-wrong")
    with caplog.at_level(logging.DEBUG), pytest.raises(DeviceUnavailable, match="401 Unauthorized") as caught:
        open_source(wrong, "rgb")
    told = f"{caught.value} {caught.value.__cause__.strerror} {caplog.text}"
    assert "hush" not in told
    assert "anna" not in told


class Watched:
    """A reconnecting source, read in a thread of its own, with the time at which each frame came."""

    def __init__(self, source: Reconnecting) -> None:
        self.source, self.frames, self.error = source, [], None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for frame in self.source:
            self.frames.append((time.monotonic(), frame))

    def wait_for(self, since: float, within_s: float):
        """Wait for a frame that came after `since`, and return when it came, and it."""
        while time.monotonic() < since + within_s:
            if self.frames and self.frames[-1][0] > since:
                return next(seen for seen in self.frames if seen[0] > since)
            time.sleep(0.005)
        raise AssertionError(f"no frame within {within_s} s")

    def close(self) -> None:
        self.source.close()
        self.thread.join(7)
        assert not self.thread.is_alive()


def watched(server, *, read_timeout_s=5.0):
    reopen = partial(NetworkStream, server.uri, "rgb", open_timeout_s=2.0, read_timeout_s=read_timeout_s)
    health = Health("rgb", quiet_ns=150_000_000, clock=time.monotonic_ns)
    return Watched(Reconnecting(reopen(), reopen, watcher=health)), health


def test_a_killed_camera_is_found_again_with_another_size(server):
    server.start()
    watch, health = watched(server)
    with closing(watch):
        watch.wait_for(time.monotonic(), 5)
        server.kill()
        time.sleep(1.0)
        assert health.state() is State.LOST
        server.start("--size", "640x360")
        back = time.monotonic()
        came, frame = watch.wait_for(back, 5)
        assert frame.image.shape == (360, 640, 3)
        assert came - back < 2.0  # at the second try, and at the next key frame
        assert health.reconnects == 1
        assert watch.source.losses["lost"] == 1
    ids = [f.frame_id for _, f in watch.frames]
    assert ids == sorted(set(ids))


def test_a_stalled_camera_is_waited_for_only_so_long(server):
    server.start()
    source = NetworkStream(server.uri, "rgb", read_timeout_s=1.0)
    frames = iter(source)
    next(frames)
    server.signal(signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(SourceLost, match=r"no data for 1 s"):
        list(frames)
    assert time.monotonic() - start < 3.0
    start = time.monotonic()
    with pytest.raises(DeviceUnavailable, match="cannot be opened within 1 s"):
        NetworkStream(server.uri, "rgb", open_timeout_s=1.0)
    assert time.monotonic() - start < 2.0


def test_after_a_pause_the_newest_frame_comes_first(server):
    """Frames that waited in the sender during the pause are not shown: the picture does not lag behind."""
    server.start()
    watch, _ = watched(server)
    with closing(watch):
        watch.wait_for(time.monotonic(), 5)
        time.sleep(1.5)
        server.signal(signal.SIGSTOP)
        time.sleep(1.5)
        server.signal(signal.SIGCONT)
        back = time.monotonic()
        came, _ = watch.wait_for(back, 3)
        assert came - back < 1.0
        time.sleep(1.5)
    late = [(f.arrival_ns - f.t_ns) / 1e6 for at, f in watch.frames if at > back + 0.6]
    assert len(late) > 15
    assert np.median(late) < 150
    steps = np.diff([f.t_ns for _, f in watch.frames])
    assert steps.min() >= -5e6  # never back in time by more than the clocks' uncertainty


def test_close_ends_the_iteration(server):
    server.start()
    source = NetworkStream(server.uri, "rgb", read_timeout_s=1.0)
    watch = Watched(source)
    watch.wait_for(time.monotonic(), 5)
    start = time.monotonic()
    watch.close()
    assert time.monotonic() - start < 1.5


def test_nobody_there_is_an_error(server):
    with pytest.raises(DeviceUnavailable, match="Connection refused"):
        NetworkStream(server.uri, "ir")
