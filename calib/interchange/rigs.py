"""Read one camera, or two and the pose between them, from the files of other tools."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from calib.interchange.kalibr import is_kalibr, of_kalibr
from calib.interchange.lenses import Lens, camera_of, first, numbers
from calib.interchange.texts import Tree, parsed, plain
from rtfuse.align.calibration import Calibration, Camera, fault_of, fault_of_camera, matrix3, vector3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_WORLD_UNITS = {"millimeters": "mm", "centimeters": "cm", "meters": "m", "mm": "mm", "cm": "cm", "m": "m"}
_ROTATED = 1e-3
"""A rotation whose rows are off by less, by rounding, is corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Options of the reading.

    `plane_m`: distance in metres at which registration is exact.
    `ir`, `rgb`: names of the cameras in a file of a rig; None takes the second for thermal and the first for RGB.
    `unit`: unit of the translation, where the file does not say it.
    `ir_wh`, `rgb_wh`: image sizes, where the file does not have them.
    `lens`: lens model, where the file does not name it.
    """

    plane_m: float = 10.0
    ir: str | None = None
    rgb: str | None = None
    unit: str | None = None
    ir_wh: tuple[int, int] | None = None
    rgb_wh: tuple[int, int] | None = None
    lens: Lens = "auto"


@dataclass(slots=True)
class Found:
    """Camera or calibration that was read, and a line for each guess and each value that was left out."""

    value: Camera | Calibration
    said: list[str] = field(default_factory=list)


def read(paths: Sequence[Path], wanted: Wanted) -> Found:
    """Read a camera or a rig from one file, or a rig from two: thermal's and RGB's, or lenses and pose.

    Raises CalibrationError that names the file and the fault.
    """
    names = " and ".join(map(str, paths))
    said: list[str] = []
    try:
        trees = [plain(tree) if not is_kalibr(tree) else tree for path in paths for tree in parsed(path)]
        value = _of_trees(trees, wanted, said)
    except CalibrationError as e:
        raise CalibrationError(str(e) if names in str(e) else f"{names}: {e}") from e
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, np.linalg.LinAlgError) as e:
        why = f"{e.args[0]} is missing" if isinstance(e, KeyError) else str(e)
        raise CalibrationError(f"{names}: not a calibration that rtfuse can read: {why}") from e
    fault = fault_of(value) if isinstance(value, Calibration) else fault_of_camera("camera", value)
    if fault:
        scaled = " (--unit mm)" if "t_rgb_from_ir_m puts" in fault and wanted.unit is None else ""
        raise CalibrationError(f"{names}: {fault}{scaled}")
    return Found(value, said)


def _of_trees(trees: Sequence[Tree], wanted: Wanted, said: list[str]) -> Camera | Calibration:
    if len(trees) == 2 and not any(is_kalibr(tree) for tree in trees):
        a, b = trees
        if _pose_of(a) is None and _pose_of(b) is None:
            return _of_stereo_infos(a, b, wanted, said)
        trees = [{**a, **b}]
    if len(trees) != 1:
        raise ValueError(f"found {len(trees)} different cameras or messages; want one, or thermal's and RGB's")
    (tree,) = trees
    if is_kalibr(tree):
        return of_kalibr(tree, wanted.ir, wanted.rgb, wanted.plane_m, said, UNITS[wanted.unit or "m"])
    pose = _pose_of(tree)
    if pose is None:
        return camera_of(tree, said, lens=wanted.lens, size_wh=wanted.ir_wh or wanted.rgb_wh)
    ir, rgb = wanted.ir or "2", wanted.rgb or "1"
    if {ir, rgb} != {"1", "2"}:
        raise ValueError(f"its cameras are 1 and 2, not {ir} and {rgb} (--ir, --rgb)")
    said.append(f"thermal is camera {ir} and RGB camera {rgb} of the file (--ir, --rgb)")
    sizes = {ir: wanted.ir_wh, rgb: wanted.rgb_wh}
    cameras = {name: _numbered(tree, name, sizes[name], wanted.lens, said) for name in ("1", "2")}
    R, t = pose
    t = t * UNITS[_unit(tree, wanted.unit, said)]
    if ir == "2":
        R, t = R.T, -R.T @ t
    return calibration(cameras[ir], cameras[rgb], R, t, wanted.plane_m)


def calibration(ir: Camera, rgb: Camera, R: Image, t: Image, plane_m: float) -> Calibration:
    """Return the calibration of two cameras and their pose; a rotation that was rounded is made one again."""
    if np.abs(R @ R.T - np.eye(3)).max() < _ROTATED and np.linalg.det(R) > 0:
        u, _, v = np.linalg.svd(R)
        R = u @ v
    return Calibration(ir=ir, rgb=rgb, R_rgb_from_ir=matrix3(R), t_rgb_from_ir_m=vector3(t), plane_m=plane_m)


def _pose_of(tree: Tree) -> tuple[Image, Image] | None:
    """Return the pose (R, t) that takes camera 1's system to camera 2's, of OpenCV, MATLAB or its toolbox."""
    for rotation, translation in (("r", "t"), ("rotation", "translation"), ("om", "t")):
        if rotation in tree and translation in tree:
            values = numbers(tree[rotation])
            R = cv2.Rodrigues(np.array(values))[0] if len(values) == 3 else np.reshape(values, (3, 3))
            return np.asarray(R, float), np.reshape(numbers(tree[translation]), 3)
    if "posecamera2" in tree:
        pose = plain(tree["posecamera2"])
        A = np.reshape(numbers(pose["a"]), (4, 4)) if "a" in pose else None
        R = np.reshape(numbers(pose["r"]), (3, 3)) if A is None else A[:3, :3]
        return R, np.reshape(numbers(pose["translation"]), 3) if A is None else A[:3, 3]
    if "rotationofcamera2" in tree:  # multiplies rows from the right
        R = np.reshape(numbers(tree["rotationofcamera2"]), (3, 3)).T
        return R, np.reshape(numbers(tree["translationofcamera2"]), 3)
    return None


def _numbered(tree: Tree, name: str, size_wh: tuple[int, int] | None, lens: Lens, said: list[str]) -> Camera:
    """Return camera 1 or 2 of a file of two."""
    if f"cameraparameters{name}" in tree:
        return camera_of(plain(tree[f"cameraparameters{name}"]), said)
    side = {"1": "left", "2": "right"}[name]
    index = side if f"fc{side}" in tree else name
    size = {key: value for key, value in tree.items() if key.startswith("image")}
    own = {key: value for key, value in tree.items() if re.fullmatch(rf"\w+{index}", key)}
    sizes = {
        f"image{part}": tree[f"image{part}{index}"]
        for part in ("width", "height", "size")
        if f"image{part}{index}" in tree
    }
    return camera_of({**size, **own, **sizes}, said, lens=lens, size_wh=size_wh, index=index)


def _unit(tree: Tree, given: str | None, said: list[str]) -> str:
    stated = _WORLD_UNITS.get(str(tree.get("worldunits", "")).lower())
    if given is None:
        said.append(f"its translation is read in {stated or 'm'} (--unit)")
    return given or stated or "m"


def _of_stereo_infos(ir: Tree, rgb: Tree, wanted: Wanted, said: list[str]) -> Calibration:
    """Return the rig of two camera_info of a stereo pair, whose R and P hold the pose.

    R turns a camera's system into the rectified one, and P's last column is focal length × place of the camera on the
    baseline (documentation of sensor_msgs/CameraInfo).
    """
    cameras = [
        camera_of(tree, said, lens=wanted.lens, size_wh=size)
        for tree, size in ((ir, wanted.ir_wh), (rgb, wanted.rgb_wh))
    ]
    turns, places = [], []
    for tree in (ir, rgb):
        turns.append(np.reshape(numbers(first(tree, ("rectificationmatrix", "r", "rectification"))), (3, 3)))
        P = np.reshape(numbers(first(tree, ("projectionmatrix", "p", "projection"))), (3, 4))
        if not (P[0, 0] > 0 and P[1, 1] > 0):
            raise ValueError("the projection matrix P has no focal length")
        places.append(np.array([P[0, 3] / P[0, 0], P[1, 3] / P[1, 1], 0.0]))
    if np.allclose(places[0], places[1]):
        raise ValueError(
            "the last column of P has no baseline: these are two cameras, but not a calibrated stereo pair; convert "
            "each by itself, and find the pose with calib stereo --ir-camera … --rgb-camera …"
        )
    t = turns[1].T @ (places[1] - places[0])
    return calibration(cameras[0], cameras[1], turns[1].T @ turns[0], t, wanted.plane_m)
