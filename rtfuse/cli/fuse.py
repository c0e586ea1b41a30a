"""`rtfuse fuse`: recordings and images, completely."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from rtfuse.cli.app import close, err, out
from rtfuse.cli.arguments import settings_of, starts_of
from rtfuse.cli.options import (
    AlignStarts,
    Calib,
    ConfigFile,
    DepthUri,
    Force,
    Fps,
    FuserName,
    Overrides,
    PairWay,
    Recursive,
    Register,
)
from rtfuse.config import Config
from rtfuse.observe.stats import Snapshot

_FUSE = {
    "ir": ("ir.uri",),
    "rgb": ("rgb.uri",),
    "fps": ("ir.fps", "rgb.fps"),
    "calib": ("align.calib",),
    "depth": ("align.depth.source.uri",),
    "fuser": ("fuse.fuser",),
    "pair": ("stills.pair",),
    "sequence": ("stills.sequence",),
    "recursive": ("stills.recursive",),
}


def fuse(
    context: typer.Context,
    ir: Annotated[str, typer.Argument(metavar="IR", help="Thermal recording, folder, pattern or image.")],
    rgb: Annotated[
        str | None, typer.Argument(metavar="[RGB]", help="RGB source, as for IR; not needed if IR holds both.")
    ] = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Video, image, or folder; default: beside the RGB input.")
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Thermal | RGB | fused.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="Also write a side-by-side picture of a pair near the middle."),
    ] = None,
    config: ConfigFile = None,
    calib: Calib = None,
    depth: DepthUri = None,
    fuser: FuserName = None,
    fps: Fps = None,
    align_starts: AlignStarts = False,
    register: Register = False,
    pair: PairWay = None,
    sequence: Annotated[bool, typer.Option("--sequence", help="Fuse stills as a video, not as single scenes.")] = False,
    recursive: Recursive = False,
    force: Force = False,
) -> None:
    """Fuse two recordings, folders or images completely, in order. Output times are those of RGB, starting at 0.

    Example: rtfuse fuse thermal.mp4 rgb.mp4 -o fused.mp4; with a radiometric JPEG: rtfuse fuse FLIR0123.jpg
    """
    from rtfuse.cli.one_input import one_input

    given, told = one_input(context.params)
    if told:
        out.print(told, soft_wrap=True, markup=False, highlight=False)
    fixed: dict[str, Any] = {"playback.speed": "max", "playback.loop": False, **starts_of(align_starts)}
    settings, target = settings_of(given, _FUSE, fixed=fixed), output or output_beside(str(given["rgb"]))
    _fuse(settings, target, side_by_side=side_by_side, picture=picture, register=register, force=force)


def _fuse(
    settings: Config, target: Path, *, side_by_side: bool, picture: Path | None, register: bool, force: bool
) -> None:
    """Fuse into `target`, and end with the summary."""
    from rtfuse.cli.commands import fuse_recordings
    from rtfuse.cli.signals import interruptible

    result = interruptible(
        lambda signals: fuse_recordings(
            settings,
            signals,
            out,
            target,
            side_by_side=side_by_side,
            picture=picture,
            register=register,
            force=force,
        ),
        cut_off=f"interrupted; {target} was not written",
        tidy=lambda: _tidy(target, picture),
    )
    close(result, {"fused": str(target), **({"picture": str(picture)} if picture else {})})
    _tell_losses(result, target)


def _tidy(*outputs: Path | None) -> None:
    """Remove the incomplete outputs of an interrupted command."""
    from rtfuse.record.video import remove_partial

    remove_partial(*outputs)


def output_beside(rgb: str) -> Path:
    """Return the output for a command without one: the RGB input's name and `-fused`, in its folder.

    An image gives a PNG file, a folder or a pattern gives a folder, and the rest gives a video.
    """
    from rtfuse.capture import is_live
    from rtfuse.capture.paths import is_pattern, is_pipe
    from rtfuse.capture.stills import is_image, is_stills
    from rtfuse.record.video import VIDEO_CODECS

    if (rgb == "synthetic" or rgb.startswith("synthetic:")) and not Path(rgb).exists():
        return Path("synthetic-fused.mp4")
    if rgb == "-" or is_live(rgb) or is_pipe(rgb):  # their names are none for a file
        return Path("fused.mp4")
    path = Path(rgb)
    if is_image(path) and not is_pattern(rgb):
        return path.with_name(f"{path.stem}-fused.png")
    if path.is_dir():
        return path.parent / f"{path.resolve().name}-fused"
    if is_stills(rgb):
        return path.parent.parent / f"{path.parent.resolve().name}-fused"
    return path.with_name(f"{path.stem}-fused{path.suffix if path.suffix.lower() in VIDEO_CODECS else '.mp4'}")


def _tell_losses(result: Snapshot, output: Path) -> None:
    """End with status 2 and one line if the input was damaged."""
    lost = {key: n for key, n in result.drops.items() if key[1] in ("corrupt", "damaged", "truncated")}
    if lost:
        what = ", ".join(f"{n} {where} frames {cause}" for (where, cause), n in lost.items())
        rest = f"the rest was fused into {escape(str(output))}"
        err.print(f"[bold yellow]incomplete input:[/] {what}; {rest}", soft_wrap=True)
        raise typer.Exit(2)
