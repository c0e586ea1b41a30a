"""Less flicker: a fused pixel stays as it is while the new one is no further from it than a grey level.

Networks and pyramids raise contrast, and with it the noise of their sources: where nothing moves, the fused picture
changes more from frame to frame than either source does. Holding each value within one level of the new one takes that
away. No pixel is ever further than one level from what was fused of this very frame, so nothing can trail or smear.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

LEVEL = 1
"""How far a shown value may be from the new one, in grey levels."""
_GAP_NS = 500_000_000
"""After a gap of that long there is nothing to hold on to."""
_CUT = 8
"""A picture is another one if half of its pixels have changed by more than that many levels."""
_EVERY = 8
"""Which rows and columns are looked at for that."""


class Deflicker:
    """Holds a stream of pictures still where they change by a level; begins anew at gaps, cuts and other sizes.

    It keeps the picture that it returned last, and expects nobody to write into it.
    """

    def __init__(self) -> None:
        self._last: Image | None = None
        self._last_ns = 0

    def __call__(self, image: Image, t_ns: int) -> Image:
        """Return what to show of a picture captured at `t_ns`, of the same shape, uint8."""
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
