"""A source that is lost and comes back: numbers go on, losses add up, and closing always ends it."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from scenes import ListSource, make_frame

from rtfuse.capture.backoff import Backoff
from rtfuse.capture.reconnect import Absent, Reconnecting
from rtfuse.errors import AccessRefused, DeviceUnavailable, SourceLost
from rtfuse.observe.health import Health, State


def camera(count, *, fail=None):
    return ListSource("rgb", [make_frame("rgb", k) for k in range(count)], live=True, fail=fail)


class Watch:
    def __init__(self):
        self.events = []

    def lost(self, why):
        self.events.append(("lost", why))

    def found(self):
        self.events.append("found")


def test_it_opens_again_until_the_source_is_there_and_numbers_rise():
    tries = iter([DeviceUnavailable("not yet"), DeviceUnavailable("not yet"), camera(3, fail=SourceLost("gone again"))])
    watch, beats = Watch(), []

    def reopen():
        step = next(tries, None) or camera(2)
        if isinstance(step, Exception):
            raise step
        return step

    source = Reconnecting(
        camera(4, fail=SourceLost("the cable is out")), reopen, watcher=watch, alive=lambda: beats.append(1)
    )
    ids = []
    for frame in source:
        ids.append(frame.frame_id)
        if len(ids) == 9:
            source.close()
    assert ids == list(range(9))
    assert watch.events[:5] == [
        *(("lost", why) for why in ("the cable is out", "not yet", "not yet")),
        "found",
        ("lost", "gone again"),
    ]
    assert len(beats) >= 4
    assert source.losses["lost"] == 2


def test_losses_of_every_life_add_up():
    first, second = camera(1, fail=SourceLost("x")), camera(1)
    first.losses, second.losses = {"driver": 2}, {"driver": 3, "corrupt": 1}
    source = Reconnecting(first, lambda: second)
    frames = iter(source)
    next(frames)
    next(frames)
    assert source.losses == {"driver": 5, "corrupt": 1, "lost": 1}
    source.close()


def test_a_source_that_merely_ends_is_opened_again_too():
    watch = Watch()
    source = Reconnecting(camera(2), lambda: camera(2), watcher=watch)
    frames = iter(source)
    assert [next(frames).frame_id for _ in range(4)] == [0, 1, 2, 3]
    assert watch.events == [("lost", "list:rgb ended"), "found"]
    source.close()


def test_closing_ends_the_search():
    def never():
        raise DeviceUnavailable("not there")

    source = Reconnecting(camera(1, fail=SourceLost("x")), never)
    frames = []
    thread = threading.Thread(target=lambda: frames.extend(source))
    thread.start()
    start = time.monotonic()
    threading.Timer(0.3, source.close).start()
    thread.join(5)
    assert not thread.is_alive()
    assert time.monotonic() - start < 3
    assert len(frames) == 1


def test_other_errors_are_not_swallowed():
    source = Reconnecting(camera(1, fail=ZeroDivisionError("a bug")), lambda: camera(1))
    with pytest.raises(ZeroDivisionError):
        list(source)


REFUSED, AWAY = AccessRefused("401"), DeviceUnavailable("refused")


@pytest.mark.parametrize(
    ("nearby", "failures", "waits_s"),
    [
        (True, [None] * 5, [0.1, 0.2, 0.4, 0.5, 0.5]),
        (False, [AWAY] * 8, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]),
        (False, [REFUSED] * 7, [10, 20, 40, 80, 160, 300, 300]),
        (True, [None, REFUSED, AWAY, REFUSED], [0.1, 10, 0.2, 20]),
    ],
)
@pytest.mark.parametrize("session_s", [0.0, 1.0, 9.9])
def test_waits_grow_and_short_sessions_do_not_reset_them(nearby, failures, waits_s, session_s):
    backoff = Backoff(nearby=nearby)
    for failure, wait_s in zip(failures, waits_s, strict=True):
        backoff.ended(session_s)
        assert backoff.wait_s(failure) == pytest.approx(wait_s)
    backoff.ended(10.0)
    assert backoff.wait_s() == pytest.approx(0.1)
    assert backoff.wait_s(REFUSED) == pytest.approx(10)


def test_a_source_that_ends_after_a_few_frames_is_opened_less_and_less_often():
    opened = []

    def reopen():
        opened.append(time.monotonic())
        return camera(3)

    source = Reconnecting(camera(3), reopen, backoff=Backoff(nearby=False))
    threading.Timer(3.0, source.close).start()
    frames = list(source)
    assert [f.frame_id for f in frames] == list(range(3 + 3 * len(opened)))
    assert len(opened) in (4, 5)
    steps = [b - a for a, b in pairwise(opened)]
    assert steps == pytest.approx([0.2, 0.4, 0.8, 1.6][: len(steps)], abs=0.15)


def test_a_refused_camera_is_waited_for_with_the_reason_and_signs_of_life():
    watch, beats = Watch(), []
    source = Reconnecting(
        Absent(camera(1).info, REFUSED), lambda: camera(1), watcher=watch, alive=lambda: beats.append(time.monotonic())
    )
    threading.Timer(2.5, source.close).start()
    began = time.monotonic()
    assert list(source) == []
    assert time.monotonic() - began < 4
    assert watch.events == [("lost", "401; next try in 10 s")]
    assert len(beats) == 2


class Ticks:
    """A clock that stands still until it is moved, in milliseconds."""

    def __init__(self):
        self.ms = 0

    def __call__(self):
        return self.ms * 1_000_000


def test_health_tells_the_states_apart():
    clock = Ticks()
    health = Health("ir", quiet_ns=150_000_000, clock=clock)
    assert health.state() is State.STARTING
    clock.ms = 500
    assert health.missing_ns() == 500_000_000
    still = make_frame("ir", 1)

    def come(ms, *, frozen=False):
        clock.ms = ms
        health.frame(type(still)("ir", still.image, ms // 10, ms * 1_000_000, still.stamp, 0, frozen=frozen))

    for ms in range(1000, 1500, 10):
        come(ms)
    assert health.state() is State.LIVE
    assert health.missing_ns() == 0
    assert health.condition().rate_hz == pytest.approx(100)
    clock.ms = 1700
    assert health.state() is State.STALLED
    assert health.condition().for_s == pytest.approx(0.21)
    for ms in range(1700, 2100, 10):
        come(ms, frozen=True)
    assert health.state() is State.FROZEN
    health.lost("unplugged")
    assert health.state() is State.LOST
    clock.ms = 3100
    assert health.condition().for_s == pytest.approx(1.01)
    assert health.condition().why == "unplugged"
    health.found()
    come(3200)
    assert health.state() is State.LIVE
    assert health.condition().for_s == 0
    assert health.reconnects == 1
    health.ended()
    assert health.state() is State.ENDED
