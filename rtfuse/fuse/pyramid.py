"""Fuse by Laplacian pyramids: no weights, a few milliseconds, the baseline for every network.

Each image becomes a pyramid of details and a small base (Burt and Adelson, "The Laplacian pyramid as a compact
image code", 1983). Details are taken from the image with the larger absolute value, the base is weighted by
local energy. All arithmetic on details is in integers, so fusing an image with itself returns that image exactly.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np

from rtfuse.fuse.fuser import Options
from rtfuse.fuse.luma import LumaFuser
from rtfuse.types import Image

_BASE_PX = 12
"""The pyramid ends before the base's shorter side falls below this."""


def open_pyramid(_: Options | None = None) -> LumaFuser:
    """Return the fuser `pyramid`, which has no options."""
    return LumaFuser("pyramid", fuse_pyramid)


def fuse_pyramid(ir: Image, luma: Image, max_levels: int = 6) -> Image:
    """Fuse two (H, W) uint8 images into one (H, W) uint8."""
    levels = min(max_levels, max(0, (min(luma.shape) // _BASE_PX).bit_length() - 1))
    details_ir, base_ir = _decompose(ir, levels)
    details_rgb, base_rgb = _decompose(luma, levels)
    fused = _fuse_base(base_ir, base_rgb)
    for detail_ir, detail_rgb in zip(reversed(details_ir), reversed(details_rgb), strict=True):
        fused = cv2.pyrUp(fused, dstsize=detail_rgb.shape[::-1])
        cv2.add(fused, _larger(detail_ir, detail_rgb), dst=fused)
    return cv2.convertScaleAbs(np.maximum(fused, 0, out=fused))  # saturates at 255


def _decompose(image: Image, levels: int) -> tuple[list[Image], Image]:
    """Split (H, W) uint8 into details, (H, W) int16 from fine to coarse, and the base, uint8."""
    gaussian = [image]
    for _ in range(levels):
        gaussian.append(cv2.pyrDown(gaussian[-1]))
    details = [
        cv2.subtract(fine, cv2.pyrUp(coarse, dstsize=fine.shape[::-1]), dtype=cv2.CV_16S)
        for fine, coarse in pairwise(gaussian)
    ]
    return details, gaussian[-1]


def _larger(a: Image, b: Image) -> Image:
    """Return, pixel by pixel, the value that is further from zero."""
    larger = b.copy()
    cv2.copyTo(a, cv2.compare(np.abs(a), np.abs(b), cv2.CMP_GT), larger)
    return larger


def _fuse_base(ir: Image, luma: Image) -> Image:
    """Weight two bases (h, w) uint8 by their local energy, the mean square over 5×5 pixels; returns int16."""
    a, b = ir.astype(np.float32), luma.astype(np.float32)
    energy_a, energy_b = cv2.blur(a * a, (5, 5)), cv2.blur(b * b, (5, 5))
    share = energy_a / np.maximum(energy_a + energy_b, 1e-6)
    return np.rint(b + share * (a - b)).astype(np.int16)
