"""`rtfuse detect`: finds things in the newest frame and publishes their boxes on an endpoint of its own.

docs/detectors.md tells which models it reads and how to write a detector of your own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from rich.console import Console

from rtfuse.client.reception import Reception
from rtfuse.client.subscriber import Subscriber
from rtfuse.errors import ConfigError
from rtfuse.publish.detections import MAX_BOXES, DetectionsPublisher
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


def pace(name: str, reception: Reception, spent_ms: Sequence[float]) -> str:
    """Return rate and latency as one line of text."""
    p50, p95 = np.percentile(spent_ms, (50, 95))
    age = f", frames {reception.age_ms.p50:.0f} ms old when taken" if reception.age_ms else ""
    return f"{name}: {reception.rate_hz:.1f} frames/s, {p50:.1f} ms each (p95 {p95:.1f}){age}, {reception.lost} skipped"


def detect(
    endpoint: str,
    detector: Detector,
    out: Console,
    err: Console,
    *,
    stopped: Callable[[], bool],
    publish: str,
    topic: str | None = None,
    keys: Path | None = None,
    publish_keys: Path | None = None,
    insecure: bool = False,
    print_boxes: bool = False,
    frames: int | None = None,
    duration_s: float | None = None,
) -> int:
    """Detect until `stopped`, `frames` or `duration_s`; returns how many frames were looked at.

    Boxes go to `publish`, encrypted with the folder `publish_keys`; `keys` is the client's file of a rig that encrypts.
    Rate and latency go to `err` once a second, boxes to `out` with `print_boxes`.
    """
    topic = topic or detector.topic
    end = time.monotonic() + (duration_s or float("inf"))
    with (
        DetectionsPublisher(publish, detector=detector.name, keys=publish_keys, allow_remote=insecure) as boxes,
        Subscriber(endpoint, topic=topic, keys=keys) as stream,
    ):
        err.print(f"{detector.name}: watching {topic} of {endpoint}, boxes on {boxes.endpoint}", soft_wrap=True)
        spent, say_at = list[float](), time.monotonic() + 1
        while not stopped() and time.monotonic() < end and boxes.sent != frames:
            received = stream.recv(0.1)
            if received is not None:
                if received.image.dtype != np.uint8:
                    raise ConfigError(f"{topic} has counts, on the thermal camera's own grid; want ir, rgb or fused")
                began = time.perf_counter()
                found = detector(received.image)
                spent.append(1000 * (time.perf_counter() - began))
                boxes.write(received.header, found, spent[-1])
                if print_boxes:
                    out.print(f"{received.header.seq}: {told(found) or 'nothing'}", soft_wrap=True, highlight=False)
            if time.monotonic() >= say_at:
                said = pace(detector.name, stream.reception(), spent) if spent else f"no frames of {topic} yet"
                err.print(said, soft_wrap=True, highlight=False)
                spent, say_at = [], time.monotonic() + 1
        return boxes.sent
