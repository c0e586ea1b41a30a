"""The pairer against a brute-force reference that looks at every frame of both streams at once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.sync.pairer import LATE, NO_IR, NO_RGB, SUPERSEDED, Pairer
from rtfuse.types import Frame, Stamp

IMAGES = {"ir": np.zeros((1, 1), np.uint8), "rgb": np.zeros((1, 1, 3), np.uint8)}
MS = 1_000_000


def frame(stream, t, frame_id=0, arrival=None):
    return Frame(stream, IMAGES[stream], frame_id, t, Stamp.ARRIVAL, t if arrival is None else arrival)


def nearest(t, times):
    """The nearest of these times, the earlier of two equals."""
    return min(times, key=lambda other: (abs(other - t), other), default=None)


def reference(ir, rgb, policy, tolerance, max_reuse):
    """Pairs (ir time, rgb time) and drop counts, frame against frame, for complete streams of distinct times."""
    pairs, drops = [], Counter()
    for r in rgb:
        i = nearest(r, ir)
        if i is not None and abs(i - r) <= tolerance:
            if policy == "lead" or nearest(i, rgb) == r:
                pairs.append((i, r))
            else:
                drops["rgb", SUPERSEDED] += 1
            continue
        held = max((t for t in ir if t <= r), default=None)
        if policy == "lead" and held is not None and r - held <= max_reuse:
            pairs.append((held, r))
        else:
            drops["rgb", NO_IR] += 1
    used = {i for i, _ in pairs}
    for i in ir:
        if i not in used:
            drops["ir", SUPERSEDED if any(abs(i - r) <= tolerance for r in rgb) else NO_RGB] += 1
    return pairs, drops


@st.composite
def streams(draw):
    """Frame times of two cameras of unequal rate with jitter, gaps and an offset, each in order and distinct."""

    def times(rate_hz):
        period = 1000 // rate_hz
        start = draw(st.integers(-120, 120))
        jitter = draw(st.integers(0, period // 2))
        keep = draw(st.lists(st.integers(0, 9), min_size=0, max_size=40))
        out = {start + k * period + draw(st.integers(-jitter, jitter)) for k, x in enumerate(keep) if x < 8}
        return sorted(out)

    rates = st.sampled_from([5, 9, 22, 25, 30, 60])
    return times(draw(rates)), times(draw(rates))


PARAMETERS = {
    "policy": st.sampled_from(["lead", "strict"]),
    "tolerance": st.integers(0, 80),
    "max_reuse": st.integers(0, 300),
}


def drain(pairer, events, now=None):
    pairs = []
    for event in events:
        pairer.push(event)
        pairs += pairer.pairs(now)
    return pairs + pairer.finish()


def as_times(pairs):
    return [(p.ir.t_ns, p.rgb.t_ns) for p in pairs]


@settings(max_examples=400, deadline=None)
@given(streams=streams(), **PARAMETERS)
def test_complete_streams_equal_the_reference(streams, policy, tolerance, max_reuse):
    ir, rgb = streams
    pairer = Pairer(policy=policy, tolerance_ns=tolerance, max_reuse_ns=max_reuse)
    events = sorted([frame("ir", t) for t in ir] + [frame("rgb", t) for t in rgb], key=lambda f: f.t_ns)
    want, drops = reference(ir, rgb, policy, tolerance, max_reuse if policy == "lead" else 0)
    assert as_times(drain(pairer, events)) == want
    assert pairer.drops == drops


@settings(max_examples=300, deadline=None)
@given(streams=streams(), data=st.data(), **PARAMETERS)
def test_interleaving_does_not_change_the_pairs(streams, data, policy, tolerance, max_reuse):
    """However far one recording is read ahead of the other (within reason), the pairs are the same."""
    ir, rgb = streams
    lead = data.draw(st.integers(0, 200))
    events = [frame("ir", t) for t in ir] + [frame("rgb", t) for t in rgb]
    events.sort(key=lambda f: f.t_ns + (lead if f.stream == "ir" else 0))
    pairer = Pairer(policy=policy, tolerance_ns=tolerance, max_reuse_ns=max_reuse)
    want, drops = reference(ir, rgb, policy, tolerance, max_reuse if policy == "lead" else 0)
    assert as_times(drain(pairer, events)) == want
    assert pairer.drops == drops


def live_reference(events, tolerance, max_reuse, wait):
    """`lead` as it happens: after each arrival, decide every RGB frame that an IR frame or the clock settles."""
    ir, waiting, pairs, last = [], [], [], None
    drops = Counter()
    for now, event in events:
        if event.stream == "ir":
            ir.append(event.t_ns)
        elif last is not None and event.t_ns <= last:
            drops["rgb", LATE] += 1
        else:
            waiting.append(event)
            waiting.sort(key=lambda f: f.t_ns)
        while waiting:
            head = waiting[0]
            seen = any(t >= head.t_ns for t in ir)
            if not seen and now < head.arrival_ns + wait:
                break
            waiting.pop(0)
            if head.t_ns == last:
                drops["rgb", LATE] += 1
                continue
            last = head.t_ns
            found = reference(sorted(set(ir)), [head.t_ns], "lead", tolerance, max_reuse)[0]
            pairs += found
            drops["rgb", NO_IR] += not found
    return pairs, +drops, waiting


@settings(max_examples=400, deadline=None)
@given(streams=streams(), data=st.data(), tolerance=st.integers(0, 80), max_reuse=st.integers(0, 300))
def test_live_with_late_and_reordered_frames_equals_the_reference(streams, data, tolerance, max_reuse):
    wait = data.draw(st.integers(0, 60))
    delays = st.integers(0, 90)
    events = []
    for stream, times in zip(("ir", "rgb"), streams, strict=True):
        for t in times:
            arrival = t + data.draw(delays)
            events.append((arrival, frame(stream, t, arrival=arrival)))
    events.sort(key=lambda e: e[0])
    pairer = Pairer(tolerance_ns=tolerance, max_reuse_ns=max_reuse, wait_ns=wait)
    pairs = []
    for now, event in events:
        pairer.push(event)
        pairs += pairer.pairs(now)
    want, drops, waiting = live_reference(events, tolerance, max_reuse, wait)
    assert as_times(pairs) == want
    assert Counter({k: n for k, n in pairer.drops.items() if k[0] == "rgb"}) == drops
    rest = pairer.finish()
    assert len(pairs) + len(rest) + sum(n for k, n in pairer.drops.items() if k[0] == "rgb") == len(streams[1])
    used = {p.ir.t_ns for p in pairs + rest}
    assert len(used) + sum(n for k, n in pairer.drops.items() if k[0] == "ir") == len(streams[0])
    assert len(rest) <= len(waiting)


@settings(max_examples=200, deadline=None)
@given(streams=streams(), data=st.data(), **PARAMETERS)
def test_invariants_hold_for_any_arrival_order(streams, data, policy, tolerance, max_reuse):
    events = [frame(s, t) for s, times in zip(("ir", "rgb"), streams, strict=True) for t in times]
    events = data.draw(st.permutations(events))
    pairer = Pairer(policy=policy, tolerance_ns=tolerance, max_reuse_ns=max_reuse, wait_ns=20)
    pairs = drain(pairer, events, now=10**6)
    assert all(b.rgb.t_ns > a.rgb.t_ns for a, b in pairwise(pairs))
    for pair in pairs:
        assert pair.skew_ns == pair.ir.t_ns - pair.rgb.t_ns
        reach = max(tolerance, max_reuse if policy == "lead" else 0)
        assert -reach <= pair.skew_ns <= tolerance
    fresh = [p for p in pairs if not p.reused]
    assert len({p.ir.t_ns for p in fresh}) == len(fresh)
    if policy == "strict":
        assert fresh == pairs
    counted = Counter()
    for (stream, _), n in pairer.drops.items():
        counted[stream] += n
    assert len(pairs) + counted["rgb"] == len(streams[1])
    assert len(fresh) + counted["ir"] == len(streams[0])


@given(offset=st.integers(-500, 500))
def test_a_constant_offset_is_taken_out(offset):
    pairer = Pairer(tolerance_ns=0, offset_ns={"ir": offset})
    events = [frame("ir", t - offset) for t in range(0, 300, 30)] + [frame("rgb", t) for t in range(0, 300, 30)]
    pairs = drain(pairer, events)
    assert [p.skew_ns for p in pairs] == [0] * 10


def test_nine_against_thirty_hertz_reuses_thermal_frames_up_to_the_limit():
    ir = [round(k * 1000 / 9) * MS for k in range(9)]
    rgb = [round(k * 1000 / 30) * MS for k in range(30)]
    pairer = Pairer(tolerance_ns=20 * MS, max_reuse_ns=150 * MS)
    pairs = drain(pairer, sorted([frame("ir", t) for t in ir] + [frame("rgb", t) for t in rgb], key=lambda f: f.t_ns))
    assert len(pairs) == 30
    assert sum(not p.reused for p in pairs) == 9
    assert max(abs(p.skew_ns) for p in pairs) < 100 * MS


def test_a_lost_rgb_camera_does_not_fill_the_memory():
    pairer = Pairer(tolerance_ns=20, wait_ns=20)
    for k in range(10_000):
        pairer.push(frame("ir", 33 * k))
        assert pairer.pairs(33 * k) == []
    pairer.finish()
    assert pairer.drops == {("ir", NO_RGB): 10_000}


@pytest.mark.parametrize("repeat", ["ir", "rgb"])
def test_a_repeated_frame_makes_no_second_pair(repeat):
    pairer = Pairer(tolerance_ns=20)
    pairs = drain(pairer, [frame(repeat, 0), frame("ir", 0), frame("rgb", 0), frame("ir", 33), frame("rgb", 33)])
    assert as_times(pairs) == [(0, 0), (33, 33)]
    assert sum(pairer.drops.values()) == 1
