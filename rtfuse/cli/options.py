"""Define the options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ENDPOINT = "tcp://127.0.0.1:5555"

Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="e.g. sync.tolerance_ms=15")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; the command line wins.")]
Calib = Annotated[str | None, typer.Option(help="Calibration file (YAML).")]
FuserName = Annotated[str | None, typer.Option("--fuser", help="auto, ufuser, student (fast) or pyramid.")]
Fps = Annotated[
    float | None, typer.Option(help="Rate of stills and of video without times; the rate asked of cameras.")
]
Register = Annotated[
    bool, typer.Option("--register", help="Find the calibration from the footage, and keep it for --calib.")
]
AlignStarts = Annotated[
    bool, typer.Option("--align-starts", help="Take the first frames of two recordings as one moment.")
]
Size = Annotated[str | None, typer.Option(metavar="WxH", help="Size asked of the RGB camera: 640x480.")]
IrSize = Annotated[str | None, typer.Option(metavar="WxH", help="Size asked of the thermal camera.")]
PairWay = Annotated[str | None, typer.Option("--pair", help="Stills: by name, order, or the time in their names.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Stills: those of subfolders too.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing outputs.")]
Frames = Annotated[int | None, typer.Option(help="End after this many frames.")]
Duration = Annotated[float | None, typer.Option(help="End after this many seconds.")]
Ir = Annotated[str | None, typer.Option(help="Thermal: /dev/videoN or N, URL, recording, stills, synthetic.")]
Rgb = Annotated[str | None, typer.Option(help="RGB: the same.")]
Log = Annotated[str | None, typer.Option(help="text or json.")]
Keys = Annotated[str | None, typer.Option(help="Encrypt with this folder of keys; see rtfuse keys.")]
ClientKeys = Annotated[
    Path | None, typer.Option("--keys", help="The file of rtfuse keys new client, if the rig encrypts.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain text beyond this machine.")]
Endpoint = Annotated[str, typer.Argument(help="The endpoint that rtfuse run publishes on.")]
Weights = Annotated[str | None, typer.Option(help="Network weights.")]
