"""Playback: each frame when it is due, both streams in step, later where reading is slow, and never a wrong pair."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from scenes import make_frame

from rtfuse.capture.pacing import Playhead
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Stamp

MS = 1_000_000


def recording(stream, count, period_ms, read_ms=0.0, start_ms=0.0):
    """Yield frames of a recording; reading one takes `read_ms`."""
    for k in range(count):
        time.sleep(read_ms / 1000)
        yield make_frame(stream, k, t_ns=round((start_ms + k * period_ms) * MS))


def play(speed=1.0, stop=None, **streams):
    """Play recordings in a thread each; returns (own time, played frame, when it came) of all, in order of arrival."""
    came, stop = [], stop or threading.Event()
    own = {}

    def noted(stream, frames):
        for frame in frames:
            own[stream, frame.frame_id] = frame.t_ns
            yield frame

    playhead = Playhead(streams, time.monotonic_ns, stop, 0, speed)

    def run(stream, frames):
        played = playhead.play(stream, noted(stream, frames))
        came.extend((own[stream, frame.frame_id], frame, time.monotonic_ns()) for frame in played)

    threads = [threading.Thread(target=run, args=item) for item in streams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    return came


def test_frames_come_in_the_order_of_their_times_and_never_early():
    came = play(speed=4.0, ir=recording("ir", 12, 100), rgb=recording("rgb", 36, 100 / 3))
    times = [t_ns for t_ns, _, _ in came]
    assert times == sorted(times)
    assert len(came) == 48
    assert all(at_ns >= frame.t_ns for _, frame, at_ns in came)
    assert {frame.stamp for _, frame, _ in came} == {Stamp.PLAYBACK}
    first, last = came[0][1].t_ns, came[-1][1].t_ns
    assert last - first >= (times[-1] - times[0]) / 4


@pytest.mark.parametrize("slow", ["ir", "rgb"])
def test_slow_reading_delays_both_streams_and_pairs_stay_pairs(slow, caplog):
    """RGB at 100 Hz that is read at 25 Hz: a quarter of the pace, every frame in its pair."""
    read_ms = {"ir": 0, "rgb": 0} | {slow: 40}
    with caplog.at_level(logging.WARNING):
        came = play(**{s: recording(s, 50, 10, read_ms[s]) for s in ("ir", "rgb")})
    pairer = Pairer(tolerance_ns=5 * MS, wait_ns=20 * MS)
    pairs = []
    for _, frame, _ in came:
        pairer.push(frame)
        pairs += pairer.pairs()
    pairer.end("ir"), pairer.end("rgb")
    pairs += pairer.pairs()
    assert [(p.ir.frame_id, p.rgb.frame_id, p.skew_ns) for p in pairs] == [(k, k, 0) for k in range(50)]
    late_ms = [(at_ns - frame.t_ns) / MS for _, frame, at_ns in came]
    assert sorted(late_ms)[len(late_ms) * 9 // 10] < 200
    said = [r.getMessage() for r in caplog.records]
    assert len(said) == 1
    assert "read more slowly than it was recorded" in said[0]


def test_a_stream_that_reads_nothing_is_left_behind_once():
    silent, stop = threading.Event(), threading.Event()

    def stuck():
        yield make_frame("rgb", 0, t_ns=0)
        silent.wait(10)
        yield make_frame("rgb", 1, t_ns=100 * MS)

    def counted():
        yield from recording("ir", 40, 10)
        silent.set()

    begun = time.monotonic()
    came = play(stop=stop, ir=counted(), rgb=stuck())
    assert len(came) == 42
    assert 1 < time.monotonic() - begun < 5, "one wait of a second, not one for each frame"


def test_stop_ends_a_wait():
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    begun = time.monotonic()
    assert len(play(stop=stop, ir=recording("ir", 2, 60_000), rgb=recording("rgb", 2, 60_000))) == 2
    assert time.monotonic() - begun < 5
