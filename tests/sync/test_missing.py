"""The pairer's output while a stream is missing, event by event, with a simulated clock."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.sync.pairer import Pairer
from rtfuse.types import Frame, Pair, Stamp

MS = 1_000_000
IMAGES = {"ir": np.zeros((1, 1), np.uint8), "rgb": np.zeros((1, 1, 3), np.uint8)}
ALONE = {"ir": 100 * MS, "rgb": 100 * MS}


def frame(stream, t_ms, *, late_ms=5.0, frozen=False, k=0):
    t = round(t_ms * MS)
    return Frame(stream, IMAGES[stream], k, t, Stamp.END, t + round(late_ms * MS), frozen=frozen)


def camera(stream, period_ms, until_ms, *, missing=(), frozen=(), start_ms=0.0, **more):
    """Frames of one camera; none in the spans `missing`, frozen ones in the spans `frozen`, all (from, to) in ms."""
    out = []
    for k in range(round((until_ms - start_ms) / period_ms)):
        t = start_ms + k * period_ms
        if any(a <= t < b for a, b in missing):
            continue
        out.append(frame(stream, t, frozen=any(a <= t < b for a, b in frozen), k=k, **more))
    return out


def pairer(**options):
    options = {"tolerance_ns": 17 * MS, "max_reuse_ns": 150 * MS, "wait_ns": 20 * MS, "alone_after_ns": ALONE} | options
    return Pairer(**options)


def lived(p, frames):
    """Feed frames in the order of their arrival; decide at arrivals and at deadlines. Returns (moment, when in ms)."""
    out = []

    def decide(now):
        out.extend((m, now / MS) for m in p.moments(now))

    for f in sorted(frames, key=lambda f: f.arrival_ns):
        while (due := p.deadline_ns) is not None and due <= f.arrival_ns:
            before = len(out)
            decide(due)
            if len(out) == before and p.deadline_ns == due:
                break
        decide(f.arrival_ns)
        p.push(f)
        decide(f.arrival_ns)
    return out


def modes(out):
    return ["fused" if isinstance(m, Pair) else m.leader.stream for m, _ in out]


def longest_gap(out):
    return max(b - a for (_, a), (_, b) in pairwise(out))


def test_a_lost_thermal_camera_leaves_rgb_and_no_gap():
    out = lived(pairer(), camera("ir", 33.3, 3000, missing=[(1000, 2000)]) + camera("rgb", 33.3, 3000))
    assert longest_gap(out) < 80
    alone = [m.leader.t_ns / MS for m, _ in out if not m.complete]
    assert 1100 < alone[0] < 1200
    assert 1950 < alone[-1] < 2000
    assert modes(out).count("rgb") == len(alone) > 20


def test_a_lost_rgb_camera_leaves_thermal_within_200_ms():
    out = lived(pairer(), camera("ir", 33.3, 3000) + camera("rgb", 33.3, 3000, missing=[(1000, 2000)]))
    assert longest_gap(out) <= 200
    alone = [m.leader.t_ns / MS for m, _ in out if not m.complete]
    assert {m.leader.stream for m, _ in out if not m.complete} == {"ir"}
    assert alone[0] < 1150
    assert modes(out)[-1] == "fused"
    back = next(when for m, when in out if isinstance(m, Pair) and m.rgb.t_ns >= 2000 * MS)
    assert back < 2100


def test_a_closed_shutter_holds_thermal_and_then_lets_rgb_go_alone():
    out = lived(
        pairer(shutter_ns=1000 * MS), camera("ir", 33.3, 4000, frozen=[(1000, 3000)]) + camera("rgb", 33.3, 4000)
    )
    held = [m for m, _ in out if isinstance(m, Pair) and m.skew_ns < -150 * MS]
    assert held
    assert all(m.reused and m.skew_ns >= -1000 * MS for m in held)
    alone = [m.leader.t_ns / MS for m, _ in out if not m.complete]
    assert 1900 < alone[0] < 2050
    assert alone[-1] < 3000
    assert longest_gap(out) < 80


def test_a_single_lost_frame_makes_nobody_go_alone():
    p = pairer(max_reuse_ns=0)
    out = lived(p, camera("ir", 33.3, 2000, missing=[(990, 1010)]) + camera("rgb", 33.3, 2000))
    assert modes(out) == ["fused"] * len(out)
    assert p.drops["rgb", "no_ir"] == 1


def test_both_missing_gives_nothing_and_both_back_fuses_at_once():
    gone = [(1000, 2000)]
    out = lived(pairer(), camera("ir", 33.3, 3000, missing=gone) + camera("rgb", 33.3, 3000, missing=gone))
    assert set(modes(out)) == {"fused"}
    assert next(when for m, when in out if m.leader.t_ns >= 2000 * MS) < 2060


def test_rgb_goes_alone_before_thermal_has_ever_come():
    out = lived(pairer(), camera("ir", 33.3, 2000, start_ms=1000) + camera("rgb", 33.3, 2000))
    assert modes(out)[0] == "rgb"
    assert out[0][1] < 160
    assert modes(out)[-1] == "fused"


def test_without_leave_nobody_goes_alone():
    out = lived(
        pairer(alone_after_ns=None), camera("ir", 33.3, 2000, missing=[(500, 1500)]) + camera("rgb", 33.3, 2000)
    )
    assert set(modes(out)) == {"fused"}


spans = st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 800)).map(lambda s: (s[0], s[0] + s[1])), max_size=3)


@settings(max_examples=150, deadline=None)
@given(
    periods=st.tuples(st.sampled_from([16.6, 33.3, 111.1]), st.sampled_from([33.3, 40.0])),
    gone=st.tuples(spans, spans),
    frozen=st.tuples(spans, spans),
    late=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    policy=st.sampled_from(["lead", "strict"]),
    jitter=st.lists(st.integers(-14, 14), min_size=20, max_size=20),
)
def test_whatever_goes_missing_no_pair_is_wrong_and_everything_is_counted(periods, gone, frozen, late, policy, jitter):
    ir = camera("ir", periods[0], 3500, missing=gone[0], frozen=frozen[0], late_ms=late[0])
    rgb = camera("rgb", periods[1], 3500, missing=gone[1], frozen=frozen[1], late_ms=late[1])
    moved = [
        Frame(
            f.stream, f.image, f.frame_id, f.t_ns, f.stamp, f.arrival_ns + (jitter[f.frame_id % 20] + 14) * MS, f.frozen
        )
        for f in ir + rgb
    ]
    p = pairer(policy=policy, shutter_ns=1000 * MS)
    out = lived(p, moved) + [(m, 0) for m in p.finish()]
    times = [m.leader.t_ns for m, _ in out]
    assert times == sorted(set(times))
    fresh = []
    for m, _ in out:
        if not m.complete:
            assert not m.leader.frozen
            continue
        assert not m.ir.frozen
        assert not m.rgb.frozen
        frozen_between = any(f.frozen and m.ir.t_ns < f.t_ns for f in ir)
        limit = 0 if policy == "strict" else 1000 * MS if frozen_between else 150 * MS
        assert -max(limit, 17 * MS) <= m.skew_ns <= 17 * MS
        if not m.reused:
            fresh.append(m.ir.frame_id)
    assert len(set(fresh)) == len(fresh)
    for stream, frames in (("ir", ir), ("rgb", rgb)):
        used = {f.frame_id for m, _ in out for f in m.frames if f.stream == stream}
        assert len(used) + sum(n for (s, _), n in p.drops.items() if s == stream) == len(frames)
