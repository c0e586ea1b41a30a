"""Open a live source again when it is lost, until it is back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from rtfuse.capture.clocks import ClockState
from rtfuse.errors import RtfuseError, SourceLost, redact
from rtfuse.types import Frame, Source, SourceInfo

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 0.5
"""Seconds between two tries, doubling: a source that is back must be noticed within a second."""


class Watcher(Protocol):
    """Takes note of losses and returns: `rtfuse.observe.health.Health`."""

    def lost(self, why: str) -> None: ...

    def found(self) -> None: ...


class Absent:
    """Stand in for a live source that could not be opened at the start: its first frame raises SourceLost.

    `info`: the values asked of the source.
    """

    losses: Mapping[str, int] = {}

    def __init__(self, info: SourceInfo, why: str) -> None:
        self.info, self._why = info, why

    def __iter__(self) -> Iterator[Frame]:
        raise SourceLost(self._why)

    def close(self) -> None:
        """Do nothing: nothing is open."""


class Reconnecting:
    """Wrap a live source, and open it again when it is lost. Frame numbers go on rising.

    `reopen`: opens the source; raises an RtfuseError while it is absent.
    `watcher`: is told of each loss and return.
    `alive`: is called before every try.
    `losses`: the sum over all times that the source was open; `lost` counts how often it was lost.
    """

    def __init__(
        self,
        source: Source,
        reopen: Callable[[], Source],
        *,
        watcher: Watcher | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._reopen, self._watcher, self._alive = source, reopen, watcher, alive
        self._past: Counter[str] = Counter()
        self._closing, self._lock = threading.Event(), threading.Lock()

    @property
    def source(self) -> Source:
        """The source that is open now, or was open last."""
        return self._source

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def clock(self) -> ClockState:
        """The state of the source's clock since it was opened last."""
        return getattr(self._source, "clock", ClockState())

    @property
    def losses(self) -> Counter[str]:
        return self._past + Counter(self._source.losses)

    def __iter__(self) -> Iterator[Frame]:
        next_id = 0
        while not self._closing.is_set():
            first_id = next_id
            try:
                for frame in self._source:
                    next_id = first_id + frame.frame_id + 1
                    yield replace(frame, frame_id=next_id - 1) if first_id else frame
                why = f"{self._source.info.uri} ended"
            except (RtfuseError, OSError) as e:
                why = redact(str(e))
            if not self._closing.is_set():
                self._return(why)

    def _return(self, why: str) -> None:
        """Try to open the source until it succeeds, or until `close`."""
        past = self.losses + Counter(lost=1)
        if self._watcher is not None:
            self._watcher.lost(why)
        self._source.close()
        wait_s = _FIRST_WAIT_S
        while not self._closing.wait(wait_s):
            self._alive()
            try:
                source = self._reopen()
            except RtfuseError:
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            with self._lock:
                if self._closing.is_set():
                    source.close()
                    return
                self._past, self._source = past, source
            if self._watcher is not None:
                self._watcher.found()
            return

    def close(self) -> None:
        """End the iteration and the tries."""
        with self._lock:
            self._closing.set()
            self._source.close()
