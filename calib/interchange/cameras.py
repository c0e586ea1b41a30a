"""Write one camera for other tools: a ROS `camera_info` file, and OpenCV's FileStorage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rtfuse.align.calibration import Camera
from rtfuse.outputs import write_whole, write_yaml


def write_ros(camera: Camera, path: Path, name: str) -> None:
    """Write a camera as a ROS `camera_info` YAML file. Raises OutputUnwritable."""
    w, h = camera.size_wh
    K = camera.matrix
    kind = (
        "equidistant" if camera.model == "fisheye" else "rational_polynomial" if len(camera.dist) > 5 else "plumb_bob"
    )
    least = 4 if kind == "equidistant" else 5
    dist = [*camera.dist, *[0.0] * (least - len(camera.dist))]
    projection = np.concatenate([K, np.zeros((3, 1))], 1)
    write_yaml(
        {
            "image_width": w,
            "image_height": h,
            "camera_name": name,
            "camera_matrix": _block(K),
            "distortion_model": kind,
            "distortion_coefficients": _block(np.array([dist])),
            "rectification_matrix": _block(np.eye(3)),
            "projection_matrix": _block(projection),
        },
        path,
    )


def write_opencv(camera: Camera, path: Path, name: str) -> None:
    """Write a camera as OpenCV's FileStorage writes it in YAML, with the names of its calibration sample.

    Raises OutputUnwritable.
    """
    w, h = camera.size_wh
    lines = [
        "%YAML:1.0",
        "---",
        f"camera_name: {name}",
        f"image_width: {w}",
        f"image_height: {h}",
        f"fisheye_model: {int(camera.model == 'fisheye')}",
    ]
    for key, matrix in (
        ("camera_matrix", camera.matrix),
        ("distortion_coefficients", np.array([camera.dist or (0.0,) * 4])),
    ):
        rows, cols = matrix.shape
        values = ", ".join(repr(float(x)) for x in matrix.ravel())
        lines += [
            f"{key}: !!opencv-matrix",
            f"   rows: {rows}",
            f"   cols: {cols}",
            "   dt: d",
            f"   data: [ {values} ]",
        ]
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _block(m: Any) -> dict[str, Any]:
    rows, cols = m.shape
    return {"rows": rows, "cols": cols, "data": [float(x) for x in np.ravel(m)]}
