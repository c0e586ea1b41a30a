"""A live source that comes back: when it is lost, it is opened again, and again, until it is there."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol

from rtfuse.capture.clocks import ClockState
from rtfuse.errors import RtfuseError, SourceLost
from rtfuse.types import Frame, Source, SourceInfo

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 0.5
"""Between tries, doubling: what is back must be seen within a second."""


class Watcher(Protocol):
    """Who wants to know: `rtfuse.observe.health.Health`."""

    def lost(self, why: str) -> None: ...

    def found(self) -> None: ...


class Absent:
    """Stands for a live source that was not there when the run started: lost at once, and then opened again and again.

    `info` is what is asked of it, until it is there.
    """

    losses: Mapping[str, int] = {}

    def __init__(self, info: SourceInfo, why: str) -> None:
        self.info, self._why = info, why

    def __iter__(self) -> Iterator[Frame]:
        raise SourceLost(self._why)

    def close(self) -> None:
        """Nothing is open."""


class Reconnecting:
    """Wraps a live source; `reopen` gives it anew, or raises an RtfuseError while it is not there.

    Frame numbers go on rising through every return. `losses` sums over all of them, and counts `lost`: how often the
    source went away. `watcher` hears of each loss and return; `alive` is called before every try.
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
        """The source as it is open now, or was last."""
        return self._source

    @property
    def info(self) -> SourceInfo:
        return self._source.info

    @property
    def clock(self) -> ClockState:
        """What is known of the source's clock since it was opened last."""
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
                why = str(e)
            if not self._closing.is_set():
                self._return(why)

    def _return(self, why: str) -> None:
        """Open the source again, however long it takes."""
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
        """End the iteration, and the tries."""
        with self._lock:
            self._closing.set()
            self._source.close()
