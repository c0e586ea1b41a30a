"""Random recordings, their times spoiled in random ways, against the pairing of the true times: none wrong, none lost.

`RTFUSE_CASES=10000 pytest --timeout 0 …` tries more of them.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from itertools import pairwise

import numpy as np

from rtfuse.capture.times import Repairs, period_of, repaired
from rtfuse.pipeline.queues import OrderedPairQueue
from rtfuse.sync.pairer import LATE, Pairer
from rtfuse.types import Frame, Stamp

CASES = int(os.environ.get("RTFUSE_CASES", "150"))
MS = 1_000_000
IMAGES = {"ir": np.zeros((1, 1), np.uint8), "rgb": np.zeros((1, 1, 3), np.uint8)}
REUSE_NS = 150 * MS


def true_times(rng):
    """Capture times (ns) of one camera: any rate, jitter, lost frames, pauses."""
    rate = rng.choice([5, 8.7, 9, 25, 30000 / 1001, 30, 60, 120])
    period, t, times = 1e9 / rate, rng.uniform(0, 0.2e9), []
    jitter = rng.choice([0, 0, 0.05, 0.3])
    for _ in range(rng.randrange(2, 150)):
        times.append(round(t + rng.uniform(0, jitter) * period))
        pause = rng.choice([1, 20, 500]) if rng.random() < 0.02 else 0
        t += period * (1 + pause + (rng.random() < 0.03))
    return times


def spoiled(times, rng):
    """Times as a recording may hold them, and its origin; they begin again, or are wrong, only where steps are even."""
    steps = [b - a for a, b in pairwise(times)]
    even = [k for k in range(12, len(times) - 12) if max(steps[k - 11 : k + 10]) - min(steps[k - 11 : k + 10]) < 3]
    raw, kind = list(times), rng.choice(["none", "missing", "wrong", "restart", "wrap"])
    if kind in ("missing", "wrong") and even:
        k = rng.choice(even)
        raw[k] = None if kind == "missing" else rng.randrange(-(10**11), 10**12)
        if raw[k] is not None and times[k - 1] < raw[k] < times[k + 1]:  # no one could tell
            raw[k] = times[k - 1]
    elif kind == "restart" and even:
        k = rng.choice(even)
        base = rng.randrange(-(10**11), times[k - 1])
        raw[k:] = [t - times[k] + base for t in times[k:]]
    elif kind == "wrap":
        start = WRAP - rng.randrange(1, 3 * 10**9)
        raw = [(t + start) % WRAP for t in times]
        if all(step < 9e9 for step in steps):  # a long pause across the overflow is one thing too many
            return raw, times[0] - raw[0]
        return times, 0
    return raw, 0


WRAP = (1 << 33) * 100_000 // 9


def recording(stream, rng):
    """The frames of a recording as it is read, each with its true time, and the repaired ones."""
    times = true_times(rng)
    raw, origin = spoiled(times, rng)
    rising = [t for t in raw if t is not None]
    runs, run = [], []
    for t in rising:
        if run and t <= run[-1]:
            runs.append(run)
            run = []
        run.append(t)
    period = round(period_of([*runs, run]) or 40 * MS)
    got = [t + origin for _, t in repaired(enumerate(raw), lambda item: item[1], period, Repairs(), WRAP)]
    frames = [Frame(stream, IMAGES[stream], k, t, Stamp.MEDIA, 0) for k, t in enumerate(got)]
    return times, frames, period


def paired(ir, rgb, tolerance):
    """The numbers of the pairs that the pair queue of `rtfuse fuse` makes, and its counts."""
    pairer = Pairer(tolerance_ns=tolerance, max_reuse_ns=REUSE_NS)
    pair_queue = OrderedPairQueue(pairer, when=lambda frame: frame.t_ns, complete=True)
    waiting, pairs = {"ir": list(ir), "rgb": list(rgb)}, []
    room = {"ir": 0, "rgb": 0}
    while not pair_queue.over:
        for stream, frames in waiting.items():
            while frames and room[stream] < 4:
                pair_queue.put(frames.pop(0))
                room[stream] += 1
            if not frames:
                pair_queue.end(stream)
        before = {stream: len(pair_queue._frames[stream]) for stream in room}
        pairs += pair_queue.take(0)
        for stream in room:
            room[stream] -= before[stream] - len(pair_queue._frames[stream])
    pairer.finish()
    return pairs, pairer.drops


def reference(ir, rgb, tolerance):
    """The pairs of the true times, frame against frame: the nearest within the tolerance, else the last one before."""
    pairs = {}
    for k, r in enumerate(rgb):
        near = min(range(len(ir)), key=lambda i: (abs(ir[i] - r), i))
        before = max((i for i, t in enumerate(ir) if t <= r), default=None)
        if abs(ir[near] - r) <= tolerance:
            pairs[k] = near
        elif before is not None and r - ir[before] <= REUSE_NS:
            pairs[k] = before
    return pairs


def test_random_recordings_have_no_wrong_pair_and_no_uncounted_frame():
    for seed in range(CASES):
        rng = random.Random(seed)
        ir_true, ir, ir_period = recording("ir", rng)
        rgb_true, rgb, rgb_period = recording("rgb", rng)
        tolerance = min(max(ir_period, rgb_period) // 2, 50 * MS)
        pairs, drops = paired(ir, rgb, tolerance)
        want = reference(ir_true, rgb_true, tolerance)
        got = {pair.rgb.frame_id: pair.ir.frame_id for pair in pairs}
        for k in want.keys() | got.keys():  # repaired times are rounded: at a limit, either answer is right
            if got.get(k) != want.get(k):
                assert close(ir_true, rgb_true[k], got.get(k), want.get(k), tolerance), (
                    seed,
                    k,
                    got.get(k),
                    want.get(k),
                )
        assert len(got) == len(pairs), seed
        used = len(set(got.values()))
        assert len(pairs) + sum(n for (stream, _), n in drops.items() if stream == "rgb") == len(rgb), seed
        assert used + sum(n for (stream, _), n in drops.items() if stream == "ir") == len(ir), seed
        assert not Counter({key: n for key, n in drops.items() if key[1] == LATE}), seed


def close(ir, t, got, want, tolerance):
    """True if the two partners are as near as each other, or one lies at a limit, to within 3 µs."""
    ages = [None if k is None else t - ir[k] for k in (got, want)]
    if None not in ages and abs(abs(ages[0]) - abs(ages[1])) < 3000:
        return True
    return any(abs(abs(age) - limit) < 3000 for age in ages if age is not None for limit in (tolerance, REUSE_NS))
