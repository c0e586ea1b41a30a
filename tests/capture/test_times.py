"""Repaired times against slow, obvious references: every frame once, rising, and only doubtful times changed."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture.times import RESTART, Repairs, period_of, reading, repaired

MS = 1_000_000
PERIOD = 33 * MS


def repair(times, *, period=PERIOD, wrap=None):
    """The repaired times (ns), and what was repaired."""
    repairs = Repairs()
    pairs = list(repaired(enumerate(times), lambda item: item[1], period, repairs, wrap))
    assert [k for (k, _), _ in pairs] == list(range(len(times)))
    assert all(a < b for (_, a), (_, b) in pairwise(pairs))
    return [t for _, t in pairs], repairs


def follows(a, b, steps):
    """Time `b` may be `steps` after `a`, of 2 each: with frames between them, they have room."""
    return b > a if steps == 1 else b - a >= max(steps, 0.4 * 2 * steps)


def believed_by_all(times, anchored):
    """The indices that every cheapest reading believes: all subsets are tried."""
    known = [k for k, t in enumerate(times) if t is not None]
    costs = {}
    for size in range(1, len(known) + 1):
        for kept in combinations(known, size):
            if anchored and kept[0] != known[0]:
                continue
            restarts = sum(not follows(times[a], times[b], b - a) for a, b in pairwise(kept))
            costs[kept] = len(known) - size + RESTART * restarts
    best = [set(kept) for kept, cost in costs.items() if cost == min(costs.values())]
    return set.intersection(*best) if best else set()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=8), st.booleans())
def test_a_reading_believes_what_all_cheapest_ones_do(times, anchored):
    if anchored:
        times = [5, *times]
    assert {k for k, sure in enumerate(reading(times, 2, anchored=anchored)) if sure} == believed_by_all(
        times, anchored
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(-(10**13), 10**13), st.lists(st.integers(1, 700 * MS), max_size=60))
def test_rising_times_are_kept_whatever_their_steps(start, steps):
    times = [start]
    for step in steps:
        times.append(times[-1] + step)
    assert repair(times) == (times, Repairs())


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_times_give_every_frame_once_at_rising_times(data):
    times = data.draw(st.lists(st.one_of(st.none(), st.integers(-2000, 2000).map(lambda t: t * MS)), max_size=80))
    got, repairs = repair(times, wrap=data.draw(st.sampled_from([None, 1000 * MS])))
    changed = sum(t is not None and t != g for t, g in zip(times, got, strict=True))
    assert repairs.missing == times.count(None)
    assert changed == 0 or repairs != Repairs()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_single_wrong_and_missing_times_are_interpolated_exactly(data):
    """Of a regular recording with pauses, one frame in ten or fewer with any other time, or none."""
    times, t = [], data.draw(st.integers(0, 10**12))
    for pause in data.draw(st.lists(st.sampled_from([0] * 9 + [10]), min_size=25, max_size=60)):
        t += PERIOD * (1 + pause)
        times.append(t)
    spoiled = list(times)
    for k in range(data.draw(st.integers(3, 8)), len(times) - 10, 10):
        if times[k + 1] - times[k] == times[k] - times[k - 1] == PERIOD:
            spoiled[k] = data.draw(st.one_of(st.none(), st.integers(-(10**12), 10**13)))
    got, repairs = repair(spoiled)
    wrong = [k for k, (a, b) in enumerate(zip(got, times, strict=True)) if abs(a - b) > PERIOD]
    assert not wrong
    assert repairs.restarts == 0


CASES = {
    # name: (times in periods, repaired times in periods, missing, disordered, restarts, wraps)
    "in order": ([0, 1, 2, 3], [0, 1, 2, 3], 0, 0, 0, 0),
    "a pause": ([0, 1, 20, 21], [0, 1, 20, 21], 0, 0, 0, 0),
    "four turned round": ([*range(5), 8, 7, 6, 5, *range(9, 20)], list(range(20)), 0, 4, 0, 0),
    "a step back": ([0, 1, 2, 1, 4, 5], [0, 1, 2, 3, 4, 5], 0, 1, 0, 0),
    "twice the same": ([0, 1, 2, 3, 3, 5, 6], [0, 1, 2, 3, 4, 5, 6], 0, 1, 0, 0),
    "far ahead": ([0, 1, 2, 900, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], 0, 1, 0, 0),
    "wrong from the start": ([900, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], 0, 1, 0, 0),
    "none at the start": ([None, None, 2, 3], [0, 1, 2, 3], 2, 0, 0, 0),
    "none at the end": ([0, 1, None, None], [0, 1, 2, 3], 2, 0, 0, 0),
    "none": ([None] * 4, [0, 1, 2, 3], 4, 0, 0, 0),
    "all the same": ([5] * 20, [5 + k for k in range(20)], 0, 19, 0, 0),
    "a clock that was set back a little": ([*range(20), *range(14, 40)], list(range(46)), 0, 0, 1, 0),
    "two recordings joined": ([*range(40), *range(40)], list(range(80)), 0, 0, 1, 0),
    "three recordings joined": ([*range(7, 27), *range(20), *range(-9, 11)], list(range(7, 67)), 0, 0, 2, 0),
    "a clock that overflows": ([9998, 9999, *range(3, 30)], [9998, 9999, *range(10_003, 10_030)], 0, 0, 0, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_each_kind_of_wrong_time_has_its_repair_and_count(name):
    times, want, *counts = CASES[name]
    got, repairs = repair([None if t is None else t * PERIOD for t in times], wrap=10_000 * PERIOD)
    assert [round(t / PERIOD, 3) for t in got] == want
    assert [repairs.missing, repairs.disordered, repairs.restarts, repairs.wraps] == counts
    assert bool(str(repairs)) == any(counts)


def test_a_period_is_neither_a_pause_nor_a_burst():
    bursts = [(k // 5) * 5000 + k % 5 for k in range(60)]
    assert period_of([bursts]) == pytest.approx(1000, rel=0.01)
    assert period_of([[k * 10 + k // 13 * 1000 for k in range(60)]]) == 10
    assert period_of([[*range(0, 600, 10), *range(100_000, 100_600, 10)]]) == 10
    assert period_of([[0, 5]]) == 5
    assert period_of([[3], []]) is None
    assert period_of([[0, 1001, 2002, 3003, 4004]]) == Fraction(1001)
