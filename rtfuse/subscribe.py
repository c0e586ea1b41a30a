"""The client that detectors, displays and recorders import: frames, statistics and boxes, off a ZeroMQ endpoint.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable, RtfuseError, WireError
from rtfuse.keys import KeyPair, curve_client
from rtfuse.publish import check_endpoint
from rtfuse.publish.about import MAX_CALIBRATION_BYTES, Description, decode_description
from rtfuse.publish.alive import keep_alive
from rtfuse.publish.detections import DETECTIONS_TOPIC, Detections, decode_detections
from rtfuse.publish.planes import ABOUT_TOPIC
from rtfuse.publish.wire import (
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    Header,
    Statistics,
    decode_statistics,
    pixels,
    split,
)
from rtfuse.reception import Arrivals, Reception
from rtfuse.types import Image

_SLICE_S = 0.5
_H264_QUEUE = 64
_BOXES_QUEUE = 32
_BOXES_BYTES = 256 << 10
_ABOUT_BYTES = MAX_CALIBRATION_BYTES + 2 * MAX_HEADER_BYTES
T = TypeVar("T")


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
        keys: str | Path | KeyPair | None = None,
    ) -> None:
        check_endpoint(endpoint)
        self.received = self.lost = self.malformed = self.restarts = 0
        self._session: str | None = None
        self._next_seq = 0
        self._arrivals = Arrivals()
        self._max_bytes, self._latest = max_bytes, latest
        self._h264: Any = None
        self._reconnect = partial(
            _connected, endpoint=endpoint, topic=topic, max_bytes=max_bytes, queue=_H264_QUEUE, keys=keys
        )
        self._owns_context = context is None
        self._context: zmq.Context[Any] = context or zmq.Context()
        try:
            self._socket = _connected(self._context, endpoint, topic, max_bytes, None if latest else queue, keys)
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
            await _readable(self._socket, min(left_s, _SLICE_S))

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
            from rtfuse.publish.h264 import H264Decoder

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


class _MessageSubscriber(Generic[T]):
    """What subscribers to messages without a picture have in common."""

    def __init__(
        self,
        endpoint: str,
        topic: str,
        keys: str | Path | KeyPair | None,
        decode: Callable[[bytes], tuple[str, T]],
        max_bytes: int,
        queue: int | None,
    ) -> None:
        check_endpoint(endpoint)
        self.malformed = 0
        self._decode = decode
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._socket = _connected(self._context, endpoint, topic, max_bytes, queue, keys)
        except RtfuseError:
            self._context.term()
            raise

    def recv(self, timeout_s: float | None = None) -> T | None:
        """Return the next message, or None if none came within `timeout_s` (None: wait for ever)."""
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._socket.poll(math.ceil(1000 * min(max(0.0, end - time.monotonic()), _SLICE_S))):
                try:
                    return self._decode(self._socket.recv())[1]
                except WireError:
                    self.malformed += 1
            if time.monotonic() >= end:
                return None

    async def recv_async(self, timeout_s: float | None = None) -> T | None:
        """Do as `recv`, while other tasks of the running event loop go on. A cancelled call loses no message."""
        import asyncio

        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            await asyncio.sleep(0)
            said = self.recv(0)
            left_s = end - time.monotonic()
            if said is not None or left_s <= 0:
                return said
            await _readable(self._socket, min(left_s, _SLICE_S))

    def __iter__(self) -> Iterator[T]:
        while True:
            said = self.recv()
            if said is not None:
                yield said

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            said = await self.recv_async()
            if said is not None:
                yield said

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._socket.closed:
            self._socket.close()
            self._context.term()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StatisticsSubscriber(_MessageSubscriber[Statistics]):
    """Receives what a publisher says of itself, once a second: rates, ages, drops, what each stream is doing.

    Iterate over it, or call `recv`; or, with `await`, `recv_async`. The newest is always the next one. `malformed`
    counts skipped messages. Raises ConfigError if the endpoint makes no sense. `keys` are as for `Subscriber`. Use it
    from one thread, or one task; it is a context manager.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = "stats",
        keys: str | Path | KeyPair | None = None,
    ) -> None:
        super().__init__(endpoint, topic, keys, decode_statistics, MAX_HEADER_BYTES, None)


class DetectionsSubscriber(_MessageSubscriber[Detections]):
    """Receives what a detector found, frame by frame: boxes with labels and scores, off the detector's own endpoint.

    It is used as `StatisticsSubscriber` is, but every message comes in turn; 32 wait, and what is beyond is lost.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        *,
        topic: str = DETECTIONS_TOPIC,
        keys: str | Path | KeyPair | None = None,
    ) -> None:
        super().__init__(endpoint, topic, keys, decode_detections, _BOXES_BYTES, _BOXES_QUEUE)


@dataclass(frozen=True, slots=True)
class Described:
    """What a rig is, and the text of its calibration file (YAML), None if it has none."""

    about: Description
    calibration: str | None


def describe(
    endpoint: str = "tcp://127.0.0.1:5555",
    timeout_s: float = 5.0,
    *,
    topic: str = ABOUT_TOPIC,
    keys: str | Path | KeyPair | None = None,
) -> Described:
    """Return what the rig that publishes on an endpoint is: its cameras, fuser, planes and calibration.

    `topic` is `RIG/about` behind a proxy; `keys` are as for `Subscriber`. Raises ConfigError if the endpoint makes no
    sense, KeysUnusable for the file, EndpointUnavailable if nothing answered in time.
    """
    check_endpoint(endpoint)
    end = time.monotonic() + timeout_s
    with zmq.Context() as context, _connected(context, endpoint, topic, _ABOUT_BYTES, None, keys) as socket:
        while (left_s := end - time.monotonic()) > 0:
            if socket.poll(math.ceil(1000 * min(left_s, _SLICE_S))):
                with suppress(WireError):
                    _, about, calibration = decode_description(socket.recv())
                    return Described(about, calibration or None)
    raise EndpointUnavailable(
        f"{endpoint} has not said what it is within {timeout_s:g} s; is `rtfuse run` publishing there?"
    )


async def _readable(socket: zmq.Socket[Any], timeout_s: float) -> None:
    """Wait until the socket has something to say, or for `timeout_s`.

    ZeroMQ's descriptor becomes readable when the state may have changed, and stays so until that state is asked for:
    asked before the wait, no change is missed.
    """
    import asyncio

    if int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        return
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    descriptor = int(socket.getsockopt(zmq.FD))
    loop.add_reader(descriptor, changed.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout_s)
    finally:
        loop.remove_reader(descriptor)


def _connected(
    context: zmq.Context[Any],
    endpoint: str,
    topic: str,
    max_bytes: int,
    queue: int | None,
    keys: str | Path | KeyPair | None,
) -> zmq.Socket[Any]:
    """Return a SUB socket on `endpoint`; `queue` None keeps the newest message only.

    Raises ConfigError, KeysUnusable.
    """
    options = {} if keys is None else curve_client(keys, endpoint)
    s = context.socket(zmq.SUB)
    s.setsockopt(zmq.IPV6, "[" in endpoint)
    s.setsockopt(zmq.LINGER, 0)
    s.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    keep_alive(s)
    s.setsockopt(zmq.RECONNECT_IVL, 100)
    s.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    if queue is None:
        s.setsockopt(zmq.CONFLATE, 1)
    else:
        s.setsockopt(zmq.RCVHWM, queue)
    for option, value in options.items():
        s.setsockopt(option, value)
    s.setsockopt(zmq.SUBSCRIBE, topic.encode() + b"\0")
    try:
        s.connect(endpoint)
    except zmq.ZMQError as e:
        s.close()
        raise ConfigError(
            f"{endpoint!r} is no endpoint to connect to ({zmq.strerror(e.errno or 0)}); "
            "want for example tcp://127.0.0.1:5555"
        ) from e
    return s
