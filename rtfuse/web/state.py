"""Describe the rig for the page: numbers of the statistics message, both cameras in words, the last minutes."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from rtfuse.observe.health import Condition, State
from rtfuse.observe.stats import Snapshot, Spread

NAMES = {"ir": "Thermal", "rgb": "RGB"}
_OUTPUTS = {
    "publish": "Publishing",
    "record": "Recording",
    "web": "This page",
    "window": "The window",
    "drift": "Watching the bracket",
    "beside": "Comparing both pictures",
}
_MINUTES_S = 300


def in_words(name: str, c: Condition) -> str:
    """Say what a stream is doing, in one plain line."""
    called, long = NAMES.get(name, name), f"{c.for_s:.1f} s" if c.for_s < 100 else f"{c.for_s / 60:.0f} min"
    match c.state:
        case State.LIVE:
            return f"{called}: live, {c.rate_hz:.1f} Hz" if c.rate_hz else f"{called}: live"
        case State.STALLED:
            return f"{called}: no frame for {long}"
        case State.LOST:
            return f"{called}: lost for {long}, trying again"
        case State.FROZEN:
            return f"{called}: picture frozen for {long}"
        case State.SHUTTER:
            return f"{called}: shutter closed for {long}"
        case State.ENDED:
            return f"{called}: has ended"
        case _:
            return f"{called}: no frame yet"


def state_of(s: Snapshot) -> dict[str, Any]:
    """Return the counts as JSON: those of `wire.Statistics`, and each stream's state in words."""
    fields = s.fields()
    for name, c in s.streams.items():
        fields["streams"][name] |= {"words": in_words(name, c), "why": c.why}
    return fields | {"quiet_s": s.quiet_s, "elapsed_s": s.elapsed_s}


class Chronicle:
    """Keep the last five minutes, second by second, as differences between snapshots."""

    def __init__(self) -> None:
        self.samples: deque[dict[str, Any]] = deque(maxlen=_MINUTES_S)
        self._last: Snapshot | None = None

    def add(self, s: Snapshot, *, worst_age_ms: float, unix_s: float) -> dict[str, Any]:
        """Note this second: mean age and skew, rates, drops by cause; nothing (None) where no frame came."""
        last, self._last = self._last, s
        drops = Counter(dict(s.drops))
        if last is not None:
            drops.subtract(dict(last.drops))
        known = (last.age, last.skew) if last is not None else (Spread(), Spread())
        sample = {
            "t": round(unix_s, 1),
            "rate": round(s.frames - last.frames if last is not None else 0, 1),
            "hz": round(s.recent_hz, 2) if s.quiet_s is not None and s.quiet_s < 1 else 0.0,
            "age": _mean(known[0], s.age),
            "worst": round(worst_age_ms, 2) if worst_age_ms > 0 else None,
            "skew": _mean(known[1], s.skew),
            "rates": {name: _rate(c) for name, c in s.streams.items()},
            "drops": {f"{where}.{cause}": n for (where, cause), n in drops.items() if n > 0} if last else {},
        }
        self.samples.append(sample)
        return sample


def _rate(c: Condition) -> float:
    return round(c.rate_hz, 2) if c.rate_hz and c.state is State.LIVE else 0.0


def _mean(before: Spread, now: Spread) -> float | None:
    n = sum(k for _, k in now.bins) - sum(k for _, k in before.bins)
    return round((now.sum_ms - before.sum_ms) / n, 2) if n > 0 else None


def plain_causes(drops: Mapping[str, int], causes: Mapping[str, str]) -> dict[str, str]:
    """Return the words for each key `where.cause` of the drops."""
    found = {}
    for key in drops:
        where, _, cause = key.partition(".")
        found[key] = f"{_OUTPUTS.get(where) or NAMES.get(where, where)}: {causes.get(cause, cause)}"
    return found
