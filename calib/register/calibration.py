"""Make a calibration by registration, without a board."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from calib.register.field import Model
from calib.register.register import Registration, register
from rtfuse.align.calibration import Calibration, Camera, Quality, ir_pixels_of_rgb, matrix3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

_STEP_PX = 24


def calibration_of(
    pairs: Sequence[tuple[Image, Image]],
    *,
    model: Model = "homography",
    smooth: bool | None = False,
    start: Calibration | None = None,
    plane_m: float | None = None,
) -> Calibration:
    """Register (thermal, RGB) pairs of one rig and return the calibration.

    `smooth`: add a smooth field; None: where it stands out of its doubt.
    `start`: calibration with a homography, the start of the search.
    `plane_m`: distance of the scene in metres, if known.

    The error in `quality` is the registration's own estimate. Raises CalibrationError if the registration is uncertain.
    """
    guess = None
    if start is not None:
        if start.H_rgb_from_ir is None or start.ir.K is not None or start.rgb.K is not None:
            raise CalibrationError("the start must be a homography without intrinsics; make one with calib homography")
        guess = np.array(start.H_rgb_from_ir)
    found = register(pairs, model=model, start=guess, smooth=smooth)
    (ih, iw), (h, w) = pairs[0][0].shape[:2], pairs[0][1].shape[:2]
    plain = Calibration(
        ir=Camera(size_wh=(iw, ih)),
        rgb=Camera(size_wh=(w, h)),
        H_rgb_from_ir=matrix3(found.H_rgb_from_ir),
        plane_m=plane_m,
        quality=Quality(method="register", pair_error_px=found.error_px, views=len(pairs)),
    )
    return plain if found.field is None else msgspec.structs.replace(plain, field_px=_thinned(found, plain))


def _thinned(found: Registration, plain: Calibration) -> tuple[tuple[tuple[float, float], ...], ...]:
    """Return the smooth field less the homography, in thermal pixels, every `_STEP_PX` or so."""
    assert found.field is not None
    w, h = plain.rgb.size_wh
    columns, rows = (max(4, round(n / _STEP_PX) + 1) for n in (w, h))
    x, y = np.meshgrid(np.linspace(0, w - 1, columns), np.linspace(0, h - 1, rows))
    places = np.stack([x, y], -1).reshape(-1, 2)
    near = np.rint(places).astype(int)
    # Both terms are taken at the nearest whole pixel.
    extra = found.field[near[:, 1], near[:, 0]] - ir_pixels_of_rgb(near.astype(float), plain)
    table = extra.reshape(rows, columns, 2).round(3)
    return tuple(tuple((float(a), float(b)) for a, b in row) for row in table)
