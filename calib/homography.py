"""Make a homography from thermal to RGB pixels: from a pose for one distance, or through points in both pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import msgspec
import numpy as np

from rtfuse.align.calibration import Calibration, Camera, Quality, flattened, matrix3, rgb_pixels_of_ir
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

MIN_POINTS = 6
_MIN_SPREAD = 0.15


def at_plane(c: Calibration, plane_m: float) -> Calibration:
    """Return the calibration with a homography in place of the stereo pose, for the fronto-parallel plane at `plane_m`.

    It is K_rgb (R + t (Rᵀ n)ᵀ / (plane - t_z)) K_ir⁻¹ with n = (0, 0, 1) in the RGB camera's system (Hartley and
    Zisserman, eq. 13.2). Raises CalibrationError without a pose.
    """
    if c.R_rgb_from_ir is None or c.t_rgb_from_ir_m is None:
        raise CalibrationError("this calibration has no stereo pose; make one with calib stereo")
    R, t = np.array(c.R_rgb_from_ir), np.array(c.t_rgb_from_ir_m)
    H = c.rgb.matrix @ (R + np.outer(t, R[2]) / (plane_m - t[2])) @ np.linalg.inv(c.ir.matrix)
    return msgspec.structs.replace(
        c,
        H_rgb_from_ir=matrix3(H / H[2, 2]),
        R_rgb_from_ir=None,
        t_rgb_from_ir_m=None,
        R_std_deg=None,
        t_std_m=None,
        plane_m=plane_m,
    )


def through_points(
    groups: Mapping[str, tuple[Image, Image]], ir: Camera, rgb: Camera, plane_m: float | None = None
) -> tuple[Calibration, dict[str, Image]]:
    """Fit a homography through points at about one distance.

    `groups`: thermal and RGB pixels, (N, 2) each, by group: a view of a board, or a single point. A group is held out
    as a whole.
    `plane_m`: distance of the points in metres, if known.

    Returns the calibration and, by group, the errors (N, 2) in RGB pixels of a homography fitted to the other groups.
    Raises CalibrationError if the points are too few, outside the images, on one line, or contradictory.
    """
    names = list(groups)
    if sum(len(a) for a, _ in groups.values()) < MIN_POINTS or len(names) < 2:
        raise CalibrationError(
            f"{sum(len(a) for a, _ in groups.values())} point pairs were given, but at least {MIN_POINTS} are needed: "
            "four for a homography, the others for its error; spread them over the image"
        )
    whole = _fitted(groups, ir, rgb, plane_m)
    folds = min(len(names), 12)
    errors: dict[str, Image] = {}
    for fold in range(folds):
        test = names[fold::folds]
        c = _fitted({n: g for n, g in groups.items() if n not in test}, ir, rgb, plane_m)
        errors |= {n: rgb_pixels_of_ir(groups[n][0], c) - groups[n][1] for n in test}
    lengths = np.linalg.norm(np.concatenate(list(errors.values())), axis=1)
    quality = Quality(method="points", pair_error_px=float(np.median(lengths)), views=len(names))
    return msgspec.structs.replace(whole, quality=quality), errors


def _fitted(groups: Mapping[str, tuple[Image, Image]], ir: Camera, rgb: Camera, plane_m: float | None) -> Calibration:
    a, b = (np.concatenate([g[k] for g in groups.values()]) for k in (0, 1))
    for name, xy, camera in (("thermal", a, ir), ("RGB", b, rgb)):
        if ((xy < -0.5) | (xy > np.array(camera.size_wh) - 0.5)).any():
            raise CalibrationError(
                f"a point lies outside the {name} image of {camera.size_wh[0]}x{camera.size_wh[1]}; correct the point, "
                "or give the picture it was taken from"
            )
    spread = np.linalg.svd(b - b.mean(0), compute_uv=False)[1] / np.sqrt(len(b)) / min(rgb.size_wh)
    if spread < _MIN_SPREAD / 2:
        raise CalibrationError("the points lie on or near one line; add some in every corner of the image")
    ideal = [xy if cam.K is None else flattened(xy, cam) for xy, cam in ((a, ir), (b, rgb))]
    H, inliers = cv2.findHomography(ideal[0], ideal[1], cv2.RANSAC, 3.0 * max(1.0, rgb.size_wh[0] / 640))
    if H is None or inliers.sum() < max(4, 0.6 * len(a)):
        raise CalibrationError(
            f"only {0 if inliers is None else int(inliers.sum())} of {len(a)} point pairs agree on one homography; "
            "check that they are the same points in both pictures, and at about one distance"
        )
    return Calibration(ir=ir, rgb=rgb, H_rgb_from_ir=matrix3(H / H[2, 2]), plane_m=plane_m)


def read_points(path: str | Path) -> tuple[Image, Image]:
    """Read a text file with lines of `ir_x,ir_y,rgb_x,rgb_y`, an optional first line of names, and # comments.

    Returns thermal and RGB pixels, (N, 2) each. Raises CalibrationError that names file and line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise CalibrationError(f"point file {path}: {getattr(e, 'strerror', None) or e}") from e
    rows = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text or (number == 1 and text[0].isalpha()):
            continue
        try:
            row = [float(x) for x in text.replace(";", ",").split(",")]
        except ValueError:
            row = []
        if len(row) != 4 or not np.isfinite(row).all():
            raise CalibrationError(
                f"point file {path}, line {number}: expected ir_x,ir_y,rgb_x,rgb_y, found {line.strip()!r}"
            )
        rows.append(row)
    table = np.array(rows, float).reshape(-1, 4)
    return table[:, :2], table[:, 2:]
