"""Fuse by Laplacian pyramids: no weights, a few milliseconds, the baseline for every network.

Each image becomes bands of details and a small base (`bands.py`). Details are taken from the image with the larger
absolute value, the base is weighted by local energy. All arithmetic on details is in integers, so fusing an image with
itself returns that image exactly.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.fuse.bands import add_stronger, split
from rtfuse.fuse.fuser import Options
from rtfuse.fuse.luma_fuser import LumaFuser
from rtfuse.types import Image

_BASE_PX = 12
"""The pyramid ends before the base's shorter side falls below this."""


def open_pyramid(_: Options | None = None) -> LumaFuser:
    """Return the fuser `pyramid`, which has no options."""
    return LumaFuser("pyramid", fuse_pyramid)


def fuse_pyramid(ir: Image, luma: Image, max_levels: int = 6) -> Image:
    """Fuse two (H, W) uint8 images into one (H, W) uint8."""
    levels = min(max_levels, max(0, (min(luma.shape) // _BASE_PX).bit_length() - 1))
    (bands_ir, base_ir), (bands_rgb, base_rgb) = split(ir, levels), split(luma, levels)
    fused = _fuse_base(base_ir, base_rgb)
    for one, other in zip(reversed(bands_ir), reversed(bands_rgb), strict=True):
        fused = add_stronger(fused, one, other)
    return fused


def _fuse_base(ir: Image, luma: Image) -> Image:
    """Weight two bases (h, w) uint8 by their local energy, the mean square over 5×5 pixels; returns uint8."""
    a, b = ir.astype(np.float32), luma.astype(np.float32)
    energy_a, energy_b = cv2.blur(a * a, (5, 5)), cv2.blur(b * b, (5, 5))
    share = energy_a / np.maximum(energy_a + energy_b, 1e-6)
    return np.rint(b + share * (a - b)).astype(np.uint8)
