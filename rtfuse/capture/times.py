"""Repair the times of a recording's frames: missing, repeated, disordered or beginning again; one pass, bounded memory.

Frames come in the order in which they are shown, so their times must rise. Where they do not, the cheapest reading of
the next frames decides: a time that is not believed costs 1, a clock that begins again costs `RESTART`. Only times that
all cheapest readings believe are kept; the others are interpolated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from statistics import median
from typing import TypeVar

T = TypeVar("T")
AHEAD, JUMP_AHEAD = 16, 6
"""Frames that one reading sees: where the times are not in order, and where they only jump ahead."""
RESTART = 8
"""Cost of a clock that begins again, in times that are not believed."""
_ROOM = 0.4
"""The shortest mean step between believed times, in periods, where times between them are not believed."""
_SPAN, _USUAL = 10, 0.3
"""Frames over which the period of bursts is measured, and the relative deviation of a usual step from the median."""
_WRAP_GAP_NS = 10_000_000_000
"""The longest pause that may fall together with the overflow of a clock."""


@dataclass(slots=True)
class Repairs:
    """Count the frames whose time was `missing` or `disordered`, the `restarts` of the clock and its `wraps`."""

    missing: int = 0
    disordered: int = 0
    restarts: int = 0
    wraps: int = 0

    def __str__(self) -> str:
        """Return the repairs as text, empty without one."""
        said = {
            "{} frames had no time": self.missing,
            "{} frames had a time out of order": self.disordered,
            "the clock began again {} times": self.restarts,
            "the clock overflowed {} times": self.wraps,
        }
        return ", ".join(text.format(n) for text, n in said.items() if n).replace("again 1 times", "again once")


def period_of(runs: Sequence[Sequence[int]]) -> Fraction | None:
    """Return the usual step in runs of rising times: the mean of those around the median; None without a step.

    Pauses, lost frames and long last frames do not change it. Of a camera that stamps in bursts, it is the mean step
    over ten frames.
    """
    steps = [b - a for times in runs for a, b in pairwise(times)]
    if not steps:
        return None
    spans: list[Fraction] = []
    for times in runs:
        span = max(1, min(_SPAN, len(times) // 4))
        spans += [Fraction(b - a, span) for a, b in zip(times, times[span:], strict=False)]
    middle, over_ten = median(steps), sorted(spans)[len(spans) // 10]  # of the spans without a pause
    if 2 * middle < over_ten:
        return over_ten
    usual = [step for step in steps if abs(step - middle) <= _USUAL * middle]
    return Fraction(sum(usual), len(usual)) if usual else over_ten


def repaired(
    items: Iterable[T],
    time_of: Callable[[T], int | None],
    period_ns: int,
    repairs: Repairs,
    wrap_ns: int | None = None,
) -> Iterator[tuple[T, int]]:
    """Yield every item once, in order, each with a time (ns) later than that of the item before.

    `time_of`: the recorded time (ns); None: missing. `period_ns`: the usual step. `repairs` is counted up.
    `wrap_ns`: the time after which the recording's clock overflows; None: never.
    """
    source, waiting = _unwrapped(items, time_of, wrap_ns, repairs), deque[tuple[T, int | None]]()
    last_ns: int | None = None
    shift_ns = 0

    def fill(count: int) -> None:
        waiting.extend(islice(source, max(0, count - len(waiting))))

    def calm(a_ns: int | None, b_ns: int | None) -> bool:
        return a_ns is not None and b_ns is not None and 0 < b_ns - a_ns <= 1.5 * period_ns

    fill(3)
    while waiting:
        t_ns = None if waiting[0][1] is None else waiting[0][1] + shift_ns
        first = last_ns is None and all(calm(a[1], b[1]) for a, b in pairwise(waiting))
        if t_ns is not None and (first or calm(last_ns, t_ns)):
            last_ns = t_ns
            yield waiting.popleft()[0], t_ns
        else:
            fill(JUMP_AHEAD if last_ns is not None and t_ns is not None and t_ns > last_ns else AHEAD)
            ahead = [None if t is None else t + shift_ns for _, t in waiting]
            decided, lost_ns = _decide(last_ns, ahead, period_ns)
            repairs.restarts += lost_ns > 0
            shift_ns += lost_ns
            for at_ns in decided:
                item, t_ns = waiting.popleft()
                repairs.missing += t_ns is None
                repairs.disordered += t_ns is not None and t_ns + shift_ns != at_ns
                last_ns = at_ns
                yield item, at_ns
        fill(1)


def _unwrapped(
    items: Iterable[T], time_of: Callable[[T], int | None], wrap_ns: int | None, repairs: Repairs
) -> Iterator[tuple[T, int | None]]:
    """Yield every item with its recorded time as if the clock had never overflowed."""
    last_ns, turns_ns = None, 0
    for item in items:
        t_ns = time_of(item)
        if t_ns is not None and last_ns is not None and wrap_ns is not None:
            for turn_ns in (-wrap_ns, wrap_ns):
                if abs(t_ns + turns_ns + turn_ns - last_ns) < _WRAP_GAP_NS:
                    turns_ns += turn_ns
                    repairs.wraps += 1
        if t_ns is not None:
            last_ns = t_ns = t_ns + turns_ns
        yield item, t_ns


def _decide(last_ns: int | None, ahead: list[int | None], period_ns: int) -> tuple[list[int], int]:
    """Return the next frame times, at least one, and the gap of the clock (0: none)."""
    believed = reading(ahead if last_ns is None else [last_ns, *ahead], period_ns, anchored=last_ns is not None)
    kept = [k for k, sure in enumerate(believed[last_ns is not None :]) if sure]
    at = kept[0] if kept else None
    t_ns = None if at is None else ahead[at]
    if at is None or t_ns is None:
        known = next(((k, t) for k, t in enumerate(ahead) if t is not None), (0, 0))
        return [known[1] - known[0] * period_ns if last_ns is None else last_ns + period_ns], 0
    if last_ns is None:
        return [t_ns - (at - k) * period_ns for k in range(at + 1)], 0
    if _follows(last_ns, t_ns, at + 1, period_ns):
        return [last_ns + (t_ns - last_ns) * (k + 1) // (at + 1) for k in range(at + 1)], 0
    return [last_ns + period_ns], 0 if at else last_ns + period_ns - t_ns


def _follows(a_ns: int, b_ns: int, steps: int, period_ns: int) -> bool:
    """Return True if a time may be so many steps after another: there is room for the frames between them."""
    return b_ns > a_ns if steps == 1 else b_ns - a_ns >= max(steps, _ROOM * steps * period_ns)


def reading(times: Sequence[int | None], period_ns: int, *, anchored: bool) -> list[bool]:
    """Return which of these times every cheapest reading believes; `anchored`: the first one is certain.

    A reading believes some of the times, in their order. It costs 1 for each other time, and `RESTART` wherever a
    believed time does not follow the one believed before it.
    """
    count = len(times)
    skipped = [0]
    for t in times:
        skipped.append(skipped[-1] + (t is not None))

    def step(a: int, b: int) -> int:
        """Return the cost of believing `b` next after `a`."""
        before, after = times[a], times[b]
        assert before is not None
        assert after is not None
        return skipped[b] - skipped[a + 1] + (0 if _follows(before, after, b - a, period_ns) else RESTART)

    known = [k for k in range(count) if times[k] is not None]
    ends = {k: (skipped[count] - skipped[k + 1], 1) for k in known}
    starts = {k: (skipped[k], 1) for k in (known[:1] if anchored else known)}
    fore, back = dict[int, tuple[int, int]](), dict[int, tuple[int, int]]()
    for k in known:
        fore[k] = _cheapest(
            [*([starts[k]] if k in starts else []), *((fore[j][0] + step(j, k), fore[j][1]) for j in fore)]
        )
    for k in reversed(known):
        back[k] = _cheapest([ends[k], *((back[j][0] + step(k, j), back[j][1]) for j in back)])
    best, ways = _cheapest([(fore[k][0] + ends[k][0], fore[k][1]) for k in known])
    return [k in fore and (fore[k][0] + back[k][0], fore[k][1] * back[k][1]) == (best, ways) for k in range(count)]


def _cheapest(ways: list[tuple[int, int]]) -> tuple[int, int]:
    """Return the least cost among (cost, number of ways), and the number of ways with it."""
    best = min((cost for cost, _ in ways), default=0)
    return best, sum(n for cost, n in ways if cost == best)
