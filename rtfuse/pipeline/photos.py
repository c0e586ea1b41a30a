"""Lay thermal on the photo that lies in the same file, by the numbers that the camera stored with them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.capture import flir
from rtfuse.capture.orientation import Orientation
from rtfuse.config import Config
from rtfuse.pipeline.stages import Place
from rtfuse.types import Moment

Refine = Callable[[Moment, Calibration | None], Calibration | None]
"""Improve the calibration of a moment whose pictures come from one file; None where the file tells no place."""


def own_calibrations(config: Config, refine: Refine | None = None) -> Place | None:
    """Return a function that gives each moment the calibration that its file tells, refined if wanted.

    None where a calibration is configured, where the two streams come from different files, or where one is mirrored,
    turned or cropped: the camera's numbers hold for its own photo as it is.
    """
    uri = config.ir.uri
    if config.align.calib or not uri or uri != config.rgb.uri or next(flir.files_in(uri), None) is None:
        return None
    if Orientation.of("ir", config.ir) or Orientation.of("rgb", config.rgb):
        return None

    def place(moment: Moment) -> Calibration | None:
        if moment.ir is None or moment.ir.thermal is None or moment.ir.thermal.radiometry is None:
            return None  # a picture of another kind among them
        stored = stored_calibration(moment)
        return stored if refine is None else refine(moment, stored)

    return place


def stored_calibration(moment: Moment) -> Calibration | None:
    """Return the calibration that the thermal frame's file tells; None if it tells none."""
    assert moment.ir is not None
    assert moment.rgb is not None
    H = moment.ir.thermal and moment.ir.thermal.H_photo_from_ir
    if H is None:
        return None
    (ih, iw), (h, w) = moment.ir.shape_hw, moment.rgb.shape_hw
    return Calibration(ir=Camera(size_wh=(iw, ih)), rgb=Camera(size_wh=(w, h)), H_rgb_from_ir=matrix3(np.array(H)))
