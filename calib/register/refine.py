"""Refine a registration, coarse to fine: compare every cell under small shifts, and fit the motion they agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calib.register.comparison import CELL, Comparison
from calib.register.field import (
    Model,
    Spline,
    least_area,
    messages,
    model_basis,
    model_matrix,
    model_parameters,
    model_prior,
    solve,
)
from calib.register.view import View, positions
from rtfuse.types import Image

SHARPNESS = 30.0
"""Logarithmic likelihood of a correlation of 1."""
_SHARE, _FIELD_SHARE = 1.0, 4.0
"""Independent observations in a window of a cell, for the matrix and for the field."""
SHEAR, PERSPECTIVE = 0.06, 0.012
"""Expected deviation of a matrix from a similarity, relative to half the picture's longest side."""
_BENDS = (0.002, 0.06), (0.002, 0.25)
"""Amplitude and length of the smooth field's expected bends, relative to the picture's longest side."""
_KNOTS = 14
"""Knots of the smooth field along the longest side."""
_STANDS_OUT = 0.65
"""From which share of its doubt a smooth field is believed: of the straight synthetic street none reaches it, of real
pairs with a smooth warp all do."""
LEAST_AREA = 0.3
"""Least local area scale of the smooth field."""
Step = tuple[int, int, float, tuple[float, ...]]
"""Level, comparison radius, window deviation and expected deviations in turn; all in pixels of the level."""
SCHEDULE: tuple[Step, ...] = (
    (2, 8, 24.0, (6.0, 4.0, 3.0)),
    (2, 6, 20.0, (3.0, 2.0)),
    (1, 5, 24.0, (3.0, 2.0)),
    (0, 3, 28.0, (2.0, 1.5)),
)
_FIELD_SCHEDULE: tuple[Step, ...] = ((1, 4, 16.0, (3.0, 2.0)), (0, 3, 20.0, (2.0, 1.5)))


def compared(view: View, level: int, radius: int, view_from_ir: Image, u: Image | None = None) -> Comparison:
    """Return the comparison of thermal and RGB at a level, after the matrix and a displacement `u` (H, W, 2)."""
    comparison = Comparison(view.level_hw(level), radius)
    for ir, rgb in zip(view.ir(level, np.linalg.inv(view_from_ir), u), view.rgb(level), strict=True):
        comparison.add(ir, rgb)
    return comparison


def refined(view: View, view_from_ir: Image, model: Model, about: Image, schedule: Sequence[Step] = SCHEDULE) -> Image:
    """Return the matrix, thermal to view pixels, improved by the model's motion that the cells agree on.

    `about`: the matrix of which the result is expected to be a similarity.
    """
    for level, radius, window, sigmas in schedule:
        comparison = compared(view, level, radius, view_from_ir)
        points, hw = comparison.centres(), comparison.hw
        centre, half = (np.array(hw[::-1]) - 1) / 2, max(hw) / 2
        basis = model_basis(model, points - centre, half)
        view_from_level = view.view_from_level(level)
        motion = np.linalg.inv(view_from_level) @ about @ np.linalg.inv(view_from_ir) @ view_from_level
        so_far = model_parameters(motion, centre, half)[: basis.shape[2]]
        share = _SHARE * overlap(window)
        prior = model_prior(model, SHEAR * half, PERSPECTIVE * half)
        p = fitted(basis, comparison.ncc(window), comparison.shifts, sigmas, prior, so_far, share)
        moved = view_from_level @ model_matrix(model, p, centre, half) @ np.linalg.inv(view_from_level)
        # The content at x + u(x) of the warped thermal picture belongs at x.
        view_from_ir = np.linalg.inv(moved) @ view_from_ir
        view_from_ir = view_from_ir / view_from_ir[2, 2]
    return view_from_ir


def overlap(window_px: float) -> float:
    """Return the share of a Gaussian window of this deviation that no window of another cell holds."""
    return CELL**2 / (4 * np.pi * window_px**2)


def coarse(view: View, view_from_ir: Image, model: Model, about: Image) -> tuple[Image, float]:
    """Return a candidate refined at the coarsest level, and the score of its cells there."""
    level, radius, window, sigmas = SCHEDULE[0]
    simple: Model = "affine" if model == "homography" else model
    for _ in range(2):
        view_from_ir = refined(view, view_from_ir, simple, about, [(level, radius, window, sigmas)])
    comparison = compared(view, level, 1, view_from_ir)
    weight = comparison.weight(window)
    # Chance correlation grows as the overlap shrinks; the root compensates for it, as in the search.
    return view_from_ir, float(comparison.ncc(window)[4] @ weight) / float(np.sqrt(max(weight.sum(), 1e-9)))


def fitted(
    basis: Image,
    ncc: Image,
    shifts: Image,
    sigmas: Sequence[float],
    prior: Image,
    so_far: Image | float = 0.0,
    share: float = 1.0,
) -> Image:
    """Return the coefficients (P,) of `basis` that the cells' correlations (S, T) agree on.

    Each of `sigmas` narrows the expectation around the previous coefficients. `prior` (P, P) is the quadratic penalty
    on the coefficients plus `so_far` (P,); `share` is the weight of a cell's evidence.
    """
    p = np.zeros(basis.shape[2])
    pulled = prior @ (so_far + p)
    for sigma in sigmas:
        heard = messages(ncc, shifts, (basis @ p).astype(np.float32), sigma, SHARPNESS).weighed(share)
        p = solve(basis, heard, prior, -pulled)[0]
    return p


@dataclass(frozen=True, slots=True)
class Bend:
    """Smooth displacement on top of a matrix, in view pixels.

    `spline`, `coefficients`: the displacement.
    `mean_px`: its mean length over the picture.
    `doubt_px`: its standard deviation, the root of the mean square over the picture.
    """

    spline: Spline
    coefficients: Image
    mean_px: float
    doubt_px: float

    @property
    def stands_out(self) -> bool:
        """True if the displacement is more than its own doubt would make of straight pictures."""
        return self.mean_px > _STANDS_OUT * self.doubt_px


def bent(view: View, view_from_ir: Image) -> Bend:
    """Return the smooth displacement that the cells ask for after the matrix."""
    longest = max(view.hw)
    spline = Spline(view.hw, longest / _KNOTS)
    prior = spline.prior([(amplitude * longest, length * longest) for amplitude, length in _BENDS])
    coefficients, doubt = np.zeros(spline.size), 0.0
    for level, radius, window, sigmas in _FIELD_SCHEDULE:
        hw = view.level_hw(level)
        to_view = view.view_from_level(level)
        scale = np.diag(to_view)[:2]
        xs, ys = (to_view[k, k] * np.arange(n) + to_view[k, 2] for k, n in ((0, hw[1]), (1, hw[0])))
        comparison = compared(view, level, radius, view_from_ir, spline.dense(coefficients, xs, ys) / scale)
        basis = spline.basis(comparison.centres() * scale + to_view[:2, 2]) / scale[:, None]
        ncc = comparison.ncc(window)
        before = basis @ coefficients
        for sigma in sigmas:
            expected = (basis @ coefficients - before).astype(np.float32)
            heard = messages(ncc, comparison.shifts, expected, sigma, SHARPNESS).around(before)
            coefficients, normal = solve(basis, heard.weighed(_FIELD_SHARE * overlap(window)), prior)
        at_cells = (basis * scale[:, None]).reshape(-1, spline.size)
        doubt = float(np.sqrt(2 * np.mean((at_cells @ np.linalg.inv(normal) * at_cells).sum(1))))
    ys, xs = (np.arange(0, n, 4) for n in view.hw)
    while least_area(u := spline.dense(coefficients, xs, ys), 4) < LEAST_AREA:
        coefficients = coefficients / 2
    return Bend(spline, coefficients, float(np.linalg.norm(u, axis=-1).mean()), doubt)


def smooth_field(view: View, view_from_ir: Image, bend: Bend, rgb_hw: tuple[int, int]) -> Image:
    """Return the thermal position of each RGB pixel, (H, W, 2) float32, with the matrix and the smooth field."""
    scale, offset = np.diag(view.rgb_from_view)[:2], view.rgb_from_view[:2, 2]
    xs, ys = ((np.arange(n) - o) / s for n, o, s in zip(rgb_hw[::-1], offset, scale, strict=True))
    u = bend.spline.dense(bend.coefficients, xs, ys) * scale.astype(np.float32)
    return positions(np.linalg.inv(view.rgb_from_view @ view_from_ir), rgb_hw, u)
