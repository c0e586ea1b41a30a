"""Two streams into pairs: thermal and RGB frames that show the same moment, every other frame counted.

The RGB stream leads: it gives the output its rate, size and times. Under the policy `lead` every RGB frame takes
the nearest thermal frame within the tolerance, or, when the thermal camera is slower, the latest one that is not
older than `max_reuse`. Under `strict` a pair is made only of frames that are each other's nearest, so none is used
twice.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rtfuse.types import Frame, Pair, Stream

Policy = Literal["lead", "strict"]

NO_IR = "no_ir"
"""An RGB frame with no thermal frame near enough."""
NO_RGB = "no_rgb"
"""A thermal frame with no RGB frame within the tolerance."""
SUPERSEDED = "superseded"
"""A frame whose nearest partner had a nearer one."""
LATE = "late"
"""A frame that arrived after its moment had been decided, or repeats a moment."""

_MAX_WAITING = 64
"""Thermal frames kept while no RGB frame comes: a lost camera must not fill the memory."""


@dataclass(slots=True)
class _Entry:
    """A frame waiting in a `Pairer`: its corrected time and what has happened to it."""

    t_ns: int
    frame: Frame
    used: bool = False
    near: bool = False


def _time(entry: _Entry) -> int:
    return entry.t_ns


class Pairer:
    """Pairs two streams by capture time.

    `tolerance_ns` is the largest skew of a pair. `max_reuse_ns` is how old, at the RGB frame's capture time, a
    thermal frame may be when none is within the tolerance (`lead` only). `wait_ns` is how long after its arrival
    an RGB frame waits for a thermal frame that could be nearer; None waits until the streams themselves settle
    it, which is right for recordings. `offset_ns` is added to a stream's times before they are compared: a camera
    that stamps 30 ms late has -30 ms.

    `push` takes frames of one stream in any order; those that come after their moment was decided are dropped.
    `drops` counts unpaired frames by (stream, cause).
    """

    def __init__(
        self,
        *,
        policy: Policy = "lead",
        tolerance_ns: int,
        max_reuse_ns: int = 0,
        wait_ns: int | None = None,
        offset_ns: Mapping[Stream, int] | None = None,
    ) -> None:
        self.policy = policy
        self.tolerance_ns = tolerance_ns
        self.max_reuse_ns = max_reuse_ns if policy == "lead" else 0
        self.wait_ns = wait_ns
        self.drops: Counter[tuple[Stream, str]] = Counter()
        self.offset_ns = {"ir": 0, "rgb": 0, **(offset_ns or {})}
        self._ir: list[_Entry] = []
        self._rgb: list[_Entry] = []
        self._last_rgb: int | None = None
        self._ended: set[Stream] = set()

    def push(self, frame: Frame) -> None:
        """Add a frame; it is paired or counted by later calls of `pairs` and `finish`."""
        entry = _Entry(frame.t_ns + self.offset_ns[frame.stream], frame)
        if frame.stream == "rgb":
            late = self._last_rgb is not None and entry.t_ns <= self._last_rgb
        else:
            late = bool(self._ir) and self._last_rgb is not None and entry.t_ns < self._ir[0].t_ns <= self._last_rgb
            entry.near = self._last_rgb is not None and abs(entry.t_ns - self._last_rgb) <= self.tolerance_ns
        if late:
            self.drops[frame.stream, LATE] += 1
        else:
            bisect.insort(self._rgb if frame.stream == "rgb" else self._ir, entry, key=_time)
        if len(self._ir) > _MAX_WAITING:
            self._count_unused(self._ir.pop(0))

    def end(self, stream: Stream) -> None:
        """Say that no further frame of this stream will come, so nothing waits for one."""
        self._ended.add(stream)

    def pairs(self, now_ns: int | None = None) -> list[Pair]:
        """Return the pairs that are certain, in order of RGB time.

        `now_ns` is the time, on the clock of the frames' `arrival_ns`, against which `wait_ns` is judged.
        """
        found = []
        while self._rgb and self._settled(self._rgb[0], now_ns):
            rgb = self._rgb.pop(0)
            if rgb.t_ns == self._last_rgb:
                self.drops["rgb", LATE] += 1
                continue
            pair = self._decide(rgb)
            if pair is not None:
                found.append(pair)
            self._last_rgb = rgb.t_ns
            self._forget(rgb.t_ns)
        return found

    def finish(self) -> list[Pair]:
        """End both streams: return the last pairs and count every frame that is left."""
        self.end("ir")
        self.end("rgb")
        found = self.pairs()
        for entry in self._ir:
            self._count_unused(entry)
        self._ir.clear()
        return found

    @property
    def waiting(self) -> bool:
        """Whether an RGB frame is still undecided."""
        return bool(self._rgb)

    @property
    def deadline_ns(self) -> int | None:
        """When the oldest waiting RGB frame will be decided even if nothing more arrives; None: not by time."""
        if not self._rgb or self.wait_ns is None:
            return None
        return self._rgb[0].frame.arrival_ns + self.wait_ns

    def _settled(self, rgb: _Entry, now_ns: int | None) -> bool:
        """Whether no frame that may still come in order could change the decision on this RGB frame."""
        deadline = self.deadline_ns
        if now_ns is not None and deadline is not None and now_ns >= deadline:
            return True
        if "ir" not in self._ended and not (self._ir and self._ir[-1].t_ns >= rgb.t_ns):
            return False
        nearest = self._nearest(rgb.t_ns)
        if self.policy == "lead" or nearest is None or nearest.t_ns <= rgb.t_ns or "rgb" in self._ended:
            return True
        return bool(self._rgb) and self._rgb[-1].t_ns >= nearest.t_ns

    def _nearest(self, t_ns: int) -> _Entry | None:
        """Return the thermal frame nearest to this time, the earlier of two equals."""
        at = bisect.bisect_left(self._ir, t_ns, key=_time)
        around = self._ir[max(at - 1, 0) : at + 1]
        # Several frames may carry the very same time: of those before, take the first to arrive.
        if around and around[0].t_ns < t_ns:
            first = bisect.bisect_left(self._ir, around[0].t_ns, key=_time)
            around[0] = self._ir[first]
        return min(around, key=lambda e: abs(e.t_ns - t_ns), default=None)

    def _decide(self, rgb: _Entry) -> Pair | None:
        for entry in self._ir:
            entry.near |= abs(entry.t_ns - rgb.t_ns) <= self.tolerance_ns
        ir = self._nearest(rgb.t_ns)
        if ir is not None and abs(ir.t_ns - rgb.t_ns) > self.tolerance_ns:
            ir = self._reusable(rgb.t_ns)
        if ir is None:
            self.drops["rgb", NO_IR] += 1
            return None
        if self.policy == "strict" and (ir.used or self._nearer_rgb(ir, rgb)):
            self.drops["rgb", SUPERSEDED] += 1
            return None
        pair = Pair(ir.frame, rgb.frame, reused=ir.used, skew_ns=ir.t_ns - rgb.t_ns)
        ir.used = True
        return pair

    def _reusable(self, t_ns: int) -> _Entry | None:
        at = bisect.bisect_right(self._ir, t_ns, key=_time)
        if at == 0 or t_ns - self._ir[at - 1].t_ns > self.max_reuse_ns:
            return None
        return self._ir[bisect.bisect_left(self._ir, self._ir[at - 1].t_ns, key=_time)]

    def _nearer_rgb(self, ir: _Entry, rgb: _Entry) -> bool:
        """Whether the RGB frame before or after `rgb` is nearer to `ir`; the earlier of two equals wins."""
        distance = abs(ir.t_ns - rgb.t_ns)
        if self._last_rgb is not None and abs(ir.t_ns - self._last_rgb) <= distance:
            return True
        return bool(self._rgb) and abs(ir.t_ns - self._rgb[0].t_ns) < distance

    def _forget(self, t_ns: int) -> None:
        """Let go of thermal frames that can be nearest to no RGB frame after this time."""
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
