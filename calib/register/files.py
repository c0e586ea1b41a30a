"""Write a registration beside an output: the calibration, and a picture that shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from calib.overlay import before_and_after
from calib.register.calibration import calibration_of
from rtfuse.align.calibration import Calibration, save_calibration
from rtfuse.record.images import write_image
from rtfuse.types import Image


def write_registration(pairs: Sequence[tuple[Image, Image]], calibration: Path, picture: Path) -> Calibration:
    """Register (thermal, RGB) pairs of one rig; write the calibration, and thermal's edges on RGB before and after.

    Raises CalibrationError if the registration is uncertain; nothing is written then.
    """
    made = calibration_of(pairs, smooth=None)
    write_image(picture, before_and_after(*pairs[len(pairs) // 2], made))
    save_calibration(made, calibration)
    return made
