"""Locate the centre of a disc to a fraction of a pixel."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from calib.discs.blobs import Disc, around
from rtfuse.types import Image

_SMALL_PX = 3.0
_RAYS = 96


def centre_of(grey: Image, disc: Disc) -> Image:
    """Return the centre (2,) of a disc to a fraction of a pixel: the centre of mass of its outline.

    On each ray, the outline is at the grey level half-way between inside and outside, so uneven light does not move
    it. A smooth curve through these points passes over reflections. For a small disc, returns the centre of mass of
    its pixels instead.
    """
    if disc.radius < _SMALL_PX:
        return _centre_of_mass(grey, disc)
    smooth = cv2.GaussianBlur(grey, (0, 0), 0.7).astype(np.float32)
    angles, share = np.linspace(0, 2 * np.pi, _RAYS, endpoint=False), np.linspace(0.5, 1.5, 61)
    for _ in range(2):
        turn = np.radians(disc.degrees)
        axes = np.stack([np.cos(angles) * disc.axes[0] / 2, np.sin(angles) * disc.axes[1] / 2], -1)
        rays = axes @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        places = (np.array([disc.x, disc.y]) + share[None, :, None] * rays[:, None]).astype(np.float32)
        seen = cv2.remap(smooth, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        at, good = _half_way(seen, share)
        if good.sum() < 0.5 * _RAYS:
            return _centre_of_mass(grey, disc)
        outline = np.array([disc.x, disc.y]) + _smooth_curve(angles, at, good)[:, None] * rays
        x, y = _centre_of_outline(outline)
        disc = replace(disc, x=float(x), y=float(y))
    return np.array([disc.x, disc.y])


def _half_way(seen: Image, share: Image) -> tuple[Image, Image]:
    """Return the position (R,) of the half-way grey level on each ray, and the mask (R,) of the rays with an edge.

    `seen`: grey levels along the rays, (R, S).
    `share`: positions of the samples, (S,), as multiples of the disc's radius.
    """
    inside, outside = seen[:, share < 0.75].mean(1), seen[:, share > 1.25].mean(1)
    contrast = float(np.median(outside - inside))
    relative = (seen - inside[:, None]) / np.where(np.abs(outside - inside) < 1, 1, outside - inside)[:, None]
    crossing = (relative[:, :-1] < 0.5) & (relative[:, 1:] >= 0.5)
    # Takes the crossing nearest to the expected edge.
    off = np.where(crossing, np.abs(share[:-1] - 1), np.inf)
    k = off.argmin(1)
    rows = np.arange(len(seen))
    a, b = relative[rows, k], relative[rows, k + 1]
    at = share[k] + (0.5 - a) / np.where(b > a, b - a, 1) * (share[1] - share[0])
    good = np.isfinite(off[rows, k]) & ((outside - inside) / contrast > 0.35)
    return at, good & (np.abs(at - np.median(at[good])) < 0.12) if good.any() else good


def _smooth_curve(angles: Image, at: Image, good: Image) -> Image:
    """Return the radius at every angle, from a fit of Fourier terms up to the third without outliers."""
    A = np.stack([f(k * angles) for k in range(4) for f in (np.cos, np.sin) if k or f is np.cos], 1)
    for _ in range(3):
        terms, *_ = np.linalg.lstsq(A[good], at[good], rcond=None)
        off = np.abs(at - A @ terms)
        kept = good & (off < max(0.004, 3 * float(np.median(off[good]))))
        if kept.sum() < 12 or (kept == good).all():
            break
        good = kept
    return np.asarray(A @ terms)


def _centre_of_outline(outline: Image) -> Image:
    """Return the centre of mass (2,) of the area inside a closed outline (N, 2)."""
    following = np.roll(outline, -1, axis=0)
    cross = outline[:, 0] * following[:, 1] - following[:, 0] * outline[:, 1]
    return np.asarray(((outline + following) * cross[:, None]).sum(0) / (3 * cross.sum()))


def _centre_of_mass(grey: Image, disc: Disc) -> Image:
    """Return the centre of mass (2,) of the pixels closer to the disc's grey level than to that of its surroundings.

    The surroundings are a plane, fitted to the ring around the disc.
    """
    for _ in range(3):
        patch, far = around(grey, disc, 1.6)
        half = int(np.ceil(1.6 * max(disc.axes) / 2)) + 1
        x0, y0 = max(0, int(disc.x) - half), max(0, int(disc.y) - half)
        y, x = np.mgrid[: patch.shape[0], : patch.shape[1]].astype(np.float32)
        ring, core = (far > 1.25) & (far < 1.55), far < 0.65
        A = np.stack([x[ring], y[ring], np.ones(int(ring.sum()), np.float32)], 1)
        plane, *_ = np.linalg.lstsq(A, patch[ring], rcond=None)
        flat = patch - (plane[0] * x + plane[1] * y + plane[2])
        depth = float(np.median(flat[core]))
        weight = np.clip((flat / (depth or 1.0) - 0.2) / 0.6, 0, 1) * (far < 1.3)
        total = float(weight.sum())
        if total <= 0:
            break
        moved = (x0 + float((weight * x).sum()) / total, y0 + float((weight * y).sum()) / total)
        near = np.hypot(moved[0] - disc.x, moved[1] - disc.y)
        disc = replace(disc, x=moved[0], y=moved[1])
        if near < 0.01:
            break
    return np.array([disc.x, disc.y])
