"""Judge a registration: fit two halves of the picture that share no pixel, and count the cells that point to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calib.register.comparison import CELL, Comparison
from calib.register.field import Model, model_basis
from calib.register.refine import Bend, compared, fitted
from calib.register.view import View
from rtfuse.types import Image

_LEVEL, _RADIUS, _WINDOW = 1, 8, 14.0
_NEAR_PX = 2.3
_CHANCE = 0.1
"""Frequency at which a tile of unrelated pictures points to within `_NEAR_PX` of 0."""
_FAR_PX, _LEAST_LEFT_PX = 6.0, 0.4
"""Shift of a tile that is taken for a mistake, and the least mean shift, below the comparison's step; view pixels."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The evidence for a registration, in view pixels.

    `confidence`: 0 to 1.
    `support`: weighted share of tiles that point to the result, 0 to 1.
    `independent`: number of tiles without overlap that would hold the same evidence.
    `apart_px`: distance between the fits to the two halves.
    `at`: tile centres (T, 2).
    `residual`: remaining shift (dx, dy) of each tile, (T, 2).
    `weight`: amount of structure in each tile, (T,), 0 to 1.
    """

    confidence: float
    support: float
    independent: float
    apart_px: float
    at: Image
    residual: Image
    weight: Image


def estimated_px(verdict: Verdict, bend: Bend) -> float:
    """Return the estimated error of a registration in view pixels, the mean over the picture.

    It grows with the shifts that tiles still ask for, and with the bend that a smooth field adds relative to its doubt.
    The powers and the factor are a regression on real pairs with known warps and on the synthetic street; their mean
    error differs by a factor of five.
    """
    length = np.hypot(*verdict.residual.T)
    weight = verdict.weight * (length <= _FAR_PX)
    left_px = max(float(length @ weight) / max(float(weight.sum()), 1e-9), _LEAST_LEFT_PX)
    return float(1.25 * left_px**0.75 * (bend.mean_px / bend.doubt_px) ** 0.85)


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
    return Verdict(float(1 / (1 + np.exp(-logit))), support, independent, apart, at, peak * scale, weight)


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
