"""Fuse files that hold thermal and a photo: one argument in place of two, and thermal's place on the photo."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rtfuse.align.calibration import Calibration, rgb_pixels_of_ir
from rtfuse.capture import flir
from rtfuse.capture.scenes.listing import list_pictures
from rtfuse.capture.scenes.pairing import divided
from rtfuse.capture.stills import is_image, is_stills
from rtfuse.capture.tracks import pair_in
from rtfuse.errors import CalibrationError, ConfigError, SourceUnreadable
from rtfuse.types import Moment

_OVERRIDE = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
_WAYS = {
    "refined": "laid on the photo by the camera's own numbers, and moved to where the two agree",
    "stored": "laid on the photo by the camera's own numbers alone",
    "found": "laid on the photo by registration: the file tells no place",
    "stretched": "stretched over the photo: the file tells no place, and registration is not sure",
}


def one_input(given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the parameters of a command with both inputs, and a line about how they were found in one.

    RGB is the one given; without it, a track of the same recording, a picture of the same folder, or a photo of the
    same file. A `key=value` in place of RGB is an override. Raises ConfigError or SourceUnreadable if there is no RGB.
    """
    whole, rgb, told = dict(given), given["rgb"], None
    if rgb is not None and _OVERRIDE.match(rgb) and not Path(rgb).exists():
        whole["overrides"], rgb = [rgb, *(given["overrides"] or [])], None
    if rgb is None:
        whole["ir"], rgb, told = _both_in(given["ir"], recursive=bool(given.get("recursive")))
    return whole | {"rgb": rgb}, told


def _both_in(uri: str, *, recursive: bool) -> tuple[str, str, str | None]:
    if not is_stills(uri):
        return pair_in(uri)
    names = list_pictures(uri, "ir", recursive=recursive).names
    return (uri if divided(names) is not None else _with_photo(uri)), uri, None


def _with_photo(uri: str) -> str:
    """Return the address of files that hold thermal and photo. Raises ConfigError or SourceUnreadable for others."""
    path = Path(uri)
    names = sorted(p for p in path.iterdir() if is_image(p)) if path.is_dir() else [path]
    held = [found for name in names if flir.is_radiometric(name) and (found := flir.read(name)) is not None]
    if not held:
        raise ConfigError(f"{uri} is the only input and holds no photo of its own; give RGB too: rtfuse fuse IR RGB")
    if not any(found.has_photo for found in held):
        raise SourceUnreadable(f"{uri} holds thermal alone, without a photo; give RGB too: rtfuse fuse {uri} RGB")
    return uri


class Placement:
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
        return [f"thermal {which[way]}is {_WAYS[way]}{about}" for way in which]


def _moved_px(before: Calibration, after: Calibration) -> str:
    """Return the way of thermal's centre between two calibrations, in RGB pixels."""
    centre = (np.array([before.ir.size_wh], float) - 1) / 2
    x, y = (rgb_pixels_of_ir(centre, after) - rgb_pixels_of_ir(centre, before))[0]
    return f"{x:+.0f} {y:+.0f}"
