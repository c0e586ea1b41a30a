"""What rigs and detectors say without a picture: statistics, changes of state, boxes, and what a rig is.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import zmq

from rtfuse.client.connection import Keys, connected, readable
from rtfuse.errors import EndpointUnavailable, RtfuseError, WireError
from rtfuse.wire.description import MAX_CALIBRATION_BYTES, Description, StateChange, decode_description, decode_state
from rtfuse.wire.detections import DETECTIONS_TOPIC, MAX_DETECTIONS_BYTES, Detections, decode_detections
from rtfuse.wire.message import MAX_HEADER_BYTES, Statistics, decode_statistics
from rtfuse.wire.names import ABOUT_TOPIC, STATE_TOPIC, STATISTICS_TOPIC

_SLICE_S = 0.5
_QUEUE = 32
_ABOUT_BYTES = MAX_CALIBRATION_BYTES + 2 * MAX_HEADER_BYTES
T = TypeVar("T")


class _MessageSubscriber(Generic[T]):
    """What subscribers to messages without a picture have in common."""

    def __init__(
        self,
        endpoint: str,
        topic: str,
        keys: Keys,
        decode: Callable[[bytes], tuple[str, T]],
        max_bytes: int,
        queue: int | None,
    ) -> None:
        self.malformed = 0
        self._decode = decode
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._socket = connected(self._context, endpoint, topic, max_bytes=max_bytes, queue=queue, keys=keys)
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
            await readable(self._socket, min(left_s, _SLICE_S))

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
        topic: str = STATISTICS_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, keys, decode_statistics, MAX_HEADER_BYTES, None)


class StateSubscriber(_MessageSubscriber[StateChange]):
    """Receives what the streams of a rig begin to do, the moment they do; first of all, what they are doing now.

    It is used as `StatisticsSubscriber` is, but every message comes in turn; 32 wait, and what is beyond is lost.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = STATE_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, keys, decode_state, MAX_HEADER_BYTES, _QUEUE)


class DetectionsSubscriber(_MessageSubscriber[Detections]):
    """Receives what a detector found, frame by frame: boxes with labels and scores, off the detector's own endpoint.

    It is used as `StatisticsSubscriber` is, but every message comes in turn; 32 wait, and what is beyond is lost.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        *,
        topic: str = DETECTIONS_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, keys, decode_detections, MAX_DETECTIONS_BYTES, _QUEUE)


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
    keys: Keys = None,
) -> Described:
    """Return what the rig that publishes on an endpoint is: its cameras, fuser, planes and calibration.

    `topic` is `RIG/about` behind a proxy; `keys` are as for `Subscriber`. Raises ConfigError if the endpoint makes no
    sense, KeysUnusable for the file, EndpointUnavailable if nothing answered in time.
    """
    end = time.monotonic() + timeout_s
    with (
        zmq.Context() as context,
        connected(context, endpoint, topic, max_bytes=_ABOUT_BYTES, queue=None, keys=keys) as socket,
    ):
        while (left_s := end - time.monotonic()) > 0:
            if socket.poll(math.ceil(1000 * min(left_s, _SLICE_S))):
                with suppress(WireError):
                    _, about, calibration = decode_description(socket.recv())
                    return Described(about, calibration or None)
    raise EndpointUnavailable(
        f"{endpoint} has not said what it is within {timeout_s:g} s; is `rtfuse run` publishing there?"
    )
