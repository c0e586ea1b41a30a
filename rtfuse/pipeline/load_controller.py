"""Notice that a rig has too little processor, and lower one thing after another until it has enough.

`LoadController` decides from ages, costs and losses of frames, without threads and clocks; `steps` has what it lowers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

_MS, _INF = 1_000_000, float("inf")
_WINDOW_NS, _LONG_NS, _ENOUGH = 250 * _MS, 1_000 * _MS, 3
"""Frames are judged together in windows of this length, or until there are enough, but no longer than this."""
_START_NS = 3_000 * _MS
"""The first frames are not judged: everything is still being started."""
_SHARE = 0.75
"""This share of a window's frames is younger than the age that it is judged by: one slow frame does not count."""
_LATE, _SEVERE, _CALM = 2.0, 3.0, 1.5
"""Ages in frame periods: too old; so old that one window is enough; young enough."""
_LOST, _FEW = 0.25, 0.1
"""Shares of the frames that are lost for lack of processor: too many; few enough."""
_OWN = 1.5
"""Frames may be so many times as old as the cost of a fuser that was chosen by name."""
_WAITING, _WARY = 0.3, 0.25
"""While tasks wait for a processor in more than this share of the time, calm counts by this factor."""
_FRESH_NS, _TRIAL_NS, _PROVEN_NS = 3_000 * _MS, 10_000 * _MS, 60_000 * _MS
"""After a lift: one late window undoes it; a step down is its failure; it has succeeded."""
_HOLD_NS, _LONGEST_NS = 10_000 * _MS, 300_000 * _MS
"""The calm before a lift: at first, and at most, as each failure doubles it."""
_SLOW = 3
"""So many windows in which a fuser that stays costs more than a period, and it is too slow."""
_SPAN_NS = 30_000 * _MS
"""The youngest frame is that of the present and the previous span of this length."""


class Step(Protocol):
    """Part of the rig that may be lowered, once or by several degrees."""

    @property
    def lowered(self) -> str | None:
        """The state of the part, in words; None if it is not lowered."""
        ...

    @property
    def can_lower(self) -> bool:
        """True if lowering it would help now."""
        ...

    @property
    def can_lift(self) -> bool:
        """True if it is lowered, and may have room to be lifted."""
        ...

    def lower(self) -> str:
        """Lower it by one degree; returns how it is now, in words."""
        ...

    def lift(self) -> str:
        """Lift it by one degree; returns how it is now, in words."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """Step down or up: the new state of the part, and the reason, in words."""

    down: bool
    what: str
    why: str


@dataclass(frozen=True, slots=True)
class _Window:
    """Sum up a window: an age that most frames did not reach, the shares of frames lost and of time waited."""

    length_ns: int
    age_ns: float
    lost: float
    waiting: float

    @property
    def said(self) -> str:
        """The evidence in words."""
        said = [f"frames are {self.age_ns / _MS:.0f} ms old"] if self.age_ns < _INF else []
        said += [f"{self.lost:.0%} are lost"] if self.lost > _FEW else []
        said += (
            [f"tasks wait for a processor {min(self.waiting, 1.0):.0%} of the time"] if self.waiting > _WAITING else []
        )
        return ", ".join(said)


class LoadController:
    """Lower the first of `steps` that can be while frames are late; lift the last one after a calm.

    - `period_ns`: time from one frame to the next.
    - `patient`: the fuser stays, so frames may be as old as its own cost makes them.

    Call `frame` with the age of every frame at the sink, `cost` with the time that it took to be fused, and `look`
    often. A window is late if its frames are older than two periods, and more than a period older than the youngest of
    the last minute (which is what the cameras take), or if a quarter of them is lost for lack of processor. Two late
    windows in a row make a step; one is enough if frames are older than three periods or come too rarely, or just after
    a lift.
    """

    def __init__(self, steps: Sequence[Step], period_ns: float, *, patient: bool = False) -> None:
        self.steps, self._period_ns, self._patient = steps, period_ns, patient
        self.pressed = False
        """True while frames are late: then only the newest one is worth fusing."""
        self.stuck: str | None = None
        """The reason why frames stay late or lost although other parts are lowered, until a calm ends it."""
        self._ages, self._costs = list[int](), list[int]()
        self._start_ns: int | None = None
        self._begun_ns = 0
        self._lost, self._waited_ns = 0, 0
        self._late, self._slow, self._calm_ns, self._hold_ns = 0, 0, 0.0, _HOLD_NS
        self._lifted_ns: int | None = None
        self._stepped_ns = 0
        self._youngest, self._own_ns = _Youngest(), 0.0

    @property
    def lowered(self) -> tuple[str, ...]:
        """The lowered parts, in words."""
        return tuple(text for step in self.steps if (text := step.lowered) is not None)

    def frame(self, age_ns: int) -> None:
        """Note the age of a frame at the sink, from any thread."""
        self._ages.append(age_ns)

    def cost(self, spent_ns: int) -> None:
        """Note how long a frame took to be fused, from the thread that calls `look`."""
        self._costs.append(spent_ns)

    def due(self, now_ns: int) -> bool:
        """Return True if a window has ended; before, `look` does nothing."""
        length_ns = now_ns - self._begun_ns
        if self._start_ns is None:
            return bool(self._ages)
        return length_ns >= _LONG_NS or (length_ns >= _WINDOW_NS and len(self._ages) >= _ENOUGH)

    def look(self, now_ns: int, *, lost: int = 0, waited_ns: int = 0) -> Change | None:
        """Judge the frames of the window that has just ended, if one has; returns the step that was made.

        `lost`: frames lost so far for lack of processor. `waited_ns`: time so far in which tasks waited for a
        processor; 0 where the system does not say.
        """
        if not self.due(now_ns):
            return None
        if self._start_ns is None:
            self._start_ns = now_ns + _START_NS
        early, length_ns = self._begun_ns < self._start_ns, now_ns - self._begun_ns
        ages, costs, more, waited = self._ages, self._costs, max(lost - self._lost, 0), waited_ns - self._waited_ns
        self._begin(now_ns, lost, waited_ns)
        if early or not (ages or more):  # a camera that is away says nothing about the processor
            return None
        self._youngest.add(now_ns, min(ages, default=_INF))
        if costs:
            self._own_ns = min(self._own_ns or _INF, median(costs))
        age_ns = sorted(ages)[min(int(_SHARE * len(ages)), len(ages) - 1)] if ages else _INF
        return self._judge(now_ns, _Window(length_ns, age_ns, more / (more + len(ages)), waited / length_ns))

    def _begin(self, now_ns: int, lost: int, waited_ns: int) -> None:
        self._begun_ns, self._lost, self._waited_ns = now_ns, lost, waited_ns
        self._ages, self._costs = [], []

    def _judge(self, now_ns: int, seen: _Window) -> Change | None:
        since_ns = _INF if self._lifted_ns is None else now_ns - self._lifted_ns
        own_ns = self._own_ns if self._patient else 0.0
        self._slow = self._slow + 1 if own_ns > self._period_ns else 0
        if self._slow >= _SLOW:
            took = f"it takes {own_ns / _MS:.0f} ms to fuse a frame, {self._period_ns / _MS:.0f} ms are there"
            self.stuck = self.stuck or took
        lossy = seen.lost > _LOST and own_ns < self._period_ns
        self.pressed = lossy or seen.age_ns > self._limit_ns(_LATE, 1.0)
        if self.pressed:
            severe = seen.age_ns > _SEVERE * self._period_ns or seen.length_ns >= _LONG_NS
            hasty = severe or since_ns < _FRESH_NS
            self._late, self._calm_ns = self._late + (2 if hasty else 1), 0.0
            return self._down(now_ns, seen, since_ns) if self._late >= 2 else None
        self._late = 0
        if seen.age_ns < self._limit_ns(_CALM, 0.5) and seen.lost < _FEW:
            self._calm_ns += seen.length_ns * (_WARY if seen.waiting > _WAITING else 1.0)
        else:
            self._calm_ns = max(0.0, self._calm_ns - 4 * seen.length_ns)
        if self._calm_ns < self._hold_ns:
            return None
        self.stuck = None if self._slow == 0 else self.stuck
        return self._up(now_ns)

    def _limit_ns(self, periods: float, more: float) -> float:
        """Return the age of so many periods, or so many periods more than the cameras, or a patient fuser, take."""
        young_ns = self._youngest.ns if self._youngest.ns < _INF else 0.0
        least_ns = max(young_ns, _OWN * self._own_ns if self._patient else 0.0)
        return max(periods * self._period_ns, least_ns + more * self._period_ns)

    def _down(self, now_ns: int, seen: _Window, since_ns: float) -> Change | None:
        if (step := next((step for step in self.steps if step.can_lower), None)) is None:
            if now_ns - self._stepped_ns >= _FRESH_NS:  # the last step may not have shown its effect yet
                self.stuck = self.stuck or seen.said
            return None
        if since_ns < _TRIAL_NS:
            self._hold_ns = min(2 * self._hold_ns, _LONGEST_NS)
        elif since_ns >= _PROVEN_NS:
            self._hold_ns = _HOLD_NS
        self._late, self._lifted_ns, self._stepped_ns = 0, None, now_ns
        return Change(True, step.lower(), seen.said)

    def _up(self, now_ns: int) -> Change | None:
        if (step := next((step for step in reversed(self.steps) if step.can_lift), None)) is None:
            return None
        self._calm_ns, self._lifted_ns = 0.0, now_ns
        return Change(False, step.lift(), "frames are in time again")


class _Youngest:
    """Least age of the present and the previous span."""

    def __init__(self) -> None:
        self._before = self._now = _INF
        self._begun_ns = 0

    @property
    def ns(self) -> float:
        return min(self._before, self._now)

    def add(self, now_ns: int, age_ns: float) -> None:
        if now_ns - self._begun_ns >= _SPAN_NS:
            self._begun_ns, self._before, self._now = now_ns, self._now, _INF
        self._now = min(self._now, age_ns)
