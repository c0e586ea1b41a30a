"""Settings of the registration of thermal on RGB."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rtfuse.settings import Section


class Align(Section, frozen=True):
    """Registration: a calibration file, and the width of the seam where thermal ends.

    `monitor`: with a calibration, look every two seconds whether thermal still lies where it lay at the start, and warn
    if it does not.
    """

    calib: str | None = None
    monitor: bool = True
    seam_px: Annotated[int, msgspec.Meta(ge=0)] = 16
