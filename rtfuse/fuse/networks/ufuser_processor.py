"""Rewrite the folded network in the form that processors compute fastest: the same sums, in a better order.

* A vector register holds `lanes` numbers (16 with AVX-512, 8 with AVX2, 4 on ARM), but the finest scale has 8 channels.
  Where registers are wider, one convolution makes two neighbouring pixels at once: its kernel is 3×4, its stride across
  is 2, and its 16 outputs are the 8 channels of both. In memory that is the picture itself, if the channels of a pixel
  lie side by side: packing and unpacking are views.
* A layer norm's means over channels are 1×1 convolutions, which leave pixels where they are.
* Features that would be concatenated and convolved are convolved in parts and added: no copy.
* Likeness of channels is one product of queries and keys with themselves; lengths are its diagonal.

Laid out for OpenVINO, which takes `permute, reshape` between a convolution and a padding for a view: nothing moves.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtfuse.fuse.networks.folding import FoldedAttention, FoldedFeedForward, fold
from rtfuse.fuse.networks.ufuser import CHANNELS, Block, ChannelNorm, Encoder, Residual, Transformer, UFuser


class Plain:
    """Features as (N, C, H, W)."""

    pixels = 1

    @staticmethod
    def image(x: Tensor) -> Tensor:
        """Return features in the layout of a convolution, (N, C, H, W)."""
        return x

    @staticmethod
    def bordered(x: Tensor) -> Tensor:
        """Return the same with a reflected border of one pixel, (N, C, H + 2, W + 2)."""
        return F.pad(x, (1, 1, 1, 1), mode="reflect")

    @staticmethod
    def packed(x: Tensor) -> Tensor:
        """Return features with the channels of `pixels` neighbours as one pixel's, (N, C · pixels, H, W / pixels)."""
        return x

    @staticmethod
    def unpacked(x: Tensor) -> Tensor:
        """Undo `packed`."""
        return x


class Paired(Plain):
    """Features as (N, H, W, C), of which two neighbouring pixels are computed as one."""

    pixels = 2

    @staticmethod
    def image(x: Tensor) -> Tensor:
        """Return features in the layout of a convolution, (N, C, H, W)."""
        return x.permute(0, 3, 1, 2)

    @staticmethod
    def bordered(x: Tensor) -> Tensor:
        """Return the same with a reflected border of one pixel, (N, C, H + 2, W + 2)."""
        return F.pad(x, (0, 0, 1, 1, 1, 1), mode="reflect").permute(0, 3, 1, 2)

    @staticmethod
    def packed(x: Tensor) -> Tensor:
        """Return features with the channels of two neighbours as one pixel's, (N, 2 C, H, W / 2)."""
        n, h, w, c = x.shape
        return x.reshape(n, h, w // 2, 2 * c).permute(0, 3, 1, 2)

    @staticmethod
    def unpacked(x: Tensor) -> Tensor:
        """Undo `packed`."""
        n, c, h, w = x.shape
        return x.permute(0, 2, 3, 1).reshape(n, h, 2 * w, c // 2)


Layout = type[Plain]


class Conv(nn.Module):
    """Compute a 3×3 convolution for `pixels` neighbours at once: (N, C, H, W) to (N, pixels · C', H', W' / pixels).

    `border` is the width of the zeros to add; add a reflected border before the call.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self, weight: Tensor, bias: Tensor | None = None, *, pixels: int = 1, stride: int = 1, border: int = 0
    ) -> None:
        super().__init__()
        outputs, inputs, rows, columns = weight.shape
        wide = weight.new_zeros(pixels, outputs, inputs, rows, columns + pixels - 1)
        for pixel in range(pixels):
            wide[pixel, ..., pixel : pixel + columns] = weight.detach()
        self.register_buffer("weight", wide.flatten(0, 1))
        self.register_buffer("bias", None if bias is None else bias.detach().repeat(pixels))
        self.stride, self.border = (stride, stride * pixels), border

    def forward(self, x: Tensor) -> Tensor:
        """Return the packed features."""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.border)


class Mixed(nn.Module):
    """Apply a (C', C) matrix to every pixel of packed features."""

    weight: Tensor

    def __init__(self, matrix: Tensor, pixels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.kron(torch.eye(pixels), matrix.detach())[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the packed products."""
        return F.conv2d(x, self.weight)


class Norm(nn.Module):
    """Layer norm over the channels of each pixel, of packed features, by two matrices; `affine` scales and shifts."""

    scale: Tensor
    shift: Tensor

    def __init__(self, channels: int, pixels: int, affine: ChannelNorm | None = None) -> None:
        super().__init__()
        mean = torch.full((channels, channels), 1 / channels)
        self.centre, self.mean = Mixed(torch.eye(channels) - mean, pixels), Mixed(mean, pixels)
        self.affine = affine is not None
        if affine is not None:
            for name, values in (("scale", affine.weight), ("shift", affine.bias)):
                self.register_buffer(name, values.detach().repeat(pixels)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Normalise to zero mean and unit variance, then scale and shift."""
        x = self.centre(x)
        x = x * torch.rsqrt(self.mean(x * x) + 1e-5)
        return x * self.scale + self.shift if self.affine else x


class Attention(nn.Module):
    """`FoldedAttention` with one product for likeness and lengths: (N, C, H, W) to the same."""

    temperature: Tensor
    project: Tensor
    apart: Tensor
    diagonal: Tensor

    def __init__(self, source: FoldedAttention) -> None:
        super().__init__()
        weight = source.qkv.weight
        c = weight.shape[1]
        head = torch.arange(c) // (c // source.heads)
        self.seek, self.give = Conv(weight[: 2 * c], border=1), Conv(weight[2 * c :], border=1)
        self.register_buffer("temperature", source.temperature.reshape(-1)[head][:, None])
        self.register_buffer("project", source.project.clone())
        self.register_buffer("apart", torch.where(head[:, None] == head, 0.0, -1e9))  # channels of different heads
        self.register_buffer("diagonal", torch.eye(2 * c))

    def forward(self, x: Tensor) -> Tensor:
        """(P A) v, with A = softmax(q kᵀ · temperature) for each head."""
        c = x.shape[1]
        seeking = self.seek(x).permute(0, 2, 3, 1).flatten(1, 2)
        products = seeking.transpose(1, 2) @ seeking
        inverse = (products * self.diagonal).sum(-1).clamp_min(1e-24).rsqrt()
        likeness = products[:, :c, c:] * inverse[:, :c, None] * inverse[:, None, c:]
        matrix = self.project @ (likeness * self.temperature + self.apart).softmax(-1)
        return (self.give(x).permute(0, 2, 3, 1) @ matrix.transpose(1, 2)[:, None]).permute(0, 3, 1, 2)


class ProcessorBlock(nn.Module):
    """`Block` of several inputs: features of `layout` to the same."""

    def __init__(self, source: Block, inputs: int, layout: Layout) -> None:
        super().__init__()
        self.layout, pixels = layout, layout.pixels
        wide = cast(Transformer, source.wide)
        forward = cast(FoldedFeedForward, wide.feed_forward)
        channels = source.merge.out_channels
        self.embed = _parts(source.embed, inputs, pixels)
        self.norm1, self.norm2 = Norm(channels, pixels, wide.norm1), Norm(channels, pixels)
        self.attention = Attention(wide.attention) if isinstance(wide.attention, FoldedAttention) else None
        if isinstance(wide.attention, nn.Conv2d):
            self.give = Conv(wide.attention.weight, pixels=pixels, border=1)
        self.gate, self.value = (Conv(c.weight, c.bias, pixels=pixels) for c in (forward.gate, forward.value))
        self.project = Mixed(forward.project.weight[:, :, 0, 0], pixels)
        near = [cast(Residual, r) for r in cast(nn.Sequential, source.near)]
        self.near = nn.ModuleList(Conv(c.weight, c.bias, pixels=pixels) for r in near for c in (r.conv1, r.conv2))
        self.merge = _parts(source.merge, 2, pixels)

    def forward(self, *images: Tensor) -> Tensor:
        """Take images with a reflected border, (N, C, H + 2, W + 2); return the merged features."""
        at = self.layout
        x = _sum([at.unpacked(conv(image)) for conv, image in zip(self.embed, images, strict=True)])
        normal = at.image(at.unpacked(self.norm1(at.packed(x))))
        wide = x + (at.unpacked(self.give(normal)) if self.attention is None else self.attention(normal))
        normal = at.bordered(at.unpacked(self.norm2(at.packed(wide))))
        wide = wide + at.unpacked(self.project(F.gelu(self.gate(normal)) * self.value(normal)))
        near = x
        for first, second in ((self.near[0], self.near[1]), (self.near[2], self.near[3])):
            between = at.unpacked(F.relu(first(at.bordered(near))))
            near = near + at.unpacked(second(at.bordered(between)))
        return _sum([at.unpacked(conv(at.bordered(y))) for conv, y in zip(self.merge, (wide, near), strict=True)])


class ProcessorEncoder(nn.Module):
    """`Encoder`: (N, 1, H, W) to features of each scale's layout."""

    def __init__(self, source: Encoder, layouts: list[Layout]) -> None:
        super().__init__()
        self.layouts = layouts
        blocks = [cast(Block, b) for b in source.blocks]
        self.blocks = nn.ModuleList(ProcessorBlock(b, 1, at) for b, at in zip(blocks, layouts, strict=True))
        self.down = nn.ModuleList(Conv(cast(nn.Conv2d, d).weight, stride=2) for d in source.down)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the features, fine to coarse."""
        features = [self.blocks[0](Plain.bordered(x))]
        for finer, down, block in zip(self.layouts, self.down, self.blocks[1:], strict=False):
            features.append(block(Plain.bordered(down(finer.bordered(features[-1])))))
        return features


class ProcessorUFuser(nn.Module):
    """`UFuser`, folded, for inference on processors whose vector registers hold `lanes` float32.

    Thermal and visible luma, (N, 1, H, W) in [0, 1], to fused luma, (N, 1, H, W) in (0, 1); H and W are multiples of 8,
    at least 16.
    """

    def __init__(self, net: UFuser, *, lanes: int = 8) -> None:
        super().__init__()
        folded = fold(net)
        layouts: list[Layout] = [Paired if 2 * c <= lanes else Plain for c in CHANNELS]
        self.layouts = layouts
        self.encoder_ir = ProcessorEncoder(folded.encoder_ir, layouts)
        self.encoder_rgb = ProcessorEncoder(folded.encoder_rgb, layouts)
        blocks = [cast(Block, b) for b in folded.fusion]
        self.fusion = nn.ModuleList(ProcessorBlock(b, 2, at) for b, at in zip(blocks, layouts, strict=True))
        blocks = [cast(Block, b) for b in folded.decoder]
        inputs = [2] * (len(blocks) - 1) + [1]
        self.decoder = nn.ModuleList(ProcessorBlock(b, i, at) for b, i, at in zip(blocks, inputs, layouts, strict=True))
        self.up = folded.up
        self.head = Conv(folded.head.weight, folded.head.bias)

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma."""
        pairs = zip(self.encoder_ir(ir), self.encoder_rgb(luma), strict=True)
        fused = [
            at.bordered(fuse(*(at.bordered(x) for x in pair)))
            for at, fuse, pair in zip(self.layouts, self.fusion, pairs, strict=True)
        ]
        x = self.decoder[-1](fused[-1])
        for scale in reversed(range(len(self.up))):
            finer = F.relu(self.up[scale](self.layouts[scale + 1].image(x)))
            x = self.decoder[scale](Plain.bordered(finer), fused[scale])
        return self.head(self.layouts[0].bordered(x)).sigmoid()


def _parts(conv: nn.Conv2d, inputs: int, pixels: int) -> nn.ModuleList:
    """Return one convolution for each of the inputs that the source takes concatenated."""
    return nn.ModuleList(Conv(part, pixels=pixels) for part in conv.weight.chunk(inputs, 1))


def _sum(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
