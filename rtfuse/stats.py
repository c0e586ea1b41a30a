"""Running counts of a pipeline: rate, age, skew, drops by cause; constant in memory, safe to read while it runs."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtfuse.health import Condition
from rtfuse.types import Clock, Fused, Pair

_BIN_NS = 100_000
_BINS = 200_000
_SKEW_EDGES_MS = (
    -100.0,
    -50.0,
    -33.0,
    -20.0,
    -10.0,
    -5.0,
    -2.0,
    -1.0,
    0.0,
    1.0,
    2.0,
    5.0,
    10.0,
    20.0,
    33.0,
    50.0,
    100.0,
    float("inf"),
)


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

    def counts_below_ms(self, edges_ms: Sequence[float]) -> list[tuple[float, int]]:
        """Return how many durations lie up to each of these rising edges (ms) and above the one before."""
        below = np.concatenate([[0], np.cumsum(self._counts)])
        at = [_BINS if edge == float("inf") else round(edge * 1e6 / _BIN_NS) + _BINS // 2 + 1 for edge in edges_ms]
        counts = np.diff(below[np.clip(at, 0, _BINS)], prepend=0)
        return [(edge, int(n)) for edge, n in zip(edges_ms, counts, strict=True)]


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
    modes: Mapping[str, int] = field(default_factory=dict)
    """Frames by what they showed: `fused`, `rgb` or `ir` alone, `held`."""
    skew_counts: tuple[tuple[float, int], ...] = ()
    """The skew histogram: upper edge of each bin in milliseconds (the last: inf), and how many pairs fell into it."""
    streams: Mapping[str, Condition] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """Return what the statistics message carries (`rtfuse.publish.wire.Statistics`)."""
        return {
            "frames": self.frames,
            "pair_rate_hz": self.recent_hz,
            "reused": self.reused,
            "age_ms": [_known(n) for n in self.age_ms],
            "skew_ms": [_known(n) for n in self.skew_ms],
            "skew_histogram": [(_known(edge), n) for edge, n in self.skew_counts],
            "modes": dict(self.modes),
            "drops": {f"{where}.{cause}": n for (where, cause), n in self.drops.items()},
            "streams": {
                name: {
                    "state": c.state.value,
                    "for_s": c.for_s,
                    "rate_hz": c.rate_hz,
                    "latency_ms": c.latency_ms,
                    "drift_ppm": c.drift_ppm,
                    "clock_steps": c.clock_steps,
                    "reconnects": c.reconnects,
                }
                for name, c in self.streams.items()
            },
        }


def _known(n: float) -> float | None:
    return n if math.isfinite(n) else None


class Stats:
    """Collects what `Snapshot` shows. `delivered` may be called from one thread, `snapshot` from another."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start_ns = clock()
        self._recent: deque[int] = deque(maxlen=60)
        self._age, self._skew = Histogram(), Histogram()
        self._frames = self._reused = 0
        self._modes: Counter[str] = Counter()
        self.drops: Counter[tuple[str, str]] = Counter()

    def delivered(self, fused: Fused) -> None:
        """Count a fused frame that has reached its first sink."""
        now = self._clock()
        with self._lock:
            if not self._frames:
                self._start_ns = now
            self._frames += 1
            self._modes[fused.mode] += 1
            self._recent.append(now)
            if fused.mode == "held":
                return
            self._age.add(fused.pair.leader.age_ns(now))
            if isinstance(fused.pair, Pair):
                self._reused += fused.pair.reused
                self._skew.add(fused.pair.skew_ns)

    def snapshot(self, *others: Mapping[Any, int], streams: Mapping[str, Condition] | None = None) -> Snapshot:
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
                modes=dict(self._modes),
                skew_counts=tuple(self._skew.counts_below_ms(_SKEW_EDGES_MS)),
                streams=streams or {},
            )
