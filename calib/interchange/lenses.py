"""Read one camera from the plain values of another tool's file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from calib.interchange.texts import Tree
from rtfuse.align.calibration import Camera, SensorMode, matrix3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

Lens = Literal["auto", "pinhole", "fisheye"]
_PINHOLE = {"", "none", "plumbbob", "rationalpolynomial", "radtan", "radialtangential", "brownconrady", "pinhole"}
_FISHEYE = {"equidistant", "fisheye", "kannalabrandt", "kannalabrandt4", "opencvfisheye"}
MATRIX = ("cameramatrix", "k", "m", "intrinsicmatrix", "mtx")
DIST = ("distortioncoefficients", "distcoeffs", "d", "dist", "distortion")
_ANY_DIST = re.compile(r"dist(ortion)?(co?ef\w*|param\w*|s|vector|)")
"""Further names of distortion coefficients, such as `dist_coeff` of OpenCV's tutorials in Python."""
_PARAMETER = re.compile(r"(?:cam(?:era)?1?|projectionparameters|distortionparameters|intrinsics)?"
                        r"(fx|fy|cx|cy|k[1-6]|p1|p2|width|height|type|modeltype)")  # fmt: skip
"""A number with its own key, as ORB-SLAM (`Camera.fx`), VINS (`projection_parameters`) and many scripts write it."""


def numbers(value: Any) -> list[float]:
    """Return the numbers of a list, of lists of them, or of a matrix with rows, cols and data, row by row.

    Raises ValueError for anything else.
    """
    if isinstance(value, dict):
        flat = numbers(value["data"])
        if (value.get("rows", 1) or 1) * (value.get("cols", len(flat)) or 1) != len(flat):
            raise ValueError(
                f"a matrix of {value.get('rows')} rows and {value.get('cols')} columns has {len(flat)} numbers"
            )
        return flat
    if isinstance(value, list | tuple):
        return [x for part in value for x in numbers(part)]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"want a number, found {value!r:.40}")
    return [float(value)]


def whole(value: Any) -> int:
    """Return a whole number. Raises ValueError for anything else."""
    (x,) = numbers(value)
    if not math.isfinite(x) or x != int(x):
        raise ValueError(f"want a whole number, found {x:g}")
    return int(x)


def shaped(name: str, value: Any, rows: int, columns: int) -> Image:
    """Return a matrix. Raises ValueError that names it if it has another number of values."""
    found = numbers(value)
    if len(found) != rows * columns:
        raise ValueError(f"{name} has {len(found)} numbers; want {rows}x{columns}")
    return np.reshape(found, (rows, columns))


def first(tree: Tree, names: Sequence[str]) -> Any:
    """Return the value of the first of these keys that the tree has. Raises ValueError that names what there is."""
    for name in names:
        if name in tree:
            return tree[name]
    raise ValueError(
        f"it has no {names[0]} (nor {', '.join(names[1:])}; in any case, with or without separators); its keys are "
        f"{', '.join(map(str, [*tree][:8]))}"
    )


def camera_of(
    tree: Tree, said: list[str], *, lens: Lens = "auto", size_wh: tuple[int, int] | None = None, index: str = ""
) -> Camera:
    """Return the camera of a file whose keys are plain; append a line to `said` for each guess.

    `lens`: the lens model, `auto` as the file says.
    `size_wh`: the image size where the file has none.
    `index`: end of the keys, such as 1 in `M1`, in a file of two cameras.

    Raises ValueError or KeyError for values that are missing or of another kind, CalibrationError for a camera that
    was never calibrated.
    """
    if {"projection", "f", "cx"} <= tree.keys() and isinstance(tree["projection"], str):
        return _of_agisoft(tree)
    if "radialdistortion" in tree:
        return _of_matlab(tree)
    if f"fc{index}" in tree:
        return _of_caltech(tree, index, size_wh)
    if not index and {"fx", "fy", "cx", "cy"} <= (own := _parameters(tree)).keys():
        return _of_parameters(tree, own, said, lens, size_wh)
    K = shaped("the camera matrix", first(tree, [f"{name}{index}" for name in MATRIX]), 3, 3)
    size_wh = _size(tree, size_wh)
    if not K[:2].any():
        raise CalibrationError(
            "it is of a camera that was never calibrated: K is zero; calibrate it with calib boards and calib "
            "intrinsics, or with the other tool"
        )
    dist = _dist(tree, said, index)
    fisheye = _is_fisheye(tree, dist, said) if lens == "auto" else lens == "fisheye"
    return Camera(
        size_wh=size_wh,
        K=matrix3(K),
        dist=_four(dist) if fisheye else tuple(dist),
        model="fisheye" if fisheye else "pinhole",
        modes=_modes(tree, size_wh, said),
    )


def _dist(tree: Tree, said: list[str], index: str) -> list[float]:
    """Return the distortion coefficients; a line says if the file has none."""
    known = [f"{name}{index}" for name in DIST]
    others = [key for key in tree if _ANY_DIST.fullmatch(key.removesuffix(index)) and key.endswith(index)]
    key = next((key for key in (*known, *others) if key in tree and tree[key] is not None), None)
    if key is None:
        said.append("it has no distortion coefficients: the lens is taken as free of distortion")
        return []
    return numbers(tree[key])


def _parameters(tree: Tree) -> dict[str, Any]:
    """Return the values that have a key of their own, by that key, such as `fx`; those of parts too."""
    flat = {**tree, **{f"{part}{key}": v for part, x in tree.items() if isinstance(x, dict) for key, v in x.items()}}
    found = ((_PARAMETER.fullmatch(re.sub(r"[^a-z0-9]", "", str(key).lower())), value) for key, value in flat.items())
    return {name[1]: value for name, value in found if name}


def _of_parameters(tree: Tree, own: Tree, said: list[str], lens: Lens, size_wh: tuple[int, int] | None) -> Camera:
    """Read a camera whose every number has its own key. Raises ValueError for a lens model that is not OpenCV's."""
    if any(re.match(r"camera2\W*fx", str(key).lower()) for key in tree):
        said.append("its second camera is left out: convert each by itself, and find the pose with calib stereo")
    stated = str(own.get("type", own.get("modeltype", tree.get("cameramodel", "")))).lower()
    name = re.sub(r"[^a-z]", "", stated)
    if name not in _PINHOLE | _FISHEYE | {"perspective"}:
        raise ValueError(f"its lens model is {stated}; want pinhole or kannala_brandt")
    fisheye = name in _FISHEYE if lens == "auto" else lens == "fisheye"
    if not fisheye and "k4" in own and "p1" not in own and lens == "auto":
        raise ValueError("it has k1 to k4 without p1 and p2, as a fisheye lens: say which with --lens")
    order = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    values = [numbers(own.get(key, 0.0))[0] for key in order]
    given = own.keys() & set(order)
    if not given:
        said.append("it has no distortion coefficients: the lens is taken as free of distortion")
    long = 4 if fisheye or not given & set(order[4:]) else 5 if not given & set(order[5:]) else 8
    fx, fy, cx, cy = (numbers(own[key])[0] for key in ("fx", "fy", "cx", "cy"))
    return Camera(
        size_wh=_size({**tree, **{key: own[key] for key in ("width", "height") if key in own}}, size_wh),
        K=((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0)),
        dist=tuple(values[:long]) if given else (),
        model="fisheye" if fisheye else "pinhole",
    )


def _size(tree: Tree, given: tuple[int, int] | None) -> tuple[int, int]:
    for w, h in (("imagewidth", "imageheight"), ("width", "height"), ("nx", "ny")):
        if w in tree:
            found = whole(tree[w]), whole(tree[h])
            if 0 in found:
                raise ValueError("the image size is zero: the camera was not calibrated")
            return found
    for key in ("imagesize", "resolution", "imgsize", "size"):
        if key in tree:
            across, below = numbers(tree[key])
            return whole(across), whole(below)
    if given is None:
        raise ValueError("it has no image size; give --ir-size and --rgb-size, such as 640x512")
    return given


def _is_fisheye(tree: Tree, dist: Sequence[float], said: list[str]) -> bool:
    """Return True if the file says that its lens is a fisheye; say what is guessed."""
    stated = tree.get("distortionmodel", tree.get("cameramodel"))
    if stated is None:
        if "fisheyemodel" in tree:
            return bool(tree["fisheyemodel"])
        if "distortion" in tree and len(dist) == 4:  # of ROS's ost.txt, which has five of a pinhole lens
            said.append("it names no lens model: four coefficients are those of a fisheye lens here (--lens chooses)")
            return True
        if any(dist):
            said.append(
                f"it names no lens model: its {len(dist)} coefficients are read as k1 k2 p1 p2 … (--lens chooses)"
            )
        return False
    name = "".join(c for c in str(stated).lower() if c.isalnum())
    if name in _FISHEYE:
        return True
    if name not in _PINHOLE and any(dist):
        raise ValueError(f"its distortion model is {stated}; want plumb_bob, rational_polynomial or equidistant")
    if name == "plumbbob" and len(dist) > 5:
        said.append(f"plumb_bob has five coefficients and this file {len(dist)}: read as rational_polynomial")
    return False


def _four(dist: Sequence[float]) -> tuple[float, ...]:
    if any(dist[4:]):
        raise ValueError(f"a fisheye lens has four coefficients, found {len(dist)}")
    return tuple(dist[:4])


def _modes(tree: Tree, size_wh: tuple[int, int], said: list[str]) -> tuple[SensorMode, ...]:
    """Return the part of the calibrated image that a camera_info says is sent, if it is not the whole image."""
    roi = tree.get("roi") or {}
    across, down = (max(1, whole(tree.get(key, 1))) for key in ("binningx", "binningy"))
    left, top = whole(roi.get("x_offset", 0)), whole(roi.get("y_offset", 0))
    w, h = whole(roi.get("width", 0)) or size_wh[0] - left, whole(roi.get("height", 0)) or size_wh[1] - top
    sent = w // across, h // down
    if sent == size_wh:
        return ()
    said.append(
        f"its images are {sent[0]}x{sent[1]}, a part of the calibrated {size_wh[0]}x{size_wh[1]} (roi, binning)"
    )
    return (SensorMode(size_wh=sent, crop_xy=(float(left), float(top)), binning=(float(across), float(down))),)


def _of_agisoft(tree: Tree) -> Camera:
    """Read Agisoft Metashape's lens file (user manual, appendix "Camera models").

    Its principal point counts from the middle of the image, its p1 and p2 are OpenCV's p2 and p1.
    """
    w, h = whole(tree["width"]), whole(tree["height"])
    f, cx, cy, b1, b2, k1, k2, k3, k4, p1, p2, p3, p4 = (
        numbers(tree[name] if name == "f" else tree.get(name, 0.0))[0]
        for name in ("f", "cx", "cy", "b1", "b2", "k1", "k2", "k3", "k4", "p1", "p2", "p3", "p4")
    )
    fisheye = tree["projection"] == "fisheye"
    if tree["projection"] not in ("frame", "fisheye"):
        raise ValueError(f"its projection is {tree['projection']}; want frame or fisheye")
    wrong = (p1, p2) if fisheye else (k4,)
    if b2 or p3 or p4 or any(wrong):
        raise ValueError(
            f"b2, p3, p4 and {'p1, p2' if fisheye else 'k4'} have no place in OpenCV's lens models; calibrate without"
        )
    return Camera(
        size_wh=(w, h),
        K=((f + b1, 0.0, w / 2 + cx - 0.5), (0.0, f, h / 2 + cy - 0.5), (0.0, 0.0, 1.0)),
        dist=(k1, k2, k3, k4) if fisheye else (k1, k2, p2, p1, k3),
        model="fisheye" if fisheye else "pinhole",
    )


def _of_matlab(tree: Tree) -> Camera:
    """Read a struct of MATLAB's cameraParameters or cameraIntrinsics, whose first pixel is (1, 1)."""
    K = shaped("the camera matrix", tree["k"] if "k" in tree else tree["intrinsicmatrix"], 3, 3)
    if "k" not in tree:
        K = K.T
    K = K - np.array([[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    radial, (p1, p2) = numbers(tree["radialdistortion"]), numbers(tree["tangentialdistortion"])
    h, w = numbers(tree["imagesize"])
    return Camera(size_wh=(whole(w), whole(h)), K=matrix3(K), dist=(*radial[:2], p1, p2, *radial[2:]))


def _of_caltech(tree: Tree, index: str, size_wh: tuple[int, int] | None) -> Camera:
    """Read the assignments of Bouguet's Camera Calibration Toolbox for MATLAB."""
    (fx, fy), (cx, cy) = numbers(tree[f"fc{index}"]), numbers(tree[f"cc{index}"])
    skew = numbers(tree.get(f"alphac{index}", 0.0))[0] * fx
    K = ((fx, skew, cx), (0.0, fy, cy), (0.0, 0.0, 1.0))
    return Camera(size_wh=_size(tree, size_wh), K=K, dist=tuple(numbers(tree[f"kc{index}"])))
