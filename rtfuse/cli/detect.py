"""`rtfuse detect`: a detector beside the rig."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rtfuse.cli.app import err, out


def detect(
    endpoint: Annotated[str, typer.Argument(help="Where rtfuse run publishes.")] = "tcp://127.0.0.1:5555",
    model: Annotated[Path | None, typer.Option(help="An ONNX detector; without one, warm spots.")] = None,
    engine: Annotated[
        Literal["openvino", "onnxruntime"], typer.Option(help="Runs the model; onnxruntime where it is installed.")
    ] = "openvino",
    names: Annotated[str, typer.Option(help="Class names: person,bicycle,car")] = "",
    layout: Annotated[
        Literal["v5", "v8", "end2end"] | None,
        typer.Option(help="How the output is written, where its shape does not tell."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Lowest score.")] = 0.25,
    iou: Annotated[
        float, typer.Option(help="Of two boxes of one class that overlap more, the better one stays.")
    ] = 0.45,
    size: Annotated[
        int | None, typer.Option(help="Side of the input, where the model takes any; else what it names, or 640.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Plane to watch: fused, or ir without a model.")] = None,
    publish: Annotated[str, typer.Option(help="Where the boxes go.")] = "tcp://127.0.0.1:5556",
    keys: Annotated[Path | None, typer.Option(help="The file of rtfuse keys new client, if the rig encrypts.")] = None,
    publish_keys: Annotated[Path | None, typer.Option(help="Encrypt the boxes with this folder of keys.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow boxes in plain text beyond this machine.")] = (
        False
    ),
    print_boxes: Annotated[bool, typer.Option("--print", help="Print the boxes.")] = False,
    frames: Annotated[int | None, typer.Option(help="End after this many frames.")] = None,
    duration: Annotated[float | None, typer.Option(help="End after this many seconds.")] = None,
) -> None:
    """Find warm spots, or what an ONNX detector knows, in the newest frames, and publish the boxes; Ctrl-C ends it.

    Examples: rtfuse detect --print;
    rtfuse detect --model yolo11n.onnx
    """
    from rtfuse.cli.signals import Signals
    from rtfuse.detect.detector import Detector, Warm
    from rtfuse.detect.detector import detect as watch

    detector: Detector = Warm()
    if model:
        from rtfuse.detect.yolo import Yolo

        detector = Yolo(
            model,
            engine=engine,
            names=names.split(",") if names else (),
            layout=layout,
            confidence=confidence,
            iou=iou,
            size=size,
        )
    with Signals().caught() as signals:
        seen = watch(
            endpoint,
            detector,
            out,
            err,
            stopped=signals.stop.is_set,
            publish=publish,
            topic=topic,
            keys=keys,
            publish_keys=publish_keys,
            insecure=insecure,
            print_boxes=print_boxes,
            frames=frames,
            duration_s=duration,
        )
    err.print(f"{seen} frames looked at")
