"""Define the Typer application, and the options and output that the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from calib.session import NAMES, Session, load_camera
from rtfuse.align.calibration import Calibration, Camera, load_calibration, save_calibration
from rtfuse.align.doubts import doubts
from rtfuse.cli.app import add_version
from rtfuse.errors import CalibrationError
from rtfuse.types import Stream

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Register two cameras on a bracket: make the calibration file that rtfuse loads.",
)
add_version(app, "calib")
out, err = Console(highlight=False), Console(stderr=True, highlight=False)

Ir = Annotated[str | None, typer.Option(help="Thermal source: stills, a recording or a camera.")]
Rgb = Annotated[str | None, typer.Option(help="RGB source: stills, a recording or a camera.")]
RequiredIr = Annotated[str, typer.Option(help="Thermal source: stills, a recording or a camera.")]
RequiredRgb = Annotated[str, typer.Option(help="RGB source: stills, a recording or a camera.")]
SessionFolder = Annotated[Path, typer.Argument(help="Session folder, written by calib boards.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
PlaneDistance = Annotated[
    float, typer.Option("--plane", help="Distance in metres at which registration is exact.", min=0.1)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]
ForceFail = Annotated[
    bool, typer.Option("--force", help="Overwrite an existing output; write it even if its verdict is fail.")
]


def read_calibration(path: Path) -> Calibration:
    """Read a calibration; print each doubt about it in one line."""
    c = load_calibration(path)
    print_doubts(c, path)
    return c


def print_doubts(c: Calibration, path: Path) -> None:
    """Print each doubt about a calibration in one line, as a warning."""
    for doubt in doubts(c):
        warn(f"{path}: {doubt}")


def say(line: str) -> None:
    """Print a line as it is."""
    out.print(line, soft_wrap=True, markup=False, emoji=False)


def warn(line: str) -> None:
    """Print a warning in one line."""
    err.print("[bold yellow]warning:[/]", Text(line), soft_wrap=True)


def write_calibration(c: Calibration, output: Path, force: bool) -> None:
    """Write a calibration. Raises CalibrationError if its verdict is fail and `force` is not set."""
    q = c.quality
    if q is not None and q.verdict == "fail" and not force:
        raise CalibrationError(
            f"{output} was not written: the verdict is fail, {q.pair_error_px:.1f} RGB px between the pictures, where "
            "at most 1 passes; take better views or pictures, or write it anyway with --force"
        )
    save_calibration(c, output)


def require_pairs(session: Session) -> None:
    """Raise CalibrationError if the views of a session are not pairs."""
    if not session.together:
        raise CalibrationError(
            "this session has pictures of one camera only; make pairs with calib boards --ir … --rgb …"
        )


def session_camera(session: Session, stream: Stream, path: Path) -> Camera:
    """Read a camera file. Raises CalibrationError if its size is not that of the session's pictures."""
    camera = load_camera(path)
    if camera.size_wh != session.size_wh(stream):
        (w, h), (sw, sh) = camera.size_wh, session.size_wh(stream)
        raise CalibrationError(
            f"{path} is for a camera of {w}x{h}, but the session's {NAMES[stream]} pictures are {sw}x{sh}; give the "
            f"{NAMES[stream]} camera's file"
        )
    return camera


def print_quality(c: Calibration) -> None:
    """Print the error between the pictures and the verdict, if known."""
    q = c.quality
    if q is None:
        return
    at = f" at {q.distance_m[0]:.2g} to {q.distance_m[1]:.2g} m" if q.distance_m else ""
    colour = {"good": "green", "pass": "yellow", "fail": "red"}[q.verdict]
    name = "estimated error" if q.method == "register" else "pair error on held-out views"
    out.print(f"{name}: {q.pair_error_px:.2f} RGB px{at}: [bold {colour}]{q.verdict}[/]", soft_wrap=True)


def print_parallax(c: Calibration) -> None:
    """Print the registration error at other distances."""
    from calib.parallax import in_register, parallax_table

    near, far = in_register(c)
    grid = Table("distance, m", "error, RGB px", title=f"registered for {c.plane_m:g} m", title_justify="left")
    for distance, error in parallax_table(c):
        grid.add_row(f"{distance:g}", f"{error:.1f}", style="bold" if distance == c.plane_m else None)
    out.print(grid)
    out.print(f"error below one pixel from {near:.2g} m to {'any distance' if np.isinf(far) else f'{far:.2g} m'}")
