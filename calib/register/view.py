"""Hold the pictures that registration compares, on one grid of pixels and at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from calib.register.comparison import framed, luma_of_counts
from rtfuse.align.structure import structure
from rtfuse.types import Image

WORK_PX = 640
"""Longest side of the view at the finest level, in pixels."""


@dataclass
class View:
    """RGB pictures on a grid of `hw` pixels, and the thermal pictures at their own size.

    `irs`: thermal pictures, (h, w) float32.
    `masks`: for each thermal picture, 1 where it has content, (h, w) float32.
    `rgbs`: RGB pictures, (H, W, 3) uint8.
    `rgb_from_view`: matrix (3, 3) from view pixels to pixels of the full RGB picture.
    """

    irs: list[Image]
    masks: list[Image]
    rgbs: list[Image]
    rgb_from_view: Image
    _levels: dict[int, list[Image]] = field(default_factory=dict)

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of the grid, in pixels."""
        return self.rgbs[0].shape[0], self.rgbs[0].shape[1]

    def few(self, count: int) -> View:
        """Return a view with at most `count` of the frames."""
        every = -(-len(self.irs) // count)
        return View(self.irs[::every], self.masks[::every], self.rgbs[::every], self.rgb_from_view)

    def level_hw(self, level: int) -> tuple[int, int]:
        """Return height and width at a level: the size divided by 2^level, rounded up."""
        return -(-self.hw[0] >> level), -(-self.hw[1] >> level)

    def rgb(self, level: int) -> list[Image]:
        """Return the structure maps of the RGB pictures at a level, (5, H, W) each."""
        if level not in self._levels:
            h, w = self.level_hw(level)
            self._levels[level] = [
                structure(cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA).astype(np.float32)) for x in self.rgbs
            ]
        return self._levels[level]

    def view_from_level(self, level: int) -> Image:
        """Return the matrix (3, 3) from pixels of a level to view pixels."""
        (h, w), (lh, lw) = self.hw, self.level_hw(level)
        return stretch_matrix((lh, lw), (h, w))

    def ir(self, level: int, ir_from_view: Image, displacement: Image | None = None) -> list[Image]:
        """Return the structure maps of the thermal pictures, (5, H, W) each, warped onto the grid of a level.

        The warp is the matrix `ir_from_view`, after a displacement (H, W, 2) in pixels of the level.
        """
        h, w = self.level_hw(level)
        ir_from_level = ir_from_view @ self.view_from_level(level)
        return [structure_at(*x, ir_from_level, (h, w), displacement) for x in zip(self.irs, self.masks, strict=True)]


def whole_view(pairs: Sequence[tuple[Image, Image]]) -> View:
    """Return a view of the whole RGB pictures."""
    ir_hw, (h, w) = pairs[0][0].shape, pairs[0][1].shape[:2]
    scale = min(1.0, _work_px(ir_hw) / max(h, w))
    size = round(h * scale), round(w * scale)
    rgbs = [_shrunk(rgb, size) for _, rgb in pairs]
    matrix = stretch_matrix(size, (h, w))
    return View([luma_of_counts(ir) for ir, _ in pairs], [framed(ir) for ir, _ in pairs], rgbs, matrix)


def closer_view(pairs: Sequence[tuple[Image, Image]], view: View, view_from_ir: Image) -> tuple[View, Image]:
    """Return a finer view of the part of the RGB picture that thermal covers, and the matrix from thermal to it.

    Returns the given view and matrix if thermal covers most of the picture.
    """
    (h, w), (ih, iw) = pairs[0][1].shape[:2], pairs[0][0].shape
    corners = np.array([[[0, 0]], [[iw - 1, 0]], [[iw - 1, ih - 1]], [[0, ih - 1]]], float)
    reach = cv2.perspectiveTransform(corners, view.rgb_from_view @ view_from_ir)[:, 0]
    margin = 0.08 * np.ptp(reach, axis=0).max()
    x0, y0 = np.maximum(reach.min(0) - margin, 0).astype(int)
    x1, y1 = np.minimum(reach.max(0) + margin + 1, (w, h)).astype(int)
    if min(x1 - x0, y1 - y0) < 64 or (x1 - x0) * (y1 - y0) > 0.7 * w * h:
        return view, view_from_ir
    scale = min(1.0, _work_px((ih, iw)) / max(x1 - x0, y1 - y0))
    size = round((y1 - y0) * scale), round((x1 - x0) * scale)
    rgb_from_view = stretch_matrix(size, (y1 - y0, x1 - x0))
    rgb_from_view[:2, 2] += x0, y0
    rgbs = [_shrunk(np.ascontiguousarray(rgb[y0:y1, x0:x1]), size) for _, rgb in pairs]
    closer = View(view.irs, view.masks, rgbs, rgb_from_view)
    return closer, np.linalg.inv(rgb_from_view) @ view.rgb_from_view @ view_from_ir


def _work_px(ir_hw: tuple[int, ...]) -> int:
    """Return the longest side of a view, in pixels: thermal has no detail much finer than its own pixels."""
    return min(WORK_PX, max(256, 4 * max(ir_hw)))


def _shrunk(x: Image, hw: tuple[int, int]) -> Image:
    return x if x.shape[:2] == hw else cv2.resize(x, hw[::-1], interpolation=cv2.INTER_AREA)


def stretch_matrix(src_hw: tuple[int, ...], dst_hw: tuple[int, int]) -> Image:
    """Return the matrix (3, 3) that stretches pixels of one picture size to another, outer edges on outer edges."""
    sy, sx = dst_hw[0] / src_hw[0], dst_hw[1] / src_hw[1]
    return np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])


def positions(ir_from_grid: Image, hw: tuple[int, int], displacement: Image | None = None) -> Image:
    """Return the thermal position (H, W, 2) float32 of each grid pixel, after a displacement (H, W, 2)."""
    xs, ys = np.meshgrid(np.arange(hw[1], dtype=np.float32), np.arange(hw[0], dtype=np.float32))
    if displacement is not None:
        xs, ys = xs + displacement[..., 0], ys + displacement[..., 1]
    a = ir_from_grid.astype(np.float32)
    z = a[2, 0] * xs + a[2, 1] * ys + a[2, 2]
    z = np.where(np.abs(z) > 1e-6, z, 1e-6)
    return np.stack([(r[0] * xs + r[1] * ys + r[2]) / z for r in a[:2]], -1, dtype=np.float32)


def structure_at(
    ir: Image, mask: Image, ir_from_grid: Image, hw: tuple[int, int], displacement: Image | None = None
) -> Image:
    """Return the structure map (5, H, W) of a thermal picture warped onto a grid.

    Shrinks the picture first if the grid is coarser.
    """
    coarser = float(np.sqrt(abs(np.linalg.det(ir_from_grid[:2, :2]))))
    if coarser > 1.3:
        small = max(8, round(ir.shape[0] / coarser)), max(8, round(ir.shape[1] / coarser))
        ir_from_grid = np.linalg.inv(stretch_matrix(small, (ir.shape[0], ir.shape[1]))) @ ir_from_grid
        ir, mask = (cv2.resize(x, small[::-1], interpolation=cv2.INTER_AREA) for x in (ir, mask))
    at = positions(ir_from_grid, hw, displacement)
    picture = cv2.remap(ir, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = cv2.remap(mask, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    # Smoothing mixes the outside into the border; the mask excludes two pixels of it.
    return structure(picture, cv2.erode(seen, None, iterations=2))
