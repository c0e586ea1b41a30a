"""Fuse by classical methods: the first stage's pseudo ground truth without images of published methods.

Each takes two (H, W) uint8 images and returns one. They make other mistakes than networks do; the sensing nets need
to see such mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np

from rtfuse.fuse.pyramid import fuse_pyramid
from rtfuse.types import Image


def fuse_guided(ir: Image, luma: Image) -> Image:
    """Fuse at two scales, with guided-filtered weights (Li, Kang and Hu, IEEE TIP 22(7), 2013).

    Base and detail are split by a 31×31 mean; weights follow the larger Laplacian response, smoothed along the edges
    of each source: widely for the base (r = 45, ε = 0.3), finely for the detail (r = 7, ε = 1e-6).
    """
    sources = [x.astype(np.float32) / 255 for x in (ir, luma)]
    saliency = [cv2.GaussianBlur(np.abs(cv2.Laplacian(x, cv2.CV_32F)), (11, 11), 5) for x in sources]
    stronger = (saliency[0] > saliency[1]).astype(np.float32)
    fused = np.zeros_like(sources[0])
    for radius, epsilon, part in ((45, 0.3, "base"), (7, 1e-6, "detail")):
        weights = [_guided(x, w, radius, epsilon) for x, w in zip(sources, (stronger, 1 - stronger), strict=True)]
        total = np.maximum(weights[0] + weights[1], 1e-6)
        for x, w in zip(sources, weights, strict=True):
            base = cv2.blur(x, (31, 31))
            fused += w / total * (base if part == "base" else x - base)
    return (fused.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _guided(guide: Image, x: Image, radius: int, epsilon: float) -> Image:
    """Smooth `x` along the edges of `guide` by a guided filter (He, Sun and Tang, ECCV 2010, eqs. 5, 6 and 8)."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_x = cv2.blur(guide, size), cv2.blur(x, size)
    a = (cv2.blur(guide * x, size) - mean_g * mean_x) / (cv2.blur(guide * guide, size) - mean_g * mean_g + epsilon)
    b = mean_x - a * mean_g
    return np.clip(cv2.blur(a, size) * guide + cv2.blur(b, size), 0, 1)


def fuse_wavelet(ir: Image, luma: Image, levels: int = 4) -> Image:
    """Fuse Haar wavelets: the mean of the coarsest approximations, the larger absolute value of each detail."""
    h, w = ir.shape
    block = 1 << levels
    pad = ((0, -h % block), (0, -w % block))
    a, b = (np.pad(x, pad, mode="edge").astype(np.float32) for x in (ir, luma))
    details = []
    for _ in range(levels):
        (a, details_a), (b, details_b) = _haar(a), _haar(b)
        details.append([np.where(np.abs(p) > np.abs(q), p, q) for p, q in zip(details_a, details_b, strict=True)])
    fused = (a + b) / 2
    for detail in reversed(details):
        fused = _inverse_haar(fused, detail)
    return (fused[:h, :w].clip(0, 255) + 0.5).astype(np.uint8)


def fuse_additive(ir: Image, luma: Image, max_levels: int = 6) -> Image:
    """Add Laplacian pyramids: add coarse thermal contrast to the visible picture, choose the stronger fine details.

    A sum keeps both cameras visible and separable, and shows none of the halos that a choice between bases makes.
    The base is V + 0.75 (I - 0.75 mean I). Of two details the stronger counts whole and the weaker by a share that
    falls from 0.55 to 0 towards the finest level, which is sharpened by 15 %. Highlights and shadows are compressed,
    not clipped, before the two finest levels are added, so that fine details stay visible in them.
    """
    levels = min(max_levels, max(0, (min(luma.shape) // 12).bit_length() - 1))
    (details_ir, base_ir), (details_rgb, base_rgb) = (_laplacian(x.astype(np.float32), levels) for x in (ir, luma))
    fused = base_rgb + 0.75 * (base_ir - 0.75 * base_ir.mean())
    for level in reversed(range(levels)):
        a, b, share, gain = details_ir[level], details_rgb[level], _WEAKER[level], _GAIN[level]
        detail = np.where(np.abs(a) > np.abs(b), a + share * b, b + share * a)
        fused = cv2.pyrUp(fused, dstsize=a.shape[::-1]) + gain * detail
        if level == min(2, levels - 1):
            fused = _bent(fused / 255) * 255
    return (fused.clip(0, 255) + 0.5).astype(np.uint8)


_WEAKER = (0.0, 0.05, 0.15, 0.25, 0.4, 0.55)
_GAIN = (1.15, 1.05, 1.0, 1.0, 1.0, 1.0)


def _laplacian(x: Image, levels: int) -> tuple[list[Image], Image]:
    """Split (H, W) float32 into details from fine to coarse, and the base (Burt and Adelson, 1983)."""
    gaussian = [x]
    for _ in range(levels):
        gaussian.append(cv2.pyrDown(gaussian[-1]))
    return [a - cv2.pyrUp(b, dstsize=a.shape[::-1]) for a, b in pairwise(gaussian)], gaussian[-1]


def _bent(x: Image, low: float = 0.06, high: float = 0.8, top: float = 0.95) -> Image:
    """Compress tones below `low` towards 0 and above `high` towards `top`, smoothly; keep those between."""
    above, below = np.maximum(x - high, 0), np.minimum(x - low, 0)
    x = np.where(x > high, high + (top - high) * np.tanh(above / (top - high)), x)
    return np.where(x < low, low * np.exp(below / low), x)


def _haar(x: Image) -> tuple[Image, list[Image]]:
    p, q, r, s = x[::2, ::2], x[::2, 1::2], x[1::2, ::2], x[1::2, 1::2]
    return (p + q + r + s) / 4, [(p - q + r - s) / 4, (p + q - r - s) / 4, (p - q - r + s) / 4]


def _inverse_haar(mean: Image, details: list[Image]) -> Image:
    across, down, both = details
    x = np.empty((2 * mean.shape[0], 2 * mean.shape[1]), np.float32)
    x[::2, ::2], x[::2, 1::2] = mean + across + down + both, mean - across + down - both
    x[1::2, ::2], x[1::2, 1::2] = mean + across - down - both, mean - across - down + both
    return x


CLASSICAL: Mapping[str, Callable[[Image, Image], Image]] = {
    "pyramid": fuse_pyramid,
    "guided": fuse_guided,
    "wavelet": fuse_wavelet,
    "additive": fuse_additive,
}
