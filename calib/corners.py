"""Locate the corners of a checkerboard to a few hundredths of a pixel, by a model of the picture around each."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

_STEPS = 15


def refined(grey: Image, corners: Image, share: float) -> Image:
    """Return refined corners (N, 2), in pixels.

    `grey`: picture (h, w) uint8.
    `corners`: approximate corners (N, 2), in pixels.
    `share`: size of the fitted area around each corner, as a part of a square's side.

    The model of the picture near a corner is m + k tanh(a u) tanh(a v), with u and v the distances from the two
    crossing edges and a their steepness. Damped least squares fit all corners at once; a corner whose fit fails stays
    unchanged.
    """
    far = np.linalg.norm(corners[:, None] - corners[None], axis=2)
    np.fill_diagonal(far, np.inf)
    nearest = far.min(1)
    reach = int(np.clip(np.ceil(share * np.median(nearest)), 2, 12))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).astype(float)
    places = (np.rint(corners)[:, None] + np.stack([x, y], -1)).astype(np.float32)
    seen = cv2.remap(grey.astype(np.float32), places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    inside = (places >= 0).all(2) & (places <= np.array(grey.shape[::-1]) - 1.0).all(2)
    # A round window, as wide as the squares around the corner.
    off = corners - np.rint(corners)
    round_ = np.hypot(x - off[:, :1], y - off[:, 1:])
    weight = inside * np.clip(share * nearest[:, None] + 0.5 - round_, 0, 1)
    p = _start(x, y, seen, weight, off)
    damping = np.full(len(p), 1e-2)
    error, J = _model(p, x, y, seen)
    cost = (weight * error**2).sum(1)
    for _ in range(_STEPS):
        JW = J * weight[..., None]
        A, b = np.einsum("nki,nkj->nij", JW, J), np.einsum("nki,nk->ni", JW, error)
        diagonal = np.einsum("nii->ni", A)
        A = A + (damping[:, None] * diagonal + 1e-9)[..., None] * np.eye(7)
        new = p + np.linalg.solve(A, b[..., None])[..., 0]
        new[:, 6] = np.clip(new[:, 6], 0.05, 4.0)
        new_error, new_J = _model(new, x, y, seen)
        new_cost = (weight * new_error**2).sum(1)
        better = new_cost < cost
        p, error = (np.where(better[:, None], n, o) for n, o in ((new, p), (new_error, error)))
        J = np.where(better[:, None, None], new_J, J)
        cost, damping = np.where(better, new_cost, cost), np.where(better, damping / 5, damping * 8)
    moved = np.linalg.norm(p[:, :2] - off, axis=1)
    sound = np.isfinite(p).all(1) & (moved < np.maximum(1.0, 0.25 * nearest)) & (np.abs(p[:, 5]) > 1.0)
    return np.where(sound[:, None], np.rint(corners) + p[:, :2], corners)


def _start(x: Image, y: Image, seen: Image, weight: Image, off: Image) -> Image:
    """Return start values (N, 7): x, y, the angles of the two edges, mean, contrast, steepness."""
    dx, dy = x - off[:, :1], y - off[:, 1:]
    mean = (weight * seen).sum(1) / np.maximum(weight.sum(1), 1e-9)
    spread = np.sqrt((weight * (seen - mean[:, None]) ** 2).sum(1) / np.maximum(weight.sum(1), 1e-9))
    # Around the corner, a saddle is a cos 2φ + b sin 2φ; its edges are the zeros of this.
    phi = np.arctan2(dy, dx)
    a, b = ((weight * (seen - mean[:, None]) * f(2 * phi)).sum(1) for f in (np.cos, np.sin))
    turn = 0.5 * np.arctan2(b, a)
    # u is the distance from the first edge, v from the second; u v > 0 in the bright quarters.
    steep = np.full(len(off), 0.8)
    return np.stack([off[:, 0], off[:, 1], turn - np.pi / 4, turn + np.pi / 4, mean, spread, steep], 1)


def _model(p: Image, x: Image, y: Image, seen: Image) -> tuple[Image, Image]:
    """Return the residuals (N, K) of the model, and its derivatives (N, K, 7)."""
    cx, cy, first, second, mean, contrast, steep = (p[:, k : k + 1] for k in range(7))
    dx, dy = x - cx, y - cy
    u, v = (dx * np.cos(t) + dy * np.sin(t) for t in (first, second))
    u_turn, v_turn = (-dx * np.sin(t) + dy * np.cos(t) for t in (first, second))
    s, t = np.tanh(steep * u), np.tanh(steep * v)
    s_u, t_v = (1 - s * s) * t * contrast, (1 - t * t) * s * contrast
    by_u, by_v = steep * s_u, steep * t_v
    J = np.stack(
        [
            -(by_u * np.cos(first) + by_v * np.cos(second)),
            -(by_u * np.sin(first) + by_v * np.sin(second)),
            by_u * u_turn,
            by_v * v_turn,
            np.ones_like(s),
            s * t,
            u * s_u + v * t_v,
        ],
        -1,
    )
    return seen - mean - contrast * s * t, J
