"""Choose the pictures of two folders that belong together, page by page, and say what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low

from rtfuse.capture import flir
from rtfuse.capture.images import pages
from rtfuse.capture.scenes.listing import Listing, list_pictures
from rtfuse.capture.scenes.names import in_order
from rtfuse.capture.scenes.pairing import listed, pair
from rtfuse.capture.scenes.streams import divided
from rtfuse.capture.scenes.times import NameTimes
from rtfuse.capture.settings import PairBy
from rtfuse.capture.settings import Stills as Settings
from rtfuse.capture.stills import DEFAULT_FPS, Still
from rtfuse.errors import ConfigError, SourceUnreadable
from rtfuse.types import LABELS, Stream

Part = tuple[str, int]
"""The name of a file, and a page of it from 0."""
Pairs = Sequence[tuple[Part, Part]]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Pictures of both streams that belong together: the k-th of one with the k-th of the other.

    - `by`: the way in which they were paired.
    - `stills`: the pictures, by stream. A sequence paired by time has all of them, each at its own time.
    - `left_out`: the number of pictures of each stream without a partner.
    - `said`: lines about them, and about guesses.
    - `timed`: True if the times come from the names; `rate_hz`: the rate of each stream.
    """

    by: PairBy
    stills: Mapping[Stream, Sequence[Still]]
    left_out: Mapping[Stream, int]
    said: Sequence[str]
    timed: bool
    rate_hz: Mapping[Stream, float]


class _Side:
    """Pages of one stream's files, in natural order."""

    def __init__(self, stream: Stream, found: Listing) -> None:
        self.stream, self.found = stream, found
        self.pages = {n: 1 if n in found.broken else pages(found.path(n)) for n in in_order(found.names)}
        self.parts: list[Part] = [(name, page) for name, count in self.pages.items() for page in range(count)]

    def title(self, part: Part) -> str:
        """Return the name of a page: that of its file, and its number where there are more."""
        name, page = part
        return f"{name}#{page + 1}" if self.pages[name] > 1 else name

    def still(self, part: Part, t_ns: int) -> Still:
        """Return a page as a picture of this time."""
        return Still(self.found.path(part[0]), part[1], self.title(part), t_ns)

    def alone(self, used: set[Part]) -> str:
        """Return a line about the pages without a partner."""
        left = [p for p in self.parts if p not in used]
        names = [self.title(p) + (" (a broken link)" if p[0] in self.found.broken else "") for p in left]
        return f"{LABELS[self.stream]}: {len(left)} of {len(self.parts)} without a partner, left out: {listed(names)}"


def choose(ir: str, rgb: str, how: Settings, *, fps: float | None = None, tolerance_ns: int | None = None) -> Chosen:
    """Pair the pictures of two folders, patterns or files; `fps` is the rate of those without times.

    Raises SourceNotFound for a side without pictures, ConfigError for names in doubt.
    """
    found: dict[Stream, Listing] = {
        "ir": list_pictures(ir, "ir", recursive=how.recursive),
        "rgb": list_pictures(rgb, "rgb", recursive=how.recursive),
    }
    said = [
        f"{LABELS[s]}: files that are not pictures, left out ({len(here.other)}): {listed(here.other)}"
        for s, here in found.items()
        if here.other
    ]
    found = _divided(found, said)
    a, b = _Side("ir", found["ir"]), _Side("rgb", found["rgb"])
    two_files = Path(ir).is_file() and Path(rgb).is_file()
    by, pairs, times = _paired(a, b, "order" if two_files else how.pair, tolerance_ns, said)
    broken = found["ir"].broken, found["rgb"].broken
    pairs = [(i, v) for i, v in pairs if i[0] not in broken[0] and v[0] not in broken[1]]
    if not pairs:
        raise ConfigError("no pair is left: one picture of each is a link that leads nowhere")
    used: dict[Stream, set[Part]] = {"ir": {i for i, _ in pairs}, "rgb": {v for _, v in pairs}}
    sides: dict[Stream, _Side] = {"ir": a, "rgb": b}
    left_out = {s: len(side.parts) - len(used[s]) for s, side in sides.items()}
    if how.sequence and times is not None:
        return _timed(sides, times, said)
    said += [side.alone(used[s]) for s, side in sides.items() if left_out[s]]
    rate_hz = fps or DEFAULT_FPS
    place = {part: k for k, part in enumerate(b.parts if how.sequence else [v for _, v in pairs])}
    at_ns = [round(place[v] * 1e9 / rate_hz) for _, v in pairs]
    stills: dict[Stream, list[Still]] = {
        "ir": [a.still(i, t) for (i, _), t in zip(pairs, at_ns, strict=True)],
        "rgb": [b.still(v, t) for (_, v), t in zip(pairs, at_ns, strict=True)],
    }
    return Chosen(by, stills, left_out, said, False, dict.fromkeys(sides, rate_hz))


def _divided(found: dict[Stream, Listing], said: list[str]) -> dict[Stream, Listing]:
    """Return the listings; where both are the same files, divided by the words in their names."""
    ir, rgb = found["ir"], found["rgb"]
    if ir.root.resolve() != rgb.root.resolve() or {*ir.names} != {*rgb.names}:
        return found
    sides = divided(ir.names)
    if sides is None:
        return _with_photos(found, said)
    neither = in_order({*ir.names} - {*sides["ir"], *sides["rgb"]})
    said.append(f"one folder: {len(sides['ir'])} pictures are thermal by their names, {len(sides['rgb'])} RGB")
    if neither:
        said.append(f"{len(neither)} of {len(ir.names)} tell no stream in their names, left out: {listed(neither)}")
    return {s: replace(here, names=tuple(sides[s])) for s, here in found.items()}


def _with_photos(found: dict[Stream, Listing], said: list[str]) -> dict[Stream, Listing]:
    """Return the listings of the same files; if some hold thermal and a photo, of those and of damaged ones alone."""
    kept, alone, none = list[str](), list[str](), list[str]()
    for name in found["ir"].names:
        try:
            inside = flir.read(found["ir"].path(name))
        except SourceUnreadable:  # it is counted where it is read
            kept.append(name)
        else:
            (none if inside is None else kept if inside.has_photo else alone).append(name)
    if not kept:
        return found
    for names, what in ((alone, "hold thermal alone, without a photo"), (none, "hold no temperatures")):
        if names:
            said.append(f"{len(names)} of {len(found['ir'].names)} {what}, left out: {listed(in_order(names))}")
    return {stream: replace(here, names=tuple(kept)) for stream, here in found.items()}


def _paired(
    ir: _Side, rgb: _Side, by: PairBy | None, tolerance_ns: int | None, said: list[str]
) -> tuple[PairBy, Pairs, Mapping[Stream, NameTimes] | None]:
    """Return the way of pairing, the pairs, and the times where they decided. Raises ConfigError."""
    stack = next((side for side in (ir, rgb) if len(side.pages) == 1 and len(side.parts) > 1), None)
    other = rgb if stack is ir else ir
    if by == "order" or (stack is not None and by != "time" and len(ir.parts) == len(rgb.parts)):
        if stack is not None and len(other.pages) > 1:
            said.append(f"the {len(stack.parts)} pages of {stack.parts[0][0]} are paired in their order")
        return "order", list(zip(ir.parts, rgb.parts, strict=False)), None
    if stack is not None and len(other.pages) > 1:
        raise ConfigError(
            f"{LABELS[stack.stream]} {stack.parts[0][0]} has {len(stack.parts)} pages, and there are "
            f"{len(other.parts)} {LABELS[other.stream]} pictures; --pair order pairs the first with the first"
        )
    found = pair(list(ir.pages), list(rgb.pages), by, tolerance_ns)
    said += found.said
    pairs = [((i, k), (v, k)) for i, v in found.pairs for k in range(min(ir.pages[i], rgb.pages[v]))]
    return found.by, pairs, found.times


def _timed(sides: Mapping[Stream, _Side], times: Mapping[Stream, NameTimes], said: Sequence[str]) -> Chosen:
    """Return all pictures that have a time, each at its time after the first one."""
    start_ns = min(ns for read in times.values() for ns in read.ns.values())
    stills, left_out, rates, lines = dict[Stream, list[Still]](), dict[Stream, int](), dict[Stream, float](), [*said]
    for stream, side in sides.items():
        timed = sorted((ns, name) for name, ns in times[stream].ns.items() if name not in side.found.broken)
        stills[stream] = [side.still((name, 0), ns - start_ns) for ns, name in timed]
        if left := len(side.parts) - len(timed):
            left_out[stream] = left
            lines.append(f"{LABELS[stream]}: {left} of {len(side.parts)} have no time in their names, left out")
        steps = [after[0] - before[0] for before, after in pairwise(timed)]
        rates[stream] = 1e9 / max(median_low(steps), 1) if steps else DEFAULT_FPS
    return Chosen("time", stills, left_out, lines, True, rates)
