"""The command line: `calib pattern | boards | intrinsics | stereo | homography | register | timing | report …`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from calib.session import NAMES, Session, load_camera, load_session, save_camera
from rtfuse.align.calibration import Calibration, Camera, load_calibration, save_calibration
from rtfuse.cli.app import add_version, run_app
from rtfuse.errors import CalibrationError, ConfigError, NoDisplay, OutputExists
from rtfuse.pipeline.queues import STREAMS
from rtfuse.types import Stream

if TYPE_CHECKING:
    from calib.boards import Finding
    from calib.footage import Moment
    from calib.views import Chooser

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From two cameras on a bracket to pixels that lie on each other: the calibration file that rtfuse loads.",
)
add_version(app, "calib")
out = Console(highlight=False)

Ir = Annotated[str | None, typer.Option(help="Thermal source: stills, a recording, a camera.")]
Rgb = Annotated[str | None, typer.Option(help="RGB source.")]
BoardText = Annotated[str, typer.Option("--board", help="KIND:COLSxROWS:SPACING, e.g. checkerboard:9x6:25mm.")]
SessionFolder = Annotated[Path, typer.Argument(help="Folder that calib boards made.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]
Plane = Annotated[
    float, typer.Option("--plane", help="Distance in metres that registration is to be exact for.", min=0.1)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite an existing output.")]


def main() -> None:
    """Run the command line; errors become one line and an exit status."""
    run_app(app)


def _free(path: Path, force: bool) -> Path:
    if path.exists() and not force:
        raise OutputExists(f"{path} is already there; --force overwrites it")
    return path


@app.command()
def pattern(
    board: Annotated[str, typer.Argument(help="KIND:COLSxROWS:SPACING, e.g. circles:7x5:30mm.")],
    output: Output,
    paper: Annotated[str, typer.Option(help="A4, A3, A2, letter …")] = "A4",
    force: Force = False,
) -> None:
    """Draw a board for printing, at true size, with how to make it visible to a thermal camera.

    Example: calib pattern circles:7x5:30mm -o board.pdf
    """
    from calib.pattern import write_pattern
    from calib.targets import parse_board

    write_pattern(parse_board(board), _free(output, force), paper=paper)
    out.print(f"{output}: print at 100 % and measure the ruler: it has to be 100 mm long")


@app.command()
def boards(
    board: BoardText,
    output: Annotated[Path, typer.Option("--output", "-o", help="Session folder to write.")],
    ir: Ir = None,
    rgb: Rgb = None,
    every: Annotated[int, typer.Option(help="Look at every n-th moment of a recording or camera.", min=1)] = 3,
    limit: Annotated[int, typer.Option(help="Keep at most this many views.", min=6)] = 40,
    moving: Annotated[bool, typer.Option("--moving", help="Keep views of a moving board too.")] = False,
    colourless_rgb: Annotated[
        bool, typer.Option("--colourless-rgb", help="The RGB camera is a monochrome one.")
    ] = False,
    force: Force = False,
) -> None:
    """Find a board in stills, recordings or before live cameras, keep the best views, and say which are missing.

    Example: calib boards --ir ir.mkv --rgb rgb.mkv --board checkerboard:9x6:25mm -o session
    """
    from calib.footage import Footage
    from calib.guide import contact_sheet, find_views, save_views
    from calib.session import BOARDS
    from calib.targets import parse_board
    from rtfuse.capture.stills import is_stills
    from rtfuse.record.video import write_image

    target = parse_board(board)
    _free(output / BOARDS, force)
    stills = all(is_stills(s) for s in (ir, rgb) if s)
    with Footage(ir, rgb) as footage, _Watch(footage.live, footage.count) as watch:
        chooser = find_views(
            footage,
            target,
            every=1 if stills else every,
            limit=limit,
            still=not (stills or moving),
            colourless_rgb=colourless_rgb,
            watch=watch,
        )
        session = save_views(chooser, footage, output)
        for stream in footage.sources:
            kept = len(session.sightings(stream))
            out.print(
                f"{NAMES[stream]}: the board in {chooser.seen[stream]} of {chooser.looked} pictures, {kept} views kept"
            )
            for advice in chooser.lacks(stream, session.size_wh(stream)):
                out.print(f"  still missing: {advice}", soft_wrap=True)
    write_image(output / "views.jpg", contact_sheet(chooser))
    out.print(f"{output}: see views.jpg, then calib intrinsics {output}", soft_wrap=True)


class _Watch:
    """Shows how the search goes on: a window for live cameras where there is a display, else a bar."""

    def __init__(self, live: bool, count: int | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal)
        self._task = self._bar.add_task("looking", total=count)
        self._window = None
        if live:
            from rtfuse.view.viewer import Window

            try:
                self._window = Window("calib boards")
            except NoDisplay:
                out.print("no display here for a picture to guide you; Ctrl-C ends, views.jpg shows what was kept")

    def __enter__(self) -> _Watch:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._window is not None:
            self._window.close()

    def __call__(self, moment: Moment, found: Mapping[Stream, Finding], chooser: Chooser) -> bool:
        from calib.guide import advice, guide_picture

        frame = moment.rgb or moment.ir
        assert frame is not None
        said = f"{len(chooser.kept)} views; {advice(moment, chooser)}"
        self._bar.update(self._task, completed=frame.frame_id + 1, description=said)
        if self._window is None:
            return True
        self._window.draw(guide_picture(moment, found, chooser))
        return not self._window.closed()


@app.command()
def intrinsics(
    session: SessionFolder,
    camera: Annotated[Literal["both", "ir", "rgb"], typer.Option(help="Which camera.")] = "both",
    model: Annotated[
        Literal["auto", "pinhole4", "pinhole5", "pinhole8", "fisheye"], typer.Option(help="Lens model.")
    ] = "auto",
) -> None:
    """Calibrate each camera's lens; the model is the one that predicts held-out views best.

    Example: calib intrinsics session
    """
    from calib.intrinsics import KINDS, fit_camera

    found = load_session(session)
    streams: list[Stream] = [s for s in ("ir", "rgb") if camera in ("both", s) and (camera == s or found.sightings(s))]
    for stream in streams:
        try:
            fit = fit_camera(
                found.sightings(stream),
                found.target,
                found.size_wh(stream),
                KINDS if model == "auto" else (model,),
            )
        except CalibrationError as e:
            raise CalibrationError(f"{NAMES[stream]}: {e}") from e
        save_camera(fit.camera, session / f"{stream}.yaml")
        grid = Table("", "held-out error, px", title=f"{NAMES[stream]}: {len(fit.errors)} views", title_justify="left")
        for kind, error in fit.held_out.items():
            grid.add_row(kind, f"{error:.3f}", style="bold" if kind == fit.kind else None)
        out.print(grid)
        K, std = fit.camera.matrix, fit.camera.K_std or (0.0,) * 4
        out.print(
            f"focal length {K[0, 0]:.1f} ± {std[0]:.1f}, {K[1, 1]:.1f} ± {std[1]:.1f} px; middle "
            f"{K[0, 2]:.1f} ± {std[2]:.1f}, {K[1, 2]:.1f} ± {std[3]:.1f} px; error on the views it was fitted to "
            f"{fit.rms_px:.3f} px",
            soft_wrap=True,
        )
        for view, why in fit.rejected.items():
            out.print(f"left out: view {view}, {why}")
        out.print(f"{session / f'{stream}.yaml'} written")


@app.command()
def stereo(
    session: SessionFolder,
    output: Output,
    plane: Plane = 10.0,
    ir_camera: Annotated[Path | None, typer.Option(help="Thermal camera (YAML) in place of the session's.")] = None,
    rgb_camera: Annotated[Path | None, typer.Option(help="RGB camera (YAML) in place of the session's.")] = None,
    force: Force = False,
) -> None:
    """Find the pose between the cameras from views that both have of the board, and write the calibration.

    Example: calib stereo session --plane 10 -o calibration.yaml
    """
    from calib.stereo import fit_stereo

    _free(output, force)
    found = load_session(session)
    _want_pairs(found)
    given = zip(STREAMS, (ir_camera, rgb_camera), strict=True)
    cameras = [_camera(found, stream, path or session / f"{stream}.yaml") for stream, path in given]
    views = {v.name: (v.ir, v.rgb) for v in found.views}
    fit = fit_stereo(views, found.target, cameras[0], cameras[1], plane)
    for view, why in fit.rejected.items():
        out.print(f"left out: view {view}, {why}")
    c = fit.calibration
    save_calibration(c, output)
    t, turn = np.array(c.t_rgb_from_ir_m) * 1000, _angles(c)
    out.print(
        f"thermal camera {t[0]:+.1f}, {t[1]:+.1f}, {t[2]:+.1f} mm right, below, before RGB; turned by "
        f"{turn[0]:+.2f}, {turn[1]:+.2f}, {turn[2]:+.2f} degrees about x, y, z",
        soft_wrap=True,
    )
    _print_quality(c)
    _print_parallax(c)
    out.print(f"{output} written; calib report {output} --session {session} shows it", soft_wrap=True)


def _want_pairs(session: Session) -> None:
    if not session.together:
        raise CalibrationError(
            "this session's pictures are of one camera alone; calib boards --ir … --rgb … makes pairs"
        )


def _camera(session: Session, stream: Stream, path: Path) -> Camera:
    camera = load_camera(path)
    if camera.size_wh != session.size_wh(stream):
        (w, h), (sw, sh) = camera.size_wh, session.size_wh(stream)
        raise CalibrationError(
            f"{path} is of a camera of {w}x{h}, but the session's {NAMES[stream]} pictures are {sw}x{sh}: "
            "is it the other camera's?"
        )
    return camera


def _angles(c: Calibration) -> np.ndarray:
    import cv2

    return np.asarray(np.degrees(cv2.Rodrigues(np.array(c.R_rgb_from_ir))[0].ravel()))


def _print_quality(c: Calibration) -> None:
    q = c.quality
    if q is None:
        return
    at = f" at {q.distance_m[0]:.2g} to {q.distance_m[1]:.2g} m" if q.distance_m else ""
    colour = {"good": "green", "pass": "yellow", "fail": "red"}[q.verdict]
    what = "error by its own estimate" if q.method == "register" else "pair error on held-out views"
    out.print(f"{what}: {q.pair_error_px:.2f} RGB px{at}: [bold {colour}]{q.verdict}[/]", soft_wrap=True)


def _print_parallax(c: Calibration) -> None:
    from calib.parallax import in_register, parallax_table

    near, far = in_register(c)
    grid = Table("distance, m", "error, RGB px", title=f"registered for {c.plane_m:g} m", title_justify="left")
    for distance, error in parallax_table(c):
        grid.add_row(f"{distance:g}", f"{error:.1f}", style="bold" if distance == c.plane_m else None)
    out.print(grid)
    out.print(f"within one pixel from {near:.2g} m to {'any distance' if np.isinf(far) else f'{far:.2g} m'}")


@app.command()
def homography(
    output: Output,
    calibration: Annotated[Path | None, typer.Argument(help="A calibration with a stereo pose.")] = None,
    plane: Annotated[float | None, typer.Option(help="The distance in metres that it is for.", min=0.1)] = None,
    points: Annotated[Path | None, typer.Option(help="File of ir_x,ir_y,rgb_x,rgb_y lines.")] = None,
    click: Annotated[
        bool, typer.Option("--click", help="Click points in a window, in pictures of --ir and --rgb.")
    ] = False,
    session: Annotated[Path | None, typer.Option(help="Views of a board, all at about one distance.")] = None,
    ir: Ir = None,
    rgb: Rgb = None,
    force: Force = False,
) -> None:
    """Make a homography: of a stereo pose for one distance, or through points that both pictures show.

    Examples: calib homography calibration.yaml --plane 25 -o far.yaml;
    calib homography --points points.csv --ir ir.png --rgb rgb.png -o calibration.yaml
    """
    from calib.homography import at_plane, read_points, through_points

    _free(output, force)
    if calibration is not None:
        c = load_calibration(calibration)
        made = at_plane(c, plane or c.plane_m or 10.0)
    elif session is not None:
        found = load_session(session)
        _want_pairs(found)
        board = found.target
        groups = {}
        for view in found.views:
            if view.ir and view.rgb:
                _, i, j = np.intersect1d(view.ir.ids, view.rgb.ids, return_indices=True)
                groups[view.name] = (view.ir.xy[i], view.rgb.xy[j])
        assert board is not None
        made, _ = through_points(groups, _known(found, session, "ir"), _known(found, session, "rgb"), plane)
    elif points is not None or click:
        if not (ir and rgb):
            raise ConfigError("give the pictures that the points are of: --ir and --rgb")
        from calib.footage import Footage, sampled

        with Footage(ir, rgb) as footage:
            sizes = {s: Camera(size_wh=footage.size_wh(s) or (1, 1)) for s in STREAMS}
            pictures = sampled(footage, 1)[0] if click else None
        if pictures is not None:
            from calib.click import clicked

            a, b = clicked(*pictures)
            if points is not None:
                rows = "".join(f"{p[0]:.2f},{p[1]:.2f},{q[0]:.2f},{q[1]:.2f}\n" for p, q in zip(a, b, strict=True))
                _free(points, force).write_text("ir_x,ir_y,rgb_x,rgb_y\n" + rows, encoding="utf-8")
        else:
            assert points is not None
            a, b = read_points(points)
        singles = {str(k): (a[k : k + 1], b[k : k + 1]) for k in range(len(a))}
        made, _ = through_points(singles, sizes["ir"], sizes["rgb"], plane)
    else:
        raise ConfigError("give a calibration with a stereo pose, --session, --points or --click")
    save_calibration(made, output)
    _print_quality(made)
    out.print(f"{output} written")


def _known(session: Session, folder: Path, stream: Stream) -> Camera:
    """Return the session's camera if its lens was calibrated, else its size alone."""
    path = folder / f"{stream}.yaml"
    return _camera(session, stream, path) if path.exists() else Camera(size_wh=session.size_wh(stream))


@app.command()
def register(
    output: Output,
    ir: Annotated[str, typer.Option(help="Thermal source: stills, a recording, a camera.")],
    rgb: Annotated[str, typer.Option(help="RGB source.")],
    model: Annotated[Literal["shift", "similarity", "affine", "homography"], typer.Option()] = "homography",
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Add a smooth field, for lenses that nobody calibrated.")
    ] = False,
    start: Annotated[Path | None, typer.Option(help="A calibration with a homography to begin from.")] = None,
    frames: Annotated[int, typer.Option(help="How many pairs of pictures to combine.", min=1)] = 12,
    plane: Annotated[
        float | None, typer.Option(help="The distance of what is seen, in metres, if it is known.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Picture of thermal's edges on RGB, before and after.")] = None,
    force: Force = False,
) -> None:
    """Register two cameras from what they see, without any board; refuses rather than guess.

    Example: calib register --ir ir.mp4 --rgb rgb.mp4 -o calibration.yaml --overlay overlay.jpg
    """
    from calib.footage import Footage, sampled
    from calib.overlay import before_and_after
    from calib.registered import calibration_of
    from rtfuse.record.video import write_image

    _free(output, force)
    with Footage(ir, rgb) as footage:
        pairs = sampled(footage, frames)
    begun = load_calibration(start) if start else None
    made = calibration_of(pairs, model=model, smooth=smooth, start=begun, plane_m=plane)
    save_calibration(made, output)
    _print_quality(made)
    if overlay is not None:
        write_image(overlay, before_and_after(*pairs[len(pairs) // 2], made))
    out.print(
        f"{output} written, from {len(pairs)} pairs; look at it: calib report {output} --ir {ir} --rgb {rgb}",
        soft_wrap=True,
    )


@app.command()
def timing(
    ir: Annotated[str, typer.Option(help="Thermal recording.")],
    rgb: Annotated[str, typer.Option(help="RGB recording of the same time.")],
    into: Annotated[Path | None, typer.Option(help="Write the offset into this calibration.")] = None,
    duration: Annotated[float, typer.Option(help="Use at most this many seconds.", min=2)] = 60.0,
    limit: Annotated[float, typer.Option(help="Look for offsets of at most this many ms.", min=10)] = 300.0,
) -> None:
    """Measure the constant time offset between the cameras from footage with motion.

    Example: calib timing --ir ir.mp4 --rgb rgb.mp4 --into calibration.yaml
    """
    from calib.footage import Footage
    from calib.timing import time_offset, within

    with Footage(ir, None) as a, Footage(None, rgb) as b:
        found = time_offset(within(a.sources["ir"], duration), within(b.sources["rgb"], duration), limit_ms=limit)
    out.print(
        f"add {found.ms:+.1f} ± {found.std_ms:.1f} ms to the thermal camera's times (ir.offset_ms); what moved was "
        f"{found.by}, and of it {100 * found.fit:.0f} % agree",
        soft_wrap=True,
    )
    if into is not None:
        c = load_calibration(into)
        save_calibration(msgspec.structs.replace(c, ir_offset_ms=found.ms, ir_offset_std_ms=found.std_ms), into)
        out.print(f"{into} changed")


@app.command()
def report(
    calibration: Annotated[Path, typer.Argument(help="The calibration to look at.")],
    output: Output = Path("report.html"),
    session: Annotated[Path | None, typer.Option(help="The board views that it was made of.")] = None,
    ir: Ir = None,
    rgb: Rgb = None,
    force: Force = False,
) -> None:
    """Write one page of pictures and numbers that says how good a calibration is, and why.

    Example: calib report calibration.yaml --session session --ir ir.mp4 --rgb rgb.mp4 -o report.html
    """
    from calib.report import write_report

    _free(output, force)
    verdict = write_report(
        load_calibration(calibration), output, name=calibration.name, session=session, ir=ir, rgb=rgb
    )
    out.print(f"{output}: {verdict}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="camera_info or Kalibr YAML, or one of our own.")],
    output: Output,
    to: Annotated[Literal["rtfuse", "ros", "kalibr"], typer.Option(help="What to write.")],
    camera: Annotated[Literal["ir", "rgb"], typer.Option(help="ROS: which camera of a calibration.")] = "rgb",
    ir: Annotated[str, typer.Option(help="Kalibr: which camera is the thermal one.")] = "cam1",
    rgb: Annotated[str, typer.Option(help="Kalibr: which camera is the RGB one.")] = "cam0",
    plane: Plane = 10.0,
    force: Force = False,
) -> None:
    """Read and write what other tools use: ROS camera_info (one camera), Kalibr's camera chain (the rig).

    Examples: calib convert camchain.yaml --to rtfuse --plane 10 -o calibration.yaml;
    calib convert calibration.yaml --to ros --camera ir -o ir_info.yaml
    """
    from calib.interchange import read_kalibr, read_ros, write_kalibr, write_ros
    from rtfuse.settings import read_yaml

    _free(output, force)
    tree = read_yaml(source)
    if to == "rtfuse":
        if "cam0" in tree:
            save_calibration(read_kalibr(source, ir, rgb, plane), output)
        else:
            save_camera(read_ros(source), output)
    elif "R_rgb_from_ir" in tree or "H_rgb_from_ir" in tree:
        c = load_calibration(source)
        if to == "kalibr":
            write_kalibr(c, output)
        else:
            chosen = c.ir if camera == "ir" else c.rgb
            if chosen.K is None:
                raise CalibrationError(f"{source}: the {NAMES[camera]} camera has no intrinsics")
            write_ros(chosen, output, camera)
    elif to == "ros":
        write_ros(load_camera(source), output, camera)
    else:
        raise ConfigError(f"{source} has no stereo pose; Kalibr's file is of two cameras")
    out.print(f"{output} written")
