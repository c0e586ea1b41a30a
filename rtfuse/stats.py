"""Running counts of a pipeline: rate, age, skew, drops by cause; constant in memory, safe to read while it runs."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rtfuse.types import Clock, Fused

_BIN_NS = 100_000
_BINS = 200_000


class Histogram:
    """Counts of durations, exact to 0.1 ms from -10 s to 10 s; durations beyond count as the limit."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self.total = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration in nanoseconds."""
        nearest = (duration_ns + _BIN_NS // 2) // _BIN_NS
        self._counts[min(max(nearest + _BINS // 2, 0), _BINS - 1)] += 1
        self.total += 1

    def percentiles_ms(self, *percents: float) -> tuple[float, ...]:
        """Return these percentiles in milliseconds; NaN where nothing was counted."""
        if not self.total:
            return (float("nan"),) * len(percents)
        below = np.cumsum(self._counts)
        at = np.searchsorted(below, [max(1.0, p / 100 * self.total) for p in percents])
        return tuple(float((i - _BINS // 2) * _BIN_NS / 1e6) for i in at)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a status line shows: whole-run percentiles (p50, p95, p99) in milliseconds, drops by (where, cause)."""

    frames: int
    elapsed_s: float
    rate_hz: float
    recent_hz: float
    age_ms: tuple[float, ...]
    skew_ms: tuple[float, ...]
    reused: int
    drops: Mapping[tuple[str, str], int]


class Stats:
    """Collects what `Snapshot` shows. `delivered` may be called from one thread, `snapshot` from another."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start_ns = clock()
        self._recent: deque[int] = deque(maxlen=60)
        self._age, self._skew = Histogram(), Histogram()
        self._frames = self._reused = 0
        self.drops: Counter[tuple[str, str]] = Counter()

    def delivered(self, fused: Fused) -> None:
        """Count a fused frame that has reached its first sink."""
        now = self._clock()
        with self._lock:
            if not self._frames:
                self._start_ns = now
            self._frames += 1
            self._reused += fused.pair.reused
            self._recent.append(now)
            self._age.add(fused.pair.rgb.age_ns(now))
            self._skew.add(fused.pair.skew_ns)

    def snapshot(self, *others: Mapping[Any, int]) -> Snapshot:
        """Return the state now, with the drops that other parts of the pipeline have counted."""
        now = self._clock()
        with self._lock:
            drops = Counter(self.drops)
            for other in others:
                drops.update(dict(other))
            elapsed_ns, recent = max(now - self._start_ns, 1), self._recent
            quiet_ns = max(now - recent[0], 1) if recent else 1
            return Snapshot(
                frames=self._frames,
                elapsed_s=elapsed_ns / 1e9,
                rate_hz=self._frames / (elapsed_ns / 1e9) if self._frames else 0.0,
                recent_hz=(len(recent) - 1) / (quiet_ns / 1e9) if len(recent) > 1 else 0.0,
                age_ms=self._age.percentiles_ms(50, 95, 99),
                skew_ms=self._skew.percentiles_ms(50, 95, 99),
                reused=self._reused,
                drops=+drops,
            )
