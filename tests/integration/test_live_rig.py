"""A rig in the field, as real processes: network cameras that die and come back, recording, replay, logs."""

from __future__ import annotations

import json
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rtfuse import StatisticsSubscriber, Subscriber
from tests.capture.test_network import Server, server_possible

RGB = "synthetic:?live=1&size=160x120&fps=15"
IR = "synthetic:?live=1&size=160x120&ir_size=80x60&bits=16&fps=15"


def wait_for(stream, wanted, within_s=20.0):
    """Receive until a frame is as wanted; return it and when it came."""
    end, last = time.monotonic() + within_s, None
    while time.monotonic() < end:
        received = stream.recv(0.5)
        if received is not None:
            last = received.header
            if wanted(received):
                return received, time.monotonic()
    raise AssertionError(f"nothing as wanted within {within_s} s; last {last}")


@pytest.mark.rtsp
@pytest.mark.skipif(not server_possible(), reason="needs GStreamer's RTSP server")
def test_a_rig_comes_up_without_one_camera_and_fuses_when_it_appears(start, rtfuse, endpoint):
    camera = Server()
    command = ["run", "--ir", camera.uri, "--rgb", RGB, "--publish", endpoint]
    refused = rtfuse(*command)
    assert (refused.returncode, len(refused.stderr.strip().splitlines())) == (2, 1)
    try:
        run = start(*command, "degraded.start=any")
        run.wait_for("publishing")
        with Subscriber(endpoint) as stream:
            alone, _ = wait_for(stream, lambda r: r.header.mode == "rgb")
            assert alone.header.ir_state in ("lost", "starting")
            camera.start("--size", "320x240", "--fps", "15")
            wait_for(stream, lambda r: r.header.mode == "fused" and r.header.ir_state == "live")
        run.signal(signal.SIGTERM)
        assert run.end(10) == 0
    finally:
        camera.kill()


@pytest.mark.rtsp
@pytest.mark.skipif(not server_possible(), reason="needs GStreamer's RTSP server")
def test_a_network_camera_dies_and_comes_back_with_another_size(start, endpoint):
    camera = Server()
    camera.start("--size", "320x240", "--fps", "15")
    try:
        run = start(
            "run", "--ir", camera.uri, "--rgb", RGB, "--publish", endpoint, "degraded.mark=true", "--log", "json"
        )
        run.wait_for("publishing")
        with Subscriber(endpoint) as stream:
            wait_for(stream, lambda r: r.header.mode == "fused")
            killed = time.monotonic()
            camera.kill()
            alone, came = wait_for(stream, lambda r: r.header.mode == "rgb")
            assert came - killed < 2.0
            wait_for(stream, lambda r: r.header.ir_state == "lost")
            assert alone.image.shape == (120, 160, 3)

            camera.start("--size", "640x360", "--fps", "15")
            back = time.monotonic()
            _, came = wait_for(stream, lambda r: r.header.mode == "fused" and r.header.ir_state == "live")
            assert came - back < 5.0

            camera.signal(signal.SIGSTOP)
            wait_for(stream, lambda r: r.header.ir_state == "stalled" and r.header.mode == "rgb")
            camera.signal(signal.SIGCONT)
            wait_for(stream, lambda r: r.header.mode == "fused" and r.header.ir_state == "live")
        run.signal(signal.SIGTERM)
        assert run.end(10) == 0
    finally:
        camera.kill()
    said = [json.loads(line) for line in run.lines if line.startswith("{")]
    events = [line["event"] for line in said if line.get("stream") == "ir"]
    assert events.index("lost") < events.index("back") < events.index("stalled")
    assert any(line.get("event") == "size" for line in said)
    assert all({"time", "level", "message"} <= set(line) for line in said)


def test_the_rig_says_what_it_is_doing(start, endpoint):
    run = start("run", "--ir", IR, "--rgb", RGB, "--publish", endpoint, "thermal.k_per_count=0.01")
    run.wait_for("publishing")
    with Subscriber(endpoint) as stream:
        fused, _ = wait_for(stream, lambda r: r.header.mode == "fused")
    assert fused.header.hot.k > fused.header.cold.k > 200
    with StatisticsSubscriber(endpoint) as numbers:
        end = time.monotonic() + 20
        while (seen := numbers.recv(1.0)) is None or seen.frames < 10:
            assert time.monotonic() < end
    assert {s: c.state for s, c in seen.streams.items()} == {"ir": "live", "rgb": "live"}
    assert seen.pair_rate_hz > 5
    assert sum(count for _, count in seen.skew_histogram) == seen.modes["fused"]
    assert all(ms is not None for ms in seen.age_ms)


class _Dying(BaseHTTPRequestHandler):
    """Serves nothing after the first few bytes."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(bytes(1000))

    def log_message(self, *_):
        pass


def test_a_camera_that_cannot_be_opened_at_the_start_is_an_error_without_its_password(rtfuse):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Dying)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = rtfuse("run", "--ir", f"http://me:secret@127.0.0.1:{server.server_port}/x", "--rgb", RGB, "--publish", "off")
    server.shutdown()
    assert done.returncode == 2
    assert "thermal stream http://***@127.0.0.1" in done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_record_then_replay(start, rtfuse, tmp_path, endpoint):
    path = tmp_path / "flight.mkv"
    done = rtfuse(
        "record", "--ir", IR, "--rgb", RGB, "-o", path, "--duration", "2", "--codec", "ffv1", "raw.reserve_mb=0"
    )
    assert done.returncode == 0, done.stderr
    assert "thermal" in done.stdout
    assert path.stat().st_size > 100_000
    done = rtfuse("run", "--replay", path, "--publish", "off", "--record", tmp_path / "fused.mp4")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fused.mp4").stat().st_size > 10_000
    again = rtfuse("record", "--ir", IR, "--rgb", RGB, "-o", path)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_recording_beside_fusing_and_ctrl_c(start, tmp_path):
    path = tmp_path / "flight.mkv"
    run = start("run", "--ir", IR, "--rgb", RGB, "--publish", "off", "--record-raw", str(path), "raw.reserve_mb=0")
    run.wait_for("recording both streams")
    run.wait_for("rate=")
    run.signal(signal.SIGINT)
    assert run.end(10) == 0
    from rtfuse.record.replay import Replay

    assert len(list(Replay(str(path), "ir"))) > 10
    assert len(list(Replay(str(path), "rgb"))) > 10


def test_probe_without_cameras(rtfuse):
    done = rtfuse("probe")
    assert done.returncode == 0
    assert "no cameras found" in done.stdout or "/dev/video" in done.stdout
