"""Fold U-Fuser by exact algebra, before any engine is built: the same picture for 70 % of the arithmetic.

Between layers without a nonlinearity, products of weights are computed once instead of for every pixel:

* Queries, keys and values are W₂ ∗ (W₁ x), a 1×1 and a zero-padded 3×3 convolution without biases: one 3×3
  convolution (W₂ ∗ W₁) x, c → 3c.
* The output is P (A v), with A the softmaxed likeness of channels, block-diagonal over heads: (P A) v, one c×c matrix
  made per image and applied once per pixel.
* Where a head has a single channel (the finest scale) A = 1 exactly, for any queries, keys and temperature. There
  remains the single convolution (P W₂ᵛ ∗ W₁) x, c → c.
* The gated feed-forward's layer norm scales and shifts, its 1×1 convolution and its 3×3 one, of two channels a group,
  are one full 3×3 convolution with a bias for the gate and one for the value, c → c each: the border is reflected, so a
  shift before it is one after it. That is more arithmetic (48.6 → 55.5 GFLOP at 640×480) in less than half of the time,
  since no engine has a fast convolution of two channels a group.

Not folded: the first layer norm's affine stays where it is, since the zero padding of the following 3×3 convolution
sees its bias inside the picture only; 3×3 after 3×3 would become 5×5.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rtfuse.fuse.networks.ufuser import (
    ChannelAttention,
    ChannelNorm,
    GatedFeedForward,
    Transformer,
    UFuser,
    _conv,
    _unit,
)


class FoldedAttention(nn.Module):
    """`ChannelAttention` with one convolution before and one matrix after: (N, C, H, W) to the same."""

    temperature: Tensor
    project: Tensor

    def __init__(self, source: ChannelAttention) -> None:
        super().__init__()
        self.heads = source.heads
        self.qkv = _zero_padded(_product(source.mix.weight, source.expand.weight))
        self.register_buffer("temperature", source.temperature.detach().clone())
        self.register_buffer("project", source.project.weight.detach()[:, :, 0, 0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Compute (P A) v, with A = softmax(q kᵀ · temperature) for each head."""
        n, c, h, w = x.shape
        per_head = c // self.heads
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, per_head, h * w).unbind(1)
        likeness = ((_unit(q) @ _unit(k).transpose(-2, -1)) * self.temperature).softmax(-1)
        columns = self.project.reshape(c, self.heads, per_head).transpose(0, 1)  # P by heads: (heads, C, C / heads)
        mixed = (columns @ likeness).transpose(1, 2).reshape(n, c, c)
        return (mixed @ v.reshape(n, c, h * w)).reshape(n, c, h, w)


class FoldedFeedForward(nn.Module):
    """`GatedFeedForward` after the scale and shift of a `ChannelNorm`: (N, C, H, W), normalised, to the same."""

    def __init__(self, norm: ChannelNorm, source: GatedFeedForward) -> None:
        super().__init__()
        c = source.project.out_channels
        # Each of the 2c outputs of the grouped convolution sees two of the 2c features before it.
        seen = 2 * (torch.arange(2 * c) // 2)
        spread, expand = source.spread.weight.double(), source.expand.weight[:, :, 0, 0].double()
        kernel, shift = torch.zeros(2 * c, c, 3, 3, dtype=torch.float64), torch.zeros(2 * c, dtype=torch.float64)
        for member in (0, 1):
            rows = expand[seen + member]
            kernel += torch.einsum("oyx,oi->oiyx", spread[:, member], rows * norm.weight.double())
            shift += spread[:, member].sum((1, 2)) * (rows @ norm.bias.double())
        self.gate, self.value = _conv(c, c, bias=True), _conv(c, c, bias=True)
        for conv, part in ((self.gate, slice(c)), (self.value, slice(c, 2 * c))):
            conv.to(spread.device, source.spread.weight.dtype).requires_grad_(False)
            conv.weight.copy_(kernel[part])
            assert conv.bias is not None
            conv.bias.copy_(shift[part])
        self.project = copy.deepcopy(source.project)

    def forward(self, x: Tensor) -> Tensor:
        """Gate one half of the features by the other half, through GELU."""
        return self.project(F.gelu(self.gate(x)) * self.value(x))


class _Unscaled(nn.Module):
    """`ChannelNorm` without its scale and shift."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=self.eps).permute(0, 3, 1, 2)


def fold(net: UFuser) -> UFuser:
    """Return a copy of the network, for inference, that computes the same with less; the products are of float64."""
    folded = copy.deepcopy(net).requires_grad_(False).eval()
    for transformer in [m for m in folded.modules() if isinstance(m, Transformer)]:
        attention = transformer.attention
        assert isinstance(attention, ChannelAttention)
        transformer.attention = _value_only(attention) if _one_channel_a_head(attention) else FoldedAttention(attention)
        assert isinstance(transformer.norm2, ChannelNorm)
        assert isinstance(transformer.feed_forward, GatedFeedForward)
        transformer.feed_forward = FoldedFeedForward(transformer.norm2, transformer.feed_forward)
        transformer.norm2 = _Unscaled(transformer.norm2.eps)
    return folded


def _one_channel_a_head(attention: ChannelAttention) -> bool:
    return attention.project.in_channels == attention.heads


def _value_only(attention: ChannelAttention) -> nn.Conv2d:
    values = attention.mix.weight.chunk(3)[2]
    return _zero_padded(_product(values, attention.expand.weight, attention.project.weight))


def _product(spatial: Tensor, before: Tensor, after: Tensor | None = None) -> Tensor:
    """Return the 3×3 kernel of `spatial` (3×3) applied to `before` (1×1), then `after` (1×1) applied to that."""
    kernel = torch.einsum("omyx,mi->oiyx", spatial.double(), before[:, :, 0, 0].double())
    if after is not None:
        kernel = torch.einsum("po,oiyx->piyx", after[:, :, 0, 0].double(), kernel)
    return kernel.to(spatial.dtype).detach()


def _zero_padded(kernel: Tensor) -> nn.Conv2d:
    outputs, inputs = kernel.shape[:2]
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, device=kernel.device, dtype=kernel.dtype)
    conv.weight = nn.Parameter(kernel, requires_grad=False)
    return conv


def flops(net: nn.Module, height: int, width: int) -> int:
    """Count the floating-point operations of one image (two for each multiply-add), without computing any."""
    abstract = copy.deepcopy(net).to("meta")
    x = torch.empty(1, 1, height, width, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        abstract(x, x)
    return counter.get_total_flops()
