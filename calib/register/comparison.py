"""Compare structure maps (`rtfuse.align.structure`) of thermal and RGB under every small shift, cell by cell."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

CELL = 8
"""Side of the cells over which a comparison is summed, in pixels of the level."""


def luma_of_counts(ir: Image) -> Image:
    """Return thermal counts (h, w) uint8 or uint16 as (h, w) float32, its 0.5 and 99.5 percentiles at 0 and 255."""
    sample = ir[:: max(1, ir.shape[0] // 256), :: max(1, ir.shape[1] // 256)]
    lo, hi = np.percentile(sample, (0.5, 99.5))
    return np.clip((ir.astype(np.float32) - lo) * (255 / max(hi - lo, 1.0)), -64, 320).astype(np.float32)


def framed(ir: Image) -> Image:
    """Return the mask (h, w) float32 of a picture without its empty border.

    It is 0 on border areas that have the least value throughout, as a warp leaves them, and 1 elsewhere.
    """
    flat = (cv2.dilate(ir, None) == ir.min()).astype(np.uint8)
    count, labels = cv2.connectedComponents(flat, connectivity=4)
    if count == 1:
        return np.ones(ir.shape, np.float32)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    length = np.bincount(rim, minlength=count)
    length[0] = 0
    frame = np.isin(labels, np.flatnonzero(length > 0.05 * len(rim)))
    return (cv2.dilate(frame.astype(np.uint8), None, iterations=2) == 0).astype(np.float32)


class Comparison:
    """Normalised correlation of structure maps, per cell and displacement, summed over frames.

    `shifts`: displacements (dx, dy), (S, 2) float32 in pixels. RGB at x is compared with thermal at x + shift.
    """

    def __init__(self, hw: tuple[int, int], radius: int):
        self.hw, self.radius = hw, radius
        self.grid = (-(-hw[0] // CELL), -(-hw[1] // CELL))
        side = np.arange(-radius, radius + 1)
        self.shifts = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype(np.float32)
        self.dot = np.zeros((len(self.shifts), *self.grid), np.float32)
        self.power_ir = np.zeros_like(self.dot)
        self.power_rgb = np.zeros(self.grid, np.float32)

    def add(self, ir: Image, rgb: Image) -> None:
        """Add the structure maps (5, H, W) of one frame, with thermal already warped near the RGB grid."""
        r, (h, w) = self.radius, self.hw
        padded = np.pad(ir, ((0, 0), (r, r), (r, r)))
        power = _dot(padded, padded)
        self.power_rgb += self._cells(_dot(rgb, rgb))
        for s, (dx, dy) in enumerate(self.shifts.astype(int)):
            window = np.s_[r + dy : r + dy + h, r + dx : r + dx + w]
            self.dot[s] += self._cells(_dot(padded[:, *window], rgb))
            self.power_ir[s] += self._cells(power[window])

    def _cells(self, x: Image) -> Image:
        h, w = self.grid
        full = cv2.copyMakeBorder(x, 0, h * CELL - x.shape[0], 0, w * CELL - x.shape[1], cv2.BORDER_CONSTANT)
        return cv2.resize(full, (w, h), interpolation=cv2.INTER_AREA)

    def ncc(self, window_px: float, cells: Image | float = 1.0) -> Image:
        """Return the correlation (S, T), -1 to 1, of each cell, summed over Gaussian windows of deviation `window_px`.

        `cells`: mask (cells high, cells wide) float32 of the cells to count, 0 or 1.
        """

        def spread(x: Image) -> Image:
            return cv2.GaussianBlur(x * cells, (0, 0), window_px / CELL, borderType=cv2.BORDER_CONSTANT)

        dot, power_ir = (np.stack([spread(c) for c in x]) for x in (self.dot, self.power_ir))
        power_rgb = spread(self.power_rgb)
        # Draws the correlation of windows with little structure to zero.
        quiet_ir, quiet_rgb = 0.2 * float(self.power_ir.mean()) + 1e-6, 0.2 * float(self.power_rgb.mean()) + 1e-6
        ncc = dot / np.sqrt((power_ir + quiet_ir) * (power_rgb + quiet_rgb))
        return ncc.reshape(len(self.shifts), -1)

    def weight(self, window_px: float) -> Image:
        """Return the amount of structure around each cell in both pictures, (T,) float32, 0 to 1 (average or more)."""
        rgb, ir = (
            cv2.GaussianBlur(x, (0, 0), window_px / CELL, borderType=cv2.BORDER_CONSTANT)
            for x in (self.power_rgb, self.power_ir[len(self.shifts) // 2])
        )
        both = np.sqrt(rgb * ir).ravel()
        return np.minimum(both / max(float(both.mean()), 1e-9), 1)

    def centres(self) -> Image:
        """Return the cell centres (cells, 2) float64, x and y in pixels of the level, row by row."""
        h, w = self.grid
        ys, xs = np.mgrid[:h, :w]
        return (np.stack([xs, ys], -1).reshape(-1, 2) + 0.5) * CELL - 0.5


def _dot(a: Image, b: Image) -> Image:
    """Return the sum over the channels of the products of two maps (C, H, W) float32, (H, W); faster than einsum."""
    total = cv2.multiply(a[0], b[0])
    for one, other in zip(a[1:], b[1:], strict=True):
        cv2.accumulateProduct(one, other, total)
    return total
