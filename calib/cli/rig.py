"""`calib intrinsics | stereo`: calibrate the lenses and the pose from the views of a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import typer
from rich.table import Table

from calib.cli.app import (
    ForceFail,
    Output,
    PlaneDistance,
    SessionFolder,
    out,
    print_parallax,
    print_quality,
    require_pairs,
    say,
    session_camera,
    write_calibration,
)
from calib.session import NAMES, load_session, save_camera
from rtfuse.align.calibration import Calibration
from rtfuse.errors import CalibrationError
from rtfuse.outputs import check_output
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Stream

if TYPE_CHECKING:
    from calib.intrinsics import Fit


def intrinsics(
    session: SessionFolder,
    camera: Annotated[Literal["both", "ir", "rgb"], typer.Option(help="Camera to calibrate.")] = "both",
    model: Annotated[
        Literal["auto", "pinhole4", "pinhole5", "pinhole8", "fisheye"],
        typer.Option(help="Lens model; auto takes the best on held-out views."),
    ] = "auto",
) -> None:
    """Calibrate the lens of each camera.

    Example: calib intrinsics session
    """
    from calib.intrinsics import KINDS, fit_camera

    found = load_session(session)
    streams: list[Stream] = [s for s in ("ir", "rgb") if camera in ("both", s) and (camera == s or found.points(s))]
    outputs = {stream: check_output(session / f"{stream}.yaml", force=True) for stream in streams}
    for stream in streams:
        kinds = KINDS if model == "auto" else (model,)
        try:
            fit = fit_camera(found.points(stream), found.target, found.size_wh(stream), kinds)
        except CalibrationError as e:
            raise CalibrationError(f"{NAMES[stream]}: {e}") from e
        save_camera(fit.camera, outputs[stream])
        _print_fit(stream, fit)
        say(f"{outputs[stream]} written")


def _print_fit(stream: Stream, fit: Fit) -> None:
    """Print the error of each lens model, the chosen lens, and the rejected views."""
    grid = Table("", "held-out error, px", title=f"{NAMES[stream]}: {len(fit.errors)} views", title_justify="left")
    for kind, error in fit.held_out.items():
        grid.add_row(kind, f"{error:.3f}", style="bold" if kind == fit.kind else None)
    out.print(grid)
    K, std = fit.camera.matrix, fit.camera.K_std or (0.0,) * 4
    out.print(
        f"focal length {K[0, 0]:.1f} ± {std[0]:.1f}, {K[1, 1]:.1f} ± {std[1]:.1f} px; principal point "
        f"{K[0, 2]:.1f} ± {std[2]:.1f}, {K[1, 2]:.1f} ± {std[3]:.1f} px; error on the fitted views {fit.rms_px:.3f} px",
        soft_wrap=True,
    )
    _print_rejected(fit.rejected)


def stereo(
    session: SessionFolder,
    output: Output,
    plane: PlaneDistance = 10.0,
    ir_camera: Annotated[Path | None, typer.Option(help="Thermal camera (YAML) in place of the session's.")] = None,
    rgb_camera: Annotated[Path | None, typer.Option(help="RGB camera (YAML) in place of the session's.")] = None,
    force: ForceFail = False,
) -> None:
    """Find the pose between the cameras from views of the board in both, and write the calibration.

    Example: calib stereo session --plane 10 -o calibration.yaml
    """
    from calib.stereo import fit_stereo

    output = check_output(output, force=force)
    found = load_session(session)
    require_pairs(found)
    given = zip(STREAMS, (ir_camera, rgb_camera), strict=True)
    cameras = [session_camera(found, stream, path or session / f"{stream}.yaml") for stream, path in given]
    views = {v.name: (v.ir, v.rgb) for v in found.views}
    fit = fit_stereo(views, found.target, cameras[0], cameras[1], plane)
    _print_rejected(fit.rejected)
    c = fit.calibration
    t, turn = np.array(c.t_rgb_from_ir_m) * 1000, _angles(c)
    out.print(
        f"thermal camera {t[0]:+.1f} mm right of, {t[1]:+.1f} mm below, {t[2]:+.1f} mm before RGB; turned by "
        f"{turn[0]:+.2f}, {turn[1]:+.2f}, {turn[2]:+.2f} degrees about x, y, z",
        soft_wrap=True,
    )
    print_quality(c)
    print_parallax(c)
    write_calibration(c, output, force)
    say(f"{output} written; to see it: calib report {output} --session {session}")


def _print_rejected(rejected: dict[str, str]) -> None:
    for view, reason in rejected.items():
        say(f"left out: view {view}, {reason}")


def _angles(c: Calibration) -> np.ndarray:
    """Return the rotation about x, y, z in degrees, (3,)."""
    import cv2

    return np.asarray(np.degrees(cv2.Rodrigues(np.array(c.R_rgb_from_ir))[0].ravel()))
