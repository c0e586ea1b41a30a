"""List the palettes in which thermal cameras and programs record: colours from cold to hot, by name.

The cameras' own tables are not published. These are drawn through a few colours of each, and OpenCV's are its own; a
picture need not be made with exactly these colours to be recognised.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from rtfuse.thermal.palettes import palette
from rtfuse.types import Image

_DRAWN: dict[str, tuple[tuple[int, int, int], ...]] = {
    "ironbow": ((5, 5, 30), (70, 10, 145), (140, 15, 163), (200, 45, 120), (235, 90, 50), (247, 135, 10), (250, 170, 5),
                (250, 200, 20), (250, 225, 70), (252, 242, 140), (254, 254, 250)),
    "iron-red": ((0, 0, 0), (45, 10, 70), (110, 20, 90), (180, 40, 50), (225, 95, 20), (245, 165, 30), (255, 250, 200)),
    "lava": ((0, 0, 0), (10, 25, 70), (45, 45, 120), (125, 30, 110), (205, 40, 40), (245, 120, 0), (255, 205, 40),
             (255, 255, 220)),
    "arctic": ((5, 5, 60), (20, 50, 170), (45, 135, 235), (120, 200, 240), (150, 150, 140), (190, 130, 50),
               (240, 175, 30), (255, 240, 150)),
    "arctic-violet": ((25, 10, 70), (40, 60, 200), (60, 200, 230), (170, 220, 200), (240, 190, 60), (240, 110, 30),
                      (255, 235, 220)),
    "hot-metal": ((0, 0, 0), (90, 10, 5), (190, 40, 10), (240, 120, 20), (255, 205, 70), (255, 255, 240)),
    "glowbow": ((0, 0, 0), (70, 35, 10), (150, 70, 15), (225, 125, 25), (250, 190, 80), (255, 245, 210)),
    "sepia": ((0, 0, 0), (60, 40, 20), (125, 90, 55), (190, 150, 105), (240, 215, 170), (255, 250, 235)),
    "amber": ((0, 0, 0), (255, 150, 0)),
    "green": ((0, 0, 0), (0, 255, 0)),
    "red": ((0, 0, 0), (255, 0, 0)),
    "blue": ((0, 0, 0), (0, 60, 255)),
    "green-hot": ((0, 0, 0), (0, 120, 20), (90, 220, 60), (230, 255, 210)),
    "red-hot": ((0, 0, 0), (60, 60, 60), (120, 120, 120), (180, 180, 180), (220, 90, 60), (255, 60, 0)),
    "orange-hot": ((0, 0, 0), (70, 70, 70), (140, 140, 140), (205, 205, 205), (240, 190, 90), (255, 140, 0)),
    "tint": ((0, 0, 0), (85, 85, 85), (170, 170, 170), (215, 195, 140), (250, 140, 50), (255, 50, 20)),
    "rainbow": ((0, 0, 100), (0, 20, 220), (0, 140, 250), (0, 210, 160), (60, 220, 20), (220, 235, 0), (255, 160, 0),
                (245, 50, 0), (190, 0, 20)),
    "rainbow-hue": ((0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    "rainbow-white": ((0, 0, 40), (10, 20, 180), (0, 130, 240), (0, 200, 130), (110, 220, 0), (245, 225, 0),
                      (255, 120, 0), (235, 20, 30), (255, 150, 170), (255, 250, 250)),
    "rainbow-violet": ((60, 0, 90), (110, 0, 190), (20, 20, 240), (0, 160, 230), (0, 200, 60), (230, 230, 0),
                       (255, 130, 0), (235, 10, 10)),
    "rainbow-high-contrast": ((0, 0, 0), (80, 0, 110), (20, 10, 200), (0, 170, 220), (0, 170, 30), (235, 235, 10),
                              (250, 120, 0), (225, 0, 10), (250, 110, 190), (255, 255, 255)),
    "medical": ((10, 0, 20), (90, 20, 150), (50, 60, 220), (30, 180, 200), (40, 190, 60), (220, 220, 40),
                (235, 120, 20), (215, 25, 30), (250, 205, 215)),
    "fusion": ((20, 10, 60), (80, 20, 140), (190, 40, 150), (250, 100, 100), (255, 190, 70), (255, 255, 190)),
}  # fmt: skip

_OF_OPENCV = """autumn bone jet winter ocean summer spring cool pink hot parula magma inferno plasma viridis cividis
turbo deepgreen rainbow"""

PARTLY_GREY = frozenset(["red-hot", "orange-hot", "tint"])
"""Palettes in which only the hottest parts have colour."""
ONLY_BY_NAME = frozenset(["opencv-rainbow", "rainbow-inverted"])
"""The colours of others in the opposite order: they cannot be told from a picture."""

NAMES = ("iron", *_DRAWN, *(f"opencv-{name}" for name in _OF_OPENCV.split()), "rainbow-inverted")


@cache
def recorded(name: str) -> Image:
    """Return the colours of a palette of `NAMES` from cold to hot, (256, 3) uint8 RGB."""
    grey = np.arange(256, dtype=np.uint8)
    if name == "iron":
        return palette("iron")
    if name == "rainbow-inverted":
        return recorded("rainbow")[::-1].copy()
    if name in _DRAWN:
        wanted = np.array(_DRAWN[name], np.float64)
        at = np.linspace(0, 255, len(wanted))
        return np.column_stack([np.interp(grey, at, wanted[:, c]) for c in range(3)]).round().astype(np.uint8)
    kind: int = getattr(cv2, f"COLORMAP_{name.removeprefix('opencv-').upper()}")
    return cv2.applyColorMap(grey[:, None], kind)[:, 0, ::-1].copy()
