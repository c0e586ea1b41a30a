"""Find blobs in a picture that look like discs, of either polarity."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from rtfuse.types import Image

_MIN_AREA_PX = 20.0
_MIN_AXES = 0.25
_CONTRAST = 4.0
"""Least contrast between a disc and its surroundings, in grey levels of the stretched picture."""


@dataclass(frozen=True, slots=True)
class Disc:
    """Blob that may be a disc.

    `x`, `y`: centre in pixels.
    `axes`: full axes of its ellipse, in pixels.
    `degrees`: turn of the ellipse.
    `inside`, `outside`: grey level of the disc and of the ring around it.
    """

    x: float
    y: float
    axes: tuple[float, float]
    degrees: float
    inside: float = 0.0
    outside: float = 0.0

    @property
    def dark(self) -> bool:
        """True if the disc is darker than its surroundings."""
        return self.inside < self.outside

    @property
    def radius(self) -> float:
        """The radius of a circle of the same area, in pixels."""
        return float(np.sqrt(self.axes[0] * self.axes[1]) / 2)


def find_discs(grey: Image) -> list[Disc]:
    """Return the blobs of a picture (h, w) uint8 that look like discs, each once.

    Tries many thresholds: fixed ones, and ones that follow the local brightness.
    """
    h, w = grey.shape
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    masks = [smooth > level for level in range(16, 250, 18)]
    for share in (16, 8, 4, 2):
        side = max(11, min(h, w) // share) | 1
        mean = cv2.blur(smooth.astype(np.float32), (side, side))
        masks += [smooth > mean - 8.0, smooth > mean + 8.0]
    found: list[tuple[float, Disc]] = []
    for mask in masks:
        contours, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        # A contour with a parent is a hole; it runs through the bright pixels around the hole.
        for contour, (*_, parent) in zip(contours, tree[0] if tree is not None else (), strict=True):
            scored = _as_disc(contour, smooth, dark=parent >= 0)
            if scored is not None:
                found.append(scored)
    return _distinct(found)


def _as_disc(contour: Image, grey: Image, *, dark: bool) -> tuple[float, Disc] | None:
    """Return the disc of a contour and its misfit to an ellipse (0: perfect); None if it does not look like a disc."""
    if len(contour) < 10:
        return None
    area = cv2.contourArea(contour)
    h, w = grey.shape
    if not _MIN_AREA_PX < area < 0.1 * h * w:
        return None
    x, y, bw, bh = cv2.boundingRect(contour)
    if x <= 0 or y <= 0 or x + bw >= w or y + bh >= h or area < 0.6 * (np.pi / 4) * bw * bh * _MIN_AXES:
        return None
    (cx, cy), axes, degrees = cv2.fitEllipseDirect(contour)
    small, large = min(axes), max(axes)
    if not np.isfinite([cx, cy, small, large]).all() or small < _MIN_AXES * large or small < 3:
        return None
    full = np.pi / 4 * axes[0] * axes[1]
    perimeter = len(contour)
    roundness = abs(area - full) / full
    hull = cv2.contourArea(cv2.convexHull(contour))
    if roundness > 0.12 or area < 0.9 * hull - 0.5 * perimeter**0.5:
        return None
    rim = -1.0 if dark else 1.0
    disc = Disc(float(cx), float(cy), (float(axes[0]) + rim, float(axes[1]) + rim), float(degrees))
    inside, outside = _levels(grey, disc)
    if (outside - inside if dark else inside - outside) < _CONTRAST:
        return None
    return roundness, replace(disc, inside=inside, outside=outside)


def _levels(grey: Image, disc: Disc) -> tuple[float, float]:
    """Return the median grey level inside a disc, and of a ring around it."""
    patch, far = around(grey, disc, 1.7)
    inside, ring = patch[far < 0.7], patch[(far > 1.25) & (far < 1.6)]
    return (float(np.median(inside)), float(np.median(ring))) if inside.size and ring.size else (0.0, 0.0)


def around(grey: Image, disc: Disc, reach: float) -> tuple[Image, Image]:
    """Return the pixels around a disc, and the distance of each from the centre, 1 on the disc's edge."""
    half = int(np.ceil(reach * max(disc.axes) / 2)) + 1
    x0, y0 = max(0, int(disc.x) - half), max(0, int(disc.y) - half)
    patch = grey[y0 : int(disc.y) + half + 1, x0 : int(disc.x) + half + 1].astype(np.float32)
    y, x = np.mgrid[: patch.shape[0], : patch.shape[1]]
    dx, dy = x + x0 - disc.x, y + y0 - disc.y
    c, s = np.cos(np.radians(disc.degrees)), np.sin(np.radians(disc.degrees))
    far = np.hypot((c * dx + s * dy) / (disc.axes[0] / 2), (-s * dx + c * dy) / (disc.axes[1] / 2))
    return patch, far.astype(np.float32)


def _distinct(found: list[tuple[float, Disc]]) -> list[Disc]:
    """Return each disc once, from the threshold at which it was roundest.

    A much larger or smaller disc at the same place counts as another one.
    """
    kept: list[Disc] = []
    known = np.zeros((0, 4))
    for _, disc in sorted(found, key=lambda f: f[0]):
        near = np.hypot(known[:, 0] - disc.x, known[:, 1] - disc.y) < 0.5 * np.minimum(known[:, 2], disc.radius)
        size = known[:, 2] / disc.radius
        if not (near & (size > 0.6) & (size < 1.7) & (known[:, 3] == disc.dark)).any():
            kept.append(disc)
            known = np.vstack([known, [disc.x, disc.y, disc.radius, disc.dark]])
    return kept
