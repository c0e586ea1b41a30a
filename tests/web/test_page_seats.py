"""A viewer that has stopped reading gives up its place to the next, whichever way it watched."""

from __future__ import annotations

import json
import socket
import time
import urllib.request
from contextlib import ExitStack, nullcontext

import pytest
from pages import ask, fused, moving, serving

FEW = 30.0
"""Frames per second."""


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


def opened(server, asked):
    """Send a request over a socket of its own, and read the head of the answer, then nothing more."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=10)
    plain.sendall(f"GET {asked[0]} HTTP/1.1\r\nHost: {host}:{port}\r\n{asked[1]}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += plain.recv(1)
    return plain, head.split(b"\r\n")[0]


UPGRADE = (
    "/live",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
)


def silent(server):
    """A WebSocket that never says what it wants, and answers nothing."""
    return opened(server, UPGRADE)


def greedy(server):
    """A WebSocket that asks for all that there is, and reads none of it."""
    plain, status = opened(server, UPGRADE)
    said = json.dumps({"want": {"planes": ["fused", "ir", "rgb"], "quality": "high"}}).encode()
    plain.sendall(bytes([0x81, 0x80 | len(said), 0, 0, 0, 0]) + said)
    return plain, status


def stream(server):
    """A player of MJPEG that was paused."""
    return opened(server, ("/stream.mjpg?quality=low", ""))


def test_viewers_that_stop_reading_make_room_within_ten_seconds(serve):
    server = serve(viewers=6)
    with moving(server, FEW), ExitStack() as stack:
        for kind in (silent, greedy, stream) * 2:
            plain, status = kind(server)
            stack.enter_context(plain)
            assert status.split()[1] in (b"101", b"200"), status
        began = time.monotonic()
        assert ask(server, "/stream.mjpg")[0] == 503
        while server._page._seats < 6:
            assert time.monotonic() - began < 10, f"{6 - server._page._seats} places stay taken"
            time.sleep(0.05)
        assert not server.live.viewers


def test_a_picture_that_stands_still_is_sent_again(serve):
    """Otherwise nobody would notice that its viewer has gone."""
    server = serve()
    server.live.write(fused())
    plain, _ = stream(server)
    with plain, plain.makefile("rb") as answer:
        began = time.monotonic()
        for _ in range(4):
            while answer.readline() != b"Content-Type: image/jpeg\r\n":
                pass
    assert 1 < time.monotonic() - began < 5


@pytest.mark.parametrize("degree", [0, 2], ids=["still", "lowered"])
def test_few_pictures_do_not_keep_the_place_of_a_paused_player(serve, degree):
    """A player's system goes on to take pictures until its buffer is full: the fewer, the longer."""
    server = serve(viewers=1)
    server.live.degree = degree
    with moving(server, FEW) if degree else nullcontext(server.live.write(fused())):
        plain, _ = stream(server)
        with plain:
            began = time.monotonic()
            while server._page._seats == 0:
                assert time.monotonic() - began < 12, "its place stays taken"
                time.sleep(0.05)


def test_proxies_are_told_not_to_hold_the_stream_back(serve):
    server = serve()
    asked = urllib.request.Request(server.url + "/stream.mjpg", method="HEAD")
    with urllib.request.urlopen(asked, timeout=10) as answer:
        assert answer.headers["X-Accel-Buffering"] == "no"


@pytest.mark.slow
@pytest.mark.parametrize(("buffer", "rate"), [(4096, 40_000), (None, 100_000)])
def test_a_player_that_reads_slowly_stays(serve, buffer, rate):
    server = serve(viewers=1)
    with moving(server, FEW):
        plain, _ = stream(server)
        with plain:
            if buffer:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            end = time.monotonic() + 30
            while time.monotonic() < end:
                assert plain.recv(rate // 20)
                time.sleep(0.05)
            assert server._page._seats == 0
            assert ask(server, "/stream.mjpg")[0] == 503
