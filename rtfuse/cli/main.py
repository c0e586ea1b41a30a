"""Define the command line `rtfuse`: its subcommands, a module of this package each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtfuse.cli.app import add_version, out, run_app
from rtfuse.cli.demo import demo
from rtfuse.cli.detect import detect
from rtfuse.cli.engines import bench, engines_app
from rtfuse.cli.fuse import fuse
from rtfuse.cli.keys import app as keys_app
from rtfuse.cli.proxy import proxy
from rtfuse.cli.run import config_app, record, run
from rtfuse.cli.view import view

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fuse a thermal and an RGB stream in real time: capture, sync, align, fuse, publish.",
)
add_version(app, "rtfuse")
app.command(name="demo")(demo)
app.command(name="run")(run)
app.command(name="fuse")(fuse)
app.command(name="record")(record)
app.command(name="view")(view)
app.command(name="detect")(detect)


@app.command()
def probe(
    save: Annotated[Path | None, typer.Option(help="Write a snapshot of every camera into this folder.")] = None,
    controls: Annotated[bool, typer.Option("--controls", help="Also list the cameras' controls.")] = False,
) -> None:
    """List cameras: formats, sizes, rates, stable names, and the likely thermal camera.

    Example: rtfuse probe --save out/cameras
    """
    from rtfuse.cli.probe import probe

    probe(out, save=save, controls=controls)


app.command(name="proxy")(proxy)
app.command(name="bench")(bench)
app.add_typer(config_app, name="config")
app.add_typer(keys_app, name="keys")
app.add_typer(engines_app, name="engines")


def main() -> None:
    """Run `rtfuse`."""
    run_app(app)
