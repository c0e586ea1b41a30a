"""`calib homography`: make a homography from a pose, from views of a board, or from points."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from calib.cli.app import (
    ForceFail,
    Ir,
    Output,
    Rgb,
    print_quality,
    read_calibration,
    require_pairs,
    say,
    session_camera,
    write_calibration,
)
from calib.session import Session, load_session
from rtfuse.align.calibration import Calibration, Camera
from rtfuse.errors import ConfigError
from rtfuse.outputs import check_output, write_whole
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Image, Stream


def homography(
    output: Output,
    calibration: Annotated[Path | None, typer.Argument(help="Calibration with a stereo pose.")] = None,
    plane: Annotated[float | None, typer.Option(help="Distance in metres of the points or the plane.", min=0.1)] = None,
    points: Annotated[Path | None, typer.Option(help="Text file with lines of ir_x,ir_y,rgb_x,rgb_y.")] = None,
    click: Annotated[bool, typer.Option("--click", help="Click points in pictures of --ir and --rgb.")] = False,
    session: Annotated[Path | None, typer.Option(help="Session with boards at about one distance.")] = None,
    ir: Ir = None,
    rgb: Rgb = None,
    force: ForceFail = False,
) -> None:
    """Make a homography for one distance, from a stereo pose or from points in both pictures.

    Examples: calib homography calibration.yaml --plane 25 -o far.yaml;
    calib homography --points points.csv --ir ir.png --rgb rgb.png -o calibration.yaml
    """
    from calib.homography import at_plane

    ways = {"a calibration": calibration, "--session": session, "--points or --click": points or click or None}
    if len(given := [name for name, value in ways.items() if value is not None]) > 1:
        raise ConfigError(f"homography has one origin, but found {' and '.join(given)}; leave one out")
    output = check_output(output, force=force)
    if click and points is not None:
        points = check_output(points, force=force)
    if calibration is not None:
        c = read_calibration(calibration)
        made = at_plane(c, plane or c.plane_m or 10.0)
    elif session is not None:
        made = _through_boards(session, plane)
    elif points is not None or click:
        made = _through_given(points, click, (ir, rgb), plane)
    else:
        raise ConfigError(
            "homography needs points; give a calibration with a stereo pose, --session, --points or --click"
        )
    print_quality(made)
    write_calibration(made, output, force)
    say(f"{output} written" + (f", exact at {made.plane_m:g} m" if made.plane_m else ""))


def _through_boards(folder: Path, plane: float | None) -> Calibration:
    """Fit a homography through the points of the boards that both cameras see."""
    from calib.homography import through_points

    found = load_session(folder)
    require_pairs(found)
    groups = {}
    for view in found.views:
        if view.ir and view.rgb:
            _, i, j = np.intersect1d(view.ir.ids, view.rgb.ids, return_indices=True)
            groups[view.name] = (view.ir.xy[i], view.rgb.xy[j])
    ir, rgb = (_known_camera(found, folder, stream) for stream in STREAMS)
    return through_points(groups, ir, rgb, plane)[0]


def _known_camera(session: Session, folder: Path, stream: Stream) -> Camera:
    """Return the session's camera if its lens was calibrated, otherwise a camera with its size only."""
    path = folder / f"{stream}.yaml"
    return session_camera(session, stream, path) if path.exists() else Camera(size_wh=session.size_wh(stream))


def _through_given(
    points: Path | None, click: bool, sources: tuple[str | None, str | None], plane: float | None
) -> Calibration:
    """Fit a homography through points of a file, or through clicked points, which are saved to the file if given."""
    from calib.footage import Footage, sampled
    from calib.homography import read_points, through_points

    if not all(sources):
        raise ConfigError("points need the size of their pictures; give both pictures with --ir and --rgb")
    with Footage(*sources) as footage:
        cameras = [Camera(size_wh=footage.size_wh(s) or (1, 1)) for s in STREAMS]
        pictures = sampled(footage, 1)[0] if click else None
    if pictures is not None:
        a, b = _clicked(pictures, points)
    else:
        assert points is not None
        a, b = read_points(points)
    singles = {str(k): (a[k : k + 1], b[k : k + 1]) for k in range(len(a))}
    return through_points(singles, cameras[0], cameras[1], plane)[0]


def _clicked(pictures: tuple[Image, Image], points: Path | None) -> tuple[Image, Image]:
    """Let a person click point pairs (N, 2), and write them to a file if one is given."""
    from calib.click import clicked

    a, b = clicked(*pictures)
    if points is not None:
        rows = "".join(f"{p[0]:.2f},{p[1]:.2f},{q[0]:.2f},{q[1]:.2f}\n" for p, q in zip(a, b, strict=True))
        write_whole(points, f"ir_x,ir_y,rgb_x,rgb_y\n{rows}".encode())
    return a, b
