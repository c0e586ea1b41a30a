"""State the limits within which a calibration can be right, and name the number that breaks one.

The functions take plain numbers, and return a sentence about the first fault, or an empty text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

from rtfuse.types import Image

LARGEST_SIDE_PX = 32_766
"""OpenCV warps no larger picture."""
NARROWEST = 20
"""The longer side of a picture in its shorter ones, at most."""
FOCAL = (0.15, 200.0)
"""Focal length in image sides: from a fisheye lens that sees all around (1 / 2π) to a telescope of 0.3 degrees."""
ASPECT = (0.45, 2.2)
"""fx / fy: pixels of half the height, as of one field of interlaced video, and a little more."""
EDGE = 0.1
"""The principal point is at most this part of a side outside the image, and not within it of a corner."""
TANGENTIAL = 0.2
"""Largest p1 and p2."""
BEND, BEND_FISHEYE = (0.6, 5.0), (0.4, 2.5)
"""Radius without distortion, as a part of the radius with it: strong pincushion, and the barrel of an action camera."""
FOLDED = 0.25
"""Largest part of the image in which the distortion may have no inverse."""
_FISHEYE_RADIUS = 1.4
"""Largest radius, in focal lengths, at which a fisheye lens is judged: beyond π / 2 it looks backwards."""
BASELINE_M, PLANE_M, OFFSET_MS = 3.0, (0.02, 100_000.0), 10_000.0
FAR_M, FAR_PX = 1000.0, 0.25
"""A plane beyond `FAR_M` with less parallax than `FAR_PX` was hardly meant in metres."""
MAGNIFICATION, STRETCH = 30.0, 6.0
"""Thermal pictures across an RGB picture, or the reverse; magnification in one direction by that in the other."""


def infinite(tree: object, path: str = "") -> str:
    """Return the path of a number in plain values that is infinite or not a number; empty without one."""
    if isinstance(tree, float) and not math.isfinite(tree):
        return path
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(tree, Mapping):
        pairs = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree)
    return next((found for key, value in pairs if (found := infinite(value, f"{path}.{key}".lstrip(".")))), "")


def size_fault(name: str, size_wh: tuple[int, int]) -> str:
    """Check the size of an image in pixels."""
    if not all(1 <= side <= LARGEST_SIDE_PX for side in size_wh):
        return f"{name} is {size_wh[0]}x{size_wh[1]}; want sides of 1 to {LARGEST_SIDE_PX} pixels"
    if max(size_wh) <= NARROWEST * min(size_wh):
        return ""
    return f"{name} is {size_wh[0]}x{size_wh[1]}, one side more than {NARROWEST} times the other: a wrong digit?"


def matrix_fault(name: str, size_wh: tuple[int, int], K: Image) -> str:
    """Check a camera matrix (3, 3) against the size of its image."""
    (w, h), fx, fy = size_wh, K[0, 0], K[1, 1]
    if not K[:2].any():
        return f"{name}.K is zero: the camera was not calibrated"
    if K[2, :2].any() and not K[:2, 2].any():
        return f"{name}.K is transposed, as MATLAB writes it; the principal point belongs into the last column"
    if not (fx > 0 and fy > 0 and (K[2] == (0, 0, 1)).all()):
        return f"{name}.K wants positive focal lengths and a last row of 0 0 1"
    for key, skew in (("K[1][0]", K[1, 0]), ("K[0][1]", K[0, 1])):
        if skew != 0:
            return f"{name}.{key} is {skew:g}; want 0: OpenCV's lens models have no skew"
    side = max(w, h)
    for key, f in (("fx", fx), ("fy", fy)):
        if not FOCAL[0] <= f / side <= FOCAL[1]:
            return (
                f"{name}.K: {key} is {f:g} px, but an image of {w}x{h} has {FOCAL[0] * side:.0f} to "
                f"{FOCAL[1] * side:.0f} px: {'milli' if f < side else 'micro'}metres, or for another image size?"
            )
    if not ASPECT[0] <= fx / fy <= ASPECT[1]:
        return f"{name}.K: fx is {fx:g} px and fy {fy:g} px; want about the same"
    return _principal_fault(name, size_wh, (K[0, 2], K[1, 2]))


def _principal_fault(name: str, size_wh: tuple[int, int], centre: tuple[float, float]) -> str:
    (w, h), (cx, cy) = size_wh, centre
    places = np.array([(cx + 0.5) / w, (cy + 0.5) / h])
    if (abs(places - 0.5) <= 0.5 + EDGE).all() and (abs(places - 0.5) <= 0.5 - EDGE).any():
        return ""
    other = f": for images of about {2 * cx:.0f}x{2 * cy:.0f}?" if min(cx, cy) > 0 else "; want pixels from the corner"
    return f"{name}.K: the principal point {cx:g}, {cy:g} is far from the middle of a {w}x{h} image{other}"


def folded(K: Image, pixels: Image, back: Image, *, fisheye: bool) -> Image:
    """Return, for pixels (N, 2), True where the distortion has no inverse, (N,) bool.

    `back`: the pixels without distortion, distorted again, (N, 2).
    """
    with np.errstate(invalid="ignore"):
        wrong = ~(np.linalg.norm(back - pixels, axis=1) < 1.0 + 0.002 * np.ptp(pixels))
    return wrong & (_radius(K, pixels) < _FISHEYE_RADIUS) if fisheye else wrong


def distortion_fault(name: str, K: Image, pixels: Image, ideal: Image, back: Image, *, fisheye: bool) -> str:
    """Check a lens's distortion on pixels (N, 2) all over the image.

    `ideal`: the pixels without distortion, on the plane z = 1, (N, 2). `back`: these, distorted again, in pixels.
    """
    advice = "want OpenCV's coefficients in OpenCV's order, k1 k2 " + ("k3 k4" if fisheye else "p1 p2 k3 …")
    wrong = folded(K, pixels, back, fisheye=fisheye)
    if wrong.mean() > FOLDED:
        return f"{name}.dist folds {wrong.mean():.0%} of the image over itself; {advice}"
    radius, free = _radius(K, pixels), np.linalg.norm(ideal, axis=1)
    outer = ~wrong & (radius > 0.5 * radius.max()) & ((radius < _FISHEYE_RADIUS) | (not fisheye))
    if not outer.any():
        return ""
    bend = float(np.median((np.arctan(free) if fisheye else free)[outer] / radius[outer]))
    least, most = BEND_FISHEYE if fisheye else BEND
    if not least <= bend <= most:
        return f"{name}.dist moves the outer pixels to {bend:.2g} of their radius; {advice}"
    return ""


def _radius(K: Image, pixels: Image) -> Image:
    """Return the distance of pixels (N, 2) from the principal point, in focal lengths, (N,)."""
    return np.asarray(np.linalg.norm((pixels - K[:2, 2]) / (K[0, 0], K[1, 1]), axis=1))


def pose_fault(R: Image, t: Image, plane_m: float, focal_px: float) -> str:
    """Check the pose `R_rgb_from_ir` (3, 3), `t_rgb_from_ir_m` (3,), and the distance of the plane.

    `focal_px`: focal length of the RGB camera.
    """
    baseline = float(np.linalg.norm(t))
    if not (np.allclose(R @ R.T, np.eye(3), atol=1e-4) and np.linalg.det(R) > 0):
        return "R_rgb_from_ir is not a rotation"
    if R[2, 2] < 0:
        return f"R_rgb_from_ir turns the cameras {turned_deg(R):.0f} degrees apart: one looks backwards"
    if baseline > BASELINE_M:
        unit = "milli" if baseline > 20 else "centi- or milli"
        return (
            f"t_rgb_from_ir_m puts the cameras {baseline:g} m apart; on one bracket they are at most {BASELINE_M:g} m "
            f"apart: {unit}metres?"
        )
    if not PLANE_M[0] <= plane_m <= PLANE_M[1]:
        unit = "milli" if plane_m > PLANE_M[1] else "kilo"
        return f"plane_m is {plane_m:g} m; want {PLANE_M[0]:g} to {PLANE_M[1]:g} m: {unit}metres?"
    if (R.T @ (np.array([0, 0, plane_m]) - t))[2] <= 0:
        return f"plane_m is {plane_m:g} m: that plane lies behind the thermal camera"
    if plane_m > FAR_M and focal_px * baseline / plane_m < FAR_PX:
        return f"plane_m is {plane_m:g} m: millimetres? For any great distance write {FAR_M:g}"
    return ""


def view_of(R: Image, t: Image, plane_m: float, focal_px: float) -> str:
    """Say how far the two views of a pose are apart."""
    shift_px = focal_px * float(np.linalg.norm(t[:2])) / plane_m
    return (
        f"the cameras' axes are {turned_deg(R):.0f} degrees apart, and t_rgb_from_ir_m moves it by {shift_px:.0f} px "
        "at plane_m"
    )


def place_of(H: Image, ir_wh: tuple[int, int]) -> str:
    """Say where on RGB a homography puts the middle of the thermal picture."""
    x, y, z = H @ [(ir_wh[0] - 1) / 2, (ir_wh[1] - 1) / 2, 1.0]
    return f"H_rgb_from_ir puts its middle at {x / z:.0f}, {y / z:.0f}" if z else "H_rgb_from_ir is unusable"


def turned_deg(R: Image) -> float:
    """Return the angle between the cameras' axes in degrees."""
    return math.degrees(math.acos(min(1.0, max(-1.0, float(R[2, 2])))))


def map_fault(xy: Image, ir_wh: tuple[int, int], rgb_wh: tuple[int, int]) -> str:
    """Check where in thermal RGB pixels lie, (3, N, 2): pixels all over the image, those to the right, those below."""
    here = inside(xy[0], ir_wh)
    if not here.any():
        return "thermal does not reach the RGB picture"
    slopes = np.stack([xy[1] - xy[0], xy[2] - xy[0]], -1)[here]
    steps = np.linalg.svd(slopes[np.isfinite(slopes).all((1, 2))], compute_uv=False)
    along, across = np.median(steps, axis=0) if len(steps) else (0.0, 0.0)
    if not 0 < along <= STRETCH * across:
        return "thermal would be stretched to a line"
    pictures = math.sqrt(along * across * rgb_wh[0] * rgb_wh[1] / (ir_wh[0] * ir_wh[1]))
    if not 1 / MAGNIFICATION <= pictures <= MAGNIFICATION:
        sides = f"thermal's picture would be {1 / pictures:.2g} times as wide as RGB's"
        return f"{sides}; want {1 / MAGNIFICATION:.2g} to {MAGNIFICATION:g} times"
    return ""


def inside(xy: Image, size_wh: tuple[int, int]) -> Image:
    """Return True for pixels (N, 2) inside an image, (N,) bool."""
    return np.asarray(((xy >= 0) & (xy <= np.array(size_wh) - 1.0)).all(1))


def spread(size_wh: tuple[int, int]) -> Image:
    """Return pixels (N, 2) spread evenly over an image."""
    x, y = (np.linspace(0, side - 1, 48) for side in size_wh)
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
