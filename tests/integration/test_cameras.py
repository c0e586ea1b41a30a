"""The real command on real V4L2 nodes: `make test-cameras` runs it in front of the kernel's virtual cameras (vivid).

RTFUSE_TEST_CAMERAS names two devices. The machine is emulated there, so nothing here is about speed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rtfuse import StatisticsSubscriber, Subscriber
from rtfuse.capture.v4l2 import V4l2Source, list_cameras
from rtfuse.errors import DeviceUnavailable
from tests.capture.test_v4l2 import CAMERAS, press
from tests.integration.conftest import Process

pytestmark = [
    pytest.mark.camera,
    pytest.mark.skipif(len(CAMERAS) < 2, reason="RTFUSE_TEST_CAMERAS does not name two V4L2 devices"),
    pytest.mark.timeout(600),
]

SMALL = ("ir.size=[320,180]", "rgb.size=[320,180]", "--fps", "10", "degraded.after_ms=700", "sync.wait_ms=200")
PATIENCE_S = 120
COMMAND = ("run", "--ir", *CAMERAS[1:2], "--rgb", *CAMERAS[:1], "--fuser", "pyramid", *SMALL, "--log", "json")


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """One `rtfuse run` on both cameras that outlives everything here: the process, its endpoint and a subscriber."""
    endpoint = f"ipc://{tmp_path_factory.mktemp('rig')}/s"
    run = Process(*COMMAND, "ir.format=Y16", "rgb.format=YUYV", "--publish", endpoint)
    try:
        run.wait_for("publishing", PATIENCE_S)
        with Subscriber(endpoint) as stream:
            yield run, stream, endpoint
    finally:
        run.signal(signal.SIGKILL)
        run.end(10)


def wait_for(stream, run, wanted):
    """Receive until a header is as wanted, and return it."""
    end, last = time.monotonic() + PATIENCE_S, None
    while time.monotonic() < end:
        assert run.popen.poll() is None, run.output
        received = stream.recv(1.0)
        if received is not None:
            last = received.header
            if wanted(last):
                return received
    raise AssertionError(f"not as wanted within {PATIENCE_S} s: {last}\n{run.output}")


def fused(header):
    return header.mode == "fused" and header.ir_state == header.rgb_state == "live"


def test_both_cameras_are_fused(rig):
    run, stream, _ = rig
    header = wait_for(stream, run, fused).header
    assert (header.width, header.height) == (320, 180)
    assert header.stamp == "end-of-frame"
    assert abs(header.skew_ns) < 100_000_000


def test_a_busy_camera_is_an_error_that_names_who_has_it(rig):
    run, _, _ = rig
    with pytest.raises(DeviceUnavailable, match=rf"\(process {run.popen.pid}\)"):
        V4l2Source(CAMERAS[1], "ir")


def test_dropped_and_broken_buffers_are_counted(rig):
    run, stream, endpoint = rig
    wait_for(stream, run, fused)
    press(CAMERAS[1], "Percentage of Dropped Buffers", value=40)
    try:
        press(CAMERAS[0], "Inject V4L2_BUF_FLAG_ERROR")
        with StatisticsSubscriber(endpoint) as numbers:
            end, drops = time.monotonic() + PATIENCE_S, {}
            while not (drops.get("ir.driver", 0) >= 3 and drops.get("rgb.corrupt", 0) >= 1):
                assert time.monotonic() < end, drops
                seen = numbers.recv(1.0)
                drops = seen.drops if seen else drops
    finally:
        press(CAMERAS[1], "Percentage of Dropped Buffers", value=0)
    wait_for(stream, run, fused)


def test_setting_the_wall_clock_changes_nothing(rig):
    run, stream, _ = rig
    before, now = wait_for(stream, run, fused).header, time.time()
    try:
        for step_s in (86_400, -86_400):
            subprocess.run(["date", "-s", f"@{int(now) + step_s}"], check=True, capture_output=True)
            seen = [wait_for(stream, run, lambda h: h.seq > before.seq).header for _ in range(10)]
            assert sum(h.mode == "fused" for h in seen) >= 8
            assert all(h.age_ns < 20_000_000_000 for h in seen)
    finally:
        subprocess.run(["date", "-s", f"@{int(now)}"], check=True, capture_output=True)


def test_a_camera_that_is_unplugged_comes_back(rig):
    run, stream, _ = rig
    wait_for(stream, run, fused)
    press(CAMERAS[1], "Disconnect")
    wait_for(stream, run, lambda h: h.mode == "rgb" or h.ir_state == "lost")
    wait_for(stream, run, fused)
    assert "unplugged" in run.output


def test_both_come_back_under_other_numbers(rig):
    """The driver is unbound and bound again while somebody keeps the old nodes open, so their numbers stay taken."""
    driver = Path("/sys/bus/platform/drivers/vivid")
    if not (driver / "vivid.0").exists():
        pytest.skip("not the vivid driver")
    run, stream, _ = rig
    wait_for(stream, run, fused)
    said = len(run.lines)
    held = [os.open(path, os.O_RDONLY) for path in CAMERAS[:2]]
    try:
        (driver / "unbind").write_text("vivid.0")
        last = wait_for_loss(stream, run, said)
        (driver / "bind").write_text("vivid.0")
        wait_for(stream, run, lambda h: fused(h) and h.seq > last)
        links = [os.readlink(link) for link in Path(f"/proc/{run.popen.pid}/fd").iterdir() if link.is_symlink()]
        videos = {path for path in links if path.startswith("/dev/video")}
        assert len(videos) == 2
        assert not videos & set(CAMERAS[:2])
    finally:
        for fd in held:
            os.close(fd)


def wait_for_loss(stream, run, said):
    """Wait until both cameras were reported lost in a line after the first `said`; return the last frame's number."""
    end, last = time.monotonic() + PATIENCE_S, 0
    lost = [f'"stream": "{s}"' for s in ("ir", "rgb")]
    while not all(any(s in line and '"lost"' in line for line in run.lines[said:]) for s in lost):
        assert time.monotonic() < end, run.output
        received = stream.recv(0.5)
        last = received.header.seq if received else last
    while (received := stream.recv(0.5)) is not None:
        last = received.header.seq
    return last


def test_it_ends_on_request(rig):
    run, _, _ = rig
    run.signal(signal.SIGTERM)
    assert run.end(30) == 0


def test_other_byte_orders_and_a_format_that_is_not_there(start):
    """Both at once: starting a process is what takes long here."""
    rgb, ir = sorted((c.path for c in list_cameras()), key=lambda path: int(path[10:]))[-2:]
    given = ("run", "--ir", ir, "--rgb", rgb, *SMALL, "--publish", "off")
    other = start(*given, "ir.format=Y16-BE", "rgb.format=UYVY", "--frames", "3")
    wrong = start(*given, "ir.format=Z16")
    assert wrong.end(2 * PATIENCE_S) == 2
    wrong.wait_for("Z16 cannot be decoded as ir; it must be one of Y16", 1)
    assert other.end(2 * PATIENCE_S) == 0, other.output
    other.wait_for("ir Y16-BE 320x180 uint16", 1)
    other.wait_for("rgb UYVY 320x180", 1)
