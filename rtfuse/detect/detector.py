"""Define a detector, and find warm spots in thermal pictures without a model.

docs/detectors.md lists the models that `rtfuse detect` reads, and shows how to write a detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.publish.detections import MAX_BOXES
from rtfuse.types import Image
from rtfuse.wire.detections import Box

_LEVELS = 4
"""Grey levels at which regions are looked for: of two things that touch, one is the brighter."""


class Detector(Protocol):
    """Finds boxes in pictures; `topic` is the plane that it watches unless another is named."""

    @property
    def name(self) -> str: ...

    @property
    def topic(self) -> str: ...

    def __call__(self, image: Image) -> list[Box]:
        """Return the boxes of an image, (H, W, 3) uint8 RGB or (H, W) uint8, in its pixels."""
        ...


class Warm:
    """Finds compact things that are warmer than all around them, in thermal pictures where warm is bright.

    It knows no people from cars. A thing is a connected region above one of a few levels; it counts if it is among the
    picture's brightest and is by `contrast` grey levels, or a share of the picture's own contrast, brighter than the
    ring around its box. A house front goes on beyond each box that could be drawn on it, so it does not count.
    """

    name, topic = "warm", "ir"

    def __init__(self, contrast: float = 25.0) -> None:
        self._contrast = contrast

    def __call__(self, image: Image) -> list[Box]:
        """Return the warm things in an image, (H, W) uint8, in its pixels. Raises ConfigError for another one."""
        if image.ndim != 2:
            raise ConfigError("without a model, detect needs thermal: use --topic ir, or give a --model")
        smooth = cv2.GaussianBlur(image, (5, 5), 0)
        middle, bright, hot = np.percentile(smooth[::3, ::3], (50, 98, 99.7)).tolist()
        limit = max(self._contrast, 0.3 * (hot - middle))
        lowest = max(min(bright, middle + 0.8 * (hot - middle)), middle + 0.4 * (hot - middle), middle + limit)
        found = [
            Box(x=x, y=y, width=width, height=height, label="warm", score=round(1 - 0.5 * (limit / above) ** 2, 3))
            for level in np.linspace(lowest, max(hot, lowest), _LEVELS)
            for (x, y, width, height), above in _standing_out(smooth, level)
            if above >= limit
        ]
        return _apart(found)[:MAX_BOXES]


def _standing_out(image: Image, level: float) -> Iterator[tuple[tuple[int, int, int, int], float]]:
    """Yield each compact region above a grey level: x, y, width, height, and how far it is above the ring around it."""
    h, w = image.shape
    gap = np.ones((max(3, h // 60) | 1, 3), np.uint8)
    spots = cv2.morphologyEx((image > level).astype(np.uint8), cv2.MORPH_CLOSE, gap)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(spots, connectivity=8)
    _, _, widths, heights, areas = stats.T
    large = (heights >= h / 40) & (widths >= w / 160) & (areas >= h * w / 5000) & (areas <= h * w / 8)
    compact = (areas >= 0.4 * widths * heights) & (heights >= 0.4 * widths) & (heights <= 5 * widths)
    for k in np.flatnonzero(large[1:] & compact[1:]) + 1:  # 0 is all the rest
        x, y, width, height, _ = stats[k].tolist()
        box = np.s_[y : y + height, x : x + width]
        rim = max(2, round(0.35 * min(width, height)))
        left, top = max(x - rim, 0), max(y - rim, 0)
        around = image[top : y + height + rim, left : x + width + rim]
        ring = np.ones(around.shape, bool)
        ring[y - top : y - top + height, x - left : x - left + width] = False
        if ring.any():
            brighter = float(np.percentile(around[ring], 75))
            yield (x, y, width, height), float(image[box][labels[box] == k].mean()) - brighter


def _apart(boxes: Sequence[Box]) -> list[Box]:
    """Return the boxes without those that overlap a better one, best first; a larger one is worth a little more."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda b: -b.score * (b.width * b.height) ** 0.1):
        if all(_shared(box, other) < 0.3 for other in kept):
            kept.append(box)
    return sorted(kept, key=lambda b: -b.score)


def _shared(a: Box, b: Box) -> float:
    """Return the area that two boxes share, as a share of the smaller one's."""
    width = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    height = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    return max(0.0, width) * max(0.0, height) / min(a.width * a.height, b.width * b.height)


def told(boxes: Sequence[Box]) -> str:
    """Return boxes as one line of text."""
    return "; ".join(f"{b.label} {b.score:.2f} at {b.x:.0f},{b.y:.0f} {b.width:.0f}x{b.height:.0f}" for b in boxes)
