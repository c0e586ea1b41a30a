"""Read one camera from the plain values of another tool's file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from calib.interchange.texts import Tree
from rtfuse.align.calibration import Camera, Mode, matrix3
from rtfuse.errors import CalibrationError

Lens = Literal["auto", "pinhole", "fisheye"]
_PINHOLE = {"", "none", "plumbbob", "rationalpolynomial", "radtan", "radialtangential", "brownconrady", "pinhole"}
_FISHEYE = {"equidistant", "fisheye", "kannalabrandt", "kannalabrandt4", "opencvfisheye"}
MATRIX = ("cameramatrix", "k", "m", "intrinsicmatrix", "mtx")
DIST = ("distortioncoefficients", "distcoeffs", "d", "dist", "distortion")


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


def first(tree: Tree, names: Sequence[str]) -> Any:
    """Return the value of the first of these keys that the tree has. Raises KeyError that names the usual key."""
    return next(tree[name] for name in names if name in tree) if set(names) & tree.keys() else tree[names[0]]


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
    K = np.reshape(numbers(first(tree, [f"{name}{index}" for name in MATRIX])), (3, 3))
    size_wh = _size(tree, size_wh)
    if not K[:2].any():
        raise CalibrationError(
            "it is of a camera that was never calibrated: K is zero; calibrate it with calib boards and calib "
            "intrinsics, or with the other tool"
        )
    dist = numbers(next((tree[f"{name}{index}"] for name in DIST if f"{name}{index}" in tree), []))
    fisheye = _is_fisheye(tree, dist, said) if lens == "auto" else lens == "fisheye"
    return Camera(
        size_wh=size_wh,
        K=matrix3(K),
        dist=_four(dist) if fisheye else tuple(dist),
        model="fisheye" if fisheye else "pinhole",
        modes=_modes(tree, size_wh, said),
    )


def _size(tree: Tree, given: tuple[int, int] | None) -> tuple[int, int]:
    for w, h in (("imagewidth", "imageheight"), ("width", "height"), ("nx", "ny")):
        if w in tree:
            found = whole(tree[w]), whole(tree[h])
            if 0 in found:
                raise ValueError("the image size is zero: the camera was not calibrated")
            return found
    if "imagesize" in tree:
        across, below = numbers(tree["imagesize"])
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


def _modes(tree: Tree, size_wh: tuple[int, int], said: list[str]) -> tuple[Mode, ...]:
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
    return (Mode(size_wh=sent, crop_xy=(float(left), float(top)), binning=(float(across), float(down))),)


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
    K = np.reshape(numbers(tree["k"] if "k" in tree else tree["intrinsicmatrix"]), (3, 3))
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
