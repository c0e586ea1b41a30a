"""Define U-Fuser, the fusion network of EMMA (Zhao et al., CVPR 2024, arXiv 2305.11443), in plain torch.

Two encoders with weights of their own, one for thermal and one for visible luma, each at four scales; at every scale
a block fuses their features; a decoder climbs back up over the fused features:

    ir   ── encoder_ir  ─┬─────┬─────┬─────┐
    luma ── encoder_rgb ─┼─────┼─────┼─────┤
                      fusion fusion fusion fusion
    fused ── head ── decoder ◂ decoder ◂ decoder ◂ decoder

All of them are made of one block, which sees the whole image (attention between channels) and a pixel's surroundings
(residual convolutions) side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtfuse.errors import WeightsMissing
from rtfuse.fuse.inputs import MULTIPLE
from rtfuse.fuse.networks.checkpoints import known_network, part_of, read_tensors, unwrapped

CHANNELS = (8, 16, 32, 32)
HEADS = 8


def _conv(inputs: int, outputs: int, *, stride: int = 1, bias: bool = False, groups: int = 1) -> nn.Conv2d:
    """Make a 3×3 convolution with reflected borders, which do not darken the picture's edge as zeros would."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode="reflect", bias=bias, groups=groups)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = 1e-5

    def forward(self, x: Tensor) -> Tensor:
        """Normalise to zero mean and unit variance, then scale and shift."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=self.eps)
        return x.permute(0, 3, 1, 2)


class ChannelAttention(nn.Module):
    """Attention between channels (Zamir et al., Restormer, CVPR 2022, eq. 1), its cost linear in the pixels.

    Queries, keys and values come from a 1×1 and then a full 3×3 convolution. (N, C, H, W) to the same. Where a head
    has a single channel, as at the finest scale, its softmax is 1 and its queries and keys do nothing.
    """

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.expand = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.mix = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, bias=False)  # zero borders, as published
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute softmax(q kᵀ · temperature) v, with q and k of unit length over all pixels."""
        n, c, h, w = x.shape
        q, k, v = self.mix(self.expand(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        likeness = (_unit(q) @ _unit(k).transpose(-2, -1)) * self.temperature
        return self.project((likeness.softmax(-1) @ v).reshape(n, c, h, w))


def _unit(x: Tensor) -> Tensor:
    """Scale the last dimension to unit length, safely in half precision too.

    A sum of squares over a whole image passes float16's largest number, and the published guard of 1e-12 is zero in
    it: the length is taken in float32, with a guard whose inverse half precision can hold.
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).clamp_min(1e-4)
        return x * (1 / length).to(x.dtype)
    return F.normalize(x, dim=-1, eps=1e-12)


class GatedFeedForward(nn.Module):
    """Gated feed-forward with 3×3 convolutions (Restormer, eq. 2), expansion 1. (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.spread = _conv(2 * channels, 2 * channels, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Gate one half of the features by the other half, through GELU."""
        gate, value = self.spread(self.expand(x)).chunk(2, 1)
        return self.project(F.gelu(gate) * value)


class Transformer(nn.Module):
    """Global branch: attention between channels, then a gated feed-forward, each on top of its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.attention: nn.Module = ChannelAttention(channels)
        self.norm2: nn.Module = ChannelNorm(channels)
        self.feed_forward: nn.Module = GatedFeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape, (N, C, H, W)."""
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class Residual(nn.Module):
    """Two 3×3 convolutions on top of their input. (N, C, H, W) to the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, channels, bias=True)
        self.conv2 = _conv(channels, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        """Compute x + conv2(relu(conv1(x)))."""
        return x + self.conv2(F.relu(self.conv1(x)))


class Block(nn.Module):
    """Embed, then the global and the local branch side by side, then merge: (N, inputs, H, W) to (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.embed = _conv(inputs, outputs)
        self.wide: nn.Module = Transformer(outputs)
        self.near: nn.Module = nn.Sequential(Residual(outputs), Residual(outputs))
        self.merge = _conv(2 * outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the merged features."""
        x = self.embed(x)
        return self.merge(torch.cat((self.wide(x), self.near(x)), 1))


class Encoder(nn.Module):
    """Compute one modality's features at four scales: (N, 1, H, W) to (N, CHANNELS[s], H / 2ˢ, W / 2ˢ), s = 0 … 3."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(i, o) for i, o in zip((1, *CHANNELS), CHANNELS, strict=False))
        self.down = nn.ModuleList(_conv(c, c, stride=2) for c in CHANNELS[:-1])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features, fine to coarse."""
        features = [self.blocks[0](x)]
        for down, block in zip(self.down, self.blocks[1:], strict=True):
            features.append(block(down(features[-1])))
        return features


class UFuser(nn.Module):
    """Thermal and visible luma, (N, 1, H, W) in [0, 1], to fused luma, (N, 1, H, W) in (0, 1).

    H and W are multiples of 8, at least 16 (see `pad_to_multiple`). 1,517,657 parameters. Images of a batch do not
    influence each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder_ir = Encoder()
        self.encoder_rgb = Encoder()
        self.fusion = nn.ModuleList(Block(2 * c, c) for c in CHANNELS)
        deeper = (*CHANNELS[:-1], CHANNELS[-1] // 2)  # the deepest decoder block has no skip to read
        self.decoder = nn.ModuleList(Block(2 * i, o) for i, o in zip(deeper, CHANNELS, strict=True))
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False) for fine, coarse in pairwise(CHANNELS)
        )
        self.head = _conv(CHANNELS[0], 1, bias=True)

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma."""
        pairs = zip(self.encoder_ir(ir), self.encoder_rgb(luma), strict=True)
        fused = [fuse(torch.cat(pair, 1)) for fuse, pair in zip(self.fusion, pairs, strict=True)]
        x = self.decoder[-1](fused[-1])
        for scale in reversed(range(len(self.up))):
            x = F.relu(self.up[scale](x))
            x = self.decoder[scale](torch.cat((x, fused[scale]), 1))
        return self.head(x).sigmoid()


def pad_to_multiple(x: Tensor, multiple: int = MULTIPLE) -> Tensor:
    """Extend (N, C, H, W) to the right and below by its border pixels, to multiples of `multiple`, at least two.

    (One would leave a single pixel at the coarsest scale, and nothing to reflect at its border.)
    """
    down, right = (max(-side % multiple, 2 * multiple - side) for side in x.shape[-2:])
    return F.pad(x, (0, right, 0, down), mode="replicate")


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Take the padding off again."""
    return x[..., :height, :width]


def load_weights(path: str | Path) -> UFuser:
    """Return the network with the weights of a file, on the processor, in float32; see `checkpoints.read_tensors`.

    They may have the names of the reference implementation. Raises WeightsMissing if the file is absent, unreadable,
    damaged, or its tensors do not fit.
    """
    return ufuser_of(read_tensors(path), str(path))


def ufuser_of(state: Mapping[str, Tensor], name: str) -> UFuser:
    """Return the network with these tensors, under its own names or the reference's; `name` is that of their file.

    Raises WeightsMissing if they do not fit.
    """
    net = UFuser()
    own = net.state_dict()
    theirs = reference_key_map()
    if (found := part_of(state, own)) is None and part_of(state, theirs) is not None:
        found = from_reference(state)
    if found is None:
        network = known_network(state)
        if network is not None and not network.startswith("U-Fuser"):
            raise WeightsMissing(f"weights {name} are those of {network}, not of U-Fuser")
        found = unwrapped(state)
        if len(found.keys() & theirs.keys()) > len(found.keys() & own.keys()):
            found = from_reference(found)
    _check_fit(found, own, name)
    net.load_state_dict(found)
    return net


def _check_fit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], name: str) -> None:
    missing = [k for k in wanted if k not in state]
    foreign = [k for k in state if k not in wanted]
    wrong = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    whole = [k for k in wanted if k in state and not state[k].is_floating_point()]
    faults = [
        f"{len(ks)} {what} ({', '.join(ks[:3])}{', …' if len(ks) > 3 else ''})"
        for what, ks in (
            ("tensors missing", missing),
            ("unknown", foreign),
            ("of another shape", wrong),
            ("of whole numbers", whole),
        )
        if ks
    ]
    if faults:
        raise WeightsMissing(f"weights {name} do not fit U-Fuser: {'; '.join(faults)}")


_BLOCK_KEYS = {
    "embed.weight": "embed.weight",
    "GlobalFeature.norm1.body.weight": "wide.norm1.weight",
    "GlobalFeature.norm1.body.bias": "wide.norm1.bias",
    "GlobalFeature.attn.scale": "wide.attention.temperature",
    "GlobalFeature.attn.qkv1.weight": "wide.attention.expand.weight",
    "GlobalFeature.attn.qkv2.weight": "wide.attention.mix.weight",
    "GlobalFeature.attn.proj.weight": "wide.attention.project.weight",
    "GlobalFeature.norm2.body.weight": "wide.norm2.weight",
    "GlobalFeature.norm2.body.bias": "wide.norm2.bias",
    "GlobalFeature.mlp.project_in.weight": "wide.feed_forward.expand.weight",
    "GlobalFeature.mlp.dwconv.weight": "wide.feed_forward.spread.weight",
    "GlobalFeature.mlp.project_out.weight": "wide.feed_forward.project.weight",
    "FFN.weight": "merge.weight",
} | {
    f"LocalFeature.Extraction.{block}.conv.{layer}.{kind}": f"near.{block}.{ours}.{kind}"
    for block in (0, 1)
    for layer, ours in ((0, "conv1"), (2, "conv2"))
    for kind in ("weight", "bias")
}


def reference_key_map() -> dict[str, str]:
    """Return, for every tensor in a checkpoint of the reference implementation, the name of it here.

    The reference counts scales from 1 and prefixes the visible encoder with `V_`, the thermal one with `I_`; its
    checkpoints hold no tensor that is not used.
    """
    modules = {f"{prefix}_en_{s + 1}": f"{ours}.blocks.{s}" for prefix, ours in _ENCODERS for s in range(4)}
    modules |= {f"f_{s + 1}": f"fusion.{s}" for s in range(4)} | {f"de_{s + 1}": f"decoder.{s}" for s in range(4)}
    keys = {f"{theirs}.{k}": f"{ours}.{v}" for theirs, ours in modules.items() for k, v in _BLOCK_KEYS.items()}
    keys |= {f"{p}_down{s + 1}.weight": f"{ours}.down.{s}.weight" for p, ours in _ENCODERS for s in range(3)}
    keys |= {f"up{s + 2}.0.weight": f"up.{s}.weight" for s in range(3)}
    return keys | {"last.0.weight": "head.weight", "last.0.bias": "head.bias"}


_ENCODERS = (("I", "encoder_ir"), ("V", "encoder_rgb"))


def from_reference(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a reference checkpoint to ours; what stands before all of them is taken off (`module.`).

    Raises WeightsMissing naming the tensors that are missing, unknown or of another shape.
    """
    names = reference_key_map()
    plain = part_of(state, names) or unwrapped(state)
    ours = UFuser().state_dict()
    _check_fit(plain, {theirs: ours[name] for theirs, name in names.items()}, "of the reference checkpoint")
    return {names[k]: v for k, v in plain.items()}
