"""Compute average precision of boxes, by pycocotools' matching, with bootstrap intervals over pictures.

AP as in COCO: detections matched by pycocotools at ten IoU limits (0.50 to 0.95), precision at 101 recalls, at most 100
boxes a picture. An interval draws whole pictures with replacement; a picture drawn twice counts with weight 2.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads precision."""
DRAWS = 1000
"""Bootstrap draws."""


@dataclass(frozen=True, slots=True)
class Matched:
    """Matched detections of one class, best score first.

    - `picture`: (D,) index of each detection's picture; `hit`: (T, D) True where it matches a box, T IoU limits.
    - `boxes`: (P,) true boxes of each picture.
    """

    picture: npt.NDArray[np.int64]
    hit: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.int64]

    def precision(self, weights: Floats) -> tuple[float, float]:
        """Return AP at IoU 0.5, and the mean of all IoU limits; (P,) weights of the pictures. NaN without boxes."""
        total = float(weights @ self.boxes)
        if total == 0:
            return float("nan"), float("nan")
        if not len(self.picture):
            return 0.0, 0.0
        each = weights[self.picture]
        right, all_ = np.cumsum(self.hit * each, axis=1), np.cumsum(each)
        precision = np.divide(right, all_, out=np.zeros_like(right), where=all_ > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        aps = [_at_recalls(r / total, p) for r, p in zip(right, envelope, strict=True)]
        return aps[0], float(np.mean(aps))


def _at_recalls(recall: Floats, precision: Floats) -> float:
    place = np.searchsorted(recall, RECALLS, side="left")
    return float(np.where(place < len(recall), precision[np.minimum(place, len(recall) - 1)], 0).mean())


def matched(truth: Sequence[Floats], found: Sequence[Floats], classes: Sequence[int]) -> dict[int, Matched]:
    """Match detections with true boxes by pycocotools, for each class.

    `truth`: (N, 5) for each picture: class, left, top, width, height in pixels; `found`: (N, 6), the score last.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        coco = COCO()
        coco.dataset = _dataset(truth, classes)
        coco.createIndex()
        boxes = [[k, *row[1:5], row[5], row[0]] for k, rows in enumerate(found) for row in rows]
        result = COCO() if not boxes else coco.loadRes(np.array(boxes, float))
        if not boxes:
            result.dataset = _dataset([np.empty((0, 5))] * len(truth), classes)
            result.createIndex()
        judge = COCOeval(coco, result, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = [judge.params.areaRng[0]], ["all"]
        judge.evaluate()
    per_class = np.array(judge.evalImgs, object).reshape(len(classes), len(truth))
    return {
        label: _joined(row, len(judge.params.iouThrs))
        for label, row in zip(sorted(classes), per_class.tolist(), strict=True)
    }


def _dataset(truth: Sequence[Floats], classes: Sequence[int]) -> dict[str, Any]:
    boxes = [(k, row) for k, rows in enumerate(truth) for row in rows if int(row[0]) in classes]
    annotations = [
        {
            "id": n,
            "image_id": k,
            "category_id": int(row[0]),
            "bbox": row[1:5].tolist(),
            "area": float(row[3] * row[4]),
            "iscrowd": 0,
        }
        for n, (k, row) in enumerate(boxes, 1)  # pycocotools takes a match with id 0 for none
    ]
    categories = [{"id": c} for c in classes]
    return {"images": [{"id": k} for k in range(len(truth))], "categories": categories, "annotations": annotations}


def _joined(pictures: Sequence[Any], limits: int) -> Matched:
    """Join the matches of all pictures; pycocotools gives None for a picture without boxes and detections."""
    there = [(k, e) for k, e in enumerate(pictures) if e is not None]
    scores = np.concatenate([np.asarray(e["dtScores"], float) for _, e in there] or [np.empty(0)])
    picture = np.concatenate([np.full(len(e["dtScores"]), k) for k, e in there] or [np.empty(0)]).astype(np.int64)
    hit = np.hstack([np.asarray(e["dtMatches"]).reshape(limits, -1) for _, e in there] or [np.empty((limits, 0))]) > 0
    boxes = np.zeros(len(pictures), np.int64)
    for k, e in there:
        boxes[k] = len(e["gtIds"])
    order = np.argsort(-scores, kind="mergesort")
    return Matched(picture[order], hit[:, order], boxes)


def draws(pictures: int, count: int = DRAWS, seed: int = 0) -> Floats:
    """Return (count, P) weights of pictures: one bootstrap draw a row."""
    drawn = np.random.default_rng(seed).integers(0, pictures, (count, pictures))
    return np.array([np.bincount(row, minlength=pictures) for row in drawn], float)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Value with its 95 % interval (percentiles 2.5 and 97.5 of the draws); NaN where nothing can be measured."""

    value: float
    low: float
    high: float


def estimate(value: float, drawn: Floats) -> Estimate:
    """Return a value and its bootstrap interval; samples without such a box are left out."""
    there = drawn[np.isfinite(drawn)]
    low, high = np.percentile(there, (2.5, 97.5)) if len(there) else (np.nan, np.nan)
    return Estimate(value, float(low), float(high))


def shares(drawn: Mapping[str, Floats], sources: Sequence[str]) -> dict[str, float]:
    """Return, for each method, the share of draws in which it is at or above the better of the sources.

    Draws without a value, because no labelled box was drawn, are left out; NaN if all are.
    """
    best = np.fmax.reduce([drawn[name] for name in sources])
    there = np.isfinite(best)
    methods = [name for name in drawn if name not in sources]
    return {m: float((drawn[m] >= best)[there].mean()) if there.any() else float("nan") for m in methods}
