"""Count the frames of a running pipeline: rate, age, skew, drops by cause, in constant memory."""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rtfuse.observe.health import Condition
from rtfuse.types import Clock, Fused, PlacedSpot

_BIN_NS = 100_000
_BINS = 200_000
_INF = float("inf")
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
)
_AGE_EDGES_MS = (1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0, 5000.0)
_STAGE_EDGES_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 33.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)


@dataclass(frozen=True, slots=True)
class Spread:
    """Hold a histogram: the upper edge of each bin in ms (the last: inf) with its count, and the sum in ms."""

    bins: tuple[tuple[float, int], ...] = ()
    sum_ms: float = 0.0


class Histogram:
    """Count durations, exact to 0.1 ms from -10 s to 10 s; durations beyond count as the limit."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._low, self._high = _BINS, 0  # all counts so far lie in [low, high)
        self.total, self.sum_ns = 0, 0

    def add(self, duration_ns: int) -> None:
        """Count one duration in nanoseconds."""
        nearest = min(max((duration_ns + _BIN_NS // 2) // _BIN_NS + _BINS // 2, 0), _BINS - 1)
        self._counts[nearest] += 1
        self._low, self._high = min(self._low, nearest), max(self._high, nearest + 1)
        self.total += 1
        self.sum_ns += duration_ns

    def percentiles_ms(self, *percents: float, absolute: bool = False) -> tuple[float, ...]:
        """Return these percentiles, of the absolute durations if `absolute`, in ms; NaN where nothing was counted."""
        if not self.total:
            return (float("nan"),) * len(percents)
        bins, counts = np.arange(self._low, self._high) - _BINS // 2, self._counts[self._low : self._high]
        if absolute:
            counts = np.bincount(np.abs(bins), weights=counts)
            bins = np.arange(len(counts))
        at = np.searchsorted(np.cumsum(counts), [max(1.0, p / 100 * self.total) for p in percents])
        return tuple(float(bins[i] * _BIN_NS / 1e6) for i in at)

    def spread(self, edges_ms: Sequence[float]) -> Spread:
        """Return the number of durations up to each of these rising edges (ms) and above the previous one."""
        below = np.concatenate([[0], np.cumsum(self._counts[self._low : self._high])])
        at = [*(round(edge * 1e6 / _BIN_NS) + _BINS // 2 + 1 for edge in edges_ms), _BINS]
        counts = np.diff(below[np.clip(np.array(at) - self._low, 0, len(below) - 1)], prepend=0)
        bins = tuple((edge, int(n)) for edge, n in zip([*edges_ms, _INF], counts, strict=True))
        return Spread(bins, self.sum_ns / 1e6)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Summarise a run: percentiles (p50, p95, p99) in milliseconds over the whole run, drops by (where, cause).

    `delay_ms`: from the leading frame's time to its first sink; of a recording, from the time at which it was due.
    `skew_ms`: of absolute skews; frames before and after their partners do not cancel each other.
    `age`: the ages of a camera's frames; empty for a recording.
    """

    frames: int
    elapsed_s: float
    rate_hz: float
    recent_hz: float
    delay_ms: tuple[float, ...]
    skew_ms: tuple[float, ...]
    reused: int
    drops: Mapping[tuple[str, str], int]
    modes: Mapping[str, int] = field(default_factory=dict)
    """Frames by mode: `fused`, `rgb` or `ir` alone, `held`."""
    age: Spread = Spread()
    skew: Spread = Spread()
    stages: Mapping[str, Spread] = field(default_factory=dict)
    """Duration of each stage: `fuse` (gain, warp and fusion), and writing to each sink."""
    queues: Mapping[str, int] = field(default_factory=dict)
    """Frames that wait now, before each stage."""
    streams: Mapping[str, Condition] = field(default_factory=dict)
    spots: tuple[PlacedSpot, PlacedSpot] | None = None
    """The hottest and the coldest point of the newest frame of a radiometric camera."""
    lowered: tuple[str, ...] = ()
    """Parts that are lowered now for lack of processor, in words."""
    overload: str | None = None
    """Reason that frames stay late although lowering parts does not help, with the remedy; None if they do not."""
    quiet_s: float | None = None
    """Seconds since the newest frame was delivered; None before the first."""
    recorded: bool = False
    """True for frames of a recording, which have no age: their times are the recording's, or those of playing."""

    @property
    def age_ms(self) -> tuple[float, ...]:
        """Percentiles of the age, p50, p95 and p99, from capture to the first sink; NaN for a recording."""
        return (math.nan,) * len(self.delay_ms) if self.recorded else self.delay_ms

    def fields(self) -> dict[str, Any]:
        """Return the fields of the statistics message (`rtfuse.wire.statistics.Statistics`)."""
        return {
            "frames": self.frames,
            "pair_rate_hz": self.recent_hz,
            "reused": self.reused,
            "age_ms": [_known(n) for n in self.age_ms],
            "skew_ms": [_known(n) for n in self.skew_ms],
            "skew_histogram": [(_known(edge), n) for edge, n in self.skew.bins],
            "modes": dict(self.modes),
            "lowered": list(self.lowered),
            "overload": self.overload,
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
    """Collect the numbers of `Snapshot`. One thread may call `delivered` while another calls `snapshot`."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._start_ns = clock()
        self._recent: deque[int] = deque(maxlen=60)
        self._age, self._skew = Histogram(), Histogram()
        self._frames = self._reused = 0
        self._recorded = False
        self._modes: Counter[str] = Counter()
        self._stages: dict[str, Histogram] = {}
        self._spots: tuple[PlacedSpot, PlacedSpot] | None = None
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
            self._spots = fused.spots
            self._recorded = fused.pair.leader.stamp.recorded
            self._age.add(fused.pair.leader.age_ns(now))
            if fused.pair.skew_ns is not None:
                self._reused += fused.pair.reused
                self._skew.add(fused.pair.skew_ns)

    def took(self, stage: str, duration_ns: int) -> None:
        """Count how long one frame was in a stage."""
        with self._lock:
            if stage not in self._stages:  # `setdefault` would make a histogram, which is large, for each frame
                self._stages[stage] = Histogram()
            self._stages[stage].add(duration_ns)

    def snapshot(
        self,
        *others: Mapping[Any, int],
        streams: Mapping[str, Condition] | None = None,
        queues: Mapping[str, int] | None = None,
        lowered: tuple[str, ...] = (),
        overload: str | None = None,
    ) -> Snapshot:
        """Return the present numbers, with the drops `others` and the state of the pipeline's parts."""
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
                delay_ms=self._age.percentiles_ms(50, 95, 99),
                skew_ms=self._skew.percentiles_ms(50, 95, 99, absolute=True),
                reused=self._reused,
                drops=+drops,
                modes=dict(self._modes),
                age=Spread() if self._recorded else self._age.spread(_AGE_EDGES_MS),
                skew=self._skew.spread(_SKEW_EDGES_MS),
                stages={name: spent.spread(_STAGE_EDGES_MS) for name, spent in self._stages.items()},
                queues=queues or {},
                streams=streams or {},
                spots=self._spots,
                lowered=lowered,
                overload=overload,
                quiet_s=(now - recent[-1]) / 1e9 if recent else None,
                recorded=self._recorded,
            )
