"""Run detectors of the YOLO family: an ONNX network gives boxes in pixels of the frame."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from rtfuse.errors import ConfigError
from rtfuse.hints import install_hint, pip_install
from rtfuse.libraries import onnxruntime_library, openvino_library
from rtfuse.publish.detections import MAX_BOXES
from rtfuse.types import Image
from rtfuse.wire.detections import Box

Floats = npt.NDArray[np.float32]
LAYOUTS = ("v5", "v8", "end2end")
STRIDES = (8, 16, 32)
PADDING = 114


@dataclass(frozen=True)
class Network:
    """Compiled network: `run` takes (1, 3, H, W) float of `dtype`; `size_wh` is None where it takes any size.

    `made_for_wh` is the size that its metadata names, if any.
    """

    run: Callable[[npt.NDArray[Any]], Floats]
    size_wh: tuple[int, int] | None
    dtype: npt.DTypeLike
    names: Mapping[int, str]
    outputs: int
    made_for_wh: tuple[int, int] | None


def names_of(text: str | None) -> dict[int, str]:
    """Return the class names that exporters write into the metadata, `{0: 'person', …}`; empty for other texts."""
    try:
        found = ast.literal_eval(text or "{}")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return {}
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    return {k: str(v)[:100] for k, v in found.items() if isinstance(k, int)} if isinstance(found, dict) else {}


def _size(shape: Sequence[Any]) -> tuple[int, int] | None:
    if len(shape) != 4:
        raise ConfigError(f"the model's input is {list(shape)}; want one picture, [1, 3, height, width]")
    h, w = shape[2:]
    return (w, h) if isinstance(h, int) and isinstance(w, int) and h > 0 and w > 0 else None


def _only(inputs: Sequence[Any]) -> Any:
    if len(inputs) != 1:
        raise ConfigError(f"the model has {len(inputs)} inputs; want one picture, [1, 3, height, width]")
    return inputs[0]


def _made_for(text: str | None) -> tuple[int, int] | None:
    """Return the size that exporters write into the metadata as `imgsz`, `[H, W]`."""
    sides = re.fullmatch(r"\[(\d{2,4}), (\d{2,4})\]", text or "")
    return (int(sides[2]), int(sides[1])) if sides else None


def open_onnxruntime(path: Path) -> Network:
    """Open a network with ONNX Runtime, on a GPU if it finds one."""
    onnxruntime = onnxruntime_library()
    usable = [p for p in onnxruntime.get_available_providers() if not p.startswith("Azure")]
    session = onnxruntime.InferenceSession(str(path), providers=usable)
    entry = _only(session.get_inputs())
    said = session.get_modelmeta().custom_metadata_map
    return Network(
        lambda x: np.asarray(session.run(None, {entry.name: x})[0], np.float32),
        _size(entry.shape),
        np.float16 if "float16" in entry.type else np.float32,
        names_of(said.get("names")),
        len(session.get_outputs()),
        _made_for(said.get("imgsz")),
    )


def open_openvino(path: Path) -> Network:
    """Open a network with OpenVINO on the CPU, for the shortest time per frame."""
    openvino = openvino_library()
    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    entry = _only(compiled.inputs)
    shape = [d.get_length() if d.is_static else None for d in entry.partial_shape]

    def said(key: str) -> str:
        path = ["framework", key]
        return str(model.get_rt_info(path).astype(str)) if model.has_rt_info(path) else ""

    return Network(
        lambda x: np.asarray(compiled(x)[0], np.float32),
        _size(shape),
        np.float16 if "f16" in str(entry.element_type) or "float16" in str(entry.element_type) else np.float32,
        names_of(said("names")),
        len(compiled.outputs),
        _made_for(said("imgsz")),
    )


ENGINES = {"onnxruntime": open_onnxruntime, "openvino": open_openvino}


def letterboxed(image: Image, size_wh: tuple[int, int]) -> tuple[Image, Floats, Floats]:
    """Fit an image into a size, gray around it; returns it with the scale and the offset (x, y) that were applied."""
    (h, w), (width, height) = image.shape[:2], size_wh
    scale = min(width / w, height / h)
    fitted = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (width - fitted[0]) // 2, (height - fitted[1]) // 2
    if image.ndim == 2:
        image = cv2.merge([image] * 3)
    boxed = np.full((height, width, 3), PADDING, np.uint8)
    boxed[top : top + fitted[1], left : left + fitted[0]] = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
    return boxed, np.divide(fitted, (w, h), dtype=np.float32), np.array((left, top), np.float32)


def layout_of(shape: Sequence[int], size_wh: tuple[int, int]) -> str:
    """Tell from an output's shape how a network of the YOLO family writes its boxes. Raises ConfigError.

    Six columns may be one class after an objectness, or boxes that are already suppressed: the former has three rows
    for each cell of the network's grids.
    """
    if len(shape) != 3 or shape[0] != 1 or min(shape[1:]) < 5:
        raise ConfigError(f"the network's output is {list(shape)}; want [1,N,5+classes], [1,4+classes,N] or [1,N,6]")
    _, a, b = shape
    cells = sum((size_wh[0] // s) * (size_wh[1] // s) for s in STRIDES)
    if b == 6 and a not in (3 * cells, 3 * cells + 3 * (size_wh[0] // 64) * (size_wh[1] // 64)):
        return "end2end"
    return "v8" if a < b else "v5"


def decoded(output: Floats, layout: str, confidence: float, iou: float) -> tuple[Floats, Floats, npt.NDArray[Any]]:
    """Return boxes (N, 4) as left, top, right, bottom in pixels of the network's input, their scores and classes."""
    rows = output[0].T if layout == "v8" else output[0]
    if layout == "end2end":
        good = rows[:, 4] >= confidence
        return rows[good, :4], rows[good, 4], rows[good, 5].astype(int)
    scores = rows[:, 4:] if layout == "v8" else rows[:, 5:] * rows[:, 4:5]
    classes = scores.argmax(axis=1) if scores.shape[1] else np.zeros(len(rows), int)
    best = scores.max(axis=1) if scores.shape[1] else rows[:, 4]
    good = best >= confidence
    rows, best, classes = rows[good], best[good], classes[good]
    corners, sizes = rows[:, :2] - rows[:, 2:4] / 2, rows[:, 2:4]
    boxes = np.hstack([corners, sizes]).astype(np.float64).tolist()
    left = cv2.dnn.NMSBoxesBatched(boxes, best.tolist(), classes.tolist(), confidence, iou)
    kept = np.asarray(left, int).reshape(-1)[:MAX_BOXES]
    return np.hstack([corners, corners + sizes])[kept], best[kept], classes[kept]


def _opened(path: Path, engine: str) -> Network:
    """Open a network, without log lines of the engine on the terminal. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"model {path} {'is not a file' if path.exists() else 'not found'}")
    try:
        with _silent():
            return ENGINES[engine](path)
    except ConfigError:
        raise
    except ImportError as e:
        hint = install_hint(broken=engine) if engine == "openvino" else pip_install(engine)
        raise ConfigError(f"--engine {engine} cannot be loaded ({' '.join(str(e).split())[:200]}): {hint}") from e
    except Exception as e:  # engines raise errors of all kinds
        raise ConfigError(f"{engine} cannot read {path} as a model{_reason(e)}; want an ONNX file") from e


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what native libraries write to the standard error of the process while the block runs."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(e: Exception) -> str:
    """Return the first clause of an engine's error in brackets, without source lines; nothing if it adds nothing."""
    text = re.sub(r"Exception from \S+?:\d+: ?|\[[\w.:]+\] ?(: ?\d+ ?: ?\w+ ?: ?)?", "", " ".join(str(e).split()))
    clause = re.split(r"(?<=[\w\"'])(?:\. |: |; | Please )", text)[0].strip(" .")[:100]
    useless = not clause or "Unable to read the model" in clause or "protobuf" in clause.lower()
    return "" if useless else f" ({clause})"


class Yolo:
    """Detect objects by a model of the YOLO family. Raises ConfigError for a file that is not such a model."""

    topic = "fused"

    def __init__(
        self,
        path: Path,
        *,
        engine: str = "openvino",
        names: Sequence[str] = (),
        layout: str | None = None,
        confidence: float = 0.25,
        iou: float = 0.45,
        size: int | None = None,
    ) -> None:
        self._network = _opened(path, engine)
        if self._network.outputs != 1 and layout is None:
            raise ConfigError(f"{path} has {self._network.outputs} outputs; say with --layout how the first is written")
        asked = (size, size) if size else None
        self.name, self._size_wh = (
            path.stem[:100],
            self._network.size_wh or asked or self._network.made_for_wh or (640, 640),
        )
        self._names = dict(enumerate(names)) or self._network.names
        self._layout, self._confidence, self._iou = layout, confidence, iou

    def __call__(self, image: Image) -> list[Box]:
        """Return the boxes in an image, (H, W, 3) uint8 RGB or (H, W) uint8, in its pixels."""
        boxed, scale, offset = letterboxed(image, self._size_wh)
        blob = (boxed.transpose(2, 0, 1)[None].astype(np.float32) / 255).astype(self._network.dtype)
        output = self._network.run(blob)
        layout = self._layout or layout_of(output.shape, self._size_wh)
        corners, scores, classes = decoded(output, layout, self._confidence, self._iou)
        corners = (corners.reshape(-1, 2, 2) - offset) / scale
        corners = np.clip(corners, 0, (image.shape[1], image.shape[0])).astype(float)
        found = [
            Box(
                x=float(x0), y=float(y0), width=float(x1 - x0), height=float(y1 - y0),
                label=self._names.get(int(c), f"class {c}"), score=min(1.0, float(s)),
            )
            for ((x0, y0), (x1, y1)), s, c in zip(corners, scores, classes, strict=True)
            if x1 > x0 and y1 > y0
        ]  # fmt: skip
        return found[:MAX_BOXES]
