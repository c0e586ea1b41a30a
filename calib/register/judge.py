"""Judge a registration: fit two halves of the picture that share no pixel, and count the cells that point to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib.register.comparison import CELL, Comparison
from calib.register.field import Model, messages, model_basis, model_prior, solve
from calib.register.refine import PERSPECTIVE, SHARPNESS, SHEAR, Bend, compared, fitted, overlap
from calib.register.view import View
from rtfuse.types import Image

_LEVEL, _RADIUS, _WINDOW = 1, 8, 14.0
_NEAR_PX = 2.3
_CHANCE = 0.1
"""Frequency at which a tile of unrelated pictures points to within `_NEAR_PX` of 0."""
_FAR_PX, _LEAST_LEFT_PX = 6.0, 0.4
"""Shift of a tile that is taken for a mistake, and the least mean shift, below the comparison's step; view pixels."""
_RIVAL_CELLS = 3.0
"""Least distance of another shift of the whole picture that counts as a rival, in pixels of the level."""
_SURE = 6.9
"""Limit on the logarithm of the odds of `confidence`, above which it says no more."""
_USUAL_CORNER_PX = 4.0
"""Standard deviation at the corners that says nothing about the error: half of all registrations have 3.3."""
_WRONG_PX = 12.0
"""Typical error of a registration that fits the wrong place, in view pixels."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Evidence for a registration, in view pixels.

    `confidence`: 0 to 1.
    `support`: weighted share of tiles that point to the result, 0 to 1.
    `independent`: number of tiles without overlap that would hold the same evidence.
    `apart_px`: distance between the fits to the two halves.
    `corner_px`: standard deviation of the matrix at the picture's corners, root mean square over the four.
    `rival`: correlation of the whole picture at its best other place within reach, relative to that at the result.
    `at`: tile centres (T, 2).
    `residual`: remaining shift (dx, dy) of each tile, (T, 2).
    `weight`: amount of structure in each tile, (T,), 0 to 1.
    """

    confidence: float
    support: float
    independent: float
    apart_px: float
    corner_px: float
    rival: float
    at: Image
    residual: Image
    weight: Image


def estimated_px(verdict: Verdict, bend: Bend) -> float:
    """Return the estimated error of a registration in view pixels, the mean over the picture.

    See `error_terms`.
    """
    return float(np.hypot.reduce(list(error_terms(verdict, bend).values())))


def error_terms(verdict: Verdict, bend: Bend) -> dict[str, float]:
    """Return the causes of error, each with its share of the estimate in view pixels; they add in quadrature.

    1. Bends that the pictures ask for after the matrix. Those too short to be seen are about as long again.
    2. Shifts that the tiles still ask for, parallax among them.
    3. Parts of the picture without common structure: the deviation of the matrix at the corners above what is usual.
    4. The distance to a wrong place, times the root of the probability that the result lies there.

    The factors of 1, 2 and 4 are a regression on one half of the scenes (`tools/bench_register.py --set fitted`). That
    half has hardly any case of 3; its factor is set so that a night street without structure in its lower half is
    covered.
    """
    length = np.hypot(*verdict.residual.T)
    weight = verdict.weight * (length <= _FAR_PX)
    left_px = max(float(length @ weight) / max(float(weight.sum()), 1e-9), _LEAST_LEFT_PX)
    return {
        "bends": 2.07 * bend.mean_px,
        "parallax": 0.6 * left_px,
        "parts without common edges": 2 * max(verdict.corner_px - _USUAL_CORNER_PX, 0),
        "another place that fits nearly as well": _WRONG_PX * float(np.sqrt(_chance_of_wrong(verdict))),
    }


def _chance_of_wrong(verdict: Verdict) -> float:
    """Return the probability, 0 to 1, that a registration is off by more than 8 view pixels.

    It falls with the confidence and rises with the rival. Logistic regression on real pairs with known warps.
    """
    odds = np.clip(np.log(verdict.confidence / max(1 - verdict.confidence, 1e-9)), -_SURE, _SURE)
    return float(1 / (1 + np.exp(0.95 * odds - 11.1 * np.log(max(verdict.rival, 0.3)) - 1.9)))


def judged(view: View, view_from_ir: Image, model: Model, doubt: float) -> Verdict:
    """Return the verdict on a registration, by a comparison wider than the refinement's.

    `doubt` is subtracted from the logarithm of the odds.
    """
    comparison = compared(view, _LEVEL, _RADIUS, view_from_ir)
    ncc, weight = comparison.ncc(_WINDOW), comparison.weight(_WINDOW)
    peak = comparison.shifts[ncc.argmax(0)]
    total = max(float(weight.sum()), 1e-9)
    support = float((np.hypot(*peak.T) <= _NEAR_PX) @ weight) / total
    # The windows overlap: this many windows without overlap hold the same evidence.
    independent = total * CELL**2 / (4 * np.pi * _WINDOW**2)
    scale = np.diag(view.view_from_level(_LEVEL))[:2]
    apart = _halves_apart(comparison, model, weight) * float(scale[0])
    # Logistic regression on true and unrelated pairs of street scenes, nearly half of them at night.
    logit = 5.1 * (support - _CHANCE) * np.sqrt(independent) - 1.7 * np.log(max(apart, 0.6)) - 2.5
    # Two terms outside the regression: few tiles are weak evidence, and among many candidates one fits by chance.
    logit -= 0.7 * max(8 - independent, 0) + doubt
    at = comparison.centres() * scale
    confidence = float(1 / (1 + np.exp(-logit)))
    corner_px = _corner_deviation(comparison, ncc, model) * float(scale[0])
    return Verdict(confidence, support, independent, apart, corner_px, _rival(comparison), at, peak * scale, weight)


def _corner_deviation(comparison: Comparison, ncc: Image, model: Model) -> float:
    """Return the standard deviation of the model at the corners by the evidence of the cells, in pixels of the level.

    It is large where the structure that both pictures share lies in one part of the picture.
    """
    h, w = comparison.hw
    centre, half = np.array([w - 1, h - 1]) / 2, max(w, h) / 2
    basis = model_basis(model, comparison.centres() - centre, half)
    still = np.zeros((len(basis), 2), np.float32)
    heard = messages(ncc, comparison.shifts, still, 2.0, SHARPNESS).weighed(overlap(_WINDOW))
    normal = solve(basis, heard, model_prior(model, SHEAR * half, PERSPECTIVE * half))[1]
    corners = model_basis(model, centre * [[-1, -1], [1, -1], [1, 1], [-1, 1]], half).reshape(8, -1)
    return float(np.sqrt(2 * ((corners @ np.linalg.inv(normal)) * corners).sum(1).mean()))


def _rival(comparison: Comparison) -> float:
    """Return the best correlation of the whole pictures at another shift, relative to that without a shift.

    At most 2: both correlations may be near 0.
    """
    dot, power = (x.reshape(len(comparison.shifts), -1).sum(1) for x in (comparison.dot, comparison.power_ir))
    correlation = dot / np.sqrt(power * float(comparison.power_rgb.sum()) + 1e-9)
    apart = np.hypot(*comparison.shifts.T) >= _RIVAL_CELLS
    here = float(correlation[len(correlation) // 2])
    return float(np.clip(correlation[apart].max() / max(here, 1e-6), 0, 2))


def _halves_apart(comparison: Comparison, model: Model, weight: Image) -> float:
    """Return the weighted mean distance between the fits to two halves of the cells, in pixels of the level.

    The halves are the two colours of a checkerboard of 4 × 3 fields.
    """
    simple: Model = "affine" if model == "homography" else model
    hw = comparison.hw
    basis = model_basis(simple, comparison.centres() - (np.array(hw[::-1]) - 1) / 2, max(hw) / 2)
    rows, columns = np.mgrid[: comparison.grid[0], : comparison.grid[1]]
    board = (rows * 3 // comparison.grid[0] + columns * 4 // comparison.grid[1]) % 2
    prior = 0.01 * np.eye(basis.shape[2])
    fits = [
        fitted(
            basis, comparison.ncc(_WINDOW, (board == k).astype(np.float32)), comparison.shifts, (4.0, 3.0, 2.0), prior
        )
        for k in (0, 1)
    ]
    return float(np.linalg.norm(basis @ (fits[0] - fits[1]), axis=-1) @ weight) / max(float(weight.sum()), 1e-9)
