"""Extract the planes of a fused picture, and name their pixel formats."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rtfuse.types import Fused, Image, Picture
from rtfuse.wire.names import PixelFormat, Plane

PIXEL_FORMATS: dict[Plane, PixelFormat] = {
    "fused": "rgb24",
    "ir": "gray8",
    "rgb": "rgb24",
    "counts": "gray16le",
    "mask": "gray8",
}
LASTING: frozenset[Plane] = frozenset(("ir", "counts", "mask"))
"""Planes whose array is never written to again, so that the same array is the same picture."""
NUMERIC: frozenset[Plane] = frozenset(("counts", "mask"))
"""Planes of numbers, which a lossy encoding would change."""


def plane_of(fused: Fused, plane: Plane) -> Image | None:
    """Return a plane, of the type in `PIXEL_FORMATS`; None if its stream is missing or a thermal camera has 8 bits.

    `ir` is also None where no fuser and no sink needed thermal on RGB's grid.
    """
    found = content_of(fused, plane)
    return found.rgb if isinstance(found, Picture) else found


def content_of(fused: Fused, plane: Plane) -> Picture | Image | None:
    """Return a plane as `plane_of` does, but a `Picture` for those with colours: no RGB is computed."""
    ir, rgb = fused.pair.ir, fused.pair.rgb
    match plane:
        case "fused":
            return fused.picture
        case "ir":
            return None if ir is None else fused.aligned
        case "rgb":
            return None if rgb is None else rgb.picture
        case "counts":
            return None if ir is None or ir.image.dtype != np.uint16 else ir.image
        case "mask":
            return _everywhere(*fused.shape_hw) if fused.valid is None else fused.valid


@lru_cache(maxsize=4)
def _everywhere(h: int, w: int) -> Image:
    return np.full((h, w), 255, np.uint8)
