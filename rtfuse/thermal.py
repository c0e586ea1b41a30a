"""Counts to display luma: the thermal stream's automatic gain control (AGC)."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Frame, Image


def displayed(counts: Image, table: Image | None) -> Image:
    """Return counts (H, W) as display luma (H, W) uint8 by a table of `Agc`."""
    return counts if table is None else table[counts]


class Agc:
    """Maps 16-bit counts to 8 bits by a line between two percentiles that follow the scene slowly.

    The percentiles reject tails (a lamp, dead pixels); the first-order filter of time constant `tau_s` keeps the
    picture from flickering. `floor_counts` is the smallest range that is stretched to full contrast, so that a
    uniform scene does not become amplified noise. 8-bit images have been mapped by the camera and pass untouched.
    """

    def __init__(self, *, tails: tuple[float, float] = (0.01, 0.995), tau_s: float = 1.0, floor_counts: int = 64):
        self.tails, self.tau_s, self.floor_counts = tails, tau_s, floor_counts
        self._range: Image | None = None
        self._t_ns = 0

    def table(self, frame: Frame) -> Image | None:
        """Follow the scene to this frame; return the display luma of every count, (65536,) uint8, None for uint8."""
        if frame.image.dtype == np.uint8:
            return None
        lo, hi = self._follow(frame)
        scale = 255.0 / (hi - lo)
        return np.clip((np.arange(65536, dtype=np.float32) - lo) * scale + 0.5, 0, 255).astype(np.uint8)

    def __call__(self, frame: Frame) -> Image:
        """Return the frame's image as (H, W) uint8."""
        return displayed(frame.image, self.table(frame))

    def _follow(self, frame: Frame) -> tuple[float, float]:
        histogram = cv2.calcHist([frame.image], [0], None, [65536], [0, 65536]).ravel()
        share = np.cumsum(histogram) / frame.image.size
        lo, hi = np.searchsorted(share, self.tails).astype(float)
        middle, half = (lo + hi) / 2, max(hi - lo, self.floor_counts) / 2
        seen = np.array([middle - half, middle + half])
        if self._range is None:
            self._range = seen
        else:
            dt_s = max(frame.t_ns - self._t_ns, 0) / 1e9
            self._range += (seen - self._range) * (1 - np.exp(-dt_s / self.tau_s))
        self._t_ns = frame.t_ns
        return float(self._range[0]), float(self._range[1])
