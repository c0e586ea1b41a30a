"""Define a detector, and find warm spots in thermal pictures without a model.

docs/detectors.md lists the models that `rtfuse detect` reads, and shows how to write a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.publish.detections import MAX_BOXES
from rtfuse.types import Image
from rtfuse.wire.detections import Box


class Detector(Protocol):
    """Finds boxes in pictures; `topic` is the plane that it watches unless another is named."""

    @property
    def name(self) -> str: ...

    @property
    def topic(self) -> str: ...

    def __call__(self, image: Image) -> list[Box]:
        """Return what is in an image, (H, W, 3) uint8 RGB or (H, W) uint8, in its pixels."""
        ...


class Warm:
    """Finds what is warmer than its surroundings, in thermal pictures where warm is bright; knows no people from cars.

    A spot counts if it stands out by `contrast` grey levels, and by three times the picture's usual deviation.
    """

    name, topic = "warm", "ir"

    def __init__(self, contrast: float = 25.0) -> None:
        self._contrast = contrast

    def __call__(self, image: Image) -> list[Box]:
        """Return the warm spots of an image, (H, W) uint8, in its pixels. Raises ConfigError for another one."""
        if image.ndim != 2:
            raise ConfigError("without a model warm spots are looked for in thermal: --topic ir, or give a --model")
        h, w = image.shape
        smooth = cv2.GaussianBlur(image, (5, 5), 0).astype(np.float32)
        around = cv2.blur(smooth, (max(3, w // 4) | 1, max(3, h // 3) | 1), borderType=cv2.BORDER_REFLECT)
        above = smooth - around
        limit = max(self._contrast, 3 * float(above.std()))
        spots = (above > limit).astype(np.uint8)
        spots = cv2.morphologyEx(spots, cv2.MORPH_CLOSE, np.ones((max(3, h // 60) | 1, 3), np.uint8))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(spots, connectivity=8)
        found = []
        for k, (x, y, width, height, area) in enumerate(stats.tolist()):
            if k == 0 or height < h / 40 or width < w / 160 or area < h * w / 5000 or area > h * w / 8:
                continue
            inside = labels[y : y + height, x : x + width] == k
            out = float(above[y : y + height, x : x + width][inside].mean()) / limit
            found.append(Box(x=x, y=y, width=width, height=height, label="warm", score=round(1 - 0.5 / out**2, 3)))
        return sorted(found, key=lambda box: -box.score)[:MAX_BOXES]


def told(boxes: Sequence[Box]) -> str:
    """Return boxes as one line of text."""
    return "; ".join(f"{b.label} {b.score:.2f} at {b.x:.0f},{b.y:.0f} {b.width:.0f}x{b.height:.0f}" for b in boxes)
