"""Tell of a calibration that may be right, but looks wrong: one line for each doubt."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rtfuse.align import limits
from rtfuse.align.calibration import Calibration, Camera, cause, places_in_ir, there_and_back

FEW = 0.05
"""Share of the RGB picture below which thermal is said to reach little of it."""
_NARROW = 0.002
"""Share of the thermal picture below which RGB is said to show little of it."""
_CENTRAL = (0.25, 0.75)
_ASPECT = (0.75, 1.34)
_FOLDED = 0.05


def doubts(c: Calibration, reach: float | None = None) -> Iterator[str]:
    """Yield a line for each doubt about a calibration.

    `reach`: share of the RGB picture that thermal reaches; None takes the calibrated sizes.
    """
    if c.digest is not None:
        yield "its numbers are not those that calib wrote (digest): if you changed them, remove that line"
    if c.quality is not None and c.quality.verdict == "fail":
        error = f"{c.quality.pair_error_px:.1f} RGB px"
        if c.quality.method == "register":
            yield f"found from the scene, it may be {error} off; one made with a board is at most 1 off"
        else:
            yield f"it is not good: {error} between the pictures, where at most 1 passes; see calib report"
    places = places_in_ir(c)
    reached = limits.inside(places[0], c.ir.size_wh)
    reach = float(reached.mean()) if reach is None else reach
    if reach < FEW:
        yield f"thermal reaches {reach:.1%} of the RGB picture: {cause(c)}"
    slopes = np.stack([places[1] - places[0], places[2] - places[0]], -1)[reached]
    turns = np.linalg.det(slopes) if len(slopes) else np.ones(1)
    if np.median(turns) < 0:
        yield "it mirrors thermal, as behind a beam splitter: without one, ir.flip or the calibration is wrong"
    elif reach >= FEW and float(np.median(turns)) * c.rgb.size_wh[0] * c.rgb.size_wh[1] < _NARROW * np.prod(
        c.ir.size_wh
    ):
        yield f"RGB shows less than {_NARROW:.1%} of thermal's picture: {cause(c)}"
    for name, camera in (("ir", c.ir), ("rgb", c.rgb)):
        if camera.K is not None:
            yield from _of_lens(name, camera)


def _of_lens(name: str, camera: Camera) -> Iterator[str]:
    (w, h), K = camera.size_wh, camera.matrix
    cx, cy = K[0, 2], K[1, 2]
    if not all(_CENTRAL[0] <= place <= _CENTRAL[1] for place in ((cx + 0.5) / w, (cy + 0.5) / h)):
        yield (
            f"{name}.K has its principal point at {cx:.0f}, {cy:.0f} of a {w}x{h} image: is it for images of "
            f"{2 * cx:.0f}x{2 * cy:.0f}?"
        )
    if not _ASPECT[0] <= K[0, 0] / K[1, 1] <= _ASPECT[1]:
        yield f"{name}.K: fx is {K[0, 0]:.0f} px and fy {K[1, 1]:.0f} px, where most cameras have equal ones"
    pixels = limits.spread(camera.size_wh)
    folded = limits.folded(K, pixels, there_and_back(pixels, camera)[1], fisheye=camera.model == "fisheye").mean()
    if folded > _FOLDED:
        yield f"{name}.dist has no inverse in {folded:.0%} of the image, where thermal and RGB do not agree"
