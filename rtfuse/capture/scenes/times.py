"""Read the times that pictures have in their names, and pair pictures by them.

Understood are seconds, ms, µs and ns since 1970 (told apart by their digits), `time.time()` with its fraction, ROS's
seconds and nanoseconds, ISO 8601, dates with times as cameras write them, and seconds from a start (`12.5`, `12.5s`).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from statistics import median_low

from rtfuse.capture.scenes.names import stem_of

_S_NS = 1_000_000_000
_CALENDAR = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[Tt_ -]{0,3}(\d\d)[-_:.h]?(\d\d)[-_:.m]?(\d\d)"
    r"(?:[.,](\d{1,9})|(\d{3}|\d{6}|\d{9}))?(?!\d)(Z|[+-]\d\d:?\d\d(?!\d))?"
)
_AFTER = re.compile(r"[-_](\d{3}|\d{6}|\d{9})(?!\d)")
_EPOCH = re.compile(r"(?<![\d.])([1-3]\d{9})(?:\.(\d+)|[-_](\d{9}))?(?![\d.])")
_EPOCH_FINE = re.compile(r"(?<![\d.])([1-3]\d{9})(\d{3}|\d{6}|\d{9})(?![\d.])")
_UNIT = re.compile("(?<![\\d.])(\\d+)(?:\\.(\\d+))?(ns|us|\u03bcs|ms|s)(?![^\\W\\d_])")
_FRACTION = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?![\d.])")
_PER_S = {"ns": 9, "us": 6, "\u03bcs": 6, "ms": 3, "s": 0}


@dataclass(frozen=True, slots=True)
class Stamp:
    """Time in a name: nanoseconds since 1970 or since a start, and its first and last place in the stem."""

    ns: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class NameTimes:
    """Times by name in nanoseconds, the way they are written, and True if they count from 1970."""

    ns: Mapping[str, int]
    kind: str
    absolute: bool


def _nanoseconds(whole: str, fraction: str = "", power: int = 0) -> int:
    """Return a decimal number of 10^-power seconds as nanoseconds; digits beyond them are cut off."""
    digits = fraction[: 9 - power].ljust(9 - power, "0")
    return int(whole + digits)


def _calendar(stem: str) -> Stamp | None:
    for m in _CALENDAR.finditer(stem):
        try:
            year, month, day, hour, minute, second = map(int, m.group(1, 2, 3, 4, 5, 6))
            moment = datetime(year, month, day, hour, minute, second, tzinfo=_zone(m[9]))
        except ValueError:
            continue
        fraction = _nanoseconds("0", m[7] or m[8] or "")
        return Stamp(round((moment - _1970) / timedelta(seconds=1)) * _S_NS + fraction, m.start(), m.end())
    return None


_1970 = datetime(1970, 1, 1, tzinfo=UTC)


def _zone(text: str | None) -> timezone:
    """Return the time zone of `Z`, `+02:00` or nothing (UTC)."""
    if not text or text == "Z":
        return UTC
    minutes = int(text[1:3]) * 60 + int(text[-2:])
    return timezone(timedelta(minutes=minutes if text[0] == "+" else -minutes))


def _calendar_and_after(stem: str) -> Stamp | None:
    """Read a date and time whose ms, µs or ns follow a separator."""
    stamp = _calendar(stem)
    after = _AFTER.match(stem, stamp.end) if stamp is not None else None
    if stamp is None or after is None or stamp.ns % _S_NS:
        return None
    return Stamp(stamp.ns + _nanoseconds("0", after[1]), stamp.start, after.end())


def _epoch(stem: str) -> Stamp | None:
    m = _EPOCH.search(stem)
    return m and Stamp(_nanoseconds(m[1], m[2] or m[3] or ""), m.start(), m.end())


def _epoch_fine(stem: str) -> Stamp | None:
    m = _EPOCH_FINE.search(stem)
    return m and Stamp(_nanoseconds(m[1], m[2]), m.start(), m.end())


def _unit(stem: str) -> Stamp | None:
    m = _UNIT.search(stem)
    return m and Stamp(_nanoseconds(m[1], m[2] or "", _PER_S[m[3]]), m.start(), m.end())


def _fraction(stem: str) -> Stamp | None:
    m = _FRACTION.search(stem)
    return m and Stamp(_nanoseconds(m[1], m[2]), m.start(), m.end())


_FORMATS: list[tuple[str, bool, Callable[[str], Stamp | None]]] = [
    ("dates with times and fractions", True, _calendar_and_after),
    ("dates with times", True, _calendar),
    ("ms, µs or ns since 1970", True, _epoch_fine),
    ("seconds since 1970", True, _epoch),
    ("times with units", False, _unit),
    ("seconds", False, _fraction),
]


def times_of(names: Sequence[str]) -> NameTimes | None:
    """Return the times in the names; names without one are left out; None if most have none, or all the same one."""
    best: NameTimes | None = None
    for kind, absolute, read in _FORMATS:
        ns = {name: stamp.ns for name in names if (stamp := read(stem_of(name))) is not None}
        if read is _calendar_and_after and _is_index(list(ns)):
            continue
        if 2 * len(ns) > max(len(names), 2 * len(best.ns) if best else 0) and (
            len(names) == 1 or len({*ns.values()}) > 1
        ):
            best = NameTimes(ns, kind, absolute)
    return best


def _is_index(names: Sequence[str]) -> bool:
    """Return True if the digits after the times count the pictures."""
    found = list[tuple[int, int]]()
    for name in names:
        stem = stem_of(name)
        stamp = _calendar(stem)
        after = _AFTER.match(stem, stamp.end) if stamp is not None else None
        if stamp is not None and after is not None:
            found.append((stamp.ns, int(after[1])))
    numbers = [number for _, number in sorted(found)]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True


def without_time(name: str) -> tuple[int, str] | None:
    """Return a date and time in a name, in nanoseconds since 1970, and the rest of the name; None without one."""
    stem = stem_of(name)
    stamp = _calendar(stem)
    return None if stamp is None else (stamp.ns, f"{stem[: stamp.start]} {stem[stamp.end :]}.x")


def nearest(ir: Mapping[str, int], rgb: Mapping[str, int], tolerance_ns: int | None = None) -> dict[str, str]:
    """Pair names whose times are each other's nearest; return RGB's by thermal's.

    `tolerance_ns`: the greatest difference; None: half of the shorter median step of the two sides.
    """
    if tolerance_ns is None:
        steps = [step for times in (ir, rgb) if (step := _median_step(times.values())) is not None]
        tolerance_ns = min(steps) // 2 if steps else 0
    irs, rgbs = (sorted((t, name) for name, t in times.items()) for times in (ir, rgb))
    found = dict[str, str]()
    for t, name in irs:
        other = _nearest(rgbs, t)
        if other is not None and abs(other[0] - t) <= tolerance_ns and _nearest(irs, other[0]) == (t, name):
            found[name] = other[1]
    return found


def _median_step(times: Iterable[int]) -> int | None:
    ordered = sorted(set(times))
    return median_low(b - a for a, b in pairwise(ordered)) if len(ordered) > 1 else None


def _nearest(entries: Sequence[tuple[int, str]], t: int) -> tuple[int, str] | None:
    """Return the entry nearest to a time: of two equals the earlier one, of one time the first name."""
    at = bisect_left(entries, (t, ""))
    around = list(entries[at : at + 1])
    if at:
        around.append(entries[bisect_left(entries, (entries[at - 1][0], ""))])
    return min(around, key=lambda entry: (abs(entry[0] - t), entry), default=None)
