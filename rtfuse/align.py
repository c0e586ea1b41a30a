"""Thermal onto the RGB camera's pixel grid, with a mask of where it is valid.

The maps are computed once per calibration and pair of image sizes; a frame costs one `cv2.remap`. Conventions:
`dst_from_src` names, OpenCV's `K` and `dist`, pixel (0, 0) is the centre of the top-left pixel.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np

from rtfuse.errors import CalibrationError
from rtfuse.types import Image

Vector3 = tuple[float, float, float]
Matrix3 = tuple[Vector3, Vector3, Vector3]


class Camera(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One camera of the rig: image size in pixels and, if it was calibrated, intrinsics.

    `K` is 3×3 in pixels. `dist` are OpenCV's coefficients: k1 k2 p1 p2 [k3 [k4 k5 k6]] for `pinhole`, four for
    `fisheye`. Without `K` the image is taken as free of distortion.
    """

    size_wh: tuple[Annotated[int, msgspec.Meta(ge=1)], Annotated[int, msgspec.Meta(ge=1)]]
    K: Matrix3 | None = None
    dist: tuple[float, ...] = ()
    model: Literal["pinhole", "fisheye"] = "pinhole"


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `calibration.yaml` holds: two cameras and one way from thermal to RGB pixels.

    Either `H_rgb_from_ir`, a homography from (undistorted) thermal to (undistorted) RGB pixels, or the stereo pose
    `R_rgb_from_ir`, `t_rgb_from_ir_m` (metres) with `plane_m`: the distance, along the RGB camera's axis, of the
    fronto-parallel plane for which the registration is exact. The pose needs `K` of both cameras.
    """

    ir: Camera
    rgb: Camera
    H_rgb_from_ir: Matrix3 | None = None
    R_rgb_from_ir: Matrix3 | None = None
    t_rgb_from_ir_m: Vector3 | None = None
    plane_m: Annotated[float, msgspec.Meta(gt=0)] | None = None
    version: Literal[1] = 1


def load_calibration(path: str | Path) -> Calibration:
    """Read and check a calibration file (YAML). Raises CalibrationError naming the file, the key and the fault."""
    try:
        calibration = msgspec.yaml.decode(Path(path).read_bytes(), type=Calibration)
    except OSError as e:
        raise CalibrationError(f"calibration file {path}: {e.strerror or e}") from e
    except (msgspec.ValidationError, msgspec.DecodeError) as e:
        raise CalibrationError(f"calibration file {path}: {' '.join(str(e).split())}") from e
    _check(calibration, str(path))
    return calibration


def _check(c: Calibration, path: str) -> None:
    pose = (c.R_rgb_from_ir, c.t_rgb_from_ir_m, c.plane_m)
    if c.H_rgb_from_ir is not None and any(x is not None for x in pose):
        fault = "gives both H_rgb_from_ir and a stereo pose; keep one"
    elif c.H_rgb_from_ir is not None:
        det = np.linalg.det(np.array(c.H_rgb_from_ir, float))
        fault = "" if np.isfinite(det) and abs(det) > 1e-12 else "H_rgb_from_ir cannot be inverted"
    elif any(x is None for x in pose):
        fault = "needs H_rgb_from_ir, or all of R_rgb_from_ir, t_rgb_from_ir_m and plane_m"
    elif c.ir.K is None or c.rgb.K is None:
        fault = "a stereo pose needs K of both cameras"
    else:
        R = np.array(c.R_rgb_from_ir, float)
        orthogonal = np.allclose(R @ R.T, np.eye(3), atol=1e-4) and np.linalg.det(R) > 0
        fault = "" if orthogonal else "R_rgb_from_ir is not a rotation"
    for name, camera in (("ir", c.ir), ("rgb", c.rgb)):
        lengths = (0, 4) if camera.model == "fisheye" else (0, 4, 5, 8, 12, 14)
        if len(camera.dist) not in lengths:
            fault = f"{name}.dist has {len(camera.dist)} coefficients; {camera.model} takes one of {lengths}"
        if camera.dist and camera.K is None:
            fault = f"{name}.dist needs {name}.K"
    if fault:
        raise CalibrationError(f"calibration file {path}: {fault}")


class Aligner:
    """Warps thermal images (h, w) uint8 onto the RGB grid (H, W).

    Without a calibration the thermal image is stretched to the RGB size, or passed through untouched where the
    sizes agree. `seam_px` is the width, in RGB pixels, over which thermal fades in where its picture ends.
    Raises CalibrationError if the calibration was made for other image sizes.
    """

    def __init__(
        self,
        ir_hw: tuple[int, int],
        rgb_hw: tuple[int, int],
        calibration: Calibration | None = None,
        *,
        seam_px: int = 16,
    ) -> None:
        self.ir_hw, self.rgb_hw, self.seam_px = ir_hw, rgb_hw, seam_px
        self.stretched = calibration is None and ir_hw != rgb_hw
        self._maps: tuple[Image, Image] | None = None
        self.valid: Image | None = None
        """(H, W) uint8: 255 where thermal is valid, 0 where it does not reach, between on the seam; None: 255."""
        self.grid: Image | None = None
        """(H, W, 2) float32: where each RGB pixel lies in the thermal image, x and y from -1 (centre of the first
        pixel) to 1 (centre of the last); None: at the same pixel, or stretched."""
        if calibration is None:
            return
        for name, camera, (h, w) in (("thermal", calibration.ir, ir_hw), ("RGB", calibration.rgb, rgb_hw)):
            if camera.size_wh != (w, h):
                cw, ch = camera.size_wh
                raise CalibrationError(
                    f"the calibration was made for {name} images of {cw}x{ch}, but the {name} stream is {w}x{h}; "
                    "calibrate at this size or set the camera to that one"
                )
        xy = ir_pixels_of_rgb_grid(calibration)
        self.valid = _validity(xy, ir_hw, seam_px)
        self.grid = xy * (2 / (np.array(ir_hw[::-1], np.float32) - 1)) - 1
        self._maps = cv2.convertMaps(xy, None, cv2.CV_16SC2)

    def __call__(self, ir: Image) -> Image:
        """Return the thermal image (h, w) uint8 on the RGB grid, (H, W) uint8; 0 where it does not reach."""
        if self._maps is not None:
            return cv2.remap(ir, *self._maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if self.ir_hw == self.rgb_hw:
            return ir
        shrinks = self.rgb_hw[0] * self.rgb_hw[1] < ir.size
        return cv2.resize(ir, self.rgb_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    @cached_property
    def reach(self) -> float:
        """Share of the RGB image that thermal reaches, 0 to 1."""
        return 1.0 if self.valid is None else float(np.count_nonzero(self.valid)) / self.valid.size


def ir_pixels_of_rgb_grid(c: Calibration) -> Image:
    """Return, for every RGB pixel, where in the thermal image it lies: (H, W, 2) float32, x and y in pixels.

    Pixels that lie behind the thermal camera get (-1e6, -1e6).
    """
    w, h = c.rgb.size_wh
    grid = np.stack(np.meshgrid(np.arange(w, dtype=np.float64), np.arange(h, dtype=np.float64)), -1).reshape(-1, 2)
    if c.H_rgb_from_ir is not None:
        flat = grid if c.rgb.K is None else _undistort(grid, c.rgb) @ _k(c.rgb)[:2, :2].T + _k(c.rgb)[:2, 2]
        homogeneous = _lift(flat) @ np.linalg.inv(np.array(c.H_rgb_from_ir, float)).T
        seen = homogeneous[:, 2] * np.sign(np.median(homogeneous[:, 2])) > 1e-9
        if c.ir.K is None:
            xy = homogeneous[:, :2] / np.where(seen, homogeneous[:, 2], 1)[:, None]
        else:
            rays = homogeneous @ np.linalg.inv(_k(c.ir)).T
            xy = _project(rays / np.where(seen, homogeneous[:, 2], 1)[:, None], c.ir)
    else:
        points = _lift(_undistort(grid, c.rgb)) * c.plane_m
        rays = (points - np.array(c.t_rgb_from_ir_m)) @ np.array(c.R_rgb_from_ir, float)  # Rᵀ(X - t), row-wise
        seen = rays[:, 2] > 1e-9
        xy = _project(np.where(seen[:, None], rays, [0.0, 0.0, 1.0]), c.ir)
    xy[~seen] = -1e6
    # Far outside is far outside: keep the fixed-point maps from wrapping round.
    return np.ascontiguousarray(np.clip(xy, -1e4, 3e4).reshape(h, w, 2).astype(np.float32))


def _k(camera: Camera) -> Image:
    return np.array(camera.K, float)


def _lift(xy: Image) -> Image:
    return np.concatenate([xy, np.ones((len(xy), 1))], 1)


def _undistort(pixels: Image, camera: Camera) -> Image:
    """Pixels (N, 2) of a camera to ideal coordinates (N, 2) on its plane z = 1."""
    dist = np.array(camera.dist, float)
    source = pixels[:, None, :]
    if camera.model == "fisheye":
        ideal = cv2.fisheye.undistortPoints(source, _k(camera), dist if dist.size else np.zeros(4))
    else:
        # The iteration's default of 5 steps leaves pixels of error under strong barrel distortion.
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
        ideal = cv2.undistortPoints(source, _k(camera), dist, criteria=criteria)
    return ideal.reshape(-1, 2)


def _project(points: Image, camera: Camera) -> Image:
    """Points (N, 3) before a camera to its pixels (N, 2)."""
    zero, dist = np.zeros(3), np.array(camera.dist, float)
    if camera.model == "fisheye":
        pixels, _ = cv2.fisheye.projectPoints(
            points[:, None, :], zero, zero, _k(camera), dist if dist.size else np.zeros(4)
        )
    else:
        pixels, _ = cv2.projectPoints(points[:, None, :], zero, zero, _k(camera), dist)
    return pixels.reshape(-1, 2)


def _validity(xy: Image, ir_hw: tuple[int, int], seam_px: int) -> Image | None:
    """Mask (H, W) uint8 of where thermal reaches, fading in over `seam_px` inside its own edge."""
    h, w = ir_hw
    inside = (xy[..., 0] >= 0) & (xy[..., 0] <= w - 1) & (xy[..., 1] >= 0) & (xy[..., 1] <= h - 1)
    if inside.all():
        return None
    if seam_px <= 0:
        return inside.astype(np.uint8) * 255
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x = np.clip(depth / (seam_px + 1), 0, 1)
    return np.rint(255 * x * x * (3 - 2 * x)).astype(np.uint8)
