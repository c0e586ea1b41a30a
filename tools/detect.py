"""A detector beside the rig: finds things in the newest frame and publishes their boxes on an endpoint of its own.

    python tools/detect.py                              # what is warm, without a model: watches the topic `ir`
    python tools/detect.py --model yolo11n.onnx         # any ONNX detector of the YOLO family: watches `fused`
    rtfuse run … --web --boxes tcp://127.0.0.1:5556     # draws them on the page

Ctrl-C ends it. docs/detectors.md tells which models it reads and how to write a detector of your own.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console

from rtfuse.commands import Signals
from rtfuse.errors import ConfigError, RtfuseError
from rtfuse.publish.boxes import MAX_BOXES, DetectionsPublisher
from rtfuse.publish.detections import Box
from rtfuse.subscribe import Reception, Subscriber
from rtfuse.types import Image

Floats = npt.NDArray[np.float32]
LAYOUTS = ("v5", "v8", "end2end")
STRIDES = (8, 16, 32)
PADDING = 114


@dataclass(frozen=True)
class Network:
    """A compiled network: `run` takes (1, 3, H, W) float of `dtype`; `size_wh` is None where it takes any size.

    `made_for_wh` is the size that its metadata names, if any.
    """

    run: Callable[[npt.NDArray[Any]], Floats]
    size_wh: tuple[int, int] | None
    dtype: npt.DTypeLike
    names: Mapping[int, str]
    outputs: int
    made_for_wh: tuple[int, int] | None


def names_of(text: str | None) -> dict[int, str]:
    """Return the class names that exporters write into the metadata, `{0: 'person', …}`; none if it is not that."""
    try:
        found = ast.literal_eval(text or "{}")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return {}
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    return {k: str(v)[:100] for k, v in found.items() if isinstance(k, int)} if isinstance(found, dict) else {}


def _size(shape: Sequence[Any]) -> tuple[int, int] | None:
    h, w = shape[2:]
    return (w, h) if isinstance(h, int) and isinstance(w, int) and h > 0 and w > 0 else None


def _made_for(text: str | None) -> tuple[int, int] | None:
    """Return the size that exporters write into the metadata as `imgsz`, `[H, W]`."""
    sides = re.fullmatch(r"\[(\d{2,4}), (\d{2,4})\]", text or "")
    return (int(sides[2]), int(sides[1])) if sides else None


def open_onnxruntime(path: Path) -> Network:
    """Open a network with ONNX Runtime, on the CPU or what else it finds."""
    import onnxruntime

    usable = [p for p in onnxruntime.get_available_providers() if not p.startswith("Azure")]
    session = onnxruntime.InferenceSession(str(path), providers=usable)
    (entry,) = session.get_inputs()
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
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    (entry,) = compiled.inputs
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
    return boxed, np.array(fitted, np.float32) / (w, h), np.array((left, top), np.float32)


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
    kept = cv2.dnn.NMSBoxesBatched(
        np.hstack([corners, sizes]).astype(np.float64).tolist(), best.tolist(), classes.tolist(), confidence, iou
    )
    kept = np.asarray(kept, int).reshape(-1)[:MAX_BOXES]
    return np.hstack([corners, corners + sizes])[kept], best[kept], classes[kept]


class Yolo:
    """A detector of the YOLO family. Raises ConfigError for a model that cannot be opened or is none."""

    topic = "fused"

    def __init__(
        self,
        path: Path,
        *,
        engine: str = "onnxruntime",
        names: Sequence[str] = (),
        layout: str | None = None,
        confidence: float = 0.25,
        iou: float = 0.45,
        size: int | None = None,
    ) -> None:
        if not path.is_file():
            raise ConfigError(f"there is no model {path}")
        try:
            self._network = ENGINES[engine](path)
        except ImportError as e:
            raise ConfigError(f"{engine} is not installed: pip install {engine}") from e
        except Exception as e:  # engines raise what they like
            raise ConfigError(f"{engine} cannot open {path}: {' '.join(str(e).split())[:200]}") from e
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
        """Return what is in an image, (H, W, 3) uint8 RGB or (H, W) uint8, in its pixels."""
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


def detect(args: argparse.Namespace, out: Console, err: Console) -> int:
    """Detect until Ctrl-C, `--frames` or `--duration`; returns how many frames were looked at."""
    detector: Yolo | Warm = Warm()
    if args.model:
        detector = Yolo(
            args.model, engine=args.engine, names=args.names, layout=args.layout,
            confidence=args.confidence, iou=args.iou, size=args.size,
        )  # fmt: skip
    topic = args.topic or detector.topic
    end = time.monotonic() + (args.duration or float("inf"))
    with (
        Signals().caught() as signals,
        DetectionsPublisher(
            args.publish, detector=detector.name, keys=args.publish_keys, allow_remote=args.insecure
        ) as boxes,
        Subscriber(args.endpoint, topic=topic, keys=args.keys) as frames,
    ):
        err.print(f"{detector.name}: watching {topic} of {args.endpoint}, boxes on {boxes.endpoint}", soft_wrap=True)
        spent, say_at = [], time.monotonic() + 1
        while not signals.stop.is_set() and time.monotonic() < end and boxes.sent != args.frames:
            received = frames.recv(0.1)
            if received is not None:
                if received.image.dtype != np.uint8:
                    raise ConfigError(f"{topic} has counts, on the thermal camera's own grid; want ir, rgb or fused")
                began = time.perf_counter()
                found = detector(received.image)
                spent.append(1000 * (time.perf_counter() - began))
                boxes.write(received.header, found, spent[-1])
                if args.print:
                    out.print(f"{received.header.seq}: {told(found) or 'nothing'}", soft_wrap=True, highlight=False)
            if time.monotonic() >= say_at:
                said = pace(detector.name, frames.reception(), spent) if spent else f"no frames of {topic} yet"
                err.print(said, soft_wrap=True, highlight=False)
                spent, say_at = [], time.monotonic() + 1
        return boxes.sent


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    add = parser.add_argument
    add("endpoint", nargs="?", default="tcp://127.0.0.1:5555", help="where rtfuse run publishes")
    add("--model", type=Path, help="an ONNX detector; without one, what is warm")
    add("--engine", choices=sorted(ENGINES), default="onnxruntime")
    add("--names", type=lambda text: text.split(","), default=(), help="class names: person,bicycle,car")
    add("--layout", choices=LAYOUTS, help="how the output is written, where its shape does not tell")
    add("--confidence", type=float, default=0.25, help="lowest score")
    add("--iou", type=float, default=0.45, help="of two boxes of one class that overlap more, the better one stays")
    add("--size", type=int, help="side of the input, where the model takes any; else what it was made for, or 640")
    add("--topic", help="plane to watch: fused, or ir without a model")
    add("--publish", default="tcp://127.0.0.1:5556", help="where the boxes go")
    add("--keys", type=Path, help="the file of rtfuse keys new client, if the rig encrypts")
    add("--publish-keys", type=Path, help="encrypt the boxes with this folder of keys")
    add("--insecure", action="store_true", help="allow boxes in plain text beyond this machine")
    add("--print", action="store_true", help="print the boxes")
    add("--frames", type=int, help="end after this many frames")
    add("--duration", type=float, help="end after this many seconds")
    return parser.parse_args(argv)


def main() -> int:
    """Run it; returns the exit status."""
    out, err = Console(), Console(stderr=True)
    try:
        seen = detect(arguments(), out, err)
    except RtfuseError as e:
        err.print(f"[red]error:[/] {e}", soft_wrap=True)
        return e.exit_status
    err.print(f"{seen} frames looked at")
    return 0


if __name__ == "__main__":
    sys.exit(main())
