"""Fit a motion model or a smooth field to the local evidence of many cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rtfuse.types import Image

Model = Literal["shift", "similarity", "affine", "homography"]


@dataclass(frozen=True, slots=True)
class Messages:
    """Gaussian evidence of each cell about its displacement u: the quadratic form uᵀ Λ u - 2 ηᵀ u.

    `information`: Λ, (T, 2, 2) in px⁻². It is zero along an edge, where a cell has no evidence.
    `pull`: η, (T, 2) in px⁻¹.
    """

    information: Image
    pull: Image

    def weighed(self, weight: float) -> Messages:
        """Return the evidence as if it had been observed `weight` times."""
        return Messages(self.information * weight, self.pull * weight)

    def around(self, origin: Image) -> Messages:
        """Return the same evidence about u + origin, for an origin (T, 2) of each cell."""
        return Messages(self.information, self.pull + np.einsum("tij,tj->ti", self.information, origin))


def messages(ncc: Image, shifts: Image, expected: Image, sigma_px: float, sharpness: float) -> Messages:
    """Return the evidence in each cell's correlations `ncc` (S, T) about its displacement.

    `shifts`: the displacements (S, 2) that were compared, in pixels.
    `expected`: expected displacement of each cell, (T, 2) in pixels, with the deviation `sigma_px`.
    `sharpness`: logarithmic likelihood of a correlation of 1.

    Multiplies the likelihood exp(sharpness · ncc) by the Gaussian of the expectation, replaces the product by the
    Gaussian with the same moments, and divides by the expectation again. This is the moment matching of expectation
    propagation (Minka, UAI 2001, sec. 3). A cell with several peaks, or none, widens the expectation; it gives no
    evidence.
    """
    distance2 = ((shifts[:, None, :] - expected[None]) ** 2).sum(-1)
    logit = sharpness * ncc - distance2 / (2 * sigma_px**2)
    p = np.exp(logit - logit.max(0))
    p /= p.sum(0)
    mean = np.einsum("st,sk->tk", p, shifts)
    second = np.einsum("st,sk,sl->tkl", p, shifts, shifts, optimize=True)
    covariance = second - mean[:, :, None] * mean[:, None, :] + 0.05 * np.eye(2)
    variance, axes = np.linalg.eigh(covariance)
    gain = np.maximum(1 / variance - 1 / sigma_px**2, 0)
    information = np.einsum("tik,tk,tjk->tij", axes, gain, axes)
    # η = S⁻¹ m - u₀/σ², on the axes with information.
    along = np.einsum("tik,ti->tk", axes, mean), np.einsum("tik,ti->tk", axes, expected)
    pull = np.where(gain > 0, along[0] / variance - along[1] / sigma_px**2, 0)
    return Messages(information, np.einsum("tik,tk->ti", axes, pull))


def solve(basis: Image, heard: Messages, prior: Image, pull: Image | float = 0.0) -> tuple[Image, Image]:
    """Return the coefficients (P,) of the basis (T, 2, P) that fit the messages best, and the normal matrix (P, P).

    The prior is the quadratic form of the matrix `prior` (P, P) and the vector `pull` (P,), as a message's. The inverse
    of the normal matrix is the covariance of the coefficients.
    """
    count = basis.shape[2]
    normal = basis.reshape(-1, count).T @ (heard.information @ basis).reshape(-1, count) + prior
    right = heard.pull.reshape(-1) @ basis.reshape(-1, count) + pull
    return np.linalg.solve(normal, right), normal


def model_basis(model: Model, points: Image, size_px: float) -> Image:
    """Return the displacements (T, 2, P) at points (T, 2) for each parameter of a model, to first order.

    `points`: positions relative to the picture's centre, in pixels.
    `size_px`: half the picture's longest side; it scales the parameters to pixels.
    """
    x, y = (points / size_px).T
    one, no = np.ones_like(x), np.zeros_like(x)
    columns = [(one, no), (no, one)]
    if model == "similarity":
        columns += [(x, y), (-y, x)]
    elif model != "shift":
        columns += [(x, no), (y, no), (no, x), (no, y)]
    if model == "homography":
        columns += [(x * x, x * y), (x * y, y * y)]
    return np.stack([np.stack(c, -1) for c in columns], -1)


def model_matrix(model: Model, p: Image, centre: Image, size_px: float) -> Image:
    """Return the motion x ↦ x + u(x) with parameters `p` of `model_basis`, as a matrix (3, 3) on pixels."""
    m = np.eye(3)
    m[:2, 2] = p[:2]
    if model == "similarity":
        m[:2, :2] += [[p[2], -p[3]], [p[3], p[2]]]
    elif model != "shift":
        m[:2, :2] += [[p[2], p[3]], [p[4], p[5]]]
    if model == "homography":
        m[2, :2] = -p[6:8]
    # Parameters are in pixels at the distance size_px; convert to unit coordinates, and back.
    m[:2, :2] = np.eye(2) + (m[:2, :2] - np.eye(2)) / size_px
    m[2, :2] /= size_px
    m[:2, 2] /= size_px
    to_unit = np.array([[1 / size_px, 0, -centre[0] / size_px], [0, 1 / size_px, -centre[1] / size_px], [0, 0, 1]])
    return np.linalg.inv(to_unit) @ m @ to_unit


def model_parameters(motion: Image, centre: Image, size_px: float) -> Image:
    """Return the eight parameters of `model_basis` of a matrix (3, 3) on pixels, to first order."""
    from_unit = np.array([[size_px, 0, centre[0]], [0, size_px, centre[1]], [0, 0, 1]])
    unit = np.linalg.inv(from_unit) @ motion @ from_unit
    unit = unit / unit[2, 2]
    return np.concatenate([unit[:2, 2], (unit[:2, :2] - np.eye(2)).ravel(), -unit[2, :2]]) * size_px


def model_prior(model: Model, shear_px: float, perspective_px: float) -> Image:
    """Return the penalty (P, P) on the parameters of `model_basis`, for these deviations from a similarity."""
    count = {"shift": 2, "similarity": 4, "affine": 6, "homography": 8}[model]
    prior = 1e-3 * np.eye(count)
    if count >= 6:
        for sheared in ([0, 0, 0.5, 0, 0, -0.5, 0, 0], [0, 0, 0, 0.5, 0.5, 0, 0, 0]):
            prior += np.outer(sheared, sheared)[:count, :count] / shear_px**2
    if count == 8:
        prior[6:, 6:] += np.eye(2) / perspective_px**2
    return prior


class Spline:
    """Displacement field of uniform cubic B-splines over a picture (H, W), with knots every `step_px` pixels."""

    def __init__(self, hw: tuple[int, int], step_px: float):
        self.hw, self.step_px = hw, step_px
        self.knots = tuple(int(np.ceil((n - 1) / step_px)) + 3 for n in hw)

    @property
    def size(self) -> int:
        """The number of coefficients, for x and y together."""
        return 2 * self.knots[0] * self.knots[1]

    def _along(self, at: Image, axis: int) -> Image:
        """Return the weights (N, knots) at positions (N,) in pixels, clipped to the picture."""
        t = np.clip(at, 0, self.hw[axis] - 1) / self.step_px
        distance = np.abs(t[:, None] - (np.arange(self.knots[axis]) - 1))
        near, far = 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6
        return np.where(distance < 1, near, far)

    def basis(self, points: Image) -> Image:
        """Return the weights (T, 2, P) of the coefficients at points (T, 2)."""
        weights = np.einsum("ty,tx->tyx", self._along(points[:, 1], 0), self._along(points[:, 0], 1))
        flat = weights.reshape(len(points), -1)
        no = np.zeros_like(flat)
        return np.stack([np.concatenate([flat, no], 1), np.concatenate([no, flat], 1)], 1)

    def prior(self, bends: Sequence[tuple[float, float]]) -> Image:
        """Return the penalty (P, P) of a Gaussian process: the inverse of the coefficients' covariance.

        `bends`: amplitude and length of each squared-exponential term of the covariance, in pixels (Rasmussen and
        Williams, Gaussian Processes for Machine Learning, eq. 4.9).
        """
        rows, columns = np.indices(self.knots).reshape(2, -1) * self.step_px
        apart2 = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
        covariance = sum(a * a * (np.exp(-apart2 / (2 * n * n)) + 1e-3 * np.eye(len(rows))) for a, n in bends)
        return np.asarray(np.kron(np.eye(2), np.linalg.inv(covariance)))

    def dense(self, coefficients: Image, xs: Image, ys: Image) -> Image:
        """Return the field (len(ys), len(xs), 2) float32, in pixels, at columns `xs` and rows `ys`."""
        c = coefficients.reshape(2, *self.knots)
        return np.stack([self._along(ys, 0) @ k @ self._along(xs, 1).T for k in c], -1).astype(np.float32)


def least_area(u: Image, step_px: float) -> float:
    """Return the smallest local area scale of x ↦ x + u(x), for u (H, W, 2) sampled every `step_px`; ≤ 0 is a fold."""
    (ax, bx), (ay, by) = (np.gradient(u[..., k], step_px) for k in (0, 1))
    return float(((1 + bx) * (1 + ay) - ax * by).min())
