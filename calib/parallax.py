"""Tabulate parallax, the error of a registration at other distances than its own, and find where it is small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rtfuse.align.calibration import Calibration
from rtfuse.align.parallax import parallax_px
from rtfuse.errors import CalibrationError

DISTANCES_M = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 1000.0)


def parallax_table(c: Calibration, distances_m: Sequence[float] = DISTANCES_M) -> list[tuple[float, float]]:
    """Return (distance in metres, error in RGB pixels) for the distances at which the fields of view overlap."""
    rows = []
    for d in sorted({*distances_m, *([c.plane_m] if c.plane_m else [])}):
        try:
            rows.append((d, parallax_px(c, d)))
        except CalibrationError:
            if c.R_rgb_from_ir is None:
                raise
    return rows


def in_register(c: Calibration, limit_px: float = 1.0) -> tuple[float, float]:
    """Return the nearest and farthest distance in metres with an error of at most `limit_px`; inf has no limit."""
    assert c.plane_m is not None

    def bound(far: float) -> float:
        inside, outside = np.log(c.plane_m or 1.0), np.log(far)
        for _ in range(40):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if _fits(c, float(np.exp(middle)), limit_px) else (inside, middle)
        return float(np.exp(inside))

    return bound(0.05), bound(1e5) if not _fits(c, 1e5, limit_px) else float("inf")


def _fits(c: Calibration, distance_m: float, limit_px: float) -> bool:
    try:
        return parallax_px(c, distance_m) <= limit_px
    except CalibrationError:
        return False
