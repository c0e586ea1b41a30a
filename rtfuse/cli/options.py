"""Define the options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ENDPOINT = "tcp://127.0.0.1:5555"

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. sync.tolerance_ms=15")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; the command line wins.")]
Calib = Annotated[str | None, typer.Option(help="Calibration file (YAML).")]
DepthUri = Annotated[
    str | None, typer.Option("--depth", help="Depth of RGB's pixels, 16-bit millimetres: recording or stills.")
]
FuserName = Annotated[str | None, typer.Option("--fuser", help="auto, ufuser, student (fast) or pyramid.")]
Fps = Annotated[
    float | None, typer.Option(help="Rate of stills and of video without times; rate to request from cameras.")
]
Register = Annotated[
    bool, typer.Option("--register", help="Find the calibration from the footage, and keep it for --calib.")
]
AlignStarts = Annotated[
    bool, typer.Option("--align-starts", help="Take the first frames of two recordings as one moment.")
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size to request from the RGB camera: 640x480.")]
IrSize = Annotated[str | None, typer.Option(metavar="WxH", help="Size to request from the thermal camera.")]
PairWay = Annotated[str | None, typer.Option("--pair", help="Pair stills by name, order, or the time in their names.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Also take the stills of subfolders.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]
Frames = Annotated[int | None, typer.Option(help="End after this many frames.")]
Duration = Annotated[float | None, typer.Option(help="End after this many seconds.")]
Ir = Annotated[str | None, typer.Option(help="Thermal source: /dev/videoN or N, URL, recording, stills, synthetic.")]
Rgb = Annotated[str | None, typer.Option(help="RGB source, as for --ir.")]
Log = Annotated[str | None, typer.Option(help="Format of log lines: text or json.")]
Keys = Annotated[str | None, typer.Option(help="Encrypt with this folder of keys; see rtfuse keys.")]
ClientKeys = Annotated[
    Path | None, typer.Option("--keys", help="If the rig encrypts: key file from rtfuse keys new client.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain text beyond this machine.")]
Endpoint = Annotated[str, typer.Argument(help="Endpoint of the rig.")]
Weights = Annotated[str | None, typer.Option(help="Network weights.")]
