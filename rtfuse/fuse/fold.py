"""Exact algebraic folding of U-Fuser, before any engine is built: the same picture for 60 % of the arithmetic.

Between layers without a nonlinearity, products of weights are computed once instead of for every pixel:

* Queries, keys and values are W₂ ∗ (W₁ x), a 1×1 and a zero-padded 3×3 convolution without biases: one 3×3
  convolution (W₂ ∗ W₁) x, c → 3c.
* The output is P (A v), with A the softmaxed likeness of channels, block-diagonal over heads: (P A) v, one c×c matrix
  made per image and applied once per pixel.
* Where a head has a single channel (the finest scale) A = 1 exactly, whatever queries, keys and temperature are. What
  is left is the single convolution (P W₂ᵛ ∗ W₁) x, c → c.

Not folded: the layer norm's affine stays where it is, since the zero padding of the following 3×3 convolution sees its
bias inside the picture only, and every engine fuses it into the normalisation anyway; 3×3 after 3×3 would become 5×5;
the gated feed-forward's 1×1 into its grouped 3×3 would triple the arithmetic.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rtfuse.fuse.ufuser import ChannelAttention, Transformer, UFuser, _unit


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
        """(P A) v, with A = softmax(q kᵀ · temperature) for each head."""
        n, c, h, w = x.shape
        per_head = c // self.heads
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, per_head, h * w).unbind(1)
        likeness = ((_unit(q) @ _unit(k).transpose(-2, -1)) * self.temperature).softmax(-1)
        columns = self.project.reshape(c, self.heads, per_head).transpose(0, 1)  # P by heads: (heads, C, C / heads)
        mixed = (columns @ likeness).transpose(1, 2).reshape(n, c, c)
        return (mixed @ v.reshape(n, c, h * w)).reshape(n, c, h, w)


def fold(net: UFuser) -> UFuser:
    """Return a copy of the network, for inference, that computes the same with less; the products are of float64."""
    folded = copy.deepcopy(net).requires_grad_(False).eval()
    for transformer in [m for m in folded.modules() if isinstance(m, Transformer)]:
        attention = transformer.attention
        assert isinstance(attention, ChannelAttention)
        transformer.attention = _value_only(attention) if _one_channel_a_head(attention) else FoldedAttention(attention)
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
