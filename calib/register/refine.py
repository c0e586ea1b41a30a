"""Refine a registration, coarse to fine: compare every cell under small shifts, and fit the motion they agree on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from calib.register.comparison import Comparison
from calib.register.field import Messages, Model, Spline, least_area, messages, model_basis, model_matrix, solve
from calib.register.view import View, positions
from rtfuse.types import Image

SHARPNESS = 30.0
"""Logarithmic likelihood of a correlation of 1."""
BEND, PULL = 0.7, 0.5
"""Resistance of the smooth field against bending and against leaving the matrix, in px⁻².

Chosen on real and synthetic street scenes: where the matrix alone is right, the field is on average no worse.
"""
LEAST_AREA = 0.3
"""Least local area scale of the smooth field."""
Step = tuple[int, int, float, tuple[float, ...]]
"""Level, comparison radius, window deviation and expected deviations in turn; all in pixels of the level."""
SCHEDULE: tuple[Step, ...] = (
    (2, 8, 24.0, (6.0, 4.0, 3.0)),
    (2, 6, 20.0, (3.0, 2.0)),
    (1, 5, 24.0, (3.0, 2.0)),
    (0, 4, 28.0, (2.0, 1.5)),
)
_FIELD_SCHEDULE: tuple[Step, ...] = ((1, 6, 20.0, (4.0, 3.0, 2.0)), (0, 5, 24.0, (3.0, 2.0)))


def compared(view: View, level: int, radius: int, view_from_ir: Image, u: Image | None = None) -> Comparison:
    """Return the comparison of thermal and RGB at a level, after the matrix and a displacement `u` (H, W, 2)."""
    comparison = Comparison(view.level_hw(level), radius)
    for ir, rgb in zip(view.ir(level, np.linalg.inv(view_from_ir), u), view.rgb(level), strict=True):
        comparison.add(ir, rgb)
    return comparison


def refined(view: View, view_from_ir: Image, model: Model, schedule: Sequence[Step] = SCHEDULE) -> Image:
    """Return the matrix, thermal to view pixels, improved by the model's motion that the cells agree on."""
    for level, radius, window, sigmas in schedule:
        comparison = compared(view, level, radius, view_from_ir)
        points, hw = comparison.centres(), comparison.hw
        centre, half = (np.array(hw[::-1]) - 1) / 2, max(hw) / 2
        basis = model_basis(model, points - centre, half)
        ncc = comparison.ncc(window)
        p = fitted(basis, ncc, comparison.shifts, sigmas)
        moved = view.view_from_level(level) @ model_matrix(model, p, centre, half)
        motion = moved @ np.linalg.inv(view.view_from_level(level))
        # The content at x + u(x) of the warped thermal picture belongs at x.
        view_from_ir = np.linalg.inv(motion) @ view_from_ir
        view_from_ir = view_from_ir / view_from_ir[2, 2]
    return view_from_ir


def coarse(view: View, view_from_ir: Image, model: Model) -> tuple[Image, float]:
    """Return a candidate refined at the coarsest level, and the score of its cells there."""
    level, radius, window, sigmas = SCHEDULE[0]
    simple: Model = "affine" if model == "homography" else model
    for _ in range(2):
        view_from_ir = refined(view, view_from_ir, simple, [(level, radius, window, sigmas)])
    comparison = compared(view, level, 1, view_from_ir)
    weight = comparison.weight(window)
    # Chance correlation grows as the overlap shrinks; the root compensates for it, as in the search.
    return view_from_ir, float(comparison.ncc(window)[4] @ weight) / float(np.sqrt(max(weight.sum(), 1e-9)))


def fitted(basis: Image, ncc: Image, shifts: Image, sigmas: Sequence[float]) -> Image:
    """Return the coefficients (P,) of `basis` that the cells' correlations (S, T) agree on.

    Each of `sigmas` narrows the expectation around the previous coefficients.
    """
    p = np.zeros(basis.shape[2])
    prior = 0.01 * np.eye(len(p))
    for sigma in sigmas:
        p = solve(basis, messages(ncc, shifts, (basis @ p).astype(np.float32), sigma, SHARPNESS), prior)
    return p


def _bent(view: View, view_from_ir: Image) -> tuple[Spline, Image]:
    """Return the spline, and its coefficients, of the smooth displacement on top of the matrix, in view pixels."""
    spline = Spline(view.hw, max(view.hw) / 10)
    coefficients = np.zeros(spline.size)
    for level, radius, window, sigmas in _FIELD_SCHEDULE:
        hw = view.level_hw(level)
        to_view = view.view_from_level(level)
        scale = np.diag(to_view)[:2]
        xs, ys = (to_view[k, k] * np.arange(n) + to_view[k, 2] for k, n in ((0, hw[1]), (1, hw[0])))
        comparison = compared(view, level, radius, view_from_ir, spline.dense(coefficients, xs, ys) / scale)
        basis = spline.basis(comparison.centres() * scale + to_view[:2, 2]) / scale[:, None]
        ncc = comparison.ncc(window)
        before = basis @ coefficients
        now = coefficients
        for sigma in sigmas:
            heard = messages(ncc, comparison.shifts, (basis @ now - before).astype(np.float32), sigma, SHARPNESS)
            pull = heard.pull + np.einsum("tij,tj->ti", heard.information, before)
            now = solve(basis, Messages(heard.information, pull), spline.prior(BEND, PULL))
        coefficients = now
    ys, xs = (np.arange(0, n, 4) for n in view.hw)
    while least_area(spline.dense(coefficients, xs, ys), 4) < LEAST_AREA:
        coefficients = coefficients / 2
    return spline, coefficients


def smooth_field(view: View, view_from_ir: Image, rgb_hw: tuple[int, int]) -> Image:
    """Return the thermal position of each RGB pixel, (H, W, 2) float32, with the matrix and the smooth field."""
    spline, coefficients = _bent(view, view_from_ir)
    scale, offset = np.diag(view.rgb_from_view)[:2], view.rgb_from_view[:2, 2]
    xs, ys = ((np.arange(n) - o) / s for n, o, s in zip(rgb_hw[::-1], offset, scale, strict=True))
    u = spline.dense(coefficients, xs, ys) * scale.astype(np.float32)
    return positions(np.linalg.inv(view.rgb_from_view @ view_from_ir), rgb_hw, u)
