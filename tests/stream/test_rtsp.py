"""An RTSP server in record mode gets each picture with its capture time; the page's commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import pytest
from live import free_port, fused

from rtfuse.stream.settings import Streaming
from rtfuse.stream.stamps import time_of_sei
from rtfuse.stream.streamer import Streamer

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
SERVER = """
import sys, gi
gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server, factory = GstRtspServer.RTSPServer(), GstRtspServer.RTSPMediaFactory()
server.set_address("127.0.0.1"); server.set_service(sys.argv[1])
factory.set_launch("( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au"
                   " ! filesink location=" + sys.argv[2] + " sync=false )")
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD); factory.set_latency(0)
server.get_mount_points().add_factory("/rig", factory); server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
"""


def server_possible():
    try:
        return subprocess.run([PYTHON, "-c", NEEDS], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.rtsp
@pytest.mark.skipif(
    not (server_possible() or os.environ.get("RTFUSE_REQUIRE_RTSP")), reason="needs GStreamer's RTSP server"
)
def test_a_server_in_record_mode_gets_capture_times(tmp_path):
    port, kept, over = free_port(), tmp_path / "kept.h264", threading.Event()
    server = subprocess.Popen([PYTHON, "-c", SERVER, str(port), str(kept)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout.readline() == "ready\n"
        uri, frame = f"rtsp://127.0.0.1:{port}/rig", fused(0, (128, 96))
        streamer = Streamer(uri, Streaming(uris=(uri,)), encoder="libx264", rate_hz=30, clock=lambda: 0)
        end_s = time.monotonic() + 15
        while not (kept.exists() and kept.stat().st_size > 3000) and not over.wait(0.02):
            assert time.monotonic() < end_s, "the server got nothing"
            streamer.write(frame)
        streamer.close()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    with av.open(str(kept)) as container:
        found = [time_of_sei(bytes(data)) for shown in container.decode(video=0) for data in shown.side_data]
    times = [utc_us for utc_us in found if utc_us is not None]
    now_us = time.time_ns() // 1000  # the clock stands still at the frame's time: it was taken as it was written
    assert len(times) > 3
    assert all(now_us - 30_000_000 < t + frame.pair.leader.t_ns // -1000 <= now_us for t in times)
    assert times == sorted(set(times))


def test_the_commands_of_the_page_run_as_they_stand():
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/streaming.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines():
        command = [sys.executable, "-m", *shlex.split(line), "--publish", "off"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "frames" in done.stdout
        assert "runs, by libx264" in done.stdout + done.stderr
