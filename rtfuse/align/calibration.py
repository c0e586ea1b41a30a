"""Define the calibration file: two cameras, the map from thermal to RGB pixels, and its error.

Conventions: `dst_from_src` names, OpenCV's `K` and `dist`, lengths in metres, pixel (0, 0) is the centre of the
top-left pixel. The file is written by `calib` and read here; docs/calibration.md describes it key by key.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Annotated, Literal

import cv2
import msgspec
import numpy as np
import yaml

from rtfuse.align import limits
from rtfuse.align.field import field_at
from rtfuse.errors import CalibrationError, ConfigError
from rtfuse.outputs import write_yaml
from rtfuse.settings import parse_yaml, refuse_infinite
from rtfuse.types import Image

Vector2 = tuple[float, float]
Vector3 = tuple[float, float, float]
Matrix3 = tuple[Vector3, Vector3, Vector3]
Side = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]

_FOREIGN = re.compile(r"(?m)^(%YAML:|<\?xml|cam[01]:|camera_matrix|cameraMatrix|distortion_model|K: \[|# oST)")
BEHIND = -1e6
"""The pixel coordinate of what lies behind a camera."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Base of all parts of the file: immutable; refuses unknown keys, omits default values."""


class SensorMode(_Part, frozen=True):
    """Another size that the camera can be set to, as a part of the calibrated image.

    `crop_xy` is the calibrated pixel whose top-left corner is that of the mode's image; each of its pixels covers
    `binning` (across, down) calibrated ones.
    """

    size_wh: tuple[Side, Side]
    crop_xy: Vector2 = (0.0, 0.0)
    binning: tuple[Positive, Positive] = (1.0, 1.0)

    def calibrated(self, pixels: Image) -> Image:
        """Map pixels (N, 2) of this mode to those of the calibrated image."""
        return np.asarray((pixels + 0.5) * self.binning + self.crop_xy - 0.5)

    def streamed(self, pixels: Image) -> Image:
        """Map pixels (N, 2) of the calibrated image to those of this mode."""
        return np.asarray((pixels + 0.5 - self.crop_xy) / self.binning - 0.5)


class Camera(_Part, frozen=True):
    """Camera of the rig: image size in pixels and, if it was calibrated, intrinsics.

    `K` is 3×3 in pixels. `dist` are OpenCV's coefficients: k1 k2 p1 p2 [k3 [k4 k5 k6]] for `pinhole`, four for
    `fisheye`. Without `K` the image is taken as free of distortion. `K_std` are the standard deviations of fx, fy, cx,
    cy, `dist_std` those of `dist`; `held_out_px` is the root mean square reprojection error on views that the fit did
    not see. `modes` are the other sizes that this calibration also holds for.
    """

    size_wh: tuple[Side, Side]
    K: Matrix3 | None = None
    dist: tuple[float, ...] = ()
    model: Literal["pinhole", "fisheye"] = "pinhole"
    K_std: tuple[float, float, float, float] | None = None
    dist_std: tuple[float, ...] = ()
    held_out_px: NotNegative | None = None
    modes: tuple[SensorMode, ...] = ()

    @property
    def matrix(self) -> Image:
        """`K` as (3, 3) float64; the identity if the file has none."""
        return np.eye(3) if self.K is None else np.array(self.K, float)

    def mode(self, size_wh: tuple[int, int]) -> SensorMode | None:
        """Return how images of this size lie in the calibrated one; None if the camera was not told about it."""
        known = (SensorMode(size_wh=self.size_wh), *self.modes)
        return next((m for m in known if m.size_wh == size_wh), None)


class Quality(_Part, frozen=True):
    """Rate a calibration: the median error between the two pictures on views that were held out.

    `pair_error_px` is in RGB pixels, and holds at distances of `distance_m` (nearest, farthest) where these are known.
    """

    method: Literal["boards", "points", "register"]
    pair_error_px: NotNegative
    views: int
    distance_m: Vector2 | None = None

    @property
    def verdict(self) -> Literal["good", "pass", "fail"]:
        """Good below half a pixel, pass below one."""
        return "good" if self.pair_error_px < 0.5 else "pass" if self.pair_error_px < 1.0 else "fail"


class Calibration(_Part, frozen=True):
    """Hold a calibration file: two cameras, and one mapping from thermal to RGB pixels.

    Either `H_rgb_from_ir`, a homography from (undistorted) thermal to (undistorted) RGB pixels, which may name the
    distance `plane_m` that it is exact for; or the stereo pose `R_rgb_from_ir`, `t_rgb_from_ir_m` (metres) with
    `plane_m`: the distance, along the RGB camera's axis, of the fronto-parallel plane for which the registration is
    exact. The pose needs `K` of both cameras. `R_std_deg` and `t_std_m` are standard deviations, about and along x, y
    and z.

    `field_px` is a smooth correction on top: rows of (dx, dy), in thermal pixels, at places spread evenly over the
    RGB image from its first pixel to its last, between which it is interpolated by cubics.

    `ir_offset_ms` is added to the thermal camera's capture times. `digest` is the sum of the file that was read if it
    is not that of its values; otherwise None.
    """

    ir: Camera
    rgb: Camera
    H_rgb_from_ir: Matrix3 | None = None
    R_rgb_from_ir: Matrix3 | None = None
    t_rgb_from_ir_m: Vector3 | None = None
    plane_m: Positive | None = None
    R_std_deg: Vector3 | None = None
    t_std_m: Vector3 | None = None
    field_px: tuple[tuple[Vector2, ...], ...] | None = None
    ir_offset_ms: float | None = None
    ir_offset_std_ms: NotNegative | None = None
    quality: Quality | None = None
    digest: str | None = None
    version: Literal[1] = 1


def matrix3(m: Image) -> Matrix3:
    """Return a (3, 3) array as the tuples that the file holds."""
    a, b, c = ((float(r[0]), float(r[1]), float(r[2])) for r in np.asarray(m, float))
    return a, b, c


def vector3(v: Image) -> Vector3:
    """Return a (3,) array as the tuple that the file holds."""
    return float(v[0]), float(v[1]), float(v[2])


def load_calibration(path: str | Path) -> Calibration:
    """Read and check a calibration file (YAML). Raises CalibrationError naming the file, the key and the fault."""
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = parse_yaml(text)
        if not isinstance(tree, dict):
            found = "nothing" if tree is None else f"a {type(tree).__name__}"
            raise ConfigError(f"want keys and values as `calib` writes, found {found}")
        refuse_infinite(tree, str(path), "")
        calibration = msgspec.convert(tree, Calibration)
    except OSError as e:
        raise CalibrationError(f"calibration file {path}: {e.strerror or e}") from e
    except (msgspec.ValidationError, yaml.YAMLError, UnicodeDecodeError, ConfigError, RecursionError) as e:
        other = f"; if it is another tool's: calib convert {path} --to rtfuse" if _FOREIGN.search(text) else ""
        raise CalibrationError(f"calibration file {path}: {' '.join(str(e).split())}{other}") from e
    if fault := fault_of(calibration):
        raise CalibrationError(f"calibration file {path}: {fault}")
    whole = calibration.digest == digest_of(calibration)
    return msgspec.structs.replace(calibration, digest=None) if whole else calibration


def save_calibration(calibration: Calibration, path: str | Path) -> None:
    """Write a calibration file, whole or not at all. Raises CalibrationError if it is faulty, or OutputUnwritable."""
    if fault := fault_of(calibration):
        raise CalibrationError(f"not written to {path}: {fault}")
    tree = msgspec.to_builtins(msgspec.structs.replace(calibration, digest=digest_of(calibration)))
    write_yaml({"version": 1} | tree, path)


def digest_of(calibration: Calibration) -> str:
    """Return a short sum of all values of a calibration, as its file keeps it."""
    tree = msgspec.to_builtins(msgspec.structs.replace(calibration, digest=None))
    return f"crc32-{zlib.crc32(msgspec.json.encode(msgspec.convert(tree, Calibration))):08x}"


def fault_of(c: Calibration) -> str:
    """Return the first fault of a calibration as text; empty without one."""
    if path := limits.infinite(msgspec.to_builtins(c)):
        return f"{path}: want a finite number"
    fault = _shape_fault(c) or fault_of_camera("ir", c.ir) or fault_of_camera("rgb", c.rgb)
    if not fault and c.R_rgb_from_ir is not None:
        R, t = np.array(c.R_rgb_from_ir, float), np.array(c.t_rgb_from_ir_m, float)
        fault = limits.pose_fault(R, t, c.plane_m or 0.0, c.rgb.matrix[0, 0])
    if not fault and abs(c.ir_offset_ms or 0.0) > limits.OFFSET_MS:
        fault = f"ir_offset_ms is {c.ir_offset_ms:g} ms; want at most {limits.OFFSET_MS:g}: micro- or nanoseconds?"
    if not fault and c.field_px is not None and np.abs(np.array(c.field_px)).max() > max(c.ir.size_wh) / 2:
        fault = "field_px moves a pixel by more than half of thermal's picture"
    if not fault and (wrong := limits.map_fault(places_in_ir(c), c.ir.size_wh, c.rgb.size_wh)):
        fault = f"{wrong}: {cause(c)}"
    return fault


def _shape_fault(c: Calibration) -> str:
    """Say which parts of a calibration are missing, or do not go together."""
    pose = (c.R_rgb_from_ir, c.t_rgb_from_ir_m)
    if c.field_px is not None and (min(len(c.field_px), len(c.field_px[0])) < 2 or len(set(map(len, c.field_px))) > 1):
        return "field_px needs at least two rows of at least two pairs, all rows alike"
    if c.H_rgb_from_ir is not None:
        if any(x is not None for x in pose):
            return "gives both H_rgb_from_ir and a stereo pose; keep one"
        H = np.array(c.H_rgb_from_ir, float)
        return "" if abs(np.linalg.det(H / (abs(H).max() or 1.0))) > 1e-12 else "H_rgb_from_ir cannot be inverted"
    if any(x is None for x in (*pose, c.plane_m)):
        return "needs H_rgb_from_ir, or all of R_rgb_from_ir, t_rgb_from_ir_m and plane_m"
    return "a stereo pose needs K of both cameras" if c.ir.K is None or c.rgb.K is None else ""


def places_in_ir(c: Calibration) -> Image:
    """Return where in thermal RGB pixels lie, (3, N, 2): some all over the image, those to the right, those below."""
    pixels = limits.spread(c.rgb.size_wh)
    return np.stack([ir_pixels_of_rgb(pixels + step, c) for step in ((0, 0), (1, 0), (0, 1))])


def cause(c: Calibration) -> str:
    """Name the likely cause of a thermal picture that does not lie on RGB's."""
    if c.H_rgb_from_ir is not None:
        H = np.array(c.H_rgb_from_ir, float)
        told = limits.place_of(H, c.ir.size_wh)
        other = msgspec.structs.replace(c, H_rgb_from_ir=matrix3(np.linalg.inv(H)))
    else:
        R, t = np.array(c.R_rgb_from_ir, float), np.array(c.t_rgb_from_ir_m, float)
        told = limits.view_of(R, t, c.plane_m or 1.0, c.rgb.matrix[0, 0])
        other = msgspec.structs.replace(c, R_rgb_from_ir=matrix3(R.T), t_rgb_from_ir_m=vector3(-R.T @ t))
    turned = limits.inside(places_in_ir(other)[0], c.ir.size_wh).mean()
    return told + (", which the reverse transform would not: is it ir from rgb?" if turned > 0.5 else "")


def fault_of_camera(name: str, camera: Camera) -> str:
    """Return the first fault of one camera's part as text; empty without one."""
    if path := limits.infinite(msgspec.to_builtins(camera)):
        return f"{name}.{path}: want a finite number"
    lengths = (0, 4) if camera.model == "fisheye" else (0, 4, 5, 8, 12, 14)
    if len(camera.dist) not in lengths:
        return f"{name}.dist has {len(camera.dist)} coefficients; {camera.model} takes one of {lengths}"
    if camera.dist and camera.K is None:
        return f"{name}.dist needs {name}.K"
    sizes = [camera.size_wh, *(m.size_wh for m in camera.modes)]
    fault = next((f for size in sizes if (f := limits.size_fault(f"{name}: an image size", size))), "")
    if not fault and camera.K is not None:
        fault = limits.matrix_fault(name, camera.size_wh, camera.matrix) or _lens_fault(name, camera)
    return fault or _mode_fault(name, camera, sizes)


def _lens_fault(name: str, camera: Camera) -> str:
    """Return the first fault of a camera's distortion as text."""
    pixels, fisheye = limits.spread(camera.size_wh), camera.model == "fisheye"
    if not fisheye and max(map(abs, camera.dist[2:4]), default=0) > limits.TANGENTIAL:
        return f"{name}.dist: p1 and p2 are {camera.dist[2]:g} and {camera.dist[3]:g}; want k1 k2 p1 p2 k3 …"
    return limits.distortion_fault(name, camera.matrix, pixels, *there_and_back(pixels, camera), fisheye=fisheye)


def there_and_back(pixels: Image, camera: Camera) -> tuple[Image, Image]:
    """Return pixels (N, 2) of a calibrated camera without distortion, on the plane z = 1, and these distorted again."""
    ideal = undistorted(pixels, camera)
    return ideal, projected(lifted(ideal), camera)


def _mode_fault(name: str, camera: Camera, sizes: list[tuple[int, int]]) -> str:
    """Return the first fault of a camera's modes as text."""
    if len(set(sizes)) < len(sizes):
        return f"{name}.modes has one size twice; a stream's size must tell its mode"
    for mode in camera.modes:
        last = mode.calibrated(np.array([mode.size_wh], float) - 1)[0]
        if min(mode.crop_xy) < -1 or (last > np.array(camera.size_wh)).any():
            return f"{name}.modes: {mode.size_wh[0]}x{mode.size_wh[1]} reaches beyond the calibrated image"
    return ""


def undistorted(pixels: Image, camera: Camera) -> Image:
    """Map pixels (N, 2) of a calibrated camera to ideal coordinates (N, 2) on its plane z = 1."""
    dist = np.array(camera.dist, float)
    source = np.ascontiguousarray(pixels, np.float64)[:, None, :]
    if camera.model == "fisheye":
        ideal = cv2.fisheye.undistortPoints(source, camera.matrix, dist if dist.size else np.zeros(4))
    else:
        # The iteration's default of 5 steps leaves pixels of error under strong barrel distortion.
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-9)
        ideal = cv2.undistortPoints(source, camera.matrix, dist, criteria=criteria)
    return np.asarray(ideal.reshape(-1, 2))


def projected(points: Image, camera: Camera) -> Image:
    """Map points (N, 3) in a calibrated camera's own system to its pixels (N, 2); points behind it to `BEHIND`."""
    seen = points[:, 2] > 1e-9
    source = np.where(seen[:, None], points, [0.0, 0.0, 1.0])[:, None, :]
    zero, dist = np.zeros(3), np.array(camera.dist, float)
    if camera.model == "fisheye":
        pixels, _ = cv2.fisheye.projectPoints(source, zero, zero, camera.matrix, dist if dist.size else np.zeros(4))
    else:
        pixels, _ = cv2.projectPoints(source, zero, zero, camera.matrix, dist)
    return np.where(seen[:, None], pixels.reshape(-1, 2), BEHIND)


def ir_pixels_of_rgb(pixels: Image, c: Calibration, plane_m: float | Image | None = None) -> Image:
    """Return where in the calibrated thermal image pixels (N, 2) of the calibrated RGB image lie.

    `plane_m` takes the place of the calibration's own distance (for a stereo pose alone), for all pixels or for each,
    (N,). What lies behind the thermal camera gets `BEHIND`.
    """
    if c.H_rgb_from_ir is not None:
        flat = pixels if c.rgb.K is None else flattened(pixels, c.rgb)
        homogeneous = lifted(flat) @ np.linalg.inv(np.array(c.H_rgb_from_ir, float)).T
        rays = homogeneous @ np.linalg.inv(c.ir.matrix).T * np.sign(np.median(homogeneous[:, 2]))
        xy = _behind_or(rays) if c.ir.K is None else projected(rays, c.ir)
    else:
        far = np.asarray(c.plane_m if plane_m is None else plane_m, float).reshape(-1, 1)
        points = lifted(undistorted(pixels, c.rgb)) * far
        xy = projected((points - np.array(c.t_rgb_from_ir_m)) @ np.array(c.R_rgb_from_ir, float), c.ir)  # Rᵀ(X - t)
    return xy if c.field_px is None else xy + field_at(np.array(c.field_px, float), pixels, c.rgb.size_wh)


def rgb_pixels_of_ir(pixels: Image, c: Calibration) -> Image:
    """Return where in the calibrated RGB image pixels (N, 2) of the calibrated thermal image are shown.

    The inverse of `ir_pixels_of_rgb`, without its smooth field.
    """
    rays = lifted(pixels if c.ir.K is None else undistorted(pixels, c.ir))
    if c.H_rgb_from_ir is not None:
        flat = rays @ (np.array(c.H_rgb_from_ir, float) @ c.ir.matrix).T
        flat *= np.sign(np.median(flat[:, 2]))
        return _behind_or(flat) if c.rgb.K is None else projected(flat @ np.linalg.inv(c.rgb.matrix).T, c.rgb)
    assert c.plane_m is not None
    turned, t = rays @ np.array(c.R_rgb_from_ir, float).T, np.array(c.t_rgb_from_ir_m)
    return projected(turned * ((c.plane_m - t[2]) / turned[:, 2])[:, None] + t, c.rgb)


def lifted(xy: Image) -> Image:
    """(N, 2) to homogeneous (N, 3)."""
    return np.concatenate([xy, np.ones((len(xy), 1))], 1)


def flattened(pixels: Image, camera: Camera) -> Image:
    """Map pixels (N, 2) to their places without distortion."""
    return np.asarray(undistorted(pixels, camera) @ camera.matrix[:2, :2].T + camera.matrix[:2, 2])


def _behind_or(homogeneous: Image) -> Image:
    seen = homogeneous[:, 2:] > 1e-9
    return np.where(seen, homogeneous[:, :2] / np.where(seen, homogeneous[:, 2:], 1), BEHIND)
