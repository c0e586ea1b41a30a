"""Map counts to display luma: the thermal stream's automatic gain control (AGC)."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.thermal.settings import AgcSettings
from rtfuse.types import Frame, Image

_LEVELS = 65536
_LINEAR = 0.2
_CLAHE_CLIP, _CLAHE_TILES = 2.0, (8, 8)


def displayed(counts: Image, table: Image | None) -> Image:
    """Return counts (H, W) as display luma (H, W) uint8 by a table of `Agc`."""
    return counts if table is None else cv2.LUT(counts, table)


class Agc:
    """Map 16-bit counts to 8 bits by a rising table that follows the scene slowly; 8 bits pass as they are.

    `plateau` is histogram equalisation with every bin's share capped at `plateau` times the mean occupied bin (Vickers,
    "Plateau equalization algorithm for real-time display of high-quality infrared imagery", 1996), so that a large
    uniform background does not take all grey levels; `linear` spreads them evenly; `clahe` adds local contrast to that
    (Zuiderveld, 1994). In each of them the table rises by at most `max_gain` grey levels per count, so that a uniform
    scene is not blown up into noise. The table follows the scene by a first-order filter, and jumps where it would show
    most of the picture black or white.

    Any thread may replace `settings`: a frame is shown by one whole set of them, the next frame by the new one.
    """

    def __init__(self, settings: AgcSettings | None = None) -> None:
        self.settings = settings or AgcSettings()
        self._now = self.settings
        self._held: Image | None = None
        self._table: Image | None = None
        self._t_ns = 0
        self._clahe = cv2.createCLAHE(_CLAHE_CLIP, _CLAHE_TILES)

    def forget(self) -> None:
        """Begin again at the next frame, as for the first one."""
        self._held = self._table = None

    def table(self, frame: Frame) -> Image | None:
        """Follow the scene to this frame; return the display luma of every count, (65536,) uint8, None for uint8."""
        if frame.image.dtype == np.uint8:
            return None
        self._now = self.settings
        if self._table is None or not self._now.freeze:
            self._follow(frame)
        return self._table

    def shown(self, frame: Frame) -> tuple[Image, Image | None]:
        """Return the picture, (H, W), and the table by which it is shown; None: as it is."""
        table = self.table(frame)
        if table is None or self._now.method != "clahe":
            return frame.image, table
        return self._clahe.apply(displayed(frame.image, table)), None

    def __call__(self, frame: Frame) -> Image:
        """Return the frame's image as (H, W) uint8."""
        return displayed(*self.shown(frame))

    def _follow(self, frame: Frame) -> None:
        histogram = cv2.calcHist([self._looked_at(frame.image)], [0], None, [_LEVELS], [0, _LEVELS]).ravel()
        wanted = self._wanted(histogram)
        if self._held is None or self._useless(histogram):
            self._held = wanted
        else:
            dt_ns = max(frame.t_ns - self._t_ns, 0)
            tau_ns = self._now.tau_ms * 1e6
            cv2.accumulateWeighted(wanted, self._held, 1 - np.exp(-dt_ns / tau_ns) if tau_ns else 1.0)
        self._t_ns = frame.t_ns
        self._table = cv2.convertScaleAbs(self._held).ravel()

    def _looked_at(self, image: Image) -> Image:
        """Return the part of the picture that the table is made for, at least one pixel of it."""
        if self._now.region is None:
            return image
        (h, w), (left, top, width, height) = image.shape, self._now.region
        y, x = min(round(top * h), h - 1), min(round(left * w), w - 1)
        return np.ascontiguousarray(
            image[y : max(round((top + height) * h), y + 1), x : max(round((left + width) * w), x + 1)]
        )

    def _wanted(self, histogram: Image) -> Image:
        """Return the table for a scene of this histogram, (65536,) float32 from 0 to 255."""
        now = self._now
        occupied = np.flatnonzero(histogram)
        first, last = int(occupied[0]), int(occupied[-1])
        share = np.cumsum(histogram[first : last + 1], dtype=np.float64)
        total = share[-1]
        low = first + int(np.searchsorted(share, now.tails[0] * total, side="right"))
        high = first + int(np.searchsorted(share, (1 - now.tails[1]) * total))
        low, high = min(low, last), min(max(high, low), last)
        scene = histogram[low : high + 1]
        weights = np.ones_like(scene)
        if now.method == "plateau":
            weights = np.minimum(scene, now.plateau * scene.sum() / max(np.count_nonzero(scene), 1))
        # Half of a bin's rise comes before its count, half after, so that the two ends are treated alike.
        rise = np.minimum(weights * ((1 - _LINEAR) * 255.0 / max(float(weights.sum()), 1.0)), now.max_gain)
        # The rest, and no less than this share, is spread evenly: empty counts between two objects keep them apart.
        rise = np.minimum(rise + (255.0 - float(rise.sum())) / rise.size, now.max_gain)
        # In 64 bits: over 30,000 counts a sum in 32 bits ends above 255, and what follows would be darker.
        levels = np.minimum(np.cumsum(rise, dtype=np.float64) - rise / 2, 255.0)
        used = float(rise.sum())
        if used < 255.0:
            mean = float(scene @ levels) / max(float(scene.sum()), 1.0)
            levels += min(max((128 if now.midpoint is None else now.midpoint) - mean, 0.0), 255.0 - used)
        table = np.empty((_LEVELS, 1), np.float32)
        table[low : high + 1, 0] = levels
        # Beyond the tails it goes on rising by the largest gain until black and white.
        table[:low, 0] = np.maximum(levels[0] - now.max_gain * np.arange(low, 0, -1, dtype=np.float32), 0.0)
        beyond = np.arange(1, _LEVELS - high, dtype=np.float32)
        table[high + 1 :, 0] = np.minimum(levels[-1] + now.max_gain * beyond, 255.0)
        return table

    def _useless(self, histogram: Image) -> bool:
        """Return True if the held table shows most of the picture as plain black or white."""
        assert self._held is not None
        held = self._held[:, 0]
        black, white = int(np.searchsorted(held, 0.5)), int(np.searchsorted(held, 254.5))
        clipped = float(histogram[:black].sum() + histogram[white:].sum())
        return clipped > 0.5 * float(histogram.sum())
