"""Measure how well a detector finds labelled things in fused pictures, and in RGB and thermal alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.fuse.luma_fuser import luma, with_luma
from rtfuse.types import Image
from rtfuse.wire.detections import Box
from trainer.measures.average_precision import Estimate, Floats, draws, estimate, matched, shares
from trainer.measures.labels import Boxes, Classes, split_by_time

SOURCES = ("rgb", "thermal")
CONFIDENCE, IOU = 0.001, 0.7
"""Limits of the detector: AP needs weak boxes too."""


class Detects(Protocol):
    """Detector, such as `rtfuse.detect.yolo.Yolo`."""

    def __call__(self, image: Image) -> list[Box]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """AP of one method on one class and time of day.

    - `ap50`, `ap`: average precision at IoU 0.5, and the mean of 0.50 to 0.95, with intervals.
    - `boxes`, `pictures`: labelled boxes, and pictures.
    - `share`: share of draws with AP at IoU 0.5 at or above the better source's; NaN for the sources.
    """

    ap50: Estimate
    ap: Estimate
    boxes: int
    pictures: int
    share: float


class Detection:
    """Collects boxes of one detector on pictures of several methods; `rgb` and `thermal` are methods too."""

    def __init__(self, detector: Detects, labels: Mapping[str, Boxes], classes: Classes) -> None:
        self._detector, self._labels, self._classes = detector, labels, classes
        self._truth: dict[str, Floats] = {}
        self._found: dict[str, dict[str, Floats]] = {}
        self._lumas: dict[str, float] = {}
        self.ignored: dict[str, int] = {}
        self._unlabelled = 0

    def add(self, name: str, ir: Image, rgb: Image, fused: Mapping[str, Image]) -> None:
        """Take one pair: thermal (H, W), RGB (H, W, 3), and the fused luma (H, W) of each method, uint8.

        The detector sees fused luma with RGB's chroma, as rtfuse shows it; thermal in grey. A pair without labels is
        left out.
        """
        if name not in self._labels:
            self._unlabelled += 1
            return
        h, w = ir.shape
        label, x, y, width, height = self._labels[name].T
        self._truth[name] = np.stack([label, (x - width / 2) * w, (y - height / 2) * h, width * w, height * h], axis=1)
        visible = luma(rgb)
        self._lumas[name] = float(visible.mean())
        pictures = {"rgb": rgb, "thermal": ir, **{m: with_luma(rgb, visible, image) for m, image in fused.items()}}
        for method, picture in pictures.items():
            self._found.setdefault(method, {})[name] = self._detect(picture)

    def _detect(self, picture: Image) -> Floats:
        label_of, rows = self._classes.label_of(), []
        for box in self._detector(picture):
            if box.label in label_of:
                rows.append([label_of[box.label], box.x, box.y, box.width, box.height, box.score])
            else:
                self.ignored[box.label] = self.ignored.get(box.label, 0) + 1
        return np.array(rows, float).reshape(-1, 6)

    def lines(self) -> list[str]:
        """Return lines about pictures without labels, labels and names that are left out, and the time of day."""
        named = set(self._classes.names)
        left = [int(c) for rows in self._labels.values() for c in rows[:, 0] if int(c) not in named]
        said = [split_by_time(self._lumas)[1]]
        if self._unlabelled:
            said.append(f"detection leaves out {self._unlabelled} pairs without a label file")
        if left:
            said.append(
                f"labels left out: {len(left)} boxes of classes {sorted(set(left))}, which --classes does not name"
            )
        if self.ignored:
            some = sorted(self.ignored, key=lambda name: -self.ignored[name])
            more = f" and {len(some) - 5} more" if len(some) > 5 else ""
            said.append(f"names of the detector that stand for no label class: {', '.join(some[:5])}{more}")
        return said

    def result(self) -> dict[str, dict[str, dict[str, Found]]]:
        """Return AP by time of day (`all`, `day`, `night`), method and class.

        Pictures that one method lacks are left out for all. Raises ConfigError if none is left.
        """
        names = [name for name in self._truth if all(name in found for found in self._found.values())]
        if not names:
            raise ConfigError("nothing to detect: no pair has both labels and a picture of every method")
        times, _ = split_by_time({name: self._lumas[name] for name in names})
        groups = {"all": names, **{t: [n for n in names if times[n] == t] for t in ("day", "night")}}
        return {time: self._measured(group) for time, group in groups.items() if group}

    def _measured(self, names: Sequence[str]) -> dict[str, dict[str, Found]]:
        classes = sorted(self._classes.names)
        weights, once = draws(len(names)), np.ones(len(names))
        all_matched = {
            method: matched([self._truth[n] for n in names], [found[n] for n in names], classes)
            for method, found in self._found.items()
        }
        result: dict[str, dict[str, Found]] = {method: {} for method in self._found}
        for label in classes:
            drawn = {m: np.array([each[label].precision(w) for w in weights]) for m, each in all_matched.items()}
            better = shares({m: values[:, 0] for m, values in drawn.items()}, SOURCES)
            for method, values in drawn.items():
                at = all_matched[method][label]
                ap50, ap = at.precision(once)
                result[method][self._classes.title(label)] = Found(
                    estimate(ap50, values[:, 0]),
                    estimate(ap, values[:, 1]),
                    int(at.boxes.sum()),
                    len(names),
                    better.get(method, float("nan")),
                )
        return result
