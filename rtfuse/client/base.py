"""Receive messages of one topic: the part that all subscribers share.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Generic, Self, TypeVar

import zmq

from rtfuse.client.connection import Keys, connected, readable
from rtfuse.errors import RtfuseError, WireError

_SLICE_S = 0.5
T = TypeVar("T")


class BaseSubscriber(ABC, Generic[T]):
    """Receive and decode the messages of one topic. Iterate over it, or call `recv`, or `recv_async` with `await`.

    `queue`: the most messages that wait; None keeps the newest only.
    `max_bytes`: ZeroMQ refuses a longer message unread, drops the connection and tries again.
    `context`: a ZeroMQ context to share, which its owner ends; None makes one.
    `malformed`: counts messages that could not be decoded and were skipped.
    It waits for a publisher that does not run yet, and reconnects to one that restarts. Use it from one thread, or one
    task; it is a context manager. Raises ConfigError for an invalid endpoint, KeysUnusable for the file of
    `keys`.
    """

    def __init__(
        self,
        endpoint: str,
        topic: str,
        *,
        max_bytes: int,
        queue: int | None,
        keys: Keys,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self.malformed = 0
        self._owns_context = context is None
        self._context: zmq.Context[Any] = context or zmq.Context()
        self._connect = partial(connected, self._context, endpoint, topic, max_bytes=max_bytes, keys=keys)
        try:
            self._socket = self._connect(queue=queue)
        except RtfuseError:
            if self._owns_context:
                self._context.term()
            raise

    @abstractmethod
    def _decode(self, message: memoryview) -> T | None:
        """Decode a message; None if it gives nothing to return yet. Raises WireError."""

    def recv(self, timeout_s: float | None = None) -> T | None:
        """Return the next message, decoded, or None if none came within `timeout_s` (None: wait for ever)."""
        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, end - time.monotonic())
            # Never one endless wait: a Ctrl-C that arrives just before it begins would be noticed only after it.
            if self._socket.poll(math.ceil(1000 * min(left_s, _SLICE_S))):
                try:
                    received = self._decode(self._socket.recv(copy=False).buffer)
                except WireError:
                    self.malformed += 1
                else:
                    if received is not None:
                        return received
            if time.monotonic() >= end:
                return None

    async def recv_async(self, timeout_s: float | None = None) -> T | None:
        """Do as `recv`, while other tasks of the running event loop go on. A cancelled call loses no message."""
        import asyncio

        end = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while True:
            await asyncio.sleep(0)  # messages that come faster than they are read would shut the other tasks out
            received = self.recv(0)
            left_s = end - time.monotonic()
            if received is not None or left_s <= 0:
                return received
            await readable(self._socket, min(left_s, _SLICE_S))

    def __iter__(self) -> Iterator[T]:
        while True:
            received = self.recv()
            if received is not None:
                yield received

    async def __aiter__(self) -> AsyncIterator[T]:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
