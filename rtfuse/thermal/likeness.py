"""Tell thermal in false colours from a scene in its own colours, for sources whose stream is not known yet."""

from __future__ import annotations

import numpy as np

from rtfuse.thermal.coloured import COLOUR_SHARE, colour_share, sampled
from rtfuse.thermal.false_colour import UNKNOWN, Colours, palette_of
from rtfuse.types import Image

_BEND, _SHARE = 14.0, 0.3
"""The least mean distance of colours from a straight line, in levels, that shows a palette, and the largest misfit to
it as a share of that distance: a grey picture with a cast lies along a straight line, a scene along none."""
_FAR = 48.0
"""The distance in levels from which a colour counts as no further away: text, marks."""


def in_false_colours(picture: Image) -> bool | None:
    """Return True if a picture, (H, W, 3) uint8 RGB, is surely in false colours, False if surely not; None: perhaps.

    Perhaps: a palette of one hue looks as a night picture with a cast does, an unknown one as a scene of few colours.
    """
    seen = sampled(picture)
    if colour_share(seen) <= COLOUR_SHARE:
        return False
    colours = Colours.of(seen)
    found = palette_of(colours)
    if found is None:
        return False
    bend = _bend(colours)
    return True if found.name != UNKNOWN and bend >= max(_BEND, found.fit.misfit / _SHARE) else None


def _bend(colours: Colours) -> float:
    """Return the mean distance of a picture's colours from the straight line nearest to them, in levels."""
    apart = colours.rgb - np.average(colours.rgb, axis=0, weights=colours.weight)
    line = np.linalg.svd(apart * np.sqrt(colours.weight)[:, None], full_matrices=False)[2][0]
    distance = np.linalg.norm(apart - np.outer((apart * line).sum(axis=1), line), axis=1)
    return float((colours.weight * np.minimum(distance, _FAR)).sum())
