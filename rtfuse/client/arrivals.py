"""Measure the reception of a stream: rate, delay and age of the newest frames, in constant memory."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from rtfuse.types import Clock

_RATE_FRAMES = 60
_DELAY_FRAMES = 512
_SILENCE_NS = 1_000_000_000
_SAME_BOOT_MS = 100


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Three percentiles of a duration, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Reception:
    """Summarise the frames that a subscriber has received.

    `received`, `lost` (by sequence number), `malformed`, `restarts` (of the publisher): counters since the start.
    `rate_hz`: over the last 60 frames, 0 before the second.
    `transport_ms`: from publishing to the decoded picture, over the last 512 frames.
    `age_ms`: from capture to the decoded picture, over the last 512 frames; None for a recording.
    Both are None for a publisher on another machine, whose clock cannot be compared.
    """

    received: int
    lost: int
    malformed: int
    restarts: int
    rate_hz: float
    transport_ms: Percentiles | None
    age_ms: Percentiles | None


class Arrivals:
    """Keep the times of the newest frames. The boot time tells a publisher on another machine."""

    def __init__(self, clock: Clock = time.monotonic_ns, wall_ns: Clock = time.time_ns) -> None:
        self._clock, self._wall_ns = clock, wall_ns
        self._came: deque[int] = deque(maxlen=_RATE_FRAMES)
        self._transport: deque[int] = deque(maxlen=_DELAY_FRAMES)
        self._age: deque[int] = deque(maxlen=_DELAY_FRAMES)

    def add(self, published_ns: int, published_unix_ms: int, age_ns: int | None) -> None:
        """Add a frame that was published at these times and has just been decoded.

        `age_ns`: its age when it was published; None for a frame of a recording.
        """
        now = self._clock()
        self._came.append(now)
        booted_ms, theirs_ms = (self._wall_ns() - now) / 1e6, published_unix_ms - published_ns / 1e6
        if abs(booted_ms - theirs_ms) < _SAME_BOOT_MS:
            self._transport.append(now - published_ns)
            if age_ns is None:
                self._age.clear()
            else:
                self._age.append(now - published_ns + age_ns)
        else:
            self._transport.clear()
            self._age.clear()

    def rate_hz(self) -> float:
        """Return the rate over the last 60 frames; it falls while no frame comes."""
        if len(self._came) < 2:
            return 0.0
        first, last, now = self._came[0], self._came[-1], self._clock()
        if now - last > _SILENCE_NS:
            return len(self._came) * 1e9 / (now - first)
        return (len(self._came) - 1) * 1e9 / max(last - first, 1)

    def transport_ms(self) -> Percentiles | None:
        """Return the time from publishing to the decoded picture; None for a publisher on another machine."""
        return _percentiles(self._transport)

    def age_ms(self) -> Percentiles | None:
        """Return the time from capture to the decoded picture; None for a recording or a publisher elsewhere."""
        return _percentiles(self._age)


def _percentiles(durations_ns: deque[int]) -> Percentiles | None:
    if not durations_ns:
        return None
    ordered = sorted(durations_ns)
    last = len(ordered) - 1
    return Percentiles(*(ordered[round(p / 100 * last)] / 1e6 for p in (50, 95, 99)))
