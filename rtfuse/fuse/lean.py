"""Lean to RGB where thermal shows nothing: one value, or noise alone.

A fuser mixes the brightness of both sources, so that a part of thermal without a scene is a grey veil on the picture,
and its noise is noise. Such parts are found in cells, means of some 8×8 pixels, whose own noise is that of the pixels
over the root of their number n. Thermal is empty

- in each square of 9×9 cells that differ by no more than 2 + 6 σ / √n levels, all between the levels 64 and 250 and
  not warmer than nine tenths of the cells elsewhere,
- in the whole picture, if the deviation of all cells is at most 1 + 1.5 σ / √n,

where σ is the noise of the pixels, by the difference of neighbours. Squares count if they cover an eighth of the
picture, and fade in from a sixteenth; they fade out over four cells around them. A white part, or one that is warmer
than the rest, is hot, and a dark one adds no veil: they stay with the fuser. In empty parts thermal counts as it does
where it does not reach.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from rtfuse.observe.logs import event
from rtfuse.types import Image, ThermalPicture

_CELLS_WH = (80, 60)
_SQUARE = 9
"""Cells of a square in both directions."""
_RANGE, _RANGE_NOISE = 2.0, 6.0
_DEVIATION, _DEVIATION_NOISE = 1.0, 1.5
_DARK, _WHITE = 64, 250
"""Levels between which a flat part is empty. Roads and skies of ordinary pictures are darker, hot targets whiter."""
_WARM = 90
"""Percentile of the rest beyond which a flat part is hot, as a furnace's door is, and no empty one."""
_FROM, _FULL = 1 / 16, 1 / 8
"""Shares of the picture from which empty squares begin to count, and count fully."""
_DIFFERENCE = 2 / math.sqrt(math.pi)
"""Mean absolute difference of two values with Gaussian noise, in units of its deviation."""
_TAU_NS, _GAP_NS = 300e6, 500_000_000
"""Time constant of the map, against flicker; a gap of this length starts again."""
_LOOK_NS = 90_000_000
"""Pause between two looks at thermal while nothing is empty: a third of the time constant, three frames at 30 Hz."""
_log = logging.getLogger("rtfuse.fuse")


class Lean:
    """Lower the validity of thermal where it is empty.

    `hold`: True for frames of one scene: the map follows with a time constant of 0.3 s, and while nothing is empty
    thermal is looked at every 90 ms only; from the first empty part on, at each frame. The log says when RGB alone is
    shown in an eighth of the picture, and when that ends.
    """

    def __init__(self, *, hold: bool = True) -> None:
        self._hold = hold
        self._seen: tuple[ThermalPicture, ThermalPicture] | None = None
        self._empty: Image | None = None
        self._last_ns: int | None = None
        self._looked_ns: int | None = None
        self._said = False

    def __call__(self, thermal: ThermalPicture, t_ns: int, warp: Callable[[Image], Image]) -> ThermalPicture:
        """Return the thermal picture to fuse: itself where nothing is empty, else with another `valid`.

        `warp` lays an image of thermal's own size, (h, w) uint8, on the RGB grid.
        """
        if self._seen is None or self._seen[0] is not thermal:
            self._seen = thermal, self._leaned(thermal, t_ns, warp)
        return self._seen[1]

    def _leaned(self, thermal: ThermalPicture, t_ns: int, warp: Callable[[Image], Image]) -> ThermalPicture:
        new = empty_cells(thermal.image, thermal.table) if self._due(t_ns) else None
        empty = self._followed(new, t_ns)
        share = float(empty.mean()) if empty is not None else 0.0
        if share >= _FULL and not self._said:
            text = f"thermal shows nothing in {share:.0%} of its picture; RGB alone is shown there (fuse.lean)"
            event(_log, logging.WARNING, "empty", text)
        elif self._said and share < _FROM:
            event(_log, logging.INFO, "empty", "thermal shows a scene again")
        self._said = share >= (_FROM if self._said else _FULL)
        if empty is None:
            return thermal
        full = np.rint(255 * (1 - empty)).astype(np.uint8)
        valid = warp(cv2.resize(full, thermal.image.shape[::-1], interpolation=cv2.INTER_LINEAR))
        valid = valid if thermal.valid is None else cv2.min(valid, thermal.valid)
        return replace(thermal, valid=valid, warp=thermal)

    def _due(self, t_ns: int) -> bool:
        """Return True if this frame is to be looked at: always while something is empty, else after a pause."""
        since_ns = -1 if self._looked_ns is None else t_ns - self._looked_ns
        if self._hold and self._empty is None and 0 <= since_ns < _LOOK_NS:
            return False
        self._looked_ns = t_ns
        return True

    def _followed(self, new: Image | None, t_ns: int) -> Image | None:
        """Return the map to use for this frame; None: nothing is empty."""
        gap_ns = -1 if self._last_ns is None else t_ns - self._last_ns
        self._last_ns, last = t_ns, self._empty
        if self._hold and 0 <= gap_ns <= _GAP_NS and (new is not None or last is not None):
            shape = new.shape if new is not None else last.shape  # type: ignore[union-attr]
            before, now = (np.zeros(shape, np.float32) if x is None or x.shape != shape else x for x in (last, new))
            new = before + (1 - math.exp(-gap_ns / _TAU_NS)) * (now - before)
        self._empty = new if new is not None and new.max() >= 1 / 255 else None
        return self._empty


def _warmest(cells: Image) -> float:
    """Return the level up to which a flat part can be empty, from the cells of the rest, (n,) uint8."""
    return float(np.percentile(cells, _WARM)) if cells.size else 0.0


def empty_cells(image: Image, table: Image | None = None) -> Image | None:
    """Return where thermal is empty, (rows, columns) float32 from 0 to 1, for the cells of a picture; None: nowhere.

    `image` is (h, w) uint8, or uint16 with the `table` from counts to brightness, (65536,) uint8.
    """
    x = np.ascontiguousarray(image[::2])
    x = x if table is None else cv2.LUT(x, table)
    size_wh = min(_CELLS_WH[0], x.shape[1] // 2), min(_CELLS_WH[1], x.shape[0] // 2)
    if min(size_wh) < 2 * _SQUARE:
        return None
    cells = cv2.resize(x, size_wh, interpolation=cv2.INTER_AREA)
    some = np.ascontiguousarray(x[::2])
    rough = cv2.resize(cv2.absdiff(some[:, 1:], some[:, :-1]), size_wh, interpolation=cv2.INTER_AREA)
    root = math.sqrt(x.size / cells.size)
    if float(cv2.meanStdDev(cells)[1][0, 0]) <= _DEVIATION + _DEVIATION_NOISE * rough.mean() / _DIFFERENCE / root:
        return np.ones(cells.shape, np.float32)
    square = np.ones((_SQUARE, _SQUARE), np.uint8)
    low, high = cv2.erode(cells, square), cv2.dilate(cells, square)
    noise = cv2.blur(rough.astype(np.float32), (_SQUARE, _SQUARE)) / _DIFFERENCE / root
    flat = (cv2.subtract(high, low) <= _RANGE + _RANGE_NOISE * noise) & (low > _DARK) & (high < _WHITE)
    half = _SQUARE // 2
    flat[:half] = flat[-half:] = flat[:, :half] = flat[:, -half:] = False  # squares that are not whole
    empty = cv2.dilate(flat.astype(np.uint8), square)
    if empty.mean() <= _FROM:  # a scene, mostly: the warm parts only lower the share
        return None
    flat &= high <= _warmest(cells[empty == 0])
    empty = cv2.dilate(flat.astype(np.uint8), square)
    strength = min(max((float(empty.mean()) - _FROM) / (_FULL - _FROM), 0.0), 1.0)
    return cv2.blur(cv2.dilate(empty, square[:5, :5]).astype(np.float32), (5, 5)) * strength if strength else None
