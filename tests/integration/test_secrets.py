"""No user, password or token of a source's address leaves a rig: every output of a running one is read."""

from __future__ import annotations

import json
import logging
import signal
import threading
import time
import urllib.request
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
from live import free_port
from scenes import write_video

from rtfuse import StateSubscriber, StatisticsSubscriber, Subscriber, describe
from rtfuse.capture.network import NetworkStream
from rtfuse.cli.fuse import output_beside
from rtfuse.config import Config, dump_config, load_config
from rtfuse.errors import ConfigError, DeviceUnavailable
from rtfuse.observe.logs import JsonFormatter, TextFormatter
from rtfuse.settings import to_struct

SECRET = "hush"
"""In every user, password and token below, so that one search finds each of them."""
SERVED = (
    "http://hush-0:hush/1@127.0.0.1:{port}/user=hush-2_password=hush-3_channel=1/live.ts"
    "?usr=hush-4&pwd=hush-5&loginuse=hush-6&loginpas=hush-7&token=hush-8#key=hush-9"
).replace("hush/1", "hush%2F1")
REFUSED = [
    "http://hush-0:hu/hush-1@127.0.0.1:{port}/x",
    "rtsp://127.0.0.1:{port}/user=hush-0&password=hush-1&channel=1",
    "rtsps://127.0.0.1:{port}/Hush7cdaB9hush6tKqZ?enableSrtp",
    "srt://127.0.0.1:{port}?passphrase=hush-hush-hush&pbkeylen=16",
    "rtmp://127.0.0.1:{port}/app/live?user=hush-0&pass=hush-1",
    "http://127.0.0.1:{port}/?src=rtsp%3A%2F%2Fhush-0%3Ahush-1%40cam%2Flive",
]


def told(text):
    """Return the lines of a text that tell a secret."""
    return [line for line in str(text).splitlines() if SECRET in line.lower()]


class _Camera(BaseHTTPRequestHandler):
    """Sends its video for a while, and hangs up."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        parts = 60
        for k in range(parts):
            at, end = (len(self.server.video) * n // parts for n in (k, k + 1))
            with suppress(OSError):
                self.wfile.write(self.server.video[at:end])
            time.sleep(1 / 30)

    def log_message(self, *_):
        pass


@pytest.fixture
def camera(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Camera)
    server.video = write_video(tmp_path / "v.ts", 60, codec="mpeg2video").read_bytes()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def read(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def until(receive, wanted, within_s=60):
    """Receive until something is as wanted; return all that came."""
    end, came = time.monotonic() + within_s, []
    while time.monotonic() < end:
        if (one := receive(0.5)) is not None:
            came.append(one)
            if wanted(one):
                return came
    raise AssertionError(came)


@pytest.mark.timeout(240)
def test_a_running_rig_tells_no_secret_anywhere(start, camera, endpoint, tmp_path):
    served = SERVED.format(port=camera.server_port)
    refused = REFUSED[0].format(port=free_port())
    raw, trace = tmp_path / "raw.mkv", tmp_path / "trace.json"
    run = start(
        *("run", "--ir", served, "--rgb", refused, "--publish", endpoint, "--web", "127.0.0.1:0"),
        *("--record-raw", raw, "--trace", trace, "degraded.start=any", "ir.timeout_ms=500"),
    )  # fmt: skip
    page = run.wait_for("answering on").split()[-1]
    with Subscriber(endpoint) as frames, StateSubscriber(endpoint) as states:
        assert not told([received.header for received in until(frames.recv, lambda r: r.header.mode == "ir")])
        about = describe(endpoint).about
        assert f"127.0.0.1:{camera.server_port}" in str(about)  # the address itself is told
        assert not told(about)
        changes = until(states.recv, lambda change: "ir" in str(change) and "lost" in str(change))
        assert not told(changes)
    for path in ("state", "metrics", "", "healthz"):
        assert not told(read(f"{page}/{path}")), path
    assert "127.0.0.1" in read(f"{page}/state")  # the reason names the camera
    with StatisticsSubscriber(endpoint) as numbers:
        assert not told(until(numbers.recv, lambda _: True))
    run.signal(signal.SIGTERM)
    assert run.end(30) == 0
    assert not told(run.output)
    assert "***@127.0.0.1" in run.output
    json.loads(trace.read_text())
    assert not told(trace.read_text())
    assert SECRET.encode() not in raw.read_bytes().lower()
    with av.open(str(raw)) as container:
        kept = str(dict(container.metadata))
    assert f"127.0.0.1:{camera.server_port}" in kept
    assert "***" in kept


@pytest.mark.parametrize("uri", REFUSED)
def test_a_source_that_cannot_be_opened_is_told_without_its_secrets(uri, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(DeviceUnavailable, match=r"127\.0\.0\.1") as caught:
        NetworkStream(uri.format(port=free_port()), "rgb", open_timeout_s=0.5)
    assert not told(f"{caught.value} {caught.value!r} {caught.value.args}")
    assert not told(caplog.text)


def test_log_lines_leave_them_out_in_both_formats():
    record = logging.LogRecord("rtfuse", logging.INFO, "x.py", 1, "lost %s", (SERVED,), None)
    record.rtfuse_fields = {"event": "lost", "why": SERVED, "path": Path(SERVED), "stack": f"File x: {SERVED}"}
    for formatter in (TextFormatter(), JsonFormatter()):
        assert "***" in formatter.format(record)
        assert not told(formatter.format(record))


def test_the_printed_configuration_and_errors_of_the_command_line_have_none(rtfuse):
    tree = {"ir": {"uri": SERVED}, "rgb": {"uri": REFUSED[0]}, "web": {"token": "hush-token-of-16-letters"}}
    config = to_struct(tree, Config, "test")
    assert "127.0.0.1" in dump_config(config)
    assert not told(dump_config(config))
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_config(None, ["web.tokens=hush"])
    assert not told(caught.value)
    done = rtfuse("run", SERVED, "--rgb", "synthetic")
    assert (done.returncode, told(done.stdout + done.stderr)) == (2, [])
    assert "127.0.0.1" in done.stderr
    assert output_beside(SERVED) == Path("fused.mp4")
