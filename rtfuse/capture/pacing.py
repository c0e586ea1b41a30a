"""Play recordings at the speed of their own times."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from rtfuse.types import Clock, Frame, SourceInfo, Stamp


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


def paced(
    frames: Iterator[Frame], clock: Clock, stop: threading.Event, start_ns: int, origin_ns: int, speed: float = 1.0
) -> Iterator[Frame]:
    """Yield each frame when it is due, its time mapped onto the local clock: `origin_ns` is now `start_ns`."""
    for frame in frames:
        due_ns = start_ns + round((frame.t_ns - origin_ns) / speed)
        wait_s = (due_ns - clock()) / 1e9
        if wait_s > 0 and stop.wait(wait_s):
            return
        yield replace(frame, t_ns=due_ns, stamp=Stamp.PLAYBACK, arrival_ns=clock())
