"""`calib report | convert`: show a calibration, and exchange it with other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from calib.cli.app import Force, Ir, Output, Plane, Rgb, free_path, out, read_calibration
from calib.session import NAMES, load_camera, save_camera
from rtfuse.align.calibration import save_calibration
from rtfuse.errors import CalibrationError, ConfigError
from rtfuse.types import Stream


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

    free_path(output, force)
    verdict = write_report(
        read_calibration(calibration), output, name=calibration.name, session=session, ir=ir, rgb=rgb
    )
    out.print(f"{output}: {verdict}")


def convert(
    source: Annotated[Path, typer.Argument(help="YAML of ROS (camera_info), Kalibr or rtfuse.")],
    output: Output,
    to: Annotated[Literal["rtfuse", "ros", "kalibr"], typer.Option(help="Format to write.")],
    camera: Annotated[Literal["ir", "rgb"], typer.Option(help="ROS: camera of the calibration.")] = "rgb",
    ir: Annotated[str, typer.Option(help="Kalibr: name of the thermal camera.")] = "cam1",
    rgb: Annotated[str, typer.Option(help="Kalibr: name of the RGB camera.")] = "cam0",
    plane: Plane = 10.0,
    force: Force = False,
) -> None:
    """Read and write the files of other tools: ROS camera_info (one camera), Kalibr's camera chain (the rig).

    Examples: calib convert camchain.yaml --to rtfuse --plane 10 -o calibration.yaml;
    calib convert calibration.yaml --to ros --camera ir -o ir_info.yaml
    """
    from calib.interchange import read_kalibr, read_ros, write_ros
    from rtfuse.settings import read_yaml

    free_path(output, force)
    tree = read_yaml(source)
    if to == "rtfuse":
        if "cam0" in tree:
            save_calibration(read_kalibr(source, ir, rgb, plane), output)
        else:
            save_camera(read_ros(source), output)
    elif "R_rgb_from_ir" in tree or "H_rgb_from_ir" in tree:
        _convert_rig(source, output, to, camera)
    elif to == "ros":
        write_ros(load_camera(source), output, camera)
    else:
        raise ConfigError(
            f"{source} has no stereo pose, but a Kalibr file needs one; give a calibration of two cameras"
        )
    out.print(f"{output} written")


def _convert_rig(source: Path, output: Path, to: Literal["ros", "kalibr"], camera: Stream) -> None:
    """Write a calibration as a Kalibr chain, or one of its cameras as a ROS file."""
    from calib.interchange import write_kalibr, write_ros

    c = read_calibration(source)
    if to == "kalibr":
        write_kalibr(c, output)
        return
    chosen = c.ir if camera == "ir" else c.rgb
    if chosen.K is None:
        raise CalibrationError(f"{source} has no intrinsics of the {NAMES[camera]} camera; ROS files need them")
    write_ros(chosen, output, camera)
