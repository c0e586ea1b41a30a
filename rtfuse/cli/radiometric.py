"""Fuse files that hold thermal and a photo: check their content, and find the place of thermal on the photo."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from rtfuse.align.calibration import Calibration, rgb_pixels_of_ir
from rtfuse.capture import flir
from rtfuse.errors import CalibrationError, ConfigError, SourceUnreadable
from rtfuse.types import Moment

_WAYS = {
    "refined": "laid on the photo by the camera's own numbers, and moved to where the two agree",
    "stored": "laid on the photo by the camera's own numbers alone",
    "found": "laid on the photo by registration: the file tells no place",
    "stretched": "stretched over the photo: the file tells no place, and registration is not sure",
}


def require_photo(uri: str) -> None:
    """Raise ConfigError for files that are not radiometric, SourceUnreadable if none of them holds a photo."""
    paths = list(flir.files_in(uri))
    if not paths and (cut := next(flir.files_in(uri, flir.is_cut), None)):
        raise SourceUnreadable(f"{cut} is cut: it ends after {cut.stat().st_size} bytes, in its header; copy it again")
    if not paths:
        raise ConfigError(f"{uri} is the only input and holds no photo of its own; give RGB too: rtfuse fuse IR RGB")
    damage: SourceUnreadable | None = None
    for path in paths:
        try:
            if (found := flir.read(path)) is not None and found.has_photo:
                return
        except SourceUnreadable as e:
            damage = e
    raise damage or SourceUnreadable(f"{uri} holds thermal alone, without a photo; give RGB too: rtfuse fuse {uri} RGB")


class Refinement:
    """Refine the places that files tell by registration, where that is confident; count what came out."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._last: tuple[Moment, Calibration | None] | None = None
        self._why = ""

    def __call__(self, moment: Moment, stored: Calibration | None) -> Calibration | None:
        """Return the calibration to use for a moment; None: thermal is stretched over the photo."""
        if self._last is None or self._last[0] is not moment:
            self._last = moment, self._refined(moment, stored)
        return self._last[1]

    def _refined(self, moment: Moment, stored: Calibration | None) -> Calibration | None:
        from calib.register.calibration import calibration_of
        from calib.register.shift import shifted

        assert moment.ir is not None
        assert moment.rgb is not None
        ir, rgb = moment.ir.image, moment.rgb.image
        way: Literal["refined", "found"] = "found" if stored is None else "refined"
        try:
            found = calibration_of([(ir, rgb)]) if stored is None else shifted(ir, rgb, stored)
        except CalibrationError as e:
            self._counts["stretched" if stored is None else "stored"] += 1
            self._why = str(e)
            return stored
        self._counts[way] += 1
        self._why = "" if stored is None else f"by {_moved_px(stored, found)} px, right and down"
        return found

    def lines(self) -> list[str]:
        """Return a line for each way in which thermal was laid on the photo."""
        total = self._counts.total()
        about = f" ({self._why})" if total == 1 and self._why else ""
        which = {way: f"of {n} of {total} files " if total > 1 else "" for way, n in self._counts.items()}
        lines = [f"thermal {which[way]}is {_WAYS[way]}{about}" for way in which]
        return lines + (_temperatures(self._last[0]) if total == 1 and self._last is not None else [])


def _temperatures(moment: Moment) -> list[str]:
    """Return a line with the temperatures in a thermal picture and the camera's assumptions; or none."""
    said = moment.ir.thermal if moment.ir is not None else None
    if said is None or said.hot is None or said.cold is None or said.radiometry is None:
        return []
    cold, hot, how = said.cold.k - 273.15, said.hot.k - 273.15, said.radiometry
    taken_for = f"emissivity {how.emissivity:.2g} and {how.distance_m:.3g} m"
    return [f"temperatures from {cold:.1f} to {hot:.1f} °C, at {taken_for}"]


def _moved_px(before: Calibration, after: Calibration) -> str:
    """Return the way of thermal's centre between two calibrations, in RGB pixels."""
    centre = (np.array([before.ir.size_wh], float) - 1) / 2
    x, y = (rgb_pixels_of_ir(centre, after) - rgb_pixels_of_ir(centre, before))[0]
    return f"{x:+.0f} {y:+.0f}"
