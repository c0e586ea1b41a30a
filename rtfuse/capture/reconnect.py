"""Open a live source again when it is lost, until it is back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from rtfuse.capture.backoff import Backoff
from rtfuse.capture.clocks import ClockState
from rtfuse.capture.paths import is_network
from rtfuse.errors import RtfuseError, redact
from rtfuse.types import Frame, Source, SourceInfo

_TELL_S = 10.0
"""A wait at least this long is named with the reason."""
_BEAT_S = 1.0
"""The longest time between two calls of `alive`."""


class Watcher(Protocol):
    """Takes note of losses and returns: `rtfuse.observe.health.Health`.

    `lost` is called when the source is lost, and with the newest reason after every try that fails.
    """

    def lost(self, why: str) -> None: ...

    def found(self) -> None: ...


@runtime_checkable
class Reopenable(Protocol):
    """Source that finds its device itself: a camera whose path may have changed."""

    def reopen(self) -> Source:
        """Open the same device once more. Raises DeviceUnavailable while it is absent."""
        ...


class Absent:
    """Stand in for a live source that could not be opened at the start: its first frame raises the error again.

    `info`: the values asked of the source.
    """

    losses: Mapping[str, int] = {}

    def __init__(self, info: SourceInfo, why: RtfuseError) -> None:
        self.info, self._why = info, why

    def __iter__(self) -> Iterator[Frame]:
        raise self._why

    def close(self) -> None:
        """Do nothing: nothing is open."""


class Reconnecting:
    """Wrap a live source, and open it again when it is lost. Frame numbers go on rising.

    `reopen`: opens the source; raises an RtfuseError while it is absent.
    `watcher`: is told of each loss, each failed try and each return.
    `alive`: is called before every try, and once a second between them.
    `backoff`: spaces the tries.
    `losses`: the sum over all times that the source was open; `lost` counts how often it was lost.
    """

    def __init__(
        self,
        source: Source,
        reopen: Callable[[], Source],
        *,
        watcher: Watcher | None = None,
        alive: Callable[[], None] = lambda: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._source, self._reopen, self._watcher, self._alive = source, reopen, watcher, alive
        self._backoff = backoff or Backoff(nearby=not is_network(source.info.uri))
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
            first_id, began_s, failure = next_id, time.monotonic(), None
            try:
                for frame in self._source:
                    next_id = first_id + frame.frame_id + 1
                    yield replace(frame, frame_id=next_id - 1) if first_id else frame
                why = f"{self._source.info.uri} ended"
            except (RtfuseError, OSError) as e:
                why, failure = redact(str(e)), e
            if not self._closing.is_set():
                self._backoff.ended(time.monotonic() - began_s)
                self._return(why, failure)

    def _return(self, why: str, failure: Exception | None) -> None:
        """Try to open the source until it succeeds, or until `close`."""
        past = self.losses + Counter(lost=1)
        self._source.close()
        while self._waited(why, self._backoff.wait_s(failure)):
            try:
                source = self._reopen()
            except (RtfuseError, OSError) as e:
                why, failure = redact(str(e)), e
                continue
            with self._lock:
                if self._closing.is_set():
                    source.close()
                    return
                self._past, self._source = past, source
            if self._watcher is not None:
                self._watcher.found()
            return

    def _waited(self, why: str, wait_s: float) -> bool:
        """Tell the watcher why the source is not there, and wait; return False if it was closed meanwhile."""
        if self._watcher is not None:
            self._watcher.lost(f"{why}; next try in {wait_s:.0f} s" if wait_s >= _TELL_S else why)
        end_s = time.monotonic() + wait_s
        while not self._closing.wait(max(0.0, min(end_s - time.monotonic(), _BEAT_S))):
            self._alive()
            if time.monotonic() >= end_s:
                return True
        return False

    def close(self) -> None:
        """End the iteration and the tries."""
        with self._lock:
            self._closing.set()
            self._source.close()
