"""Cameras that speak HTTP as cheap ones do: dialects of MJPEG, one picture a connection, snapshots, refusals."""

from __future__ import annotations

import base64
import logging
import socket
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice

import cv2
import numpy as np
import pytest
from live import free_port

from rtfuse.capture import open_source
from rtfuse.capture.network import NetworkStream
from rtfuse.capture.polling import Polled
from rtfuse.capture.reconnect import Reconnecting
from rtfuse.config import load_config
from rtfuse.errors import AccessRefused, DeviceUnavailable, SourceLost
from rtfuse.observe.health import Health, State, of_stream
from rtfuse.pipeline.sources import SourceOpener

GRAIN = cv2.GaussianBlur(np.random.default_rng(3).normal(0, 60, (120, 160, 3)), (0, 0), 1)
GRAIN -= GRAIN.mean()
ESP32 = "123456789000000000000987654321"


@dataclass(frozen=True)
class Dialect:
    """Way in which a camera sends pictures.

    `boundary`, `parts`: the boundary in the header, and before each picture. `length`: its Content-Length is told.
    `chunked`: HTTP/1.1's transfer coding. `pictures`: the number until the camera hangs up.
    """

    boundary: str | None = ESP32
    parts: str = f"\r\n--{ESP32}\r\n"
    length: bool = True
    chunked: bool = False
    rate_hz: float = 20.0
    pictures: int = 10_000
    suffix: str = ".jpg"
    password: str | None = None
    end: str = "close"
    place: str = "/picture"


class Camera(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, how = self.server, self.server.how
        server.asked.append(time.monotonic())
        wanted = how.password and "Basic " + base64.b64encode(how.password.encode()).decode()
        if wanted and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        kind = {".jpg": "image/jpeg", ".png": "image/png"}[how.suffix]
        self.send_header(
            "Content-Type", kind if how.boundary is None else f"multipart/x-mixed-replace;boundary={how.boundary}"
        )
        self.close_connection = True
        with suppress(OSError):
            if how.boundary is None:
                self._picture(kind)
            else:
                if how.chunked:
                    self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self._stream(kind)
            if how.end == "reset":
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    def _picture(self, kind):
        data = self._next()
        if self.server.how.length:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, kind):
        how = self.server.how
        for _ in range(how.pictures):
            data = self._next()
            length = f"Content-Length: {len(data)}\r\n" if how.length else ""
            for part in (how.parts.encode(), f"Content-Type: {kind}\r\n{length}\r\n".encode(), data):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part) if how.chunked else part)
            self.wfile.flush()
            if self.server.over.wait(1 / how.rate_hz):
                return

    def _next(self):
        """Return the next picture, whose brightness is its number, and whose size is that of a real one."""
        image = (next(self.server.numbers) % 150 + 50 + GRAIN).clip(0, 255).astype(np.uint8)
        return cv2.imencode(self.server.how.suffix, image)[1].tobytes()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Start a camera; its `asked` has the times of all requests."""
    running = []

    def start(how, port=0):
        server = ThreadingHTTPServer(("127.0.0.1", port), Camera)
        server.how, server.asked, server.numbers, server.over = how, [], count(), threading.Event()
        server.uri = f"http://127.0.0.1:{server.server_port}{how.place}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        running.append(server)
        return server

    yield start
    for server in running:
        server.over.set()
        server.shutdown()
        server.server_close()


STREAMS = {
    "esp32": Dialect(chunked=True),
    "esp32-slow": Dialect(chunked=True, rate_hz=5.0),
    "no-length": Dialect(length=False),
    "boundary-with-dashes": Dialect(boundary="--frame", parts="--frame\r\n"),
    "quoted-boundary": Dialect(boundary='"frame"', parts="\r\n--frame\r\n"),
    "another-boundary": Dialect(boundary="frame", parts="\r\n--other\r\n"),
}

STREAMS["parts-under-a-pictures-name"] = Dialect(place="/live.jpg")
STREAMS["no-first-line"] = Dialect(boundary="frame", parts="--frame\r\n", length=False)


@pytest.mark.parametrize("how", STREAMS.values(), ids=STREAMS)
def test_mjpeg_of_every_dialect_is_read_at_its_own_rate(serve, how):
    camera = serve(how)
    began = time.monotonic()
    with closing(open_source(camera.uri, "rgb", timeout_s=1.0)) as source:
        assert time.monotonic() - began < (2.5 if how.length else 9)  # what FFmpeg needs before another reader
        assert source.info.rate_hz == pytest.approx(how.rate_hz, rel=0.25)
        frames = list(islice(source, 5))
    shown = [int(f.image.mean().round()) for f in frames]
    assert np.abs(np.diff(shown) - 1).max() <= 1  # in order, none twice
    assert len(camera.asked) <= 2
    ages = [f.arrival_ns - f.t_ns for f in frames]
    assert max(ages) < 50e6


SINGLE = {
    "snapshot": Dialect(boundary=None),
    "snapshot-png": Dialect(boundary=None, suffix=".png"),
    "snapshot.jpg": Dialect(boundary=None, place="/snap.jpg"),  # by its suffix FFmpeg reads it in another way
    "snapshot.png": Dialect(boundary=None, place="/snap.png", suffix=".png"),
    "snapshot-no-length.jpg": Dialect(boundary=None, place="/snap.jpg", length=False),
    "snapshot-no-length": Dialect(boundary=None, length=False),
    "closes-after-each": Dialect(pictures=1),
    "closes-after-each-chunkless": Dialect(pictures=1, length=False),
    "resets-after-each": Dialect(pictures=1, end="reset"),
}


@pytest.mark.parametrize("how", SINGLE.values(), ids=SINGLE)
def test_single_pictures_are_a_stream(serve, how, caplog):
    camera = serve(how)
    with caplog.at_level(logging.INFO), closing(open_source(camera.uri, "ir", fps=20)) as source:
        assert isinstance(source, Polled)
        frames = list(islice(source, 8))
    assert "gives one picture for each request" in caplog.text
    shown = [round(float(f.image.mean())) for f in frames]
    assert np.abs(np.diff(shown) - 1).max() <= 1
    assert [f.frame_id for f in frames] == list(range(8))
    steps = np.diff(camera.asked)
    assert np.median(steps) == pytest.approx(0.05, abs=0.02)


def test_a_snapshot_that_is_refused_or_gone_is_lost_with_the_reason(serve):
    camera = serve(Dialect(boundary=None, password="anna:old"))
    uri = camera.uri.replace("://", "://anna:old@")
    with closing(open_source(uri, "rgb", fps=50)) as source:
        frames = iter(source)
        list(islice(frames, 3))
        camera.how = Dialect(boundary=None, password="anna:new")
        with pytest.raises(
            AccessRefused, match="401 Unauthorized: the camera refuses this user and password"
        ) as caught:
            list(frames)
    assert "old" not in str(caught.value)


def test_a_stream_that_ends_within_moments_still_shows_a_picture(serve):
    with closing(open_source(serve(Dialect(pictures=4, rate_hz=50.0)).uri, "rgb")) as source:
        frames = iter(source)
        assert next(frames).frame_id == 3
        with pytest.raises(SourceLost, match="ended by its sender after 4 frames"):
            next(frames)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://127.0.0.1:{port}/x", "cannot be opened: Connection refused"),
        ("rtsp://no-such-host.invalid:{port}/x", "cannot be opened: the host no-such-host.invalid is unknown"),
        ("http://no-such-host.invalid/x", "cannot be opened: the host no-such-host.invalid is unknown"),
        ("rtsp://anna:hu/sh@127.0.0.1:{port}/x", "write a / in a password as %2F"),
    ],
)
def test_the_reason_is_said_in_words(uri, said):
    with pytest.raises(DeviceUnavailable, match=said) as caught:
        open_source(uri.format(port=free_port()), "rgb")
    assert "hu" not in str(caught.value).replace("hush", "hu")


ANSWERS = [
    (
        b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        AccessRefused,
        "401 Unauthorized: the camera wants",
    ),
    (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", AccessRefused, "403 Forbidden"),
    (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        DeviceUnavailable,
        "404 Not Found: the camera has",
    ),
    (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", DeviceUnavailable, "5xx"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", DeviceUnavailable, "no video that can be read"),
    (b"", DeviceUnavailable, "closes the connection|the connection failed"),
    (None, DeviceUnavailable, "cannot be opened within 1 s: no answer"),
]


@pytest.mark.parametrize(("answer", "kind", "said"), ANSWERS)
def test_an_answer_without_video_is_told_apart(answer, kind, said):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply():
            with suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    connection.recv(4096)
                    if answer is not None:
                        connection.sendall(answer)
                        connection.close()

        threading.Thread(target=reply, daemon=True).start()
        with pytest.raises(DeviceUnavailable, match=said) as caught:
            NetworkStream(f"http://127.0.0.1:{listening.getsockname()[1]}/x", "rgb", open_timeout_s=1.0)
    assert type(caught.value) is kind


def test_a_camera_whose_password_changed_is_left_alone_and_the_reason_is_known(serve):
    camera = serve(Dialect(password="anna:old", pictures=40, rate_hz=50.0))
    uri = camera.uri.replace("://", "://anna:old@")
    health = Health("rgb", quiet_ns=150_000_000, clock=time.monotonic_ns)
    source = Reconnecting(open_source(uri, "rgb"), lambda: open_source(uri, "rgb"), watcher=health)
    thread = threading.Thread(target=lambda: [health.frame(frame) for frame in source])
    thread.start()
    try:
        camera.how = Dialect(password="anna:new")
        deadline = time.monotonic() + 10
        while "401 Unauthorized" not in (health.why or "") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert health.state() is State.LOST
        assert "401 Unauthorized: the camera refuses this user and password; next try in 10 s" in health.condition().why
        before = len(camera.asked)
        time.sleep(2)
        assert len(camera.asked) == before
    finally:
        began = time.monotonic()
        source.close()
        thread.join(5)
    assert time.monotonic() - began < 1


def test_a_camera_that_comes_back_is_not_announced_again(serve, caplog):
    """One that hangs up every few frames filled the log with its palette."""
    camera = serve(Dialect(pictures=6, rate_hz=30.0))
    opener = SourceOpener(load_config(overrides=[f"ir.uri={camera.uri}"]))
    for _ in range(2):
        with closing(opener.open("ir")) as source, suppress(SourceLost):
            assert next(iter(source)).image.ndim == 2
    assert caplog.text.count("thermal is in colour") == 1


@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("thermal stream http://cam cannot be opened", "thermal stream http://cam cannot be opened"),
        ("/dev/video1 ended", "thermal: /dev/video1 ended"),
        ("thermally bad", "thermal: thermally bad"),
    ],
)
def test_a_stream_is_named_once(why, said):
    assert of_stream("ir", why) == said
