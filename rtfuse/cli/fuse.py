"""`rtfuse fuse`: recordings and images, completely."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from rtfuse.cli.app import close, err, out
from rtfuse.cli.options import Calib, ConfigFile, Force, Fps, FuserName, Overrides
from rtfuse.cli.words import settings_of
from rtfuse.observe.stats import Snapshot

_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
_FUSE = {
    "ir": ("ir.uri",),
    "rgb": ("rgb.uri",),
    "fps": ("ir.fps", "rgb.fps"),
    "calib": ("align.calib",),
    "fuser": ("fuse.fuser",),
}


def fuse(
    context: typer.Context,
    ir: Annotated[str, typer.Argument(metavar="IR", help="Thermal recording, folder, pattern or image.")],
    rgb: Annotated[
        str | None, typer.Argument(metavar="[RGB]", help="RGB recording, folder, pattern or image; none: IR has both.")
    ] = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Video, image, or folder (no suffix); else beside RGB.")
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Thermal | RGB | fused.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Also write one side-by-side picture.")] = None,
    config: ConfigFile = None,
    calib: Calib = None,
    fuser: FuserName = None,
    fps: Fps = None,
    force: Force = False,
) -> None:
    """Fuse two recordings, folders or images completely, in order, with the RGB stream's times.

    Example: rtfuse fuse thermal.mp4 rgb.mp4 -o fused.mp4; with a radiometric JPEG: rtfuse fuse FLIR0123.jpg
    """
    if rgb is None or ("=" in rgb and not Path(rgb).exists() and _KEY.match(rgb)):
        overrides = [*([rgb] if rgb else []), *(overrides or [])]
        ir, rgb = both_in(ir)
        context.params |= {"ir": ir, "rgb": rgb, "overrides": overrides}
    settings = settings_of(context.params, _FUSE, fixed={"playback.speed": "max", "playback.loop": False})
    from rtfuse.cli.commands import fuse_recordings
    from rtfuse.cli.signals import interruptible

    target = output or output_beside(rgb)
    if output is None:
        out.print(f"writing {target} (-o names another)", soft_wrap=True, markup=False, highlight=False)
    result = interruptible(
        lambda signals: fuse_recordings(
            settings, signals, out, target, side_by_side=side_by_side, picture=picture, force=force
        )
    )
    close(result, {"fused": str(target), **({"picture": str(picture)} if picture else {})}, age=False)
    _tell_losses(result, target)


def both_in(path: str) -> tuple[str, str]:
    """Return the sources of thermal and RGB in one file, or in each file of a folder. Raises an error without both."""
    from rtfuse.cli.radiometric import require_photo

    require_photo(path)
    return path, path


def output_beside(rgb: str) -> Path:
    """Return the output for a command without one: the RGB input's name and `-fused`, in its folder.

    An image gives a PNG file, a folder or a pattern gives a folder, and the rest gives a video.
    """
    from rtfuse.capture.stills import is_image, is_stills
    from rtfuse.record.video import VIDEO_CODECS

    if rgb.startswith("synthetic"):
        return Path("synthetic-fused.mp4")
    path = Path(rgb)
    if is_image(path) and not any(c in rgb for c in "*?["):
        return path.with_name(f"{path.stem}-fused.png")
    if path.is_dir():
        return path.parent / f"{path.resolve().name}-fused"
    if is_stills(rgb):
        return path.parent.parent / f"{path.parent.resolve().name}-fused"
    return path.with_name(f"{path.stem}-fused{path.suffix if path.suffix.lower() in VIDEO_CODECS else '.mp4'}")


def _tell_losses(result: Snapshot, output: Path) -> None:
    """End with status 2 and one line if the input was damaged."""
    lost = {key: n for key, n in result.drops.items() if key[1] in ("corrupt", "truncated")}
    if lost:
        what = ", ".join(f"{n} {where} frames {cause}" for (where, cause), n in lost.items())
        err.print(f"[bold yellow]incomplete input:[/] {what}; the rest was fused into {output}", soft_wrap=True)
        raise typer.Exit(2)
