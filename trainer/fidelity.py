"""Measure how much a fused picture keeps of its sources, differentiably: losses for training without a teacher.

Pictures are (N, C, H, W) float32 in [0, 1] unless an argument says otherwise.
"""

from __future__ import annotations

import cv2
import torch
from torch import Tensor
from torch.nn import functional as F

_SOBEL_GAIN = 8.0
"""The sum of a Sobel kernel's absolute weights: it divides a gradient into levels a pixel."""
_FLAT_STEEPNESS = 2.0
_QUIET, _QUIET_STEEPNESS, _QUIET_PX = 2.5, 3.0, 7
"""Mean gradient in grey levels a pixel below which a region is noise alone, its softness, and the region's side."""


def gradients(x: Tensor) -> Tensor:
    """Return the signed gradients by Sobel's kernels, (N, C, 2, H - 2, W - 2), in units of `x` for each pixel."""
    across = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / _SOBEL_GAIN
    kernels = torch.stack([across, across.T])[:, None]
    n, c, h, w = x.shape
    return F.conv2d(x.reshape(n * c, 1, h, w), kernels).reshape(n, c, 2, h - 2, w - 2)


def wanted_gradients(sources: Tensor, flat: float) -> Tensor:
    """Return the gradients that a fused picture should have, (N, 1, 2, H - 2, W - 2).

    `sources` are thermal and luma, (N, 2, H, W). The stronger source's gradient counts, with its sign. Where both are
    weaker than `flat` (in units of the pictures for each pixel), nearly all of it is noise: there the mean of both
    counts, in which noise is weaker. 0 switches this off.
    """
    both = gradients(sources)
    strength = both.square().sum(2).sqrt()
    first = (strength[:, :1] > strength[:, 1:]).unsqueeze(2)
    stronger = torch.where(first, both[:, :1], both[:, 1:])
    if not flat:
        return stronger
    strong = torch.sigmoid(_FLAT_STEEPNESS * 255 * (strength.amax(1, keepdim=True) - flat)).unsqueeze(2)
    return strong * stronger + (1 - strong) * both.mean(1, keepdim=True)


def vif(sources: Tensor, fused: Tensor) -> Tensor:
    """Return VIF in the pixel domain, 4 scales, σ_n² = 2 of 255 levels; summed over both sources, mean over pictures.

    `sources` (N, 2, H, W), `fused` (N, 1, H, W). Sheikh and Bovik, IEEE TIP 15(2), 2006, as `metrics.vif`; small
    constants keep it and its gradient finite where a crop is flat.
    """
    a, b, noise, least = 255 * sources, 255 * fused, 2.0, 0.01
    kept = there = fused.new_zeros(())
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        if scale:
            a, b = (_smooth(x, side)[:, :, ::2, ::2] for x in (a, b))
        if min(a.shape[2:]) < side:
            break
        mean_a, mean_b = _smooth(a, side), _smooth(b, side)
        var_a = (_smooth(a * a, side) - mean_a * mean_a).clamp_min(0)
        var_b = (_smooth(b * b, side) - mean_b * mean_b).clamp_min(0)
        cov = _smooth(a * b, side) - mean_a * mean_b
        gain = (cov / (var_a + least)).clamp_min(0)
        rest = (var_b - gain * cov).clamp_min(least)
        kept = kept + torch.log10(1 + gain * gain * var_a / (rest + noise)).sum((2, 3))
        there = there + torch.log10(1 + var_a / noise).sum((2, 3))
    return ((kept + 1) / (there + 1)).sum(1).mean()


def _smooth(x: Tensor, side: int) -> Tensor:
    """Smooth by a Gaussian window of `side` pixels, σ = side / 5, without the pixels whose window is cut."""
    kernel = torch.from_numpy(cv2.getGaussianKernel(side, side / 5)[:, 0]).to(x)
    channels = x.shape[1]
    x = F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def edges_kept(sources: Tensor, fused: Tensor) -> Tensor:
    """Return the share of the sources' edges that a picture keeps, weighted by their strength; 0 to 1.

    `sources` (N, 2, H, W), `fused` (N, 1, H, W). Q^AB/F (Xydeas and Petrovic, 2000), with the smallest angle between
    the two directions of an edge, which has no jump.
    """
    s, f = 255 * _SOBEL_GAIN * gradients(sources), 255 * _SOBEL_GAIN * gradients(fused)
    tiny = 1e-3
    strength, strength_f = ((x.square().sum(2) + tiny).sqrt() for x in (s, f))
    relative = torch.minimum(strength, strength_f) / torch.maximum(strength, strength_f)
    along = (s * f).sum(2).abs() + tiny
    aside = (s[:, :, 0] * f[:, :, 1] - s[:, :, 1] * f[:, :, 0]).abs() + tiny
    turned = 1 - torch.atan2(aside, along) / (torch.pi / 2)
    kept = 0.9994 * torch.sigmoid(15 * (relative - 0.5)) * 0.9879 * torch.sigmoid(22 * (turned - 0.8))
    return ((kept * strength).sum((1, 2, 3)) / (strength.sum((1, 2, 3)) + 1)).mean()


def noise_added(sources: Tensor, fused: Tensor) -> Tensor:
    """Return by how much a picture is rougher than both sources where both are flat, in grey levels a pixel.

    `sources` (N, 2, H, W), `fused` (N, 1, H, W). Roughness is the mean length of the gradient over 7×7 pixels; the mean
    over all pixels is taken, and those that are not flat count as 0.
    """
    rough, rough_fused = (
        F.avg_pool2d((gradients(255 * x).square().sum(2) + 1e-6).sqrt(), _QUIET_PX, stride=1) for x in (sources, fused)
    )
    rougher = rough.amax(1, keepdim=True)
    return (torch.sigmoid(_QUIET_STEEPNESS * (_QUIET - rougher)) * (rough_fused - rougher).clamp_min(0)).mean()


def means_differ(x: Tensor, y: Tensor, side: int) -> Tensor:
    """Return the l1 distance of two pictures' local means, over windows of `side` pixels."""
    return (F.avg_pool2d(x, side, stride=1) - F.avg_pool2d(y, side, stride=1)).abs().mean()


def outside(x: Tensor) -> Tensor:
    """Return how far a picture leaves [0, 1], as a mean over all pixels: these are clipped later."""
    return ((x - 1).clamp_min(0) + (-x).clamp_min(0)).mean()
