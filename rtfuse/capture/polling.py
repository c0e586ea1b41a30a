"""Read an HTTP address that gives one picture for each request as a stream."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Literal

from rtfuse.capture.network import NetworkStream
from rtfuse.capture.settings import PictureOptions
from rtfuse.errors import SourceLost
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stream

_RATE_HZ = 10.0
"""Requests a second, at most, unless the user wants another rate."""
_log = logging.getLogger("rtfuse.capture")


def open_network(
    uri: str,
    stream: Stream,
    *,
    fps: float | None,
    timeout_s: float,
    transport: Literal["tcp", "udp"],
    picture: PictureOptions | None,
    clock: Clock,
) -> NetworkStream | Polled:
    """Open a network stream; one that ends after its first picture is polled. See `open_source`."""
    once = partial(
        NetworkStream, uri, stream, read_timeout_s=timeout_s, transport=transport, picture=picture, clock=clock
    )
    began_s, opened = time.monotonic(), once()
    if not opened.single:
        return opened
    return Polled(opened, partial(once, form=opened.form), opened_s=time.monotonic() - began_s, fps=fps)


class Polled:
    """Ask for one picture after the other: a snapshot's address, or a camera that ends its stream after each.

    `first`: the stream that has just been opened, a `single` one, within `opened_s` seconds. `reopen`: opens it again.
    `fps`: requests a second, fewer if the camera is slower; None: ten.
    `losses`: counts pictures that are `corrupt`. Raises what `reopen` raises, and SourceLost if a stream comes instead.
    """

    def __init__(
        self, first: NetworkStream, reopen: Callable[[], NetworkStream], *, opened_s: float, fps: float | None
    ) -> None:
        self._session, self._reopen, self._closing = first, reopen, threading.Event()
        self._period_s = 1 / (fps or _RATE_HZ)
        self._info = replace(first.info, rate_hz=1 / max(self._period_s, opened_s))
        self._past = Counter[str]()
        stream, rate_hz = first.info.stream, self._info.rate_hz
        text = (
            f"{LABELS[stream]}: {first.info.uri} gives one picture for each request; it is asked up to "
            f"{1 / self._period_s:g} times a second ({rate_hz:.1f} expected), {stream}.fps sets another rate"
        )
        event(_log, logging.INFO, "polled", text, stream=stream)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._past + self._session.losses

    def __iter__(self) -> Iterator[Frame]:
        asked_s = time.monotonic()
        for number in count():
            if not self._session.single:
                raise SourceLost(f"{self._info.uri} gives a stream now, no longer single pictures")
            with suppress(SourceLost):  # that it has ended
                for frame in self._session:
                    yield replace(frame, frame_id=number)
            if self._closing.wait(max(0.0, asked_s + self._period_s - time.monotonic())):
                return
            asked_s, past = time.monotonic(), self.losses
            session = self._reopen()
            self._past, self._session = past, session

    def close(self) -> None:
        """End the iteration before the next request."""
        self._closing.set()
        self._session.close()
