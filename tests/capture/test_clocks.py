"""Other clocks on the local one: never late, drift followed, bursts ignored, jumps bridged."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture.clocks import ClockGuard, ClockMap

MS = 1_000_000


def stream(seconds, *, ppm=0.0, delay_ms=20.0, jitter_ms=5.0, rate_hz=30.0, seed=0, base_ns=7_000_000_000_000):
    """Taken (local), source time and arrival, in nanoseconds, of every frame of a stream with a clock of its own."""
    rng = np.random.default_rng(seed)
    taken = np.arange(round(seconds * rate_hz)) * 1e9 / rate_hz + 3e12
    source = base_ns + (taken - taken[0]) * (1 + ppm * 1e-6)
    arrival = np.maximum.accumulate(taken + delay_ms * MS + rng.exponential(jitter_ms, taken.size) * MS)
    return taken.astype(np.int64), source.astype(np.int64), arrival.astype(np.int64)


def mapped(clock, source, arrival):
    return np.array([clock(int(s), int(a)) for s, a in zip(source, arrival, strict=True)])


@given(
    st.lists(st.tuples(st.integers(0, 10**13), st.integers(0, 10**13)), min_size=1, max_size=80),
)
def test_no_frame_was_taken_after_it_arrived(pairs):
    clock = ClockMap()
    for source, arrival in pairs:
        assert clock(source, arrival) <= arrival


@given(st.floats(-300, 300), st.integers(0, 100), st.floats(0.5, 15))
@settings(max_examples=25)
def test_drift_is_followed(ppm, seed, jitter_ms):
    clock = ClockMap()
    taken, source, arrival = stream(300, ppm=ppm, jitter_ms=jitter_ms, seed=seed)
    got = mapped(clock, source, arrival)
    error_ms = (got - taken) / MS - 20  # capture plus the shortest delay
    assert np.abs(error_ms[-3000:]).max() < 4
    assert abs(clock.state.drift_ppm - ppm) < 20
    assert clock.steps == 0


def test_without_drift_and_jitter_the_times_are_exact():
    taken, source, arrival = stream(30, jitter_ms=0)
    assert np.abs(mapped(ClockMap(), source, arrival) - taken - 20 * MS).max() < 2


@given(st.floats(0.2, 8), st.integers(0, 50))
@settings(max_examples=25)
def test_a_pause_with_a_burst_after_it_does_not_move_the_map(pause_s, seed):
    taken, source, arrival = stream(60, seed=seed)
    held = (taken > taken[900]) & (taken < taken[900] + pause_s * 1e9)
    flushed = arrival.copy()
    flushed[held] = np.maximum(arrival[held], taken[900] + round(pause_s * 1e9) + np.arange(held.sum()) * 2 * MS)
    flushed = np.maximum.accumulate(flushed)
    clock = ClockMap()
    got = mapped(clock, source, flushed)
    assert clock.steps == 0
    assert np.abs(got - taken - 20 * MS)[300:].max() < 6 * MS


@given(st.sampled_from([-3600.0, -90.0, -5.0, 0.5, 5.0, 86400.0]), st.integers(0, 20))
@settings(max_examples=20)
def test_a_clock_that_jumps_is_taken_anew(jump_s, seed):
    taken, source, arrival = stream(60, seed=seed)
    source[900:] += round(jump_s * 1e9)
    clock = ClockMap()
    got = mapped(clock, source, arrival)
    assert clock.steps == 1
    assert np.all(got <= arrival)
    assert np.abs(got - taken - 20 * MS)[1000:].max() < 12 * MS


def test_time_stamps_that_wrap_are_taken_anew():
    taken, source, arrival = stream(60)
    wrap = 2**33 * 1_000_000_000 // 90_000
    source = (source - source[900]) % wrap
    clock = ClockMap()
    got = mapped(clock, source, arrival)
    assert clock.steps == 1
    assert np.abs(got - taken - 20 * MS)[1000:].max() < 12 * MS


@given(st.lists(st.tuples(st.floats(-0.8, 0.14), st.floats(0, 0.1)), min_size=1, max_size=60))
def test_possible_times_pass_the_guard_untouched(frames):
    guard = ClockGuard()
    now_ns = 10**12
    for early_s, wait_s in frames:
        now_ns += round(wait_s * 1e9)
        t_ns = now_ns + round(early_s * 1e9)
        assert guard(t_ns, now_ns) == t_ns
    assert guard.steps == 0


@given(st.sampled_from([-7200.0, -2.0, 0.4, 60.0, 3600.0]), st.integers(0, 30))
def test_the_guard_bridges_a_jump(jump_s, latency_ms):
    guard = ClockGuard()
    for k in range(100):
        taken = 10**12 + k * 33 * MS
        said = taken + (round(jump_s * 1e9) if k >= 50 else 0)
        assert abs(guard(said, taken + latency_ms * MS) - taken) <= 1
    assert guard.steps == 1


def test_the_guard_bridges_the_way_back_too():
    guard = ClockGuard()
    for k in range(150):
        taken = 10**12 + k * 33 * MS
        said = taken + (3600 * 1000 * MS if 50 <= k < 100 else 0)
        assert guard(said, taken + 10 * MS) == taken
    assert guard.steps == 2
