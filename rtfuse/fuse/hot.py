"""Keep thermal's order in hot places: there the fused luma rises with thermal's alone, so that hotter is brighter.

A pixel is hot if its thermal luma T reaches a level: that of a temperature, or of the hottest share of the pixels. At
all hot pixels of a picture

    shown = m + b (T - t),    b = 1, or less, so that the hottest pixel is at most white

where t and m are the means of thermal and of the fused picture over the least hot of them: a hot place begins at the
brightness of its edge and rises by thermal's steps. Around it this fades out by two factors: with thermal's level, the
mean of 3×3 pixels, so that an edge of thermal stays an edge; and with the distance, over some 25 pixels, so that a
large warm area is not changed as a whole. Each value there lies between the fused one and that of the least hot pixels;
elsewhere the picture is unchanged, bit for bit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from rtfuse.observe.logs import event
from rtfuse.types import Image, Thermal, ThermalPicture, Work

FADE = 32
"""Most levels below hot over which thermal fades out; fewer where the median of thermal is nearer."""
REACH_PX = 36
"""A pixel further than this from every hot pixel is unchanged, in both directions."""
_LEAST = 16
"""Levels from hot upward that are the least hot pixels."""
_CELL_PX = 8
"""Side of the squares in which the distance to hot pixels is measured, which reach three and a half squares."""
_ABOVE = 8
"""The hottest share must be this many levels above the median of thermal; a flat picture has no hot places."""
_MOST = 0.25
"""Largest share of the pixels that counts as hot where the hottest level alone has more than the wanted share."""
_FLATTEST = 0.5
"""Smallest slope b; bright places leave less room, and become darker."""
_TAU_NS, _GAP_NS = 700e6, 500_000_000
"""Time constant of level and means, against flicker; a gap of this length starts again."""
_JUMP = 24.0
"""A level or mean that changes by more than this starts again."""
_EVERY = 4
"""Step of the rows in which the level is found."""
_ZERO_K = 273.15
_log = logging.getLogger("rtfuse.fuse")

CountAt = Callable[[Thermal, float], int | None]
"""The smallest count of a radiometric frame that is at least a temperature in kelvin; None without temperatures."""


class _Hot(NamedTuple):
    """Level from which thermal is hot; the means of thermal and of the fused picture over the least hot pixels."""

    level: float
    thermal: float
    fused: float


class KeepHot:
    """Show hot places of fused luma in thermal's order: a stage after the fuser.

    - `share`: the hottest share of thermal's pixels is hot.
    - `above_c`, in place of it: all that is at least this hot, in °C, where the camera is radiometric; `count_at` finds
      the count.
    - `hold`: True for frames of one scene: level and means follow it with a time constant of 0.7 s.

    Hot pixels are those where thermal reaches fully; on the seam they fade out with it.
    """

    def __init__(
        self, share: float | None = None, *, above_c: float | None = None, count_at: CountAt, hold: bool = True
    ) -> None:
        self._share, self._above_c, self._count_at, self._hold = share, above_c, count_at, hold
        self._last: _Hot | None = None
        self._last_ns, self._step = 0, 1.0
        self._full: tuple[Image, Image] | None = None
        self._said = False

    def __call__(self, work: Work) -> None:
        """Exchange the fused luma of a pair, if it has hot pixels."""
        ir, thermal = work.moment.ir, work.thermal
        if ir is None or thermal is None or work.luma is None or not work.moment.complete:
            return
        self._begin(work.moment.leader.t_ns)
        full = self._reached(thermal.valid)
        level: float
        level, median = hot_level(thermal(), self._share or 0.0, full)
        if self._above_c is not None:
            level = self._of_heat(ir.thermal, thermal)
        elif self._last is not None and level <= 255:
            level = self._followed(level, self._last.level)
        place = _place(thermal(), math.ceil(level), full) if level <= 255 else None
        if place is None:
            self._last = None
            return
        fade = min(max(round(math.ceil(level) - median), 1), FADE)
        work.luma = self._shown(work.luma, thermal, place, level, fade)

    def _begin(self, t_ns: int) -> None:
        """Set how far level and means follow this frame; forget the last one after a gap."""
        gap_ns, self._last_ns = t_ns - self._last_ns, t_ns
        self._step = 1 - math.exp(-gap_ns / _TAU_NS) if self._hold and 0 <= gap_ns <= _GAP_NS else 1.0
        if self._step == 1:
            self._last = None

    def _followed(self, new: float, last: float) -> float:
        return new if abs(new - last) > _JUMP else last + self._step * (new - last)

    def _reached(self, valid: Image | None) -> Image | None:
        """Return 255 where thermal reaches fully, (H, W) uint8; None: everywhere."""
        if valid is None:
            return None
        if self._full is None or self._full[0] is not valid:
            self._full = valid, cv2.threshold(valid, 254, 255, cv2.THRESH_BINARY)[1]
        return self._full[1]

    def _of_heat(self, said: Thermal | None, thermal: ThermalPicture) -> int:
        """Return the level of the temperature; 256 if the picture shows none, which is said once."""
        count = None if said is None else self._count_at(said, (self._above_c or 0.0) + _ZERO_K)
        if count is not None and thermal.table is not None:
            return 256 if count > cv2.minMaxLoc(thermal.image)[1] else int(thermal.table.flat[count])
        if not self._said:
            self._said = True
            lacks = "no temperatures: set thermal.camera or thermal.k_per_count, or fuse.keep_hot for a share"
            lacks = lacks if count is None else "no table from counts to brightness (thermal.agc.method=clahe)"
            text = f"fuse.keep_hot_c={self._above_c:g} has no effect: thermal has {lacks}"
            event(_log, logging.WARNING, "hot", text)
        return 256

    def _shown(self, fused: Image, thermal: ThermalPicture, place: _Place, level: float, fade: int) -> Image:
        """Return the fused luma with hot places in thermal's order."""
        y, x = place.rows, place.columns
        ir, old = thermal()[y, x], fused[y, x]
        core, hot = place.core[y, x], math.ceil(level)
        found = cv2.bitwise_and(ir, core)
        now = _Hot(level, *_least(found, old, hot))
        if (last := self._last) is not None:
            now = _Hot(level, self._followed(now.thermal, last.thermal), self._followed(now.fused, last.fused))
        self._last = now
        slope, offset = _line(now, hot, cv2.minMaxLoc(found)[1])
        new = cv2.convertScaleAbs(cv2.max(ir, hot), alpha=slope, beta=offset)
        smooth = cv2.blur(ir, (3, 3))  # or the slope of the weight would show thermal's noise
        weight = cv2.convertScaleAbs(cv2.max(smooth, hot - fade), alpha=255 / fade, beta=(fade - hot) * 255 / fade)
        weight = cv2.min(weight, place.near[y, x])
        if thermal.valid is not None:
            weight = cv2.min(weight, thermal.valid[y, x])
        weight = cv2.max(weight, core, dst=weight)
        up = cv2.multiply(cv2.subtract(new, old), weight, scale=1 / 255)
        down = cv2.multiply(cv2.subtract(old, new), weight, scale=1 / 255)
        shown = fused.copy()
        shown[y, x] = cv2.subtract(cv2.add(old, up, dst=up), down, dst=up)
        return shown


def hot_level(ir: Image, share: float, full: Image | None = None) -> tuple[int, int]:
    """Return the smallest level that at most this share of thermal's pixels reaches, and the median of thermal.

    `ir` is (H, W) uint8, `share` from 0 to 1; only pixels where `full`, (H, W) uint8, is not 0 count, in every fourth
    row. Where the brightest level alone has a larger share, that level is hot, up to a quarter of the pixels. The
    level must be at least 8 above the median; it is 256 if no pixel is hot.
    """
    rows = [None if x is None else np.ascontiguousarray(x[::_EVERY]) for x in (ir, full)]
    counts = cv2.calcHist([rows[0]], [0], rows[1], [256], [0, 256]).ravel()
    reached = np.cumsum(counts[::-1])[::-1]  # pixels that are at least as bright
    total = float(reached[0])
    if total == 0:
        return 256, 0
    brightest = int(np.flatnonzero(counts)[-1])
    level = min(int(np.count_nonzero(reached > share * total)), brightest)
    median = int(np.count_nonzero(reached > total / 2)) - 1
    is_hot = level >= median + _ABOVE and reached[level] <= _MOST * total
    return (level if is_hot else 256), median


class _Place(NamedTuple):
    """Hot pixels: 255 at them (`core`), 255 falling to 0 around them (`near`), and the part where `near` is not 0."""

    core: Image
    near: Image
    rows: slice
    columns: slice


def _place(ir: Image, level: int, full: Image | None) -> _Place | None:
    """Return the hot pixels of (H, W) uint8 thermal; None if there are none."""
    (h, w), cell = ir.shape, _CELL_PX
    core = cv2.threshold(ir, level - 1, 255, cv2.THRESH_BINARY)[1]
    core = core if full is None else cv2.bitwise_and(core, full)
    whole = cv2.copyMakeBorder(core, 0, -h % cell, 0, -w % cell, cv2.BORDER_CONSTANT, value=[0])
    rows_hot = np.bitwise_or.reduce(whole.reshape(-1, cell, whole.shape[1]), axis=1)
    cells = np.where(rows_hot.view(np.uint64), np.uint8(255), np.uint8(0))  # eight bytes: the columns of a square
    if not cells.any():
        return None
    around = cv2.blur(cv2.dilate(cells, np.ones((5, 5), np.uint8)), (3, 3))
    near = cv2.resize(around, whole.shape[::-1], interpolation=cv2.INTER_LINEAR)[:h, :w]
    left, top, width, height = cv2.boundingRect(around)
    rows = slice(max((top - 1) * cell, 0), (top + height + 1) * cell)
    return _Place(core, near, rows, slice(max((left - 1) * cell, 0), (left + width + 1) * cell))


def _least(ir: Image, fused: Image, level: int) -> tuple[float, float]:
    """Return the means of both over the least hot pixels, or over all hot ones; `ir` is 0 at the others."""
    for above in (_LEAST, 256):
        mask = cv2.inRange(ir, level, level + above - 1)
        if (count := cv2.countNonZero(mask)) > 0:
            break
    ir_sum, fused_sum = (cv2.sumElems(cv2.bitwise_and(x, mask))[0] for x in (ir, fused))
    return ir_sum / max(count, 1), fused_sum / max(count, 1)


def _line(now: _Hot, level: int, hottest: float) -> tuple[float, float]:
    """Return slope b and offset of the hot pixels' luma: 0 or more at `level`, at most 255 at the hottest pixel."""
    room = (255 - now.fused) / max(hottest - now.thermal, 1e-6)
    slope = min(max(room, _FLATTEST), 1.0)
    offset = min(now.fused - slope * now.thermal, 255 - slope * hottest)
    return slope, max(offset, -slope * level)
