"""Read and write Kalibr's camera chains: `camchain.yaml`, and `camchain-imucam.yaml` with poses and times of an IMU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from calib.interchange.lenses import numbers, shaped, whole
from rtfuse.align.calibration import Calibration, Camera, matrix3, vector3
from rtfuse.errors import CalibrationError
from rtfuse.outputs import write_yaml
from rtfuse.types import Image

Tree = Mapping[str, Any]
_MODELS = {"radtan": "pinhole", "equidistant": "fisheye", "none": "pinhole"}
_SAME_M = 0.005
"""Largest difference between a pose of the chain and the one by way of the IMU."""


def is_kalibr(tree: Tree) -> bool:
    """Return True for a camera chain: a tree with the keys cam0, cam1 …"""
    return bool(_names(tree))


def of_kalibr(
    tree: Tree, ir: str | None, rgb: str | None, plane_m: float, said: list[str], unit_m: float = 1.0
) -> Calibration:
    """Return the rig of two cameras of a chain; append a line to `said` for each guess.

    `ir`, `rgb`: names of the cameras, such as `cam0`; None takes cam1 and cam0. `unit_m`: unit of its translations.

    `T_cn_cnm1` takes the previous camera's system to the camera's own, `T_cam_imu` the IMU's to the camera's; an IMU's
    time is a camera's time plus its `timeshift_cam_imu` (Kalibr's page of its YAML formats). Raises ValueError,
    KeyError or TypeError.
    """
    names = _names(tree)
    if len(names) < 2:
        raise ValueError(f"it has {names[0]} alone, but a rig has two cameras")
    if ir is None or rgb is None:
        ir, rgb = ir or ("cam0" if rgb == "cam1" else "cam1"), rgb or ("cam1" if ir == "cam0" else "cam0")
        more = f"'s {len(names)} cameras" if len(names) > 2 else ""
        said.append(f"thermal is {ir} and RGB {rgb} of the file{more} (--ir, --rgb)")
    for name in (ir, rgb):
        if name not in names:
            raise ValueError(f"it has no {name}; choose from {', '.join(names)}")
    if ir == rgb:
        raise ValueError(f"thermal and RGB are both {ir}; choose two of {', '.join(names)}")
    rgb_from_ir = _pose(tree, names, ir, rgb)
    shifts = [tree[name].get("timeshift_cam_imu") for name in (ir, rgb)]
    offset_ms = None
    if None not in shifts:
        offset_ms = 1000 * (numbers(shifts[0])[0] - numbers(shifts[1])[0])
        said.append(f"ir_offset_ms is {offset_ms:+.3f}, from Kalibr's time shifts of both cameras")
    elif shifts != [None, None]:
        said.append("the time shift of one camera alone is left out; calib timing measures the offset")
    return Calibration(
        ir=_camera(ir, tree[ir]),
        rgb=_camera(rgb, tree[rgb]),
        R_rgb_from_ir=matrix3(rgb_from_ir[:3, :3]),
        t_rgb_from_ir_m=vector3(rgb_from_ir[:3, 3] * unit_m),
        plane_m=plane_m,
        ir_offset_ms=offset_ms,
    )


def _names(tree: Tree) -> list[str]:
    found = [k for k, v in tree.items() if isinstance(k, str) and re.fullmatch(r"cam\d+", k) and isinstance(v, dict)]
    return sorted(found, key=lambda name: int(name[3:]))


def _pose(tree: Tree, names: list[str], ir: str, rgb: str) -> Image:
    """Return the transform (4, 4) from thermal's to RGB's system, along the chain or by way of the IMU."""
    by_chain: dict[str, Image] = {names[0]: np.eye(4)}
    for before, name in pairwise(names):
        if "T_cn_cnm1" in tree[name] and before in by_chain:
            by_chain[name] = _transform(tree[name]["T_cn_cnm1"], f"{name}.T_cn_cnm1") @ by_chain[before]
    by_imu: dict[str, Image] = {}
    for name in (ir, rgb):
        if "T_cam_imu" in tree[name]:
            by_imu[name] = _transform(tree[name]["T_cam_imu"], f"{name}.T_cam_imu")
        elif "T_imu_cam" in tree[name]:
            by_imu[name] = np.linalg.inv(_transform(tree[name]["T_imu_cam"], f"{name}.T_imu_cam"))
    ways = [way[rgb] @ np.linalg.inv(way[ir]) for way in (by_chain, by_imu) if ir in way and rgb in way]
    if not ways:
        raise KeyError(f"the pose between {ir} and {rgb} (T_cn_cnm1)")
    if len(ways) == 2 and np.abs(ways[0] - ways[1]).max() > _SAME_M:
        raise ValueError(f"T_cn_cnm1 and T_cam_imu disagree about the pose between {ir} and {rgb}")
    return ways[0]


def _transform(value: Any, name: str) -> Image:
    T = shaped(name, value, 4, 4)
    if not np.allclose(T[3], (0, 0, 0, 1)):
        raise ValueError(f"{name} wants a last row of 0 0 0 1")
    return T


def _camera(name: str, part: Tree) -> Camera:
    if part["camera_model"] != "pinhole":
        raise ValueError(f"{name}.camera_model is {part['camera_model']}, but only pinhole is supported")
    stated = str(part["distortion_model"])
    if stated not in _MODELS:
        raise ValueError(f"{name}.distortion_model is {stated}; want {', '.join(_MODELS)}")
    fx, fy, cx, cy = numbers(part["intrinsics"])
    w, h = part["resolution"]
    return Camera(
        size_wh=(whole(w), whole(h)),
        K=((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)),
        dist=tuple(numbers(part.get("distortion_coeffs") or [])),
        model=_MODELS[stated],  # type: ignore[arg-type]
    )


def write_kalibr(c: Calibration, path: Path) -> None:
    """Write a stereo calibration as a Kalibr camera chain: cam0 is RGB, cam1 thermal.

    A time offset becomes the difference of both cameras' `timeshift_cam_imu`. Raises CalibrationError if Kalibr has no
    form for the calibration (a homography, k3 and more), or OutputUnwritable.
    """
    if c.R_rgb_from_ir is None or c.t_rgb_from_ir_m is None:
        raise CalibrationError(
            "Kalibr needs a stereo pose, but this calibration has a homography; make a pose with calib stereo"
        )
    R, t = np.array(c.R_rgb_from_ir), np.array(c.t_rgb_from_ir_m)
    ir_from_rgb = np.eye(4)
    ir_from_rgb[:3, :3], ir_from_rgb[:3, 3] = R.T, -R.T @ t
    tree = {"cam0": _part(c.rgb, "rgb"), "cam1": _part(c.ir, "ir")}
    tree["cam1"]["T_cn_cnm1"] = ir_from_rgb.tolist()
    if c.ir_offset_ms is not None:
        tree["cam0"]["timeshift_cam_imu"], tree["cam1"]["timeshift_cam_imu"] = 0.0, c.ir_offset_ms / 1000
    write_yaml(tree, path)


def _part(camera: Camera, name: str) -> dict[str, Any]:
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
