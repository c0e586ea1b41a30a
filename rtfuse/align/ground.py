"""Know the distance of each pixel by the plane of the ground, as a vehicle or a mast sees it."""

from __future__ import annotations

import numpy as np

from rtfuse.align.calibration import Calibration, lifted, undistorted
from rtfuse.align.settings import Ground
from rtfuse.types import Image


def down_of(ground: Ground) -> Image:
    """Return the direction (3,) straight down to the ground, in the RGB camera's system (x right, y down, z ahead)."""
    pitch, roll = np.radians(ground.pitch_deg), np.radians(ground.roll_deg)
    return np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])


def ground_m(pixels: Image, c: Calibration, ground: Ground) -> Image:
    """Return the distance (N,) in metres, along the axis, of pixels (N, 2) of the calibrated RGB image.

    It is that of the ground, but at most `plane_m` of the calibration: so far up in the picture, and above the
    horizon, the fronto-parallel plane takes over without a step.
    """
    assert c.plane_m is not None
    inverse = lifted(undistorted(pixels, c.rgb)) @ down_of(ground) / ground.height_m
    return np.asarray(1 / np.maximum(inverse, 1 / c.plane_m))
