"""Reduce flicker: a fused pixel keeps its value while the new value differs by at most one grey level.

Networks and pyramids raise contrast, and with it the noise of their sources: where nothing moves, the fused picture
changes more from frame to frame than either source does. Holding each value within one level of the new one takes that
away. No pixel differs by more than one level from the fused picture of its own frame, so nothing can trail or smear.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

LEVEL = 1
"""Largest difference between the shown value and the new one, in grey levels."""
_GAP_NS = 500_000_000
"""A gap of this length starts again with the new picture."""
_CUT = 8
"""A picture in which half of the pixels change by more levels than this starts a new scene."""
_EVERY = 8
"""Step of the rows and columns that are compared for that."""


class Deflicker:
    """Hold pixels that change by one level; start again after gaps, cuts and changes of size.

    The last picture returned is kept, and must not be written to.
    """

    def __init__(self) -> None:
        self._last: Image | None = None
        self._last_ns = 0

    def __call__(self, image: Image, t_ns: int) -> Image:
        """Return the picture to show for one captured at `t_ns`, of the same shape, uint8."""
        last, gap_ns = self._last, t_ns - self._last_ns
        self._last_ns = t_ns
        if last is None or last.shape != image.shape or not 0 <= gap_ns <= _GAP_NS or _is_cut(last, image):
            self._last = image
        else:
            flat = image.reshape(len(image), -1)  # OpenCV would add a number to the first channel only
            held = cv2.min(last.reshape(flat.shape), cv2.add(flat, LEVEL))
            self._last = cv2.max(held, cv2.subtract(flat, LEVEL), dst=held).reshape(image.shape)
        return self._last


def _is_cut(last: Image, image: Image) -> bool:
    change = cv2.absdiff(*(np.ascontiguousarray(x[::_EVERY, ::_EVERY]) for x in (last, image)))
    return bool(np.count_nonzero(change > _CUT) > change.size // 2)
