"""Turn thermal pictures in false colours back into luma, through the palette that they were coloured with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.observe.logs import event
from rtfuse.thermal.coloured import COLOUR_LEVELS, COLOUR_SHARE, MARKS, colour_share, sampled, strong_share
from rtfuse.thermal.recorded import NAMES, ONLY_BY_NAME, PARTLY_GREY, recorded
from rtfuse.types import Image

_log = logging.getLogger("rtfuse.thermal")

_FAR = 48.0
"""A distance in RGB from which a colour is not of the palette at all: text, markers."""
_AT_ONCE, _CORNERS, _HALF_STEP, _MOST_OF = 4096, 86, (4, 2, 4), (0.02, 0.98)
_BLACK = 60
_RARE, _FEWEST, _MOST = 0.0005, 5, 500
"""A palette is looked for among the colours of at least this share of the pixels; their least and largest number."""
_FIT, _CURVE_FIT = 0.35, (0.07, 0.15)
"""The largest misfit to a palette, and to a line found in the picture, without and with a palette, as shares of that to
grey."""
_SURE, _ALIKE, _BETTER = 12.0, 1.05, 1.5
"""The misfit, in levels, of a palette that needs no other; the ratio of two that fit alike; that of a better line."""
_SCENE = 0.8
"""The share of the pixels that is the scene at least: cameras write text, scales and logos over it."""
_GREYISH = 4.0
"""The mean distance to grey, in levels, up to which only the hottest parts of a scene have colour."""
_COVERED = 0.3
"""The share of its palette that a picture must show before no later one is looked at."""
_MORE_FAR, _NOTED = 0.1, 0.01
"""The share of pixels of other colours, beyond those of the first picture, that makes it look again; that it tells."""
_LONGEST_WAIT = 255
"""The most pictures in natural colours that pass before it looks again."""
UNKNOWN = "unknown"
_GREY = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[:, None], 3, axis=1)


@dataclass(frozen=True, slots=True)
class Fit:
    """Colours laid on a line: their mean distance in levels, the share of it that they cover, the share far from it."""

    misfit: float
    cover: float
    far: float


@dataclass(frozen=True, slots=True)
class Colours:
    """Most frequent colours of a picture: `rgb` (n, 3) float32, and the share of pixels of each, `weight` (n,)."""

    rgb: Image
    weight: Image

    @classmethod
    def of(cls, seen: Image, bits: int = 5) -> Colours:
        """Gather colours, (n, 3) uint8, in cells of `bits` bits a channel."""
        keys = seen.astype(np.int32) >> (8 - bits)
        code = (keys[:, 0] << 2 * bits) | (keys[:, 1] << bits) | keys[:, 2]
        cells, where, count = np.unique(code, return_inverse=True, return_counts=True)
        sums = [np.bincount(where, seen[:, c].astype(np.float64), len(cells)) for c in range(3)]
        kept = count.argsort()[-_MOST:]
        mean = np.column_stack(sums)[kept] / count[kept, None]
        return cls(mean.astype(np.float32), (count[kept] / count[kept].sum()).astype(np.float32))

    def coloured(self) -> Colours:
        """Return those that are not grey, or all if there are too few."""
        some = np.ptp(self.rgb, axis=1) > COLOUR_LEVELS
        if np.count_nonzero(some) < _FEWEST:
            return self
        return Colours(self.rgb[some], self.weight[some] / self.weight[some].sum())

    def fit(self, line: Image, scene: float = _SCENE) -> Fit:
        """Lay the colours on a line of colours, (m, 3); the misfit is that of the share `scene` that fits best."""
        at, distance = _nearest(self.rgb, line)
        order = at.argsort()
        share = np.cumsum(self.weight[order])
        low, high = (int(at[order[min(int(np.searchsorted(share, s * share[-1])), len(at) - 1)]]) for s in _MOST_OF)
        near = distance.argsort()
        near = near[: np.searchsorted(np.cumsum(self.weight[near]), scene) + 1]
        misfit = float(self.weight[near] @ np.minimum(distance[near], _FAR) / self.weight[near].sum())
        return Fit(misfit, (high - low) / len(line), float(self.weight[distance > _FAR].sum()))


def _nearest(rgb: Image, line: Image) -> tuple[Image, Image]:
    """Return the place in a line, (m, 3), of the colour nearest to each of (n, 3), and its distance: (n,) both."""
    b = line.astype(np.float32)
    at, squares = np.empty(len(rgb), np.intp), np.empty(len(rgb), np.float32)
    for k in range(0, len(rgb), _AT_ONCE):
        a = rgb[k : k + _AT_ONCE].astype(np.float32)
        gaps = (b * b).sum(axis=1) - sum(2 * a[:, c, None] * b[:, c] for c in range(3))  # BLAS would start threads
        part = slice(k, k + len(a))
        at[part] = gaps.argmin(axis=1)
        squares[part] = gaps[np.arange(len(a)), at[part]] + (a * a).sum(axis=1)
    return at, np.sqrt(np.maximum(squares, 0))


def curve_of(colours: Colours) -> Image | None:
    """Return the line that the colours of a picture lie along, (256, 3) float32 from cold to hot; None without one.

    The longest path in the shortest tree that joins the colours; its bright end is hot, of two ends that are alike the
    one that is redder.
    """
    at = colours.rgb[colours.weight >= _RARE]
    if len(at) < _FEWEST:
        return None
    steps = np.sqrt(((at[:, None] - at[None]) ** 2).sum(axis=2))
    ways, joined, near = np.zeros_like(steps), [0], np.zeros(len(at), np.intp)
    gap = steps[0].copy()
    for _ in range(len(at) - 1):  # Prim's algorithm; `ways` are the lengths in the tree
        gap[joined[-1]] = np.inf
        new = int(gap.argmin())
        ways[new, joined] = ways[joined, new] = ways[near[new], joined] + steps[near[new], new]
        joined.append(new)
        closer = steps[new] < gap
        closer &= np.isfinite(gap)
        gap[closer], near[closer] = steps[new][closer], new
    first, last = np.unravel_index(int(ways.argmax()), ways.shape)
    along = ways[first]
    path = np.flatnonzero(along + ways[last] <= ways[first, last] + 1e-2)
    path = path[along[path].argsort()]
    places = np.linspace(0, ways[first, last], 256)
    line = np.column_stack([np.interp(places, along[path], at[path, c]) for c in range(3)]).astype(np.float32)
    return line if _rises(line[0], line[-1]) else line[::-1].copy()


def _rises(first: Image, last: Image) -> bool:
    """Return True if a palette rises from cold to hot between two colours: black is cold, brighter and redder hot."""
    if (black := first.max() < _BLACK) != (last.max() < _BLACK):
        return bool(black)
    heat = [float(colour @ np.array([0.8, 0.6, -0.4], np.float32)) for colour in (first, last)]
    return heat[1] >= heat[0]


@dataclass(frozen=True, slots=True)
class Found:
    """Palette that was recognised: its name, or `UNKNOWN`, its colours (256, 3), and how a picture lies on it."""

    name: str
    line: Image
    fit: Fit


def palette_of(colours: Colours) -> Found | None:
    """Recognise the palette of a picture's colours; None if they do not lie along a line, or are too few to say.

    Of palettes that fit alike it is the one of which the picture shows most: cameras spread a scene over their palette.
    Where a line through the colours themselves fits much better than each of them, the palette is unknown.
    """
    if np.count_nonzero(colours.weight >= _RARE) < _FEWEST:
        return None
    spread = colours.fit(_GREY).misfit
    fits = {name: colours.fit(recorded(name)[::2]) for name in NAMES if name not in ONLY_BY_NAME | PARTLY_GREY}
    least = min(fit.misfit for fit in fits.values()) if spread > _GREYISH else np.inf
    line = curve_of(colours) if _SURE < least < np.inf else None
    curve = colours.fit(line) if line is not None else None
    limit = _CURVE_FIT[least <= _FIT * spread] * spread
    if line is not None and curve is not None and curve.misfit <= min(limit, least / _BETTER):
        return Found(UNKNOWN, line, curve)
    if least > _FIT * spread:
        colours = colours.coloured()
        fits = {name: colours.fit(recorded(name)[::2], 1.0) for name in PARTLY_GREY}
        least, spread = min(fit.misfit for fit in fits.values()), colours.fit(_GREY, 1.0).misfit
    if least > _FIT * spread:
        return None
    alike = [name for name, fit in fits.items() if fit.misfit <= _ALIKE * least + 0.3]
    best = max(alike, key=lambda name: fits[name].cover - fits[name].misfit / _FAR)
    return Found(best, recorded(best), fits[best])


def _places(rgb: Image, line: Image) -> tuple[Image, Image]:
    """Return the place, 0 to 255, of the point of a palette, (256, 3), nearest to each colour, and its distance."""
    few = line[np.linspace(0, 255, _CORNERS).round().astype(np.intp)].astype(np.float32)
    at, distance = _nearest(rgb, few)
    along = np.gradient(few, axis=0)[at]  # between two corners the place is that of the colour's projection
    part = ((rgb - few[at]) * along).sum(axis=1) / np.maximum((along * along).sum(axis=1), 1)
    places = (at + np.clip(part, -0.5, 0.5)) * (255 / (_CORNERS - 1))
    return np.clip(places.round(), 0, 255).astype(np.uint8), distance


class Table:
    """Look up the place in a palette, (256, 3), of the colour nearest to each pixel's.

    Colours are looked up as RGB565, once as they are and once half a step higher, and averaged: that halves the steps.
    """

    def __init__(self, line: Image) -> None:
        code = np.arange(65536, dtype=np.int32)
        cells = [(code >> 11) * 8 + 3.5, (code >> 5 & 63) * 4 + 1.5, (code & 31) * 8 + 3.5]
        rgb = np.column_stack(cells).astype(np.float32)
        self._even, distance = _places(rgb, line)
        self._odd, _ = _places(rgb - np.array(_HALF_STEP, np.float32), line)
        self._far = distance > _FAR

    def __call__(self, picture: Image) -> Image:
        """Return the places, (H, W) uint8, for a picture (H, W, 3) uint8 RGB."""
        even = cv2.LUT(_packed(picture), self._even)
        odd = cv2.LUT(_packed(cv2.add(picture, (*_HALF_STEP, 0))), self._odd)
        return cv2.addWeighted(even, 0.5, odd, 0.5, 0)

    def far(self, seen: Image) -> float:
        """Return the share of colours, (n, 3) uint8, that are far from the palette."""
        return float(self._far[_packed(seen[None])].mean())


@cache
def table_of(name: str) -> Table:
    """Return the table of a palette of `recorded.NAMES`."""
    return Table(recorded(name))


def _packed(picture: Image) -> Image:
    """Return a picture, (H, W, 3) uint8 RGB, as RGB565, (H, W) uint16."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2BGR565).view(np.uint16)[..., 0]  # red in the highest bits


_KNOWN = "thermal is in false colours ({}): they are turned back into brightness, {} is taken for hot"
_ROUGH = "thermal looks like false colours ({}), roughly: they are turned back, {} is taken for hot, which is not sure"
_UNKNOWN = "thermal looks false-coloured with an {} palette: its {} end is taken for hot, which is not sure"
_NOT_FOUND = "thermal is in colour, and not in false colours that can be recognised: its brightness alone is used"
_MARKED = (
    "thermal is grey, but {:.2g}% of its pixels have colours (marks, or hot parts): their brightness alone is used"
)
_CHOOSE = "ir.palette=NAME chooses another palette, ir.palette=none takes the brightness"
_OTHER_END = ", thermal.polarity=black-hot takes the other end for hot"
_ROUGHLY = 4.5
"""The misfit, in levels, from which a palette is not surely the one of the picture, nor its direction."""
_WORDS = {
    "black": (0, 0, 0), "grey": (128, 128, 128), "white": (255, 255, 255), "red": (230, 20, 20),
    "orange": (255, 140, 0), "yellow": (255, 230, 40), "green": (20, 200, 40), "cyan": (0, 220, 220),
    "blue": (20, 60, 255), "violet": (120, 20, 160), "pink": (255, 130, 200),
}  # fmt: skip


class FalseColour:
    """Turn the thermal pictures of one source from false colours back into luma; hot is bright.

    `palette`: a name of `recorded.NAMES`; `auto` recognises it, and looks again where the colours become others; `none`
    leaves pictures alone.
    `say`: gets a sentence for each palette about what is done; None: the log.
    `alone`: True to recognise each picture's palette as if it were the only one.
    `said`: palettes about which nothing is said again; those that are named are added.
    Raises ConfigError for an unknown name.
    """

    def __init__(
        self,
        palette: str = "auto",
        say: Callable[[str], None] | None = None,
        *,
        alone: bool = False,
        said: set[str] | None = None,
    ) -> None:
        if palette not in ("auto", "none", *NAMES):
            raise ConfigError(f"ir.palette: {palette!r} is not known; want auto, none, {', '.join(NAMES)}")
        self._given, self._tell, self._alone = palette, say or _log_choice, alone
        self._said = set[str]() if said is None else said
        self._forget()

    def _forget(self) -> None:
        """Begin again, as for the first picture."""
        self._name: str | None = None
        self._table = None if self._given in ("auto", "none") else table_of(self._given)
        self._far, self._cover, self._waits, self._wait = 0.0, 0.0, 0, 0

    def __call__(self, picture: Image) -> Image | None:
        """Return the luma (H, W) uint8 of a picture (H, W, 3) uint8 RGB; None if it is not in false colours."""
        if self._given == "none":
            return None
        if self._alone:
            self._forget()
        if self._given == "auto" and not self._recognised(picture):
            return None
        assert self._table is not None
        return self._table(picture)

    def _recognised(self, picture: Image) -> bool:
        """Return True if the picture is in false colours and their table is known."""
        seen = sampled(picture)
        share = colour_share(seen)
        if share <= COLOUR_SHARE:
            if self._name in PARTLY_GREY:
                return True
            share = strong_share(picture)
            if not share or self._table is not None:
                return False
        fits = self._table is not None and self._table.far(seen) <= self._far + _MORE_FAR
        if fits and self._cover >= _COVERED:
            return True
        if self._wait:
            self._wait -= 1
        else:
            self._look(Colours.of(seen), share)
        return self._table is not None

    def _look(self, colours: Colours, share: float) -> None:
        """Find the palette of a picture's colours; where they do not say it for good, wait longer for the next look."""
        self._waits = min(2 * self._waits + 1, _LONGEST_WAIT)
        self._wait = self._waits
        found = palette_of(colours)
        if found is None:
            if self._table is None:
                self._say(*(("none", _NOT_FOUND) if share > MARKS else ("marked", _MARKED.format(100 * share))))
            return
        if found.fit.cover >= _COVERED:
            self._wait = self._waits = 0
        if found.name == self._name and found.fit.cover <= self._cover:
            self._far = max(self._far, found.fit.far)
            return
        self._name, self._cover, self._far = found.name, found.fit.cover, found.fit.far
        self._table = Table(found.line) if found.name == UNKNOWN else table_of(found.name)
        text = _UNKNOWN if found.name == UNKNOWN else _ROUGH if found.fit.misfit > _ROUGHLY else _KNOWN
        hot = list(_WORDS)[int(_nearest(found.line[-1:], np.array(list(_WORDS.values())))[0][0])]
        self._say(found.name, text.format(found.name, hot))

    def _say(self, name: str, text: str) -> None:
        """Log the treatment of each palette once."""
        if name in self._said:
            return
        self._said.add(name)
        if self._far > _NOTED:
            text += f"; {self._far:.0%} of its pixels have other colours (a scale, text, marks), see ir.crop"
        self._tell(text)


def _log_choice(text: str) -> None:
    choose = _CHOOSE + _OTHER_END * ("taken for hot" in text)
    event(_log, logging.WARNING, "palette", f"{text}; {choose}", stream="ir")
