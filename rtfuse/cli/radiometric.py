"""Fuse files that hold thermal and a photo: one argument in place of two, and thermal's place on the photo."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtfuse.align.calibration import Calibration, rgb_pixels_of_ir
from rtfuse.capture import flir
from rtfuse.capture.stills import is_image
from rtfuse.errors import CalibrationError, ConfigError, SourceUnreadable
from rtfuse.types import Image, Moment

_OVERRIDE = re.compile(r"[a-z]+(\.[a-z_]+)+=")
_FAR = 0.12
"""A refined place that moves a corner by more than this share of thermal's width is a mistake of the registration."""


def one_input(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a command, with RGB: the one given, or the thermal input if its files hold photos.

    A `key=value` in place of RGB is an override. Raises ConfigError or SourceUnreadable if there is no photo.
    """
    whole, rgb = dict(given), given["rgb"]
    if rgb is not None and _OVERRIDE.match(rgb) and not Path(rgb).exists():
        whole["overrides"], rgb = [rgb, *(given["overrides"] or [])], None
    whole["rgb"] = rgb if rgb is not None else _with_photo(given["ir"])
    return whole


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

        assert moment.ir is not None
        assert moment.rgb is not None
        try:
            found = calibration_of([(moment.ir.image, moment.rgb.image)], model="similarity", start=stored)
        except CalibrationError as e:
            self._why = str(e)
            self._counts["stored" if stored is not None else "stretched"] += 1
            return stored
        moved = 0.0 if stored is None else _moved(stored, found)
        if moved > _FAR:
            self._why = f"registration moved it by {moved:.0%} of its width, which cannot be"
            self._counts["stored"] += 1
            return stored
        assert found.quality is not None
        self._why = f"the halves of the picture agree to {found.quality.pair_error_px:.1f} px"
        self._counts["refined"] += 1
        return found

    def lines(self) -> list[str]:
        """Return a line for each way in which thermal was laid on the photo."""
        meant = {
            "refined": "laid on the photo by the camera's own numbers, refined by registration",
            "stored": "laid on the photo by the camera's own numbers alone: registration is not sure",
            "stretched": "stretched over the photo: the file tells no place, and registration is not sure",
        }
        total = self._counts.total()
        about = f" ({self._why})" if total == 1 else ""
        return [
            f"thermal {f'of {n} of {total} files ' if total > 1 else ''}is {meant[way]}{about}"
            for way, n in self._counts.items()
        ]


def _moved(before: Calibration, after: Calibration) -> float:
    """Return the largest way of a corner of the thermal picture between two calibrations, as a share of its width."""
    w, h = before.ir.size_wh
    corners = np.array([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], float)
    old, new = (rgb_pixels_of_ir(corners, c) for c in (before, after))
    width: Image = np.linalg.norm(old[1] - old[0])
    return float(np.linalg.norm(new - old, axis=1).max() / width)
