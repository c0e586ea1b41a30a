"""Define colours for thermal pictures."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.types import Image

_IRON = ((0, 0, 0), (32, 0, 140), (145, 0, 155), (210, 45, 80), (245, 120, 10), (255, 200, 40), (255, 255, 245))
"""Black over violet, red, orange and yellow to white, at equal distances: what thermographers call ironbow."""
_OF_OPENCV = {"inferno": cv2.COLORMAP_INFERNO, "turbo": cv2.COLORMAP_TURBO, "viridis": cv2.COLORMAP_VIRIDIS}

PALETTES = ("white-hot", "black-hot", "iron", *_OF_OPENCV)


@cache
def palette(name: str) -> Image:
    """Return the colours of brightness 0 to 255, (256, 3) uint8 RGB. Raises ConfigError for an unknown name."""
    grey = np.arange(256, dtype=np.uint8)
    if name in ("white-hot", "black-hot"):
        return np.repeat((grey if name == "white-hot" else grey[::-1])[:, None], 3, axis=1)
    if name == "iron":
        at, wanted = np.linspace(0, 255, len(_IRON)), np.array(_IRON, np.float64)
        return np.column_stack([np.interp(grey, at, wanted[:, c]) for c in range(3)]).round().astype(np.uint8)
    if name not in _OF_OPENCV:
        raise ConfigError(f"no palette is called {name!r}: want one of {', '.join(PALETTES)}")
    return cv2.applyColorMap(grey[:, None], _OF_OPENCV[name])[:, 0, ::-1].copy()


def colourise(luma: Image, name: str) -> Image:
    """Return luma (H, W) uint8 in a palette's colours, (H, W, 3) uint8 RGB."""
    return cv2.LUT(cv2.merge([np.ascontiguousarray(luma)] * 3), palette(name)[None])
