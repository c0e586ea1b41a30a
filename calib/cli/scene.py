"""`calib register | timing`: registration and time offset from footage of a scene."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from calib.cli.app import (
    ForceFail,
    Output,
    RequiredIr,
    RequiredRgb,
    print_quality,
    read_calibration,
    say,
    write_calibration,
)
from rtfuse.align.calibration import save_calibration
from rtfuse.outputs import check_output


def register(
    output: Output,
    ir: RequiredIr,
    rgb: RequiredRgb,
    model: Annotated[
        Literal["shift", "similarity", "affine", "homography"], typer.Option(help="Motion model.")
    ] = "homography",
    smooth: Annotated[
        bool | None, typer.Option(help="Add a smooth field, for uncalibrated lenses.", show_default="where it is sure")
    ] = None,
    start: Annotated[Path | None, typer.Option(help="Calibration with a homography to start from.")] = None,
    frames: Annotated[int, typer.Option(help="Number of pairs of pictures to combine.", min=1)] = 12,
    plane: Annotated[float | None, typer.Option(help="Distance of the scene in metres, if known.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Picture of thermal's edges on RGB, before and after.")] = None,
    force: ForceFail = False,
) -> None:
    """Register two cameras from a scene, without a board; refuse uncertain results.

    Example: calib register --ir ir.mp4 --rgb rgb.mp4 -o calibration.yaml --overlay overlay.jpg
    """
    from calib.footage import Footage, sampled
    from calib.overlay import before_and_after, write_picture
    from calib.register.calibration import calibration_of
    from rtfuse.record.video import IMAGE_SUFFIXES

    output = check_output(output, force=force)
    if overlay is not None:
        overlay = check_output(overlay, force=force, suffixes=sorted(IMAGE_SUFFIXES))
    begun = read_calibration(start) if start else None
    with Footage(ir, rgb) as footage:
        pairs = sampled(footage, frames)
    if smooth is None and model != "homography":
        smooth = False
    made = calibration_of(pairs, model=model, smooth=smooth, start=begun, plane_m=plane)
    print_quality(made)
    if overlay is not None:
        write_picture(overlay, before_and_after(*pairs[len(pairs) // 2], made))
    write_calibration(made, output, force)
    say(f"{output} written, from {len(pairs)} pairs; to see it: calib report {output} --ir {ir} --rgb {rgb}")


def timing(
    ir: Annotated[str, typer.Option(help="Thermal recording.")],
    rgb: Annotated[str, typer.Option(help="RGB recording of the same time.")],
    into: Annotated[Path | None, typer.Option(help="Calibration to write the offset into.")] = None,
    duration: Annotated[float, typer.Option(help="Use at most this many seconds.", min=2)] = 60.0,
    limit: Annotated[float, typer.Option(help="Largest offset to search, in ms.", min=10)] = 300.0,
) -> None:
    """Measure the constant time offset between the cameras from footage with motion.

    Example: calib timing --ir ir.mp4 --rgb rgb.mp4 --into calibration.yaml
    """
    from calib.footage import Footage
    from calib.timing import time_offset, within

    c = read_calibration(into) if into is not None else None
    into = check_output(into, force=True) if into is not None else None
    with Footage(ir, None) as a, Footage(None, rgb) as b:
        found = time_offset(within(a.sources["ir"], duration), within(b.sources["rgb"], duration), limit_ms=limit)
    say(
        f"add {found.ms:+.1f} ± {found.std_ms:.1f} ms to the thermal camera's times (ir.offset_ms); found from the "
        f"motion of {found.by}, {100 * found.fit:.0f} % of which agrees"
    )
    if into is not None and c is not None:
        save_calibration(msgspec.structs.replace(c, ir_offset_ms=found.ms, ir_offset_std_ms=found.std_ms), into)
        say(f"{into} changed")
