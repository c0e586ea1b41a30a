"""Compute EMMA's losses, each with the number of its equation (arXiv 2305.11443)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.transforms import Transform


@dataclass(frozen=True, slots=True)
class Nets:
    """Nets of eq. 6: F fuses thermal and luma; A_i and A_v sense each of them in a fused image."""

    fusion: Callable[[Tensor, Tensor], Tensor]
    thermal: Callable[[Tensor], Tensor]
    visible: Callable[[Tensor], Tensor]


def sobel(x: Tensor) -> Tensor:
    """Return ∇x = |∂x/∂u| + |∂x/∂v| by Sobel's kernels, borders reflected; (N, 1, H, W) to the same."""
    across = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    kernels = torch.stack([across, across.T])[:, None]
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernels).abs().sum(1, keepdim=True)


def distance(x: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return L(x, y) = |x − y|₁ + |∇x − ∇y|₁ (eq. 5), means over pixels; `mask`, 0 or 1, leaves pixels out."""
    difference = (x - y).abs() + (sobel(x) - sobel(y)).abs()
    if mask is None:
        return difference.mean()
    return (difference * mask).sum() / mask.expand_as(difference).sum().clamp_min(1)


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms of the second stage's loss, for reports, their weighted sum, and the fused images."""

    thermal: Tensor
    visible: Tensor
    equivariance: Tensor
    total: Tensor
    fused: Tensor


def fusion_loss(
    nets: Nets,
    ir: Tensor,
    luma: Tensor,
    transforms: list[Transform],
    *,
    alpha1: float = 1.0,
    alpha2: float = 0.1,
    direct: bool = False,
) -> Terms:
    """Return L(A_i(f), i) + α₁ L(A_v(f), v) + α₂ L(f_t, F(A_i(f_t), A_v(f_t))), f = F(i, v), f_t = T_g f (eq. 6).

    `ir` and `luma` are (N, 1, H, W) in [0, 1]. The equivariance term is the mean over `transforms`; without any it
    is 0. `direct` is an ablation of the paper: it compares f itself with i and v, not its sensed forms.
    """
    fused = nets.fusion(ir, luma)
    thermal = distance(fused if direct else nets.thermal(fused), ir)
    visible = distance(fused if direct else nets.visible(fused), luma)
    equivariance = fused.new_zeros(())
    if transforms:
        moved = torch.cat([t(fused) for t in transforms])
        masks = [t.valid(fused) for t in transforms]
        again = nets.fusion(nets.thermal(moved), nets.visible(moved))
        parts = [
            distance(a, b, mask)
            for a, b, mask in zip(moved.chunk(len(transforms)), again.chunk(len(transforms)), masks, strict=True)
        ]
        equivariance = torch.stack(parts).mean()
    return Terms(thermal, visible, equivariance, thermal + alpha1 * visible + alpha2 * equivariance, fused)
