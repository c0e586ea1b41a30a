"""Register thermal to RGB from footage, without a board: pairs in, `H_rgb_from_ir` or a smooth field out.

1. `search`: turn, scale and shift at a low resolution.
2. `refine`: the model's motion, coarse to fine.
3. `judge`: confidence and error. A registration without confidence is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calib.register.field import Model
from calib.register.judge import Verdict, error_terms, estimated_px, judged
from calib.register.refine import SCHEDULE, bent, coarse, refined, smooth_field
from calib.register.search import NEAR, WIDE, Candidate, distinct, search, starts
from calib.register.view import View, closer_view, whole_view
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

MOST_FRAMES = 10
_SEARCH_FRAMES = 5
_FAR_CANDIDATES, _FAR_DOUBT = 6, 1.5
CONFIDENT = 0.5
"""Least confidence of a registration that is returned."""
_WORST_PX = 6.0
"""Largest estimated error of a registration that is returned, in view pixels."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """Local evidence for the report of a registration.

    `at_px`: tile centres in the RGB picture, (T, 2) float32.
    `residual_px`: shift (dx, dy) that each tile still asks for, in RGB pixels, (T, 2) float32.
    `weight`: amount of structure in each tile, (T,) float32, 0 to 1.
    """

    at_px: Image
    residual_px: Image
    weight: Image


@dataclass(frozen=True, slots=True)
class Registration:
    """Map from thermal to RGB pixels; (0, 0) is the centre of the top-left pixel.

    `H_rgb_from_ir`: homography (3, 3) float64.
    `field`: with a smooth field, the thermal position (x, y) of each RGB pixel, (H, W, 2) float32, homography included.
    `confidence`: `CONFIDENT` to 1.
    `error_px`: estimated error in RGB pixels, the mean over the picture.
    `tiles`: local evidence.
    """

    H_rgb_from_ir: Image
    field: Image | None
    confidence: float
    error_px: float
    tiles: Tiles


@dataclass(frozen=True, slots=True)
class _Result:
    """Refined candidate: its verdict, the view it was refined on, its matrix, and the one that it was expected about.

    Both matrices are from thermal to view pixels.
    """

    verdict: Verdict
    view: View
    view_from_ir: Image
    about: Image


def register(
    pairs: Sequence[tuple[Image, Image]],
    *,
    model: Model = "homography",
    start: Image | None = None,
    smooth: bool | None = False,
) -> Registration:
    """Register thermal to RGB from one or several pairs of a fixed rig.

    `pairs`: thermal (h, w) uint8 or uint16, and RGB (H, W, 3) uint8.
    `start`: guess of `H_rgb_from_ir`, (3, 3). The default stretches thermal over the RGB picture.
    `smooth`: also fit a smooth field; None: where it stands out of its doubt.

    Searches near the start first. If that fails, searches all shifts at scales from 0.35 to 1.75 of the start.
    Raises CalibrationError if the pictures do not fit, have too little structure, or do not agree.
    """
    pairs = _checked(pairs, start)
    view = whole_view(pairs)
    ih, iw = pairs[0][0].shape
    around = starts(view, (ih, iw), start)
    near = search(view.few(_SEARCH_FRAMES), around, *NEAR)
    result = _best(pairs, view, near[:3], model)
    if result.verdict.confidence < CONFIDENT:
        far = distinct(search(view.few(_SEARCH_FRAMES), around, *WIDE), view.hw)
        result = _best_far(pairs, view, far[:_FAR_CANDIDATES], model, result)
    verdict, view = result.verdict, result.view
    _require_confidence(verdict)
    H = view.rgb_from_view @ result.view_from_ir
    h, w = pairs[0][1].shape[:2]
    bend = bent(view, result.view_from_ir)
    smooth = bend.stands_out if smooth is None else smooth
    if (error_px := estimated_px(verdict, bend)) > _WORST_PX:
        terms = error_terms(verdict, bend)
        raise CalibrationError(
            f"thermal and RGB could not be registered: the best match may be {error_px:.1f} px off (at most "
            f"{_WORST_PX:.0f} are allowed); the largest cause is {max(terms, key=lambda cause: terms[cause])}; give "
            "several pairs with edges all over the picture"
        )
    return Registration(
        H / H[2, 2],
        smooth_field(view, result.view_from_ir, bend, (h, w)) if smooth else None,
        verdict.confidence,
        error_px * float(view.rgb_from_view[0, 0]),
        _tiles(view, verdict),
    )


def _best(
    pairs: Sequence[tuple[Image, Image]], whole: View, found: Sequence[Candidate], model: Model, doubt: float = 0.0
) -> _Result:
    """Return the candidate with the highest correlation at the coarsest level, refined and judged."""
    tried = []
    for f in found:
        closer, matrix = closer_view(pairs, whole, f.view_from_ir)
        about = np.linalg.inv(closer.rgb_from_view) @ whole.rgb_from_view @ f.start
        tried.append((*coarse(closer, matrix, model, about), closer, about))
    matrix, _, closer, about = max(tried, key=lambda c: c[1])
    matrix = refined(closer, matrix, model, about, SCHEDULE[1:])
    return _Result(judged(closer, matrix, model, doubt), closer, matrix, about)


def _best_far(
    pairs: Sequence[tuple[Image, Image]], whole: View, far: Sequence[Candidate], model: Model, near: _Result
) -> _Result:
    """Return the first confident result among candidates far from the start, or else the best of all."""
    result = near
    # A similarity is a special case of the larger models, and it goes astray less easily far from the start.
    simple: Model = "shift" if model == "shift" else "similarity"
    for candidate in far:
        other = _best(pairs, whole, [candidate], simple, _FAR_DOUBT)
        if other.verdict.confidence > result.verdict.confidence:
            result = other
        if result.verdict.confidence >= CONFIDENT:
            return _enlarged(result, model)
    return result


def _enlarged(result: _Result, model: Model) -> _Result:
    """Return the result fitted with the larger model, if at least as many cells support it."""
    matrix = refined(result.view, result.view_from_ir, model, result.about, SCHEDULE[2:])
    after = judged(result.view, matrix, model, _FAR_DOUBT)
    return _Result(after, result.view, matrix, result.about) if after.support >= result.verdict.support else result


def _require_confidence(verdict: Verdict) -> None:
    """Raise CalibrationError if the confidence is too low."""
    if verdict.confidence < CONFIDENT:
        raise CalibrationError(
            f"thermal and RGB could not be registered: {verdict.support:.0%} of {verdict.independent:.0f} independent "
            f"tiles support the best match, and its two halves disagree by {verdict.apart_px:.1f} px (confidence "
            f"{verdict.confidence:.2f}, at least {CONFIDENT} is needed); check that both show the same scene at the "
            "same time, give several pairs with edges all over the picture, or give a start"
        )


def _checked(pairs: Sequence[tuple[Image, Image]], start: Image | None) -> list[tuple[Image, Image]]:
    """Return at most `MOST_FRAMES` pairs, evenly spaced, without constant pictures.

    Raises CalibrationError if the pairs or the start cannot be used.
    """
    if not pairs:
        raise CalibrationError("no pictures to register; give at least one pair of thermal and RGB")
    for ir, rgb in pairs:
        if ir.ndim != 2 or ir.dtype not in (np.uint8, np.uint16) or rgb.ndim != 3 or rgb.dtype != np.uint8:
            raise CalibrationError(
                "registration takes thermal (h, w) uint8 or uint16 and RGB (H, W, 3) uint8, "
                f"but got {ir.shape} {ir.dtype} and {rgb.shape} {rgb.dtype}"
            )
        if (ir.shape, rgb.shape) != (pairs[0][0].shape, pairs[0][1].shape):
            raise CalibrationError(
                f"the pairs of one rig have one size, but got thermal {pairs[0][0].shape} with RGB {pairs[0][1].shape} "
                f"and thermal {ir.shape} with RGB {rgb.shape}; register them separately"
            )
        if min(*ir.shape, *rgb.shape[:2]) < 64:
            raise CalibrationError(
                f"pictures of {ir.shape} and {rgb.shape} are too small to register; give at least 64 pixels a side"
            )
    if start is not None and (start.shape != (3, 3) or abs(np.linalg.det(start)) < 1e-12):
        raise CalibrationError("the start of a registration must be a (3, 3) matrix that can be inverted")
    chosen = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_FRAMES)).round().astype(int))
    kept = [pairs[k] for k in chosen if all(np.ptp(x) >= 8 for x in pairs[k])]
    if not kept:
        raise CalibrationError(
            "every pair has a constant picture (a closed shutter, a lens cap, a dark night?), so registration is "
            "impossible; give pairs with edges in both pictures"
        )
    return kept


def _tiles(view: View, verdict: Verdict) -> Tiles:
    """Return the verdict's tiles in RGB pixels."""
    scale, offset = np.diag(view.rgb_from_view)[:2], view.rgb_from_view[:2, 2]
    return Tiles(
        (verdict.at * scale + offset).astype(np.float32),
        (verdict.residual * scale).astype(np.float32),
        verdict.weight.astype(np.float32),
    )
