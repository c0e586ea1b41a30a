"""Streams carry capture times, and a server that is killed costs its own stream alone; PyAV reads them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace

import av
import pytest
from live import free_port, fused

from rtfuse.capture.backoff import Backoff
from rtfuse.errors import ConfigError
from rtfuse.stream.settings import Streaming, check_streams
from rtfuse.stream.stamps import klv, stamped, time_of_klv, time_of_sei
from rtfuse.stream.streamer import Streamer
from rtfuse.types import Fused, Pair


class Reader:
    """A player that listens on a port: the times of its pictures by KLV, and by SEI."""

    def __init__(self, uri, form, enough=20):
        self.klv, self.sei, self.error, self._enough = {}, {}, None, enough
        self._uri, self._form = uri, form
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        options = {"fflags": "nobuffer", "analyzeduration": "200000", "probesize": "20000"}
        try:
            with av.open(self._uri, format=self._form, options=options, timeout=10) as container:
                for packet in container.demux():
                    if packet.stream.type == "data" and packet.size:
                        self.klv[packet.pts] = time_of_klv(bytes(packet))
                    elif packet.stream.type == "video":
                        self._show(packet)
                    if len(self.sei) >= self._enough:
                        return
        except (OSError, ValueError) as e:
            self.error = e

    def _show(self, packet):
        for frame in packet.decode():
            for data in frame.side_data:
                if (utc_us := time_of_sei(bytes(data))) is not None:
                    self.sei[frame.pts] = utc_us


def moved(k, t_ns):
    """Frame `k`, taken at `t_ns`."""
    made = fused(k, (128, 96))
    ir, rgb = (replace(frame, t_ns=t_ns) for frame in (made.pair.ir, made.pair.rgb))
    return Fused(made.picture, made.aligned, Pair(ir, rgb), None, "test")


def feed(streamer, until, limit_s=15.0):
    """Write frames at 100 Hz until a condition holds; return the UTC of their captures in microseconds."""
    times, end_s, k = [], time.monotonic() + limit_s, 0
    while not until():
        assert time.monotonic() < end_s, "nothing came"
        t_ns = time.monotonic_ns() - 5_000_000
        times.append((time.time_ns() - 5_000_000) // 1000)
        streamer.write(moved(k % 40, t_ns))
        k += 1
        time.sleep(0.01)
    return times


def off_us(found, times):
    """Return the largest distance of a found time from the nearest true one."""
    return max(min(abs(t - u) for u in times) for t in found)


def streamer_to(uri):
    return Streamer(uri, Streaming(uris=(uri,), encoder="libx264"), encoder="libx264", rate_hz=30)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_reader_gets_the_capture_time_of_every_picture(kind):
    uri = f"{kind}://127.0.0.1:{free_port()}"
    reader = Reader(uri + ("?listen=1" if kind == "tcp" else ""), "mpegts")
    streamer = streamer_to(uri)
    try:
        times = feed(streamer, lambda: not reader.thread.is_alive())
    finally:
        streamer.close()
    assert reader.error is None, reader.error
    assert len(reader.sei) >= 20
    assert off_us(reader.sei.values(), times) < 1000
    shared = reader.klv.keys() & reader.sei.keys()
    assert len(shared) >= 15
    assert all(reader.klv[pts] == reader.sei[pts] for pts in shared)


def test_a_killed_server_costs_its_own_stream_alone_and_comes_back(caplog):
    caplog.set_level(logging.INFO, "rtfuse.stream")
    uri = f"tcp://127.0.0.1:{free_port()}"
    first = Reader(uri + "?listen=1", "mpegts")
    streamer = streamer_to(uri)
    try:
        feed(streamer, lambda: not first.thread.is_alive())
        began_s = time.monotonic()
        feed(streamer, lambda: sum(streamer.drops.values()) > 20)
        assert time.monotonic() - began_s < 10
        assert {cause for _, cause in streamer.drops} >= {"away"}
        second = Reader(uri + "?listen=1", "mpegts")
        feed(streamer, lambda: not second.thread.is_alive(), 20)
        assert second.error is None
    finally:
        streamer.close()
    said = [record.getMessage() for record in caplog.records]
    assert [("runs" in s, "tries again" in s, "is back" in s) for s in said[:3]] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_an_absent_server_is_said_in_one_line_without_its_password(caplog):
    uri = f"rtsp://anna:hush-hush@127.0.0.1:{free_port()}/rig"
    streamer = streamer_to(uri)
    try:
        feed(streamer, lambda: caplog.records)
        feed(streamer, lambda: sum(streamer.drops.values()) > 30)
    finally:
        streamer.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "cannot be opened" in said
    assert "hush" not in said + str(streamer.drops)
    assert "anna" not in said + str(streamer.drops)


def answering(sock, answer):
    """Serve RTSP on a socket, one connection after another; returns the request lines."""
    asked = []

    def serve():
        while True:
            try:
                conn, _ = sock.accept()
            except OSError:
                return
            with conn, conn.makefile("rb") as lines:
                while head := list(iter(lambda lines=lines: lines.readline().strip(), b"")):
                    fields = {k.strip().lower(): v.strip() for k, _, v in (x.partition(b":") for x in head[1:])}
                    lines.read(int(fields.get(b"content-length", 0)))
                    asked.append(head[0].decode())
                    if (status := answer(asked[-1])) is not None:
                        conn.sendall(b"RTSP/1.0 " + status + b"\r\nCSeq: " + fields[b"cseq"] + b"\r\n\r\n")

    threading.Thread(target=serve, daemon=True).start()
    return asked


def test_a_server_that_does_not_answer_stops_nothing(caplog):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        answering(sock, lambda request: None)
        streamer, last_s, longest_s = streamer_to(f"rtsp://127.0.0.1:{sock.getsockname()[1]}/rig"), time.monotonic(), 0
        try:
            while not caplog.records:
                streamer.write(moved(0, time.monotonic_ns()))
                time.sleep(0.01)
                longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()
        finally:
            streamer.close()
    assert "cannot be opened within 5 s: no answer" in caplog.text
    assert longest_s < 2.5, "a wait for the server has held Python's lock"


def test_a_refused_login_is_said_and_not_repeated_at_once(caplog):
    refusal = b'401 Unauthorized\r\nWWW-Authenticate: Basic realm="rig"'
    with socket.create_server(("127.0.0.1", 0)) as sock:
        asked = answering(sock, lambda request: b"200 OK" if request.startswith("OPTIONS") else refusal)
        streamer = streamer_to(f"rtsp://anna:hush@127.0.0.1:{sock.getsockname()[1]}/rig")
        try:
            feed(streamer, lambda: caplog.records)
            feed(streamer, lambda: sum(streamer.drops.values()) > 50)
        finally:
            streamer.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert "401 Unauthorized: the server refuses this user and password" in said
    assert "hush" not in said
    assert sum(request.startswith("OPTIONS") for request in asked) == 1


def test_a_killed_sender_is_said_and_started_again(caplog):
    caplog.set_level(logging.INFO, "rtfuse.stream")
    streamer = streamer_to(f"udp://127.0.0.1:{free_port()}")
    try:
        feed(streamer, lambda: "runs" in caplog.text)
        listed = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "pid=,args="], capture_output=True, text=True)
        (sender,) = [line.split()[0] for line in listed.stdout.splitlines() if "rtfuse.stream.sender" in line]
        os.kill(int(sender), signal.SIGKILL)
        feed(streamer, lambda: "is back" in caplog.text)
    finally:
        streamer.close()
    assert "its process ended with status -9; the rig goes on" in caplog.text


def test_waits_grow_after_each_try():
    backoff = Backoff(nearby=False)
    assert [backoff.wait_s() for _ in range(3)] == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize(
    "uri", ["ftp://h/x", "film.mp4", "udp://h", "rtsp:///x", "tcp://h:99999", "https://h/whip", "srt://h:1"]
)
def test_an_address_that_cannot_be_streamed_to_is_refused(uri):
    with pytest.raises(ConfigError, match="stream"):
        check_streams(Streaming(uris=(uri,)))


def test_a_local_set_has_the_bytes_of_the_standard():
    data = klv(1_700_000_000_123_456)
    key, time_tag = "060e2b34020b01010e01030101000000", f"0208{1_700_000_000_123_456:016x}"
    assert data.hex()[:-4] == key + "11" + time_tag + "410113" + "0102"
    assert time_of_klv(data) == 1_700_000_000_123_456
    with pytest.raises(ValueError, match="checksum"):
        time_of_klv(data[:20] + bytes([data[20] ^ 1]) + data[21:])


@pytest.mark.parametrize("utc_us", [0, 256, 1 << 40, 1_700_000_000_123_456, (1 << 64) - 1])
def test_a_time_in_h264_makes_no_start_code(utc_us):
    unit = b"\0\0\0\1\x67sps\0\0\0\1\x68pps\0\0\1\x65slice"
    made = stamped(unit, utc_us)
    assert made.count(b"\0\0\1") == 4
    assert made.index(b"\x68pps") < made.index(b"MISP") < made.index(b"\x65slice")
    assert time_of_sei(made[made.index(b"MISP") :]) == utc_us
