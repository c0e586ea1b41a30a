"""The client that detectors, displays and recorders import: frames, off a ZeroMQ endpoint.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import zmq

from rtfuse.client.connection import Keys, connected, readable
from rtfuse.client.reception import Arrivals, Reception
from rtfuse.errors import RtfuseError, WireError
from rtfuse.types import Image
from rtfuse.wire.message import MAX_MESSAGE_BYTES, Header, pixels, split

_SLICE_S = 0.5
_H264_QUEUE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """One frame: `image` is read-only, (H, W, 3) uint8 RGB, or (H, W) uint8 or uint16 of a plane that is gray.

    `gap` frames were missed just before it.
    """

    image: Image
    header: Header
    gap: int


class Subscriber:
    """Receives the frames of one publisher; iterate over it, or call `recv`; or, with `await`, `recv_async`.

    With `latest` the newest frame is always the next one, however slow the receiver is; without, frames queue up to
    `queue` and are then lost. It waits for a publisher that is not there yet, and finds it again when it restarts.
    `received`, `lost` (by sequence number), `malformed` (skipped messages) and `restarts` count what happened;
    `reception` gives them with rate, delay and age. A raw `image` is a view of the message, which lives as long as it.
    H.264 begins with a key frame, also after a gap; `latest` then means the newest of what has arrived.
    Messages and images of more than `max_bytes` are refused unread: ZeroMQ then drops the connection and tries again.
    `context` is a ZeroMQ context to share; its owner ends it. `keys` is the file of `rtfuse keys new client`, for a
    publisher that encrypts. Raises ConfigError if the endpoint makes no sense, KeysUnusable for the file. Use it from
    one thread, or one task; it is a context manager.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = "fused",
        latest: bool = True,
        queue: int = 32,
        max_bytes: int = MAX_MESSAGE_BYTES,
        context: zmq.Context[Any] | None = None,
        keys: Keys = None,
    ) -> None:
        self.received = self.lost = self.malformed = self.restarts = 0
        self._session: str | None = None
        self._next_seq = 0
        self._arrivals = Arrivals()
        self._max_bytes, self._latest = max_bytes, latest
        self._h264: Any = None
        self._reconnect = partial(
            connected, endpoint=endpoint, topic=topic, max_bytes=max_bytes, queue=_H264_QUEUE, keys=keys
        )
        self._owns_context = context is None
        self._context: zmq.Context[Any] = context or zmq.Context()
        try:
            self._socket = connected(
                self._context, endpoint, topic, max_bytes=max_bytes, queue=None if latest else queue, keys=keys
            )
        except RtfuseError:
            if self._owns_context:
                self._context.term()
            raise

    def recv(self, timeout_s: float | None = None) -> Received | None:
        """Return the next frame, or None if none came within `timeout_s` (None: wait for ever).

        Messages that are not valid are counted in `malformed` and skipped.
        """
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, end - time.monotonic())
            # Never one endless wait: a Ctrl-C that arrives just before it begins would be noticed only after it.
            if self._socket.poll(math.ceil(1000 * min(left_s, _SLICE_S))):
                try:
                    received = self._taken(self._socket.recv(copy=False).buffer)
                except WireError:
                    self.malformed += 1
                else:
                    if received is not None:
                        return received
            if time.monotonic() >= end:
                return None

    async def recv_async(self, timeout_s: float | None = None) -> Received | None:
        """Do as `recv`, while other tasks of the running event loop go on. A cancelled call loses no frame."""
        import asyncio

        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            await asyncio.sleep(0)  # frames that come faster than they are taken would shut the other tasks out
            received = self.recv(0)
            left_s = end - time.monotonic()
            if received is not None or left_s <= 0:
                return received
            await readable(self._socket, min(left_s, _SLICE_S))

    def reception(self) -> Reception:
        """Return what was received and lost so far, and the newest frames' rate, delay and age."""
        arrivals = self._arrivals
        return Reception(
            received=self.received,
            lost=self.lost,
            malformed=self.malformed,
            restarts=self.restarts,
            rate_hz=arrivals.rate_hz(),
            transport_ms=arrivals.transport_ms(),
            age_ms=arrivals.age_ms(),
        )

    def _taken(self, message: memoryview) -> Received | None:
        """Decode a message; None for an H.264 unit that cannot be shown. Raises WireError."""
        _, header, payload = split(message, max_bytes=self._max_bytes)
        if header.encoding != "h264":
            return Received(pixels(header, payload), header, self._count(header))
        if self._h264 is None:
            from rtfuse.wire.h264 import H264Decoder

            self._h264 = H264Decoder()
            if self._latest:  # a picture depends on those before it: the newest alone is of no use
                self._socket.close()
                self._socket = self._reconnect(self._context)
        image = self._h264(header, payload)
        if image is None or (self._latest and self._socket.poll(0)):
            return None
        return Received(image, header, self._count(header))

    def _count(self, header: Header) -> int:
        if header.session != self._session:
            self.restarts += self._session is not None
            self._session, gap = header.session, 0
        else:
            gap = max(0, header.seq - self._next_seq)
        self._next_seq = header.seq + 1
        self.received += 1
        self.lost += gap
        self._arrivals.add(header.published_ns, header.published_unix_ms, header.age_ns)
        return gap

    def __iter__(self) -> Iterator[Received]:
        while True:
            received = self.recv()
            if received is not None:
                yield received

    async def __aiter__(self) -> AsyncIterator[Received]:
        while True:
            received = await self.recv_async()
            if received is not None:
                yield received

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._socket.closed:
            self._socket.close()
            if self._owns_context:
                self._context.term()

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
