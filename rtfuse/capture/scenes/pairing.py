"""Pair the pictures of two folders, as names alone: by name, by order, or by the times in the names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rtfuse.capture.scenes.doubts import refuse_word_of_scene
from rtfuse.capture.scenes.matching import match, refuse_shift
from rtfuse.capture.scenes.names import in_order, stream_of
from rtfuse.capture.scenes.times import NameTimes, nearest, times_of
from rtfuse.capture.settings import PairBy
from rtfuse.errors import ConfigError
from rtfuse.types import LABELS, Stream

_LISTED = 10
"""The most names in one line."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pairs of names (thermal, RGB) in RGB's order, and all other names by stream.

    - `by`: the way in which they were paired.
    - `said`: lines about guesses, and about a better way.
    - `times`: the times in the names, by stream, where they decided.
    """

    by: PairBy
    pairs: tuple[tuple[str, str], ...]
    alone: Mapping[Stream, tuple[str, ...]]
    said: tuple[str, ...] = ()
    times: Mapping[Stream, NameTimes] | None = None


def pair(ir: Sequence[str], rgb: Sequence[str], by: PairBy | None = None, tolerance_ns: int | None = None) -> Pairing:
    """Pair two lists of names, each without doubles.

    by: None pairs by name, and refuses numbers that are shifted against each other, and words that may name a stream or
    a scene; `name` takes them as they are.
    tolerance_ns: the greatest difference of two times; None: half of the shorter median step.

    Raises ConfigError, with the readings and the way out, if names are in doubt or nothing can be paired.
    """
    if not ir or not rgb:
        raise ConfigError(f"nothing to pair: {len(ir)} thermal and {len(rgb)} RGB pictures")
    if by == "time":
        return _by_time(ir, rgb, tolerance_ns)
    if by == "order":
        return _made(by, ir, rgb, dict(zip(in_order(ir), in_order(rgb), strict=False)))
    found = match(ir, rgb)
    if by is None:
        refuse_word_of_scene(found.rgb_of)
    if not found.rgb_of and len(ir) == len(rgb) == 1:
        guess = f"the only two pictures are paired, though their names differ: {ir[0]} with {rgb[0]}"
        return _made("name", ir, rgb, {ir[0]: rgb[0]}, [guess])
    if not any(found.left(ir, rgb)):
        return _made("name", ir, rgb, found.rgb_of, found.said)
    times = _both_times(ir, rgb)
    if found.rgb_of and times is None and by is None:
        refuse_shift(ir, rgb)
    by_time = len(nearest(times["ir"].ns, times["rgb"].ns, tolerance_ns)) if times is not None else 0
    if not found.rgb_of:
        raise ConfigError(_nothing_in_common(ir, rgb, times if by_time else None))
    said = list(found.said)
    if times is not None and by_time > len(found.rgb_of):
        said.append(
            f"the names are times ({times['rgb'].kind}): --pair time pairs {by_time} instead of {len(found.rgb_of)}"
        )
    return _made("name", ir, rgb, found.rgb_of, said)


def _made(
    by: PairBy,
    ir: Sequence[str],
    rgb: Sequence[str],
    rgb_of: Mapping[str, str],
    said: Sequence[str] = (),
    times: Mapping[Stream, NameTimes] | None = None,
) -> Pairing:
    place = {name: k for k, name in enumerate(in_order(rgb))}
    pairs = tuple(sorted(rgb_of.items(), key=lambda names: place[names[1]]))
    taken = set(rgb_of.values())
    alone: dict[Stream, tuple[str, ...]] = {
        "ir": tuple(name for name in in_order(ir) if name not in rgb_of),
        "rgb": tuple(name for name in place if name not in taken),
    }
    return Pairing(by, pairs, alone, (*said, *_swapped(pairs)), times)


def _both_times(ir: Sequence[str], rgb: Sequence[str]) -> dict[Stream, NameTimes] | None:
    """Return the times of both sides, None unless all names have one and they count from the same start."""
    a, b = times_of(ir), times_of(rgb)
    if a is None or b is None or len(a.ns) < len(ir) or len(b.ns) < len(rgb) or a.absolute != b.absolute:
        return None
    return {"ir": a, "rgb": b}


def _by_time(ir: Sequence[str], rgb: Sequence[str], tolerance_ns: int | None) -> Pairing:
    times: dict[Stream, NameTimes] = {}
    sides: dict[Stream, Sequence[str]] = {"ir": ir, "rgb": rgb}
    for stream, names in sides.items():
        if (read := times_of(names)) is None:
            raise ConfigError(
                f"--pair time: no times in the names of {LABELS[stream]} ({listed(names, 3)}); want seconds, ms, µs or "
                "ns since 1970, ISO 8601, or 20240501_123045; --pair name and --pair order need none"
            )
        times[stream] = read
    a, b = times["ir"], times["rgb"]
    if a.absolute != b.absolute:
        raise ConfigError(f"--pair time: thermal's names are {a.kind} and RGB's {b.kind}: they have no common start")
    found = nearest(a.ns, b.ns, tolerance_ns)
    if not found:
        raise ConfigError(
            f"--pair time: no two times are near enough: thermal {_span(a)}, RGB {_span(b)}; --pair order pairs by "
            "position"
        )
    return _made("time", ir, rgb, found, times=times)


def _span(times: NameTimes) -> str:
    return f"{min(times.ns.values()) / 1e9:.3f} to {max(times.ns.values()) / 1e9:.3f} s"


def _nothing_in_common(ir: Sequence[str], rgb: Sequence[str], times: Mapping[Stream, NameTimes] | None) -> str:
    """Return the text of the error for two sides whose names do not fit."""
    by_time = f"; --pair time pairs them by the times in their names ({times['rgb'].kind})" if times is not None else ""
    return (
        f"no thermal name ({listed(in_order(ir), 3)}) fits one of RGB ({listed(in_order(rgb), 3)}); --pair order pairs "
        f"the {len(ir)} and {len(rgb)} pictures by position{by_time}"
    )


def _swapped(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return a line if the thermal names are those of RGB pictures and the other way round."""
    if any(stream_of(a) != "rgb" or stream_of(b) != "ir" for a, b in pairs):
        return []
    return [f"thermal is {pairs[0][0]} and RGB is {pairs[0][1]}: are the two swapped?"]


def listed(names: Sequence[str], most: int = _LISTED) -> str:
    """Return the first names in one line, and how many follow."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
