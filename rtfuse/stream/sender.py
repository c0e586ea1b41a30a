"""Encode and send in a process of its own; `SenderProcess` is its other end.

FFmpeg's muxers hold Python's lock while they wait for a server: in the rig's own process one that does not answer would
stop every frame. Pictures go to the process by its standard input, each as a line of JSON and its planes; it answers
each by a line: empty, or the reason of its end.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO, Any

import msgspec
import numpy as np

from rtfuse.errors import AccessRefused, DeviceUnavailable, redact
from rtfuse.picture import Coding, Layout, Matrix, Picture
from rtfuse.stream.settings import TIMEOUT_S, Streaming

_START_S = 5.0
"""Time for the process to start and load its libraries, on a busy machine."""
_END_S = 0.8
_PIPE_BYTES, _F_SETPIPE_SZ = 1 << 20, 1031


class Job(msgspec.Struct, frozen=True):
    """First line: the address and what to encode by."""

    uri: str
    settings: Streaming
    encoder: str
    rate_hz: float


class Head(msgspec.Struct, frozen=True):
    """Line before the bytes of a picture: `yuv420p` in this coding, or `rgb24`. `utc_us`: its time of capture."""

    utc_us: int
    size_wh: tuple[int, int]
    layout: Layout
    matrix: Matrix
    full: bool


class Failure(msgspec.Struct, frozen=True):
    """Answer that the connection has broken; `refused`: the server refuses the login."""

    text: str
    refused: bool


class SenderProcess:
    """Send pictures by a process until the connection breaks; from one thread, which waits at most `TIMEOUT_S`."""

    def __init__(self, job: Job) -> None:
        self._name = f"stream {redact(job.uri)}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "rtfuse.stream.sender"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the rig, which ends this process
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)
        if sys.platform == "linux":
            import fcntl

            with suppress(OSError):
                fcntl.fcntl(self._in.fileno(), _F_SETPIPE_SZ, _PIPE_BYTES)
        self._limit_s = TIMEOUT_S + _START_S
        self._write(msgspec.json.encode(job) + b"\n", time.monotonic() + self._limit_s)

    def send(self, picture: Picture, utc_us: int) -> None:
        """Have a picture sent. Raises DeviceUnavailable, or AccessRefused, with the reason."""
        end_s = time.monotonic() + self._limit_s
        for part in _parts(picture, utc_us):
            self._write(part, end_s)
        answer = self._answer(end_s)
        if answer.strip():
            failure = msgspec.json.decode(answer, type=Failure)
            raise (AccessRefused if failure.refused else DeviceUnavailable)(failure.text)
        self._limit_s = TIMEOUT_S + 1.0  # FFmpeg's own limit comes first: it knows more

    def close(self) -> None:
        """Let the process send what it has and end the connection; one that does not end is killed."""
        with suppress(OSError):
            self._in.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()

    def _write(self, data: bytes | memoryview, end_s: float) -> None:
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self._in], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                raise self._silent()
            try:
                view = view[os.write(self._in.fileno(), view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                return  # the answer says why

    def _answer(self, end_s: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._out], [], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                raise self._silent()
            if not (data := os.read(self._out.fileno(), 4096)):
                raise DeviceUnavailable(f"{self._name} broke: its process ended with status {self._process.wait()}")
            line += data
        return line

    def _silent(self) -> DeviceUnavailable:
        return DeviceUnavailable(f"{self._name}: no answer within {TIMEOUT_S:g} s")


def _parts(picture: Picture, utc_us: int) -> list[bytes | memoryview]:
    """Return the head and the planes of a picture, as they came where they are YUV, else as RGB."""
    coding = picture.coding if picture.layout not in ("rgb24", "gray") else Coding()
    yuv = picture.i420(coding)
    layout: Layout = "rgb24" if yuv is None else "yuv420p"
    planes = (picture.rgb,) if yuv is None else yuv
    head = Head(utc_us, (picture.shape_hw[1], picture.shape_hw[0]), layout, coding.matrix, coding.full)
    return [msgspec.json.encode(head) + b"\n", *(np.ascontiguousarray(p).data.cast("B") for p in planes)]


def _picture(head: Head, source: IO[bytes]) -> Picture:
    """Read the planes of a picture. Raises EOFError if they are not whole."""
    w, h = head.size_wh
    if head.layout == "rgb24":
        return Picture.of_rgb(_plane(source, h, w * 3).reshape(h, w, 3))
    planes = [_plane(source, *hw) for hw in ((h, w), (h // 2, w // 2), (h // 2, w // 2))]
    return Picture("yuv420p", planes, Coding(head.matrix, head.full))


def _plane(source: IO[bytes], rows: int, columns: int) -> Any:
    data = source.read(rows * columns)
    if len(data) < rows * columns:
        raise EOFError
    return np.frombuffer(data, np.uint8).reshape(rows, columns)


def _failure(job: Job, e: Exception, *, opened: bool, took_s: float) -> Failure:
    from av.error import InvalidDataError

    from rtfuse.capture.ffmpeg_errors import unavailable

    what = f"stream {redact(job.uri)} {'broke' if opened else 'cannot be opened'}"
    made = unavailable(what, job.uri, e, took_s=took_s, limit_s=TIMEOUT_S)
    if isinstance(e, InvalidDataError) and took_s < TIMEOUT_S:
        return Failure(f"{what}: the server ended the connection, or its answer is not understood", refused=False)
    return Failure(str(made).replace("the camera", "the server"), isinstance(made, AccessRefused))


def main() -> None:
    """Send the pictures of the standard input until it ends, or the connection breaks."""
    from av.error import FFmpegError

    from rtfuse.stream.session import Session

    source, answers = sys.stdin.buffer, sys.stdout.buffer
    job = msgspec.json.decode(source.readline(), type=Job)
    session, opened, began_s = Session(job.uri, job.settings, job.encoder, job.rate_hz), False, time.monotonic()
    try:
        while line := source.readline():
            head = msgspec.json.decode(line, type=Head)
            picture, began_s = _picture(head, source), time.monotonic()
            session.send(picture, head.utc_us)
            opened = True
            answers.write(b"\n")
            answers.flush()
        session.close()
    except EOFError:
        return
    except (FFmpegError, OSError, ValueError) as e:
        failure = _failure(job, e, opened=opened, took_s=time.monotonic() - began_s)
        with suppress(OSError):
            answers.write(msgspec.json.encode(failure) + b"\n")
            answers.flush()
        os._exit(0)  # FFmpeg would end the broken connection in its own time


if __name__ == "__main__":
    main()
