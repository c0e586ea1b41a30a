"""Compute the bands of `rtfuse.fuse.bands` in torch: the same integers, as floats.

Training computes without the roundings, whose slope is 0 (`exact` False).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rtfuse.fuse.bands import UNIT_GAIN, UNIT_WEIGHT


def split(image: Tensor, levels: int, exact: bool) -> tuple[list[Tensor], Tensor]:
    """Return the bands of pictures (N, C, H, W) from 0 to 255, from fine to coarse, and the rest.

    Both sides are multiples of 2^`levels`.
    """
    bands = []
    for _ in range(levels):
        coarse = down(image, exact)
        bands.append(image - up(coarse, exact))
        image = coarse
    return bands, image


def stronger(band: Tensor, weight: Tensor | None, gain: Tensor, exact: bool) -> Tensor:
    """Return thermal's detail where it is stronger than luma's, times the gain; `band` has both, (N, 2, H, W).

    `weight` multiplies thermal's strength for the comparison; `gain` is of any shape that fits. Both in bytes.
    """
    ir, luma = band[:, :1], band[:, 1:]
    strength = _strength(band, exact)
    first = strength[:, :1] if weight is None else byte(strength[:, :1] * weight / UNIT_WEIGHT, exact)
    ahead = first - strength[:, 1:]
    chosen = _majority((ahead > 0).to(band.dtype))
    if exact:
        return torch.round((chosen * ir + (1 - chosen) * luma) * gain / UNIT_GAIN)
    soft = torch.sigmoid(ahead)  # its slope teaches the weight
    chosen = chosen + soft - soft.detach()
    return (chosen * ir + (1 - chosen) * luma) * gain / UNIT_GAIN


def _strength(band: Tensor, exact: bool) -> Tensor:
    """Return the mean of |band| around each pixel, with the weights 1 2 1 both ways, mirrored at the edges."""
    x = F.pad(band.abs(), (1, 1, 1, 1), mode="reflect")
    x = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return rounded((x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 16, exact)


def _majority(x: Tensor) -> Tensor:
    """Return what most of the 3×3 around each pixel are, of zeros and ones, repeated at the edges."""
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    return (x[..., :-2] + x[..., 1:-1] + x[..., 2:] > 4.5).to(x.dtype)


def down(x: Tensor, exact: bool) -> Tensor:
    """Halve both sides, as OpenCV's pyrDown does: 5 binomial weights, mirrored at the edges.

    Sums of slices, since a convolution on a GPU may round 12 bits to 11 (TF32).
    """
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return rounded(_halved(_halved(x, 3), 2) / 256, exact)


def _halved(x: Tensor, dim: int) -> Tensor:
    whole, last = slice(None), x.shape[dim] - 5
    a, b, c, d, e = (x[(*[whole] * dim, slice(k, k + last, 2))] for k in range(5))
    return a + 4 * (b + d) + 6 * c + e


def up(x: Tensor, exact: bool) -> Tensor:
    """Double both sides, as OpenCV's pyrUp does: the same weights; mirrored at the top and left, repeated elsewhere."""
    return rounded(_doubled(_doubled(x, 2), 3), exact)


def _doubled(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    before = torch.cat((x.narrow(dim, 1, 1), x.narrow(dim, 0, size - 1)), dim)
    after = torch.cat((x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)), dim)
    return torch.stack(((before + 6 * x + after) / 8, (x + after) / 2), dim + 1).flatten(dim, dim + 1)


def rounded(x: Tensor, exact: bool) -> Tensor:
    """Round halves up, as OpenCV's pyramids and means do."""
    return torch.floor(x + 0.5) if exact else x


def byte(x: Tensor, exact: bool) -> Tensor:
    """Round halves to even, and cut off, as OpenCV's products do."""
    return torch.round(x).clamp(0, 255) if exact else x
