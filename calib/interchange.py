"""Exchange cameras with other tools: ROS `camera_info` (one camera), Kalibr's camera chain (two and their pose)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rtfuse.align.calibration import Calibration, Camera, fault_of, fault_of_camera, matrix3, vector3, write_yaml
from rtfuse.errors import CalibrationError
from rtfuse.settings import read_yaml

_ROS = {"plumb_bob": "pinhole", "rational_polynomial": "pinhole", "equidistant": "fisheye"}
_KALIBR = {"radtan": "pinhole", "equidistant": "fisheye", "none": "pinhole"}


def read_ros(path: str | Path) -> Camera:
    """Read a ROS `camera_info` YAML file. Raises CalibrationError that names the file and the key."""
    tree = read_yaml(Path(path))
    try:
        model = _ROS[str(tree["distortion_model"])]
        dist = [float(x) for x in tree["distortion_coefficients"]["data"]]
        camera = Camera(
            size_wh=(int(tree["image_width"]), int(tree["image_height"])),
            K=matrix3(np.reshape([float(x) for x in tree["camera_matrix"]["data"]], (3, 3))),
            dist=tuple(dist[:4]) if model == "fisheye" else tuple(dist),
            model=model,  # type: ignore[arg-type]
        )
    except (KeyError, TypeError, ValueError) as e:
        raise CalibrationError(f"{path} is not a ROS camera_info file that rtfuse can read: {_why(e)}") from e
    return _sound(camera, path)


def write_ros(camera: Camera, path: str | Path, name: str) -> None:
    """Write a camera as a ROS `camera_info` YAML file. Raises OutputUnwritable."""
    w, h = camera.size_wh
    K = camera.matrix
    kind = (
        "equidistant" if camera.model == "fisheye" else "rational_polynomial" if len(camera.dist) > 5 else "plumb_bob"
    )
    dist = [*camera.dist, *[0.0] * (5 - len(camera.dist) if kind == "plumb_bob" else 0)]
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


def read_kalibr(path: str | Path, ir: str, rgb: str, plane_m: float) -> Calibration:
    """Read two cameras of a Kalibr camera chain and the pose between them.

    `ir`, `rgb`: names of the cameras in the file, such as `cam0`.
    `plane_m`: distance in metres at which registration is exact.

    Kalibr's `T_cn_cnm1` takes the previous camera's system to the camera's own. Raises CalibrationError that names the
    key.
    """
    tree = read_yaml(Path(path))
    for name in (ir, rgb):
        if name not in tree:
            raise CalibrationError(f"{path} has no {name}; choose from {', '.join(tree)}")
    try:
        poses: dict[str, Any] = {"cam0": np.eye(4)}
        for k in range(1, len([n for n in tree if n.startswith("cam")])):
            step = np.array(tree[f"cam{k}"]["T_cn_cnm1"], float).reshape(4, 4)
            poses[f"cam{k}"] = step @ poses[f"cam{k - 1}"]
        rgb_from_ir = poses[rgb] @ np.linalg.inv(poses[ir])
        calibration = Calibration(
            ir=_kalibr_camera(tree[ir], path),
            rgb=_kalibr_camera(tree[rgb], path),
            R_rgb_from_ir=matrix3(rgb_from_ir[:3, :3]),
            t_rgb_from_ir_m=vector3(rgb_from_ir[:3, 3]),
            plane_m=plane_m,
        )
    except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as e:
        raise CalibrationError(f"{path} is not a Kalibr camera chain that rtfuse can read: {_why(e)}") from e
    fault = fault_of(calibration)
    if fault:
        raise CalibrationError(f"{path}: {fault}")
    return calibration


def write_kalibr(c: Calibration, path: str | Path) -> None:
    """Write a stereo calibration as a Kalibr camera chain: cam0 is RGB, cam1 thermal.

    Raises CalibrationError if Kalibr has no form for it (a homography, k3 and more), or OutputUnwritable.
    """
    if c.R_rgb_from_ir is None or c.t_rgb_from_ir_m is None:
        raise CalibrationError(
            "Kalibr needs a stereo pose, but this calibration has a homography; make a pose with calib stereo"
        )
    R, t = np.array(c.R_rgb_from_ir), np.array(c.t_rgb_from_ir_m)
    ir_from_rgb = np.eye(4)
    ir_from_rgb[:3, :3], ir_from_rgb[:3, 3] = R.T, -R.T @ t
    tree = {"cam0": _kalibr_tree(c.rgb, "rgb"), "cam1": _kalibr_tree(c.ir, "ir")}
    tree["cam1"]["T_cn_cnm1"] = ir_from_rgb.tolist()
    write_yaml(tree, path)


def _kalibr_camera(part: dict[str, Any], path: str | Path) -> Camera:
    if part["camera_model"] != "pinhole":
        raise ValueError(f"camera_model is {part['camera_model']}, but only pinhole is supported")
    fx, fy, cx, cy = (float(x) for x in part["intrinsics"])
    w, h = part["resolution"]
    model = _KALIBR[str(part["distortion_model"])]
    camera = Camera(
        size_wh=(int(w), int(h)),
        K=((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)),
        dist=tuple(float(x) for x in part.get("distortion_coeffs") or ()),
        model=model,  # type: ignore[arg-type]
    )
    return _sound(camera, path)


def _kalibr_tree(camera: Camera, name: str) -> dict[str, Any]:
    fisheye = camera.model == "fisheye"
    if camera.K is None:
        raise CalibrationError(f"Kalibr needs intrinsics of both cameras, but {name} has none; run calib intrinsics")
    if not fisheye and any(camera.dist[4:]):
        raise CalibrationError(
            f"Kalibr's radtan has four coefficients, but {name} has {len(camera.dist)}; calibrate again with "
            "--model pinhole4 or --model fisheye"
        )
    K = camera.matrix
    dist = [*camera.dist, 0.0, 0.0, 0.0, 0.0][:4]
    return {
        "camera_model": "pinhole",
        "intrinsics": [float(x) for x in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])],
        "distortion_model": "equidistant" if fisheye else "radtan",
        "distortion_coeffs": [float(x) for x in dist],
        "resolution": list(camera.size_wh),
        "rostopic": f"/{name}/image_raw",
    }


def _block(m: Any) -> dict[str, Any]:
    rows, cols = m.shape
    return {"rows": rows, "cols": cols, "data": [float(x) for x in np.ravel(m)]}


def _sound(camera: Camera, path: str | Path) -> Camera:
    fault = fault_of_camera("camera", camera)
    if fault:
        raise CalibrationError(f"{path}: {fault}")
    return camera


def _why(e: Exception) -> str:
    return f"{e.args[0]} is missing or unknown" if isinstance(e, KeyError) else str(e)
