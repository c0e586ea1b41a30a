"""Scale U-Fuser exactly by powers of two, so that its values fit into float16, whose largest number is 65504.

Nothing in the network keeps its features small: those of the shipped weights reach 10⁶ in the decoder. Within a block
everything but two inner branches is linear or a ReLU, and these branches begin with a layer norm, which takes any scale
off again. So a block's features can be s times as large, with s for its biases and for the outputs of both branches, s²
for the norm's guard, and the scale taken off where the next block, or the head, reads them.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from rtfuse.fuse.networks.ufuser import (
    Block,
    ChannelAttention,
    ChannelNorm,
    GatedFeedForward,
    Residual,
    Transformer,
    UFuser,
)

_LARGEST = 256.0
"""The largest feature of the samples after scaling: other pictures may reach 256 times that."""


def scaled(net: UFuser) -> UFuser:
    """Return a copy of the network that computes the same picture with features that float16 holds."""
    made, largest = copy.deepcopy(net).requires_grad_(False), _largest(net)
    scales: dict[nn.Module, float] = {}

    def adapt(block: nn.Module, kept: float, *inputs: tuple[int, float]) -> float:
        """Give a block its scale; `inputs` are the channels that it reads, with the scales that they come in."""
        assert isinstance(block, Block)
        scales[block] = s = _power(kept)
        first = 0
        for channels, scale in inputs:
            block.embed.weight[:, first : first + channels] *= s / scale
            first += channels
        _scale_inside(block, s)
        return s

    encoded = []
    for name, encoder in (("encoder_ir", made.encoder_ir), ("encoder_rgb", made.encoder_rgb)):
        at, channels, seen = 1.0, 1, []
        for k, block in enumerate(encoder.blocks):
            assert isinstance(block, Block)
            at = adapt(block, largest[f"{name}.{k}"], (channels, at))
            channels = block.merge.out_channels
            seen.append((channels, at))
        encoded.append(seen)
    fused = []
    for k, block in enumerate(made.fusion):
        assert isinstance(block, Block)
        at = adapt(block, largest[f"fusion.{k}"], encoded[0][k], encoded[1][k])
        fused.append((block.merge.out_channels, at))
    below: list[tuple[int, float]] = []
    for k in reversed(range(len(made.decoder))):
        block = made.decoder[k]
        assert isinstance(block, Block)
        at = adapt(block, largest[f"decoder.{k}"], *below, fused[k])
        if k:
            below = [(made.up[k - 1].out_channels, at)]  # type: ignore[list-item]
    made.head.weight /= at
    return made


def _scale_inside(block: Block, s: float) -> None:
    for module in block.modules():
        if isinstance(module, ChannelNorm):
            module.eps *= s * s
        elif isinstance(module, ChannelAttention | GatedFeedForward):
            module.project.weight *= s
        elif isinstance(module, Residual):
            for conv in (module.conv1, module.conv2):
                assert conv.bias is not None
                conv.bias *= s


def _power(largest: float) -> float:
    """Return the power of two, 1 at most, that brings `largest` down to `_LARGEST`."""
    return 2.0 ** -max(0, math.ceil(math.log2(max(largest, 1e-30) / _LARGEST)))


@torch.no_grad()
def _largest(net: UFuser) -> dict[str, float]:
    """Return the largest feature of each block, and of what climbs up from it, over pictures of all kinds."""
    found: dict[str, float] = defaultdict(float)
    hooks = []

    def watch(module: nn.Module, name: str) -> None:
        def see(_: nn.Module, __: object, out: Tensor) -> None:
            found[name] = max(found[name], float(out.abs().max()))

        hooks.append(module.register_forward_hook(see))

    parts = [(f"{n}.{k}", b) for n in ("encoder_ir", "encoder_rgb") for k, b in enumerate(getattr(net, n).blocks)]
    parts += [(f"{n}.{k}", b) for n in ("fusion", "decoder") for k, b in enumerate(getattr(net, n))]
    for name, block in parts:
        for module in block.modules():
            if not isinstance(module, Transformer | ChannelNorm | nn.Sequential):
                watch(module, name)
    for k, up in enumerate(net.up):
        watch(up, f"decoder.{k + 1}")
    for n in ("encoder_ir", "encoder_rgb"):
        for k, down in enumerate(getattr(net, n).down):
            watch(down, f"{n}.{k}")
    try:
        for ir, luma in _pictures():
            net(ir.to(net.head.weight), luma.to(net.head.weight))
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _pictures() -> list[tuple[Tensor, Tensor]]:
    """Black, white, a ramp, noise, a checkerboard and lone bright dots: each paired with itself and with the next."""
    rng = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(96), indexing="ij")
    flat = torch.zeros(64, 96)
    dots = ((x % 16 == 8) & (y % 16 == 8)).float()
    kinds = [flat, flat + 1, x / 95, torch.rand(64, 96, generator=rng), ((x // 4 + y // 4) % 2).float(), dots]
    return [(kinds[k][None, None], kinds[(k + d) % len(kinds)][None, None]) for k in range(len(kinds)) for d in (0, 1)]
