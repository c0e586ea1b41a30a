"""`calib report | convert`: show a calibration, and exchange it with other tools."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from calib.cli.app import Force, Ir, Output, Rgb, print_doubts, read_calibration, say
from calib.session import NAMES, load_camera, save_camera
from rtfuse.align.calibration import Calibration, Camera, save_calibration
from rtfuse.errors import CalibrationError, ConfigError
from rtfuse.outputs import check_output
from rtfuse.types import Stream

if TYPE_CHECKING:
    from calib.interchange.rigs import Wanted

Format = Literal["rtfuse", "ros", "kalibr", "opencv"]


def report(
    calibration: Annotated[Path, typer.Argument(help="Calibration to report on.")],
    output: Output = Path("report.html"),
    session: Annotated[Path | None, typer.Option(help="Session of the calibration, for its boards.")] = None,
    ir: Ir = None,
    rgb: Rgb = None,
    force: Force = False,
) -> None:
    """Write one page of pictures and numbers with the verdict on a calibration and its reasons.

    Example: calib report calibration.yaml --session session --ir ir.mp4 --rgb rgb.mp4 -o report.html
    """
    from calib.report import write_report

    output = check_output(output, force=force)
    if (ir is None) != (rgb is None):
        raise ConfigError("calib report draws pictures of both cameras: give --ir and --rgb, or neither")
    verdict = write_report(
        read_calibration(calibration), output, name=calibration.name, session=session, ir=ir, rgb=rgb
    )
    say(f"{output}: {'no verdict, the calibration tells no error' if verdict == 'unknown' else verdict}")


def convert(
    sources: Annotated[list[Path], typer.Argument(help="File of a camera or rig, or thermal's and RGB's files.")],
    output: Output,
    to: Annotated[Format, typer.Option(help="Format to write.")],
    camera: Annotated[
        Literal["ir", "rgb"] | None, typer.Option(help="ROS, OpenCV: camera of the calibration, rgb by default.")
    ] = None,
    ir: Annotated[str | None, typer.Option(help="Thermal camera's name in the file: cam1, 2 …")] = None,
    rgb: Annotated[str | None, typer.Option(help="RGB camera's name in the file: cam0, 1 …")] = None,
    plane: Annotated[
        float | None, typer.Option(min=0.1, help="Distance of exact registration in metres, or 10.")
    ] = None,
    unit: Annotated[Literal["m", "cm", "mm"] | None, typer.Option(help="Unit of the file's translation.")] = None,
    ir_size: Annotated[str | None, typer.Option(help="Thermal image size if the file has none: 640x512.")] = None,
    rgb_size: Annotated[str | None, typer.Option(help="RGB image size if the file has none: 1920x1080.")] = None,
    lens: Annotated[Literal["auto", "pinhole", "fisheye"], typer.Option(help="Lens model of the file.")] = "auto",
    force: Force = False,
) -> None:
    """Read and write the files of other tools: ROS, Kalibr, OpenCV; read those of MATLAB and Agisoft.

    Examples: calib convert camchain.yaml --to rtfuse --plane 10 -o calibration.yaml;
    calib convert ir_info.yaml rgb_info.yaml --to rtfuse -o calibration.yaml;
    calib convert calibration.yaml --to ros --camera ir -o ir_info.yaml
    """
    from calib.interchange.rigs import Wanted

    output = check_output(output, force=force)
    sizes = {"ir_wh": _size("--ir-size", ir_size), "rgb_wh": _size("--rgb-size", rgb_size)}
    wanted = Wanted(plane_m=10.0 if plane is None else plane, ir=ir, rgb=rgb, unit=unit, lens=lens, **sizes)
    found, own = _read(sources, wanted)
    rig, plane_m = isinstance(found, Calibration), None if plane is None else f"{plane:g}"
    _refuse_idle(
        {"--ir": ir, "--rgb": rgb, "--unit": unit, "--plane": plane_m} if own or not rig else {},
        {"--ir-size": ir_size, "--rgb-size": rgb_size, "--lens": None if lens == "auto" else lens} if own else {},
        {"--camera": camera} if not rig or to in ("rtfuse", "kalibr") else {},
        f"{sources[0]} is {'a rig' if rig else 'one camera'}{' in the form of rtfuse' if own else ''}",
    )
    if isinstance(found, Calibration) and not own:
        print_doubts(found, sources[0])
        if plane is None and to == "rtfuse":
            say(f"plane_m is {wanted.plane_m:g}, where thermal lies exactly on RGB: the file has no distance (--plane)")
    _write(found, output, to, camera or "rgb", str(sources[0]))
    say(f"{output} written{_lost(found, to, camera or 'rgb')}")


def _lost(found: Camera | Calibration, to: Format, camera: Stream) -> str:
    """Return what of a rig the format has no place for, in words for the end of a line."""
    if not isinstance(found, Calibration) or to not in ("ros", "opencv"):
        return ""
    offset = " and the time offset" if found.ir_offset_ms else ""
    return f": the {NAMES[camera]} camera alone, without the pose{offset}"


def _refuse_idle(*given: dict[str, str | None] | str) -> None:
    """Raise ConfigError for an option that has no effect; the last argument says on what."""
    *options, what = given
    for name, value in (item for part in options if isinstance(part, dict) for item in part.items()):
        if value is not None:
            other = "; calib homography FILE --plane makes one for another distance" if name == "--plane" else ""
            raise ConfigError(f"{name} {value} has no effect here: {what}{other}")


def _size(option: str, text: str | None) -> tuple[int, int] | None:
    """Return an image size from text such as 640x512. Raises ConfigError."""
    if text is None:
        return None
    if (parts := re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)) is None:
        raise ConfigError(f"{option} {text}: want WIDTHxHEIGHT, such as 640x512")
    return int(parts[1]), int(parts[2])


def _read(sources: list[Path], wanted: Wanted) -> tuple[Camera | Calibration, bool]:
    """Read a camera or a calibration, and tell whether it is in our format; print each guess of another's."""
    from calib.interchange.rigs import read
    from calib.interchange.texts import parsed

    own = parsed(sources[0])[0].keys() & {"size_wh", "R_rgb_from_ir", "H_rgb_from_ir"} if len(sources) == 1 else set()
    if own:
        return load_camera(sources[0]) if "size_wh" in own else read_calibration(sources[0]), True
    found = read(sources, wanted)
    for line in found.said:
        say(line)
    return found.value, False


def _write(found: Camera | Calibration, output: Path, to: Format, camera: Stream, name: str) -> None:
    """Write a camera or a calibration. Raises CalibrationError or ConfigError if the format has no place for it."""
    from calib.interchange.cameras import write_opencv, write_ros
    from calib.interchange.kalibr import write_kalibr

    if to == "rtfuse":
        save_camera(found, output) if isinstance(found, Camera) else save_calibration(found, output)
    elif to == "kalibr":
        if isinstance(found, Camera):
            raise ConfigError(
                f"{name} has no stereo pose, but a Kalibr file needs one; give a calibration of two cameras"
            )
        write_kalibr(found, output)
    else:
        chosen = found if isinstance(found, Camera) else found.ir if camera == "ir" else found.rgb
        if chosen.K is None:
            raise CalibrationError(
                f"{name} has no intrinsics of the {NAMES[camera]} camera; the {to} format needs them"
            )
        (write_ros if to == "ros" else write_opencv)(chosen, output, camera)
