"""Tell how much colour a picture has: none, marks, or false colours throughout."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

COLOUR_LEVELS, COLOUR_SHARE, MARKS = 24, 0.003, 0.02
"""A picture has colour if more than this share of its pixels has channels further apart than this many levels; up to
the second share it may be that of marks on a grey picture."""
_STRONG, _FEW = 80, (8, 1e-4)
"""Levels that no loss of coding puts between channels of a grey picture; the fewest such pixels, and their share."""
_LOOKED_AT = 8192
"""Pixels of a picture that are looked at."""


def sampled(picture: Image) -> Image:
    """Return some thousand pixels of a picture, (H, W, 3) -> (n, 3)."""
    step = max(int((picture.shape[0] * picture.shape[1] / _LOOKED_AT) ** 0.5), 1)
    return picture[step // 2 :: step, step // 2 :: step].reshape(-1, 3)


def colour_share(seen: Image) -> float:
    """Return the share of pixels, of (n, 3), that have more colour than those of a grey picture coded with loss."""
    r, g, b = (np.ascontiguousarray(seen[:, c]) for c in range(3))
    spread = np.maximum(np.maximum(r, g), b) - np.minimum(np.minimum(r, g), b)
    return float((spread > COLOUR_LEVELS).mean())


def strong_share(picture: Image) -> float:
    """Return the share of pixels, of (H, W, 3) uint8, in strong colours: small marks, or few hot parts; 0 for noise."""
    r, g, b = cv2.split(picture)
    spread = cv2.subtract(cv2.max(cv2.max(r, g), b), cv2.min(cv2.min(r, g), b))
    count = int(np.count_nonzero(spread > _STRONG))
    return count / spread.size if count >= max(_FEW[0], _FEW[1] * spread.size) else 0.0
