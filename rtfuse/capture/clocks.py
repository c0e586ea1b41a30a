"""Map the times of other clocks onto the local monotonic clock, and bridge clocks that jump."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

_MS = 1_000_000
_BUCKET_NS = 1_000 * _MS
_BUCKETS = 120
"""The length of the envelope: two minutes, one point a second."""
_FIRST_FIT_NS = 10_000 * _MS
"""The shortest span over which drift is measured; before, it is 0."""
_STEEPEST = 500e-6
"""The largest drift of a quartz; more is a change of delay."""
_NO_CLOCK = 5000e-6
"""Times that drift faster do not come from a clock: some streams carry a nominal rate instead."""
_STEP_NS = 200 * _MS
_LATER_FRAMES, _LATER_NS = 15, 1_000 * _MS


@dataclass(frozen=True, slots=True)
class ClockState:
    """Describe a source's clock: how much faster than the local one it runs, and how often it jumped."""

    drift_ppm: float | None = None
    steps: int = 0


class ClockMap:
    """Map a stream's own times (ns) onto the local clock, by the arrival of its frames.

    Each frame arrives some delay after its capture. The delay varies above a least value. So the lower envelope of
    arrival minus source time is the difference of the clocks plus that value, and its slope is their drift (Moon,
    Skelly & Towsley, "Estimation and removal of clock skew from network delay measurements", 1999). The mapped time is
    therefore the capture plus the least delay; it is never later than the arrival. A burst after a pause lies above
    the envelope and does not move it. After a jump, a wrap
    or a restart of the source's clock the envelope begins again.

    `steps`: the number of such restarts.
    `believed`: False once the source's times turn out not to come from a clock; then the arrival is returned.
    `lowered_ns`: how far the last frame lowered the envelope; all frames before it were mapped so much too late.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.believed = True
        self.lowered_ns = 0.0
        self._points: deque[tuple[int, int]] = deque(maxlen=_BUCKETS)
        self._restart()

    def _restart(self) -> None:
        self._points.clear()
        self._bucket: int | None = None
        self._last_ns: int | None = None
        self._line: tuple[int, float, float] | None = None
        self._later: deque[tuple[int, int]] = deque(maxlen=_LATER_FRAMES)
        self._drift: float | None = None

    @property
    def state(self) -> ClockState:
        """The drift (None until it is known) and the steps."""
        return ClockState(None if self._drift is None else -1e6 * self._drift, self.steps)

    def __call__(self, source_ns: int, arrival_ns: int) -> int:
        """Return the local time of a frame with the stream's time `source_ns` that arrived at `arrival_ns`."""
        if not self.believed:
            return arrival_ns
        if self._stepped(source_ns, arrival_ns):
            self.steps += 1
            self._restart()
        offset = arrival_ns - source_ns
        self._last_ns = source_ns
        self._note(source_ns, offset)
        return min(source_ns + round(self._offset(source_ns)), arrival_ns)

    def _offset(self, source_ns: int) -> float:
        """Return the envelope's offset at a source time."""
        assert self._line is not None
        at_ns, offset, slope = self._line
        return offset + slope * (source_ns - at_ns)

    def _note(self, source_ns: int, offset: int) -> None:
        bucket = source_ns // _BUCKET_NS
        if bucket != self._bucket:
            self._bucket = bucket
            self._points.append((source_ns, offset))
            self._fit()
        elif offset < self._points[-1][1]:
            self._points[-1] = (source_ns, offset)
        at_ns, height, slope = self._line or (source_ns, float(offset), 0.0)
        self.lowered_ns = max(height + slope * (source_ns - at_ns) - offset, 0.0)
        self._line = (at_ns, height - self.lowered_ns, slope)

    def _fit(self) -> None:
        """Lay the line under all points, with the slope of their lower hull in the middle of the span."""
        first, last = self._points[0][0], self._points[-1][0]
        slope = 0.0
        if last - first >= _FIRST_FIT_NS:
            middle = (first + last) // 2
            hull = _lower_hull(list(self._points)[:-1])  # the last bucket is not complete
            for (s0, o0), (s1, o1) in pairwise(hull):
                if s0 <= middle <= s1:
                    slope = (o1 - o0) / (s1 - s0)
            self.believed = abs(slope) < _NO_CLOCK
            self._drift = slope = min(max(slope, -_STEEPEST), _STEEPEST)
        height = min(o - slope * (s - last) for s, o in self._points)
        self._line = (last, height, slope)

    def _stepped(self, source_ns: int, arrival_ns: int) -> bool:
        """Return True if this frame shows that the source's clock has jumped."""
        if self._last_ns is None or self._line is None:
            return False
        late_ns = arrival_ns - source_ns - self._offset(source_ns)
        if late_ns < -_STEP_NS or source_ns < self._last_ns - _BUCKET_NS:
            return True
        # A jump back looks like a delay. A real delay shrinks as the backlog arrives; a jump stays.
        if late_ns < _LATER_NS:
            self._later.clear()
            return False
        self._later.append((source_ns, arrival_ns - source_ns))
        offsets = [offset for _, offset in self._later]
        lasting = self._later[-1][0] - self._later[0][0] > 300 * _MS
        return len(self._later) == _LATER_FRAMES and lasting and max(offsets) - min(offsets) < _STEP_NS


def _lower_hull(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the lower convex hull of points that rise in x (Andrew's monotone chain)."""
    hull: list[tuple[int, int]] = []
    for x, y in points:
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (x1 - x0) * (y - y0) > (y1 - y0) * (x - x0):
                break
            hull.pop()
        if not hull or x > hull[-1][0]:
            hull.append((x, y))
    return hull


class ClockGuard:
    """Correct a camera's times after a jump of its clock: the wall clock in a driver, a reset of the firmware.

    A time more than 150 ms after its arrival, or more than 1 s before the last one, is a jump. From then on the times
    are shifted to their usual distance before the arrival. `steps` counts the jumps.
    """

    _AHEAD_NS, _BACK_NS = 150 * _MS, 1_000 * _MS

    def __init__(self) -> None:
        self.steps = 0
        self._shift_ns = 0
        self._last_ns: int | None = None
        self._latencies: deque[int] = deque(maxlen=31)

    @property
    def state(self) -> ClockState:
        """The steps; these times come from the local clock and have no drift."""
        return ClockState(None, self.steps)

    def __call__(self, t_ns: int, arrival_ns: int) -> int:
        """Return a frame's time, shifted after a jump."""
        made = t_ns + self._shift_ns
        back = self._last_ns is not None and made < self._last_ns - self._BACK_NS
        if made > arrival_ns + self._AHEAD_NS or back:
            self.steps += 1
            usual = sorted(self._latencies)[len(self._latencies) // 2] if self._latencies else 0
            self._shift_ns = arrival_ns - max(usual, 0) - t_ns
            made = t_ns + self._shift_ns
            self._last_ns = made
        self._latencies.append(arrival_ns - made)
        self._last_ns = made if self._last_ns is None else max(made, self._last_ns)
        return made
