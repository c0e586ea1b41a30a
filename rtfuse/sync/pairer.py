"""Pair two streams by capture time: thermal and RGB frames of the same moment; every other frame is counted.

The RGB stream leads: it gives the output its rate, size and times. Under the policy `lead` every RGB frame takes
the nearest thermal frame within the tolerance, or, when the thermal camera is slower, the latest one that is not
older than `max_reuse`. Under `strict` a pair is made only of frames that are each other's nearest, so none is used
twice.

While one stream is missing (lost, stalled, or frozen: sending an old picture again), those of the other come alone.
Decisions depend only on the frames, their times and the times of their arrival, so that a recording of them is paired
again exactly as they were.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from rtfuse.sync.settings import PairingPolicy
from rtfuse.types import Frame, Moment, Pair, Stream

NO_IR = "no_ir"
"""An RGB frame with no thermal frame near enough."""
NO_RGB = "no_rgb"
"""A thermal frame with no RGB frame within the tolerance."""
SUPERSEDED = "superseded"
"""A frame whose nearest partner had a nearer one."""
LATE = "late"
"""A frame that arrived after its moment had been decided, or repeats a moment."""
FROZEN = "frozen"
"""A frame that repeats an older picture, or was taken behind a closed shutter."""

_MAX_WAITING = 64
"""Thermal frames kept while no RGB frame comes: a lost camera must not fill the memory."""


@dataclass(slots=True)
class _Entry:
    """Frame waiting in a `Pairer`: its corrected time and its state."""

    t_ns: int
    frame: Frame
    used: bool = False
    near: bool = False


def _time(entry: _Entry) -> int:
    return entry.t_ns


class Pairer:
    """Pair two streams by capture time.

    `tolerance_ns` is the largest skew of a pair. `max_reuse_ns` is how old, at the RGB frame's capture time, a
    thermal frame may be when none is within the tolerance (`lead` only). `wait_ns` is how long after its arrival
    an RGB frame waits for a thermal frame that could be nearer; None waits until the streams themselves settle
    it, which is right for recordings. `offset_ns` is added to a stream's times before they are compared: a camera
    that stamps 30 ms late has -30 ms.

    `alone_after_ns`: when the newest picture of a stream is older than this, frames of the other come out alone; None:
    never. `shutter_ns` takes the place of `max_reuse_ns` while thermal frames are frozen, if it is longer.

    `push` takes frames of one stream in any order; those that come after their moment was decided are dropped.
    `drops` counts unpaired frames by (stream, cause).
    """

    def __init__(
        self,
        *,
        policy: PairingPolicy = "lead",
        tolerance_ns: int,
        max_reuse_ns: int = 0,
        wait_ns: int | None = None,
        offset_ns: Mapping[Stream, int] | None = None,
        alone_after_ns: Mapping[Stream, int] | None = None,
        shutter_ns: int = 0,
    ) -> None:
        self.policy = policy
        self.tolerance_ns = tolerance_ns
        self.max_reuse_ns = max_reuse_ns if policy == "lead" else 0
        self.shutter_ns = max(shutter_ns if policy == "lead" else 0, self.max_reuse_ns)
        self.wait_ns, self.alone_after_ns = wait_ns, alone_after_ns
        self.drops: Counter[tuple[Stream, str]] = Counter()
        self.offset_ns = {"ir": 0, "rgb": 0, **(offset_ns or {})}
        self._ir: list[_Entry] = []
        self._rgb: list[_Entry] = []
        self._last_rgb: int | None = None
        self._decided: int | None = None
        """No output may be earlier than this any more: the time of the last decided RGB or lone frame."""
        self._first: int | None = None
        """Capture time of the first frame of either stream: from then on both are expected."""
        self._shown: dict[Stream, int] = {}
        """Capture time of the newest picture of each stream."""
        self._frozen: dict[Stream, int] = {}
        """Capture time of the newest frame that repeated an older picture."""
        self._ended: set[Stream] = set()

    def push(self, frame: Frame) -> None:
        """Add a frame; it is paired, comes out alone, or is counted by later calls of `moments` and `finish`."""
        stream, t_ns = frame.stream, frame.t_ns + self.offset_ns[frame.stream]
        self._first = t_ns if self._first is None else self._first
        newest = self._frozen if frame.frozen else self._shown
        newest[stream] = max(t_ns, newest.get(stream, t_ns))
        if frame.frozen:
            self.drops[stream, FROZEN] += 1
            return
        entry, last = _Entry(t_ns, frame), self._last_rgb
        if stream == "rgb":
            late = self._decided is not None and t_ns <= self._decided
        else:
            late = bool(self._ir) and last is not None and t_ns < self._ir[0].t_ns <= last
            entry.near = last is not None and abs(t_ns - last) <= self.tolerance_ns
        if late:
            self.drops[stream, LATE] += 1
        else:
            bisect.insort(self._rgb if stream == "rgb" else self._ir, entry, key=_time)
        if len(self._ir) > _MAX_WAITING:
            self._count_unused(self._ir.pop(0))

    def end(self, stream: Stream) -> None:
        """Say that no further frame of this stream will come, so nothing waits for one."""
        self._ended.add(stream)

    def pairs(self, now_ns: int | None = None) -> list[Pair]:
        """Return those of `moments` that are pairs."""
        return [moment for moment in self.moments(now_ns) if isinstance(moment, Pair)]

    def moments(self, now_ns: int | None = None) -> list[Moment]:
        """Return the pairs, and the frames alone, that are certain, in order of their times.

        `now_ns` is the time, on the clock of the frames' `arrival_ns`, against which `wait_ns` is judged.
        """
        found: list[Moment] = []
        while self._rgb and self._settled(self._rgb[0], now_ns):
            rgb = self._rgb.pop(0)
            if rgb.t_ns == self._last_rgb:
                self.drops["rgb", LATE] += 1
                continue
            moment = self._decide(rgb)
            if moment is not None:
                found.append(moment)
            self._last_rgb = self._decided = rgb.t_ns
            self._forget(rgb.t_ns)
        while not self._rgb and (lone := self._lone()) and self._due(lone, now_ns):
            lone.used = True
            self._decided = lone.t_ns
            self._forget(lone.t_ns)
            found.append(Moment.alone(lone.frame))
        return found

    def finish(self) -> list[Pair]:
        """End both streams: return the last pairs and count every frame that is left; none goes alone any more."""
        self.alone_after_ns = None
        self.end("ir")
        self.end("rgb")
        found = self.pairs()
        for entry in self._ir:
            self._count_unused(entry)
        self._ir.clear()
        return found

    @property
    def waiting(self) -> bool:
        """True while an RGB frame is undecided."""
        return bool(self._rgb)

    @property
    def deadline_ns(self) -> int | None:
        """Time at which the oldest waiting frame is decided even if nothing more arrives; None: not by time."""
        waiting = self._rgb[0] if self._rgb else self._lone()
        if waiting is None or self.wait_ns is None:
            return None
        return waiting.frame.arrival_ns + self.wait_ns

    def _settled(self, rgb: _Entry, now_ns: int | None) -> bool:
        """Return True once no in-order arrival can change the decision on this RGB frame."""
        if self._overdue(now_ns):
            return True
        if "ir" not in self._ended and not self._passed("ir", rgb.t_ns):
            return False
        nearest = self._nearest(rgb.t_ns)
        if self.policy == "lead" or nearest is None or nearest.t_ns <= rgb.t_ns or "rgb" in self._ended:
            return True
        return bool(self._rgb) and self._rgb[-1].t_ns >= nearest.t_ns

    def _overdue(self, now_ns: int | None) -> bool:
        deadline = self.deadline_ns
        return now_ns is not None and deadline is not None and now_ns >= deadline

    def _passed(self, stream: Stream, t_ns: int) -> bool:
        """Return True if the stream, in its order, has reached this time, even with a frozen frame."""
        return any(newest.get(stream, t_ns - 1) >= t_ns for newest in (self._shown, self._frozen))

    def _lone(self) -> _Entry | None:
        """Return the oldest thermal frame that RGB is missing for."""
        if self.alone_after_ns is None or self._first is None:
            return None
        missing = self._shown.get("rgb", self._first) + self.alone_after_ns["rgb"]
        from_ns = missing if self._decided is None else max(missing, self._decided + 1)
        at = bisect.bisect_left(self._ir, from_ns, key=_time)
        return next((entry for entry in self._ir[at:] if not entry.used), None)

    def _due(self, lone: _Entry, now_ns: int | None) -> bool:
        """Return True if no RGB frame of this time can come any more, or its wait is over."""
        return self._passed("rgb", lone.t_ns) or self._overdue(now_ns)

    def _nearest(self, t_ns: int) -> _Entry | None:
        """Return the thermal frame nearest to this time, the earlier of two equals."""
        at = bisect.bisect_left(self._ir, t_ns, key=_time)
        around = self._ir[max(at - 1, 0) : at + 1]
        # Several frames may carry the very same time: of those before, take the first to arrive.
        if around and around[0].t_ns < t_ns:
            first = bisect.bisect_left(self._ir, around[0].t_ns, key=_time)
            around[0] = self._ir[first]
        return min(around, key=lambda e: abs(e.t_ns - t_ns), default=None)

    def _decide(self, rgb: _Entry) -> Moment | None:
        for entry in self._ir:
            entry.near |= abs(entry.t_ns - rgb.t_ns) <= self.tolerance_ns
        ir = self._nearest(rgb.t_ns)
        if ir is not None and abs(ir.t_ns - rgb.t_ns) > self.tolerance_ns:
            ir = self._reusable(rgb.t_ns)
        if ir is None:
            if self._missing_ir(rgb.t_ns):
                return Moment.alone(rgb.frame)
            self.drops["rgb", NO_IR] += 1
            return None
        if self.policy == "strict" and (ir.used or self._nearer_rgb(ir, rgb)):
            self.drops["rgb", SUPERSEDED] += 1
            return None
        pair = Pair(ir.frame, rgb.frame, reused=ir.used, skew_ns=ir.t_ns - rgb.t_ns)
        ir.used = True
        return pair

    def _missing_ir(self, t_ns: int) -> bool:
        """Return True if thermal has shown nothing for so long before this time that RGB goes on alone."""
        if self.alone_after_ns is None or self._first is None:
            return False
        at = bisect.bisect_right(self._ir, t_ns, key=_time)
        return t_ns - (self._ir[at - 1].t_ns if at else self._first) >= self.alone_after_ns["ir"]

    def _reusable(self, t_ns: int) -> _Entry | None:
        at = bisect.bisect_right(self._ir, t_ns, key=_time)
        if at == 0:
            return None
        last_ns = self._ir[at - 1].t_ns
        frozen = self._frozen.get("ir", last_ns) > last_ns
        if t_ns - last_ns > (self.shutter_ns if frozen else self.max_reuse_ns):
            return None
        return self._ir[bisect.bisect_left(self._ir, self._ir[at - 1].t_ns, key=_time)]

    def _nearer_rgb(self, ir: _Entry, rgb: _Entry) -> bool:
        """Return True if the RGB frame before or after `rgb` is nearer to `ir`; the earlier of two equals wins."""
        distance = abs(ir.t_ns - rgb.t_ns)
        if self._last_rgb is not None and abs(ir.t_ns - self._last_rgb) <= distance:
            return True
        return bool(self._rgb) and abs(ir.t_ns - self._rgb[0].t_ns) < distance

    def _forget(self, t_ns: int) -> None:
        """Drop thermal frames that cannot be nearest to an RGB frame after this time."""
        at = bisect.bisect_right(self._ir, t_ns, key=_time)
        if at == 0:
            return
        keep = bisect.bisect_left(self._ir, self._ir[at - 1].t_ns, key=_time)
        for entry in self._ir[:keep]:
            self._count_unused(entry)
        del self._ir[:keep]

    def _count_unused(self, entry: _Entry) -> None:
        if not entry.used:
            self.drops["ir", SUPERSEDED if entry.near else NO_RGB] += 1
