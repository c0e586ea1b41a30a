"""Measure how well a segmentation network reads fused pictures, and RGB and thermal alone: IoU per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtfuse.errors import ConfigError
from rtfuse.fuse.luma_fuser import luma, with_luma
from rtfuse.libraries import openvino_library
from rtfuse.types import Image
from trainer.measures.average_precision import Estimate, draws, estimate

IGNORED = 255
"""Pixels of a mask with this value are left out."""
_WANT = "want one input [1, 3, height, width] and one output, [1, classes, h, w] or [1, h, w]"


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Segment by a network: (H, W, 3) uint8 RGB to (H, W) class numbers. `classes`: their count; None if not named."""

    run: Callable[[Image], npt.NDArray[np.int64]]
    classes: int | None


def open_segmenter(path: Path) -> Segmenter:
    """Open an ONNX network with OpenVINO: RGB from 0 to 1, one output of logits or class numbers.

    A network of fixed size sees the picture resized to it. Raises ConfigError for another kind of network.
    """
    if not path.is_file():
        raise ConfigError(f"--segmenter {path} is not a file")
    openvino = openvino_library()
    try:
        compiled = openvino.Core().compile_model(path, "CPU")
    except RuntimeError as e:
        reason = " ".join(str(e).split())[:120]
        raise ConfigError(f"--segmenter {path} cannot be read as a model ({reason}); want an ONNX file") from e
    shapes = [[list(p.partial_shape) for p in ports] for ports in (compiled.inputs, compiled.outputs)]
    entry = [d.get_length() if d.is_static else 0 for d in shapes[0][0]]
    out = [d.get_length() if d.is_static else 0 for d in shapes[1][0]]
    if len(shapes[0]) != 1 or len(shapes[1]) != 1 or len(entry) != 4 or entry[1] != 3 or len(out) not in (3, 4):
        raise ConfigError(f"--segmenter {path} has input {entry} and output {out} of {len(shapes[1])}; {_WANT}")
    size = (entry[3], entry[2]) if entry[2] and entry[3] else None

    def run(picture: Image) -> npt.NDArray[np.int64]:
        fitted = picture if size is None else cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        result = np.asarray(compiled((fitted.transpose(2, 0, 1)[None] / 255).astype(np.float32))[0])
        found = (result[0].argmax(axis=0) if result.ndim == 4 else result[0]).astype(np.int32)
        back = cv2.resize(found.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        return back.astype(np.int64)

    return Segmenter(run, out[1] or None if len(out) == 4 else None)


@dataclass(frozen=True, slots=True)
class Overlap:
    """IoU of one method: by class number, and the mean of the classes that occur, over `pictures`."""

    classes: dict[int, Estimate]
    mean: Estimate
    pictures: int


class Segmentation:
    """Counts the pixels of each pair of true and found class, for every method, `rgb` and `thermal`."""

    def __init__(self, segmenter: Segmenter, masks: Mapping[str, Path]) -> None:
        self._segmenter, self._masks = segmenter, masks
        self._counts: dict[str, dict[str, npt.NDArray[np.int64]]] = {}
        self._unmasked = 0

    def add(self, name: str, ir: Image, rgb: Image, fused: Mapping[str, Image]) -> None:
        """Take one pair: thermal (H, W), RGB (H, W, 3), fused luma (H, W) of each method, uint8.

        A pair without a mask is left out. Raises ConfigError for a mask that is unreadable, of another size, or that
        has a class that the network does not.
        """
        if name not in self._masks:
            self._unmasked += 1
            return
        mask = _read_mask(self._masks[name], ir.shape, self._segmenter.classes)
        visible = luma(rgb)
        pictures = {"rgb": rgb, "thermal": cv2.merge([ir] * 3)}
        pictures |= {method: with_luma(rgb, visible, image) for method, image in fused.items()}
        for method, picture in pictures.items():
            self._counts.setdefault(method, {})[name] = _confusion(mask, self._segmenter.run(picture))

    def lines(self) -> list[str]:
        """Return a line about pairs without a mask, if there are any."""
        return [f"segmentation leaves out {self._unmasked} pairs without a mask"] if self._unmasked else []

    def result(self) -> dict[str, Overlap]:
        """Return IoU by method, over the pictures that every method has. Raises ConfigError without any."""
        names = [n for n in next(iter(self._counts.values()), {}) if all(n in each for each in self._counts.values())]
        if not names:
            raise ConfigError("nothing to segment: no pair has both a mask and a picture of every method")
        weights = draws(len(names))
        return {method: _overlap([each[n] for n in names], weights) for method, each in self._counts.items()}


def read_masks(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the masks `NAME.png` of a folder by name.

    Raises ConfigError for a folder without masks and for a mask without a picture.
    """
    found = {path.stem: path for path in sorted(folder.glob("*.png"))}
    alone = sorted(found.keys() - set(names))
    if not found or alone:
        what = f"{found[alone[0]].name} has no pair of its name" if alone else "holds no .png file"
        raise ConfigError(f"--masks {folder}: {what}; want NAME.png for the picture NAME")
    return found


def _read_mask(path: Path, shape: tuple[int, ...], classes: int | None) -> Image:
    mask = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.dtype != np.uint8 or mask.shape != shape:
        found = "unreadable" if mask is None else f"{mask.dtype} {list(mask.shape)}"
        raise ConfigError(f"mask {path} is {found}; want class numbers, uint8 {list(shape)}")
    highest = int(mask[mask != IGNORED].max(initial=0))
    if classes is not None and highest >= classes:
        raise ConfigError(f"mask {path} has class {highest}; the network has {classes} classes, 0 to {classes - 1}")
    return mask


def _confusion(mask: Image, found: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (256, 256) counts of pixels by true and by found class."""
    there = mask != IGNORED
    both = mask[there].astype(np.int64) * 256 + np.clip(found[there], 0, 255)
    return np.bincount(both, minlength=65536).reshape(256, 256)


def _overlap(counts: Sequence[npt.NDArray[np.int64]], weights: npt.NDArray[np.float64]) -> Overlap:
    hit = np.array([np.diag(c) for c in counts], float)
    union = np.array([c.sum(axis=0) + c.sum(axis=1) for c in counts], float) - hit
    there = np.flatnonzero(np.array([c.sum(axis=1) for c in counts]).sum(axis=0))

    def iou(w: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        top, bottom = w @ hit[:, there], w @ union[:, there]
        return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)

    value, drawn = iou(np.ones(len(counts))), iou(weights)
    classes = {int(c): estimate(float(value[k]), drawn[:, k]) for k, c in enumerate(there)}
    return Overlap(classes, estimate(float(np.nanmean(value)), np.nanmean(drawn, axis=1)), len(counts))
