"""`rtfuse view`: watch a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtfuse.cli.app import err, out
from rtfuse.cli.options import ENDPOINT, ClientKeys, Duration, Endpoint, Force, Frames


def view(
    endpoint: Endpoint = ENDPOINT,
    save: Annotated[Path | None, typer.Option(help="Write every frame into this folder, or .mkv, .mp4.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print rate, age, skew and gaps; open no window.")] = False,
    pipe: Annotated[
        str | None, typer.Option(help="Write video to standard output (y4m, raw, mjpeg), or into /dev/videoN.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1, max=1000, help="Frame rate in the header of y4m.")] = 30.0,
    topic: Annotated[str, typer.Option(help="Topic to watch.")] = "fused",
    keys: ClientKeys = None,
    palette: Annotated[str | None, typer.Option(help="Palette for thermal pictures, e.g. iron.")] = None,
    spots: Annotated[bool, typer.Option("--spots", help="Draw the hottest and the coldest point.")] = False,
    frames: Frames = None,
    duration: Duration = None,
    force: Force = False,
) -> None:
    """Watch a stream: in a window (q ends, f fills the screen, s saves), as files, as numbers, or through a pipe.

    Example: rtfuse view tcp://127.0.0.1:5555 --stats
    """
    from rtfuse.cli.signals import Signals
    from rtfuse.view.viewer import View
    from rtfuse.view.viewer import view as watch

    say = err if pipe and "/" not in pipe else out
    how = View(
        endpoint,
        topic=topic,
        keys=keys,
        save=save,
        stats=stats,
        palette=palette,
        spots=spots,
        frames=frames,
        duration_s=duration,
        pipe=pipe,
        rate_hz=rate,
        force=force,
    )
    with Signals().caught() as signals:
        seen = watch(how, say, stopped=signals.stop.is_set)
    say.print(f"{seen} frames received" + (f", saved in {save}" if save and seen else ""))
