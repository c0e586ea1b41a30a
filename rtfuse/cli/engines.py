"""`rtfuse bench` and `rtfuse engines`: the cost of a frame, and the engines that compute the network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rtfuse.cli.app import out
from rtfuse.cli.options import Weights

engines_app = typer.Typer(no_args_is_help=True, help="List, build or remove the engines of the network.")


def bench(
    ir: Annotated[str | None, typer.Option(help="Thermal recording; else the synthetic scene.")] = None,
    rgb: Annotated[str | None, typer.Option(help="RGB recording.")] = None,
    fuser: Annotated[
        str | None, typer.Option("--fuser", help="auto, ufuser, student (fast) or pyramid; --compare takes more: a,b")
    ] = None,
    weights: Weights = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="CHECKOUT", help="Run `rtfuse fuse` of another version and of this one in turn."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="With --compare, runs of each version.")] = 5,
    engines: Annotated[str | None, typer.Option(help="Compare engines: eager,openvino:float32,…")] = None,
    frames: Annotated[int, typer.Option(min=30, help="Frames to measure.")] = 300,
    size: Annotated[
        str, typer.Option(help="Size of the scene; for engines, one or more: 640x480,1280x720")
    ] = "640x480",
    batch: Annotated[str, typer.Option(help="For engines, frames at once, one or more numbers: 1,4")] = "1",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
) -> None:
    """Measure milliseconds of every stage per frame, or compare engines of the network or two versions of rtfuse.

    Example: rtfuse bench --engines eager,openvino:float32,openvino:bfloat16

    Example: rtfuse bench --compare ../older --fuser pyramid,student
    """
    from rtfuse.cli.benching import Bench, bench_and_print

    bench_and_print(out, Bench(ir, rgb, fuser, weights, engines, frames, size, batch, json_file, compare, rounds))


@engines_app.command(name="list")
def engines_list() -> None:
    """List the stored engines: weights, sizes, and when they were last used."""
    from rtfuse.cli.benching import list_engines

    list_engines(out)


@engines_app.command(name="clear")
def engines_clear() -> None:
    """Remove all stored engines; a run that needs one builds it again."""
    from rtfuse.cli.benching import clear_engines

    clear_engines(out)


@engines_app.command(name="build")
def engines_build(
    engine: Annotated[str, typer.Option(help="auto, tensorrt, cuda, openvino or eager.")] = "auto",
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of RGB.")] = "640x480",
    ir_size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of thermal, if different.")] = None,
    weights: Weights = None,
) -> None:
    """Build, or load, the engine for frames of a size, and check it, so that the first run does not wait.

    Example: rtfuse engines build --size 1280x720 --ir-size 640x512
    """
    from rtfuse.cli.benching import build_engine

    build_engine(out, engine, weights, size, ir_size)
