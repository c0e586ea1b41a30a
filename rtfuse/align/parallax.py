"""Compute parallax: the error of a registration at other distances than its own."""

from __future__ import annotations

import numpy as np

from rtfuse.align.calibration import Calibration, ir_pixels_of_rgb, rgb_pixels_of_ir
from rtfuse.errors import CalibrationError


def parallax_px(c: Calibration, distance_m: float) -> float:
    """Return the median error over the image at a distance, in RGB pixels, through both lenses.

    It is about f b |1/distance - 1/plane|, with the baseline b and the focal length f in pixels. Raises
    CalibrationError without a stereo pose, or if the cameras have nothing in common at that distance.
    """
    if c.R_rgb_from_ir is None:
        raise CalibrationError(
            "parallax needs the cameras' pose, but this calibration has a homography; make a pose with calib stereo"
        )
    w, h = c.rgb.size_wh
    x, y = np.meshgrid(np.linspace(0, w - 1, 17), np.linspace(0, h - 1, 13))
    pixels = np.stack([x, y], -1).reshape(-1, 2)
    there = ir_pixels_of_rgb(pixels, c, plane_m=distance_m)
    seen = ((there >= 0) & (there <= np.array(c.ir.size_wh) - 1.0)).all(1)
    if not seen.any():
        raise CalibrationError(f"the two cameras have nothing in common at {distance_m:g} m; choose a larger distance")
    return float(np.median(np.linalg.norm(rgb_pixels_of_ir(there[seen], c) - pixels[seen], axis=1)))
