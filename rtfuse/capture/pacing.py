"""Play recordings at the speed of their own times."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stamp, Stream

_SLACK_NS = 50_000_000
"""Lateness that is left to be caught up."""
_PATIENCE_NS = 1_000_000_000
"""Longest wait for the next frame of another recording."""
_SAID_NS = 1_000_000_000
"""Delay of the playback at which a line says so, and again at ten times as much."""
_TICK_S, _KEPT = 0.1, 32
_log = logging.getLogger("rtfuse.capture")


@dataclass(frozen=True, slots=True)
class Playback:
    """Play recordings at `speed` times real time (None: as fast as they are read), again and again if `loop`."""

    speed: float | None = 1.0
    loop: bool = False


def timeline(infos: Iterable[SourceInfo]) -> tuple[int, int]:
    """Return the earliest time of the recordings, and the length of one round when they loop, in nanoseconds."""
    recorded = [info for info in infos if not info.live]
    origin_ns = min((info.start_ns or 0 for info in recorded), default=0)
    return origin_ns, max((info.end_ns or 0 for info in recorded), default=0) - origin_ns


def as_played(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Yield frames of a replay, marked as those of a recording; their times stay on the recording's clock."""
    return (replace(frame, stamp=Stamp.PLAYBACK) for frame in frames)


class Playhead:
    """Play recordings together at `speed` times the pace of their own times, slower where reading cannot keep up.

    Frames of all `streams` come in the order of their times: none before each other stream has its next frame read. A
    stream that reads nothing for a second is not waited for, until it has its next frame. Each frame's time is mapped
    onto `clock`, where `origin_ns` is now. Where reading is late, all frames that have not been played are mapped that
    much later, those of the other streams too, so pairs stay pairs and the age of frames does not grow; a line says so.
    """

    def __init__(
        self, streams: Iterable[Stream], clock: Clock, stop: threading.Event, origin_ns: int, speed: float = 1.0
    ) -> None:
        self._clock, self._stop, self._speed = clock, stop, speed
        self._origin_ns, self._start_ns = origin_ns, clock()
        self._read: dict[Stream, int | None] = dict.fromkeys(streams, origin_ns - 1)
        self._changed = threading.Condition()
        self._played_ns, self._delays = origin_ns - 1, [(origin_ns - 1, 0)]
        self._said_ns = _SAID_NS

    def play(self, stream: Stream, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield the frames of one stream, each when it is due."""
        try:
            for frame in frames:
                due_ns = self._due(stream, frame.t_ns)
                if due_ns is None:
                    return
                yield replace(frame, t_ns=due_ns, stamp=Stamp.PLAYBACK, arrival_ns=self._clock())
        finally:
            with self._changed:
                self._read[stream] = None
                self._changed.notify_all()

    def _due(self, stream: Stream, t_ns: int) -> int | None:
        """Wait until a frame is due and return its time on the clock; None once stopped."""
        with self._changed:
            self._read[stream] = t_ns
            self._changed.notify_all()
            patience_ns = self._clock() + _PATIENCE_NS
            while not self._stop.is_set():
                now_ns, due_ns = self._clock(), self._mapped(t_ns)
                left_ns = max(due_ns, patience_ns if self._ahead(t_ns) else 0) - now_ns
                if left_ns <= 0:
                    self._give_up(t_ns)
                    break
                self._changed.wait(min(left_ns / 1e9, _TICK_S))
            else:
                return None
            if t_ns > self._played_ns and now_ns - due_ns > _SLACK_NS:
                self._delay(stream, now_ns - due_ns)
            self._played_ns = max(self._played_ns, t_ns)
            return self._mapped(t_ns)

    def _ahead(self, t_ns: int) -> bool:
        """Return True if another stream may still have a frame before this time."""
        return any(read is not None and read < t_ns for read in self._read.values())

    def _give_up(self, t_ns: int) -> None:
        """Stop waiting for the streams that have read nothing up to this time."""
        for stream, read in self._read.items():
            if read is not None and read < t_ns:
                self._read[stream] = None

    def _mapped(self, t_ns: int) -> int:
        """Return the time on the clock of a frame's own time."""
        delay_ns = next((delay for since, delay in reversed(self._delays) if t_ns > since), 0)
        return self._start_ns + round((t_ns - self._origin_ns) / self._speed) + delay_ns

    def _delay(self, stream: Stream, more_ns: int) -> None:
        """Map all times after the newest played one later by `more_ns`."""
        delay_ns = self._delays[-1][1] + more_ns
        self._delays = [*self._delays[-_KEPT:], (self._played_ns, delay_ns)]
        if delay_ns >= self._said_ns:
            self._said_ns = 10 * delay_ns
            played_ns = (self._played_ns - self._origin_ns) / self._speed
            _log.warning(
                "%s is read more slowly than it was recorded: played at %.2f of the pace so far, nothing is left out; "
                "rtfuse fuse takes every frame without playing, smaller recordings are read faster",
                LABELS[stream],
                played_ns / (played_ns + delay_ns),
            )
