"""`rtfuse detect`: a detector for the frames of a rig."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rtfuse.cli.app import err, out
from rtfuse.cli.options import ENDPOINT, ClientKeys, Duration, Endpoint, Frames
from rtfuse.cli.screen import StatusLine

if TYPE_CHECKING:
    from rtfuse.detect import Detector, Report
    from rtfuse.wire.detections import Box
    from rtfuse.wire.message import Header

_NICE = 5
BOXES = "tcp://127.0.0.1:5556"


def detect(
    context: typer.Context,
    endpoint: Endpoint = ENDPOINT,
    model: Annotated[Path | None, typer.Option(help="ONNX detector; without a model, find warm spots.")] = None,
    engine: Annotated[
        Literal["openvino", "onnxruntime"],
        typer.Option(help="Engine that runs the model; install onnxruntime before use."),
    ] = "openvino",
    names: Annotated[str, typer.Option(help="Class names: person,bicycle,car")] = "",
    layout: Annotated[
        Literal["v5", "v8", "end2end"] | None, typer.Option(help="Layout of the output, if its shape is ambiguous.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Lowest score of a box.")] = 0.25,
    iou: Annotated[float, typer.Option(help="If two boxes of a class overlap more, keep the better one.")] = 0.45,
    size: Annotated[
        int | None,
        typer.Option(help="Side of the input in px, if the model takes any; default: from its metadata, or 640."),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Plane to watch: fused, or ir without a model.")] = None,
    publish: Annotated[str, typer.Option(help="Endpoint for the boxes.")] = BOXES,
    keys: ClientKeys = None,
    publish_keys: Annotated[Path | None, typer.Option(help="Encrypt the boxes with this folder of keys.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow plain text beyond this machine.")] = False,
    print_boxes: Annotated[bool, typer.Option("--print", help="Print the boxes.")] = False,
    frames: Frames = None,
    duration: Duration = None,
) -> None:
    """Find warm spots, or the classes of an ONNX detector, in the newest frames, and publish the boxes.

    Examples: rtfuse detect --print;
    rtfuse detect --model yolo11n.onnx
    """
    from rtfuse.cli.signals import Signals
    from rtfuse.detect.detector import Warm
    from rtfuse.detect.watching import Watch, watch
    from rtfuse.detect.yolo import Yolo

    plane = topic or (Yolo.topic if model else Warm.topic)
    how = Watch(endpoint, plane, publish, keys, publish_keys, insecure, frames, duration)
    name = model.stem[:100] if model else Warm.name
    _give_way()
    with Signals().caught() as signals, _report(print_boxes) as report:
        seen = watch(how, name, lambda: _opened(context.params), report, signals.stop.is_set)
    err.print(f"{seen} frames examined")


def _give_way() -> None:
    """Give this process a lower priority: where processors are few, the rig whose frames it watches goes first."""
    if hasattr(os, "nice"):
        os.nice(_NICE)


def _opened(given: dict[str, Any]) -> Detector:
    """Open the detector that the options name. Raises ConfigError."""
    from rtfuse.detect.detector import Warm
    from rtfuse.detect.yolo import Yolo

    if given["model"] is None:
        return Warm()
    return Yolo(
        Path(given["model"]),
        engine=given["engine"],
        names=given["names"].split(",") if given["names"] else (),
        layout=given["layout"],
        confidence=given["confidence"],
        iou=given["iou"],
        size=given["size"],
    )


@contextmanager
def _report(print_boxes: bool) -> Iterator[Report]:
    """Report on the terminal: rate and latency in one line that changes, boxes as lines of standard output."""
    from rtfuse.detect.detector import told
    from rtfuse.detect.watching import Report

    line = StatusLine(err)

    def found(header: Header, boxes: list[Box]) -> None:
        if print_boxes:
            line.clear()
            out.print(f"{header.seq}: {told(boxes) or 'nothing'}", soft_wrap=True, highlight=False, markup=False)

    try:
        yield Report(line.print, line.show, found)
    finally:
        line.clear()
