"""Define the student: a small network that directs a choice between the details of both sources.

Both sources become bands of details and a rest at an eighth of the size (`rtfuse.fuse.bands`, Burt and Adelson 1983).
All that is learnt works there, on 1/64 of the pixels: it mixes the rests, and says for each band how much thermal
counts in the choice, and by what gain the chosen details are shown.

    ir, luma ─ bands ─┬─ rests, energies ─ stem ─┬────────────(+)─ body ─(+)─ head ─┬─ fused rest ─(+)─ (+)─ (+)─ fused
                      │                          ├─ ÷2 ─ context ─┘      │          ├─ weights      │     │     │
                      │                          └───────────────────────┘          └─ gains        │     │     │
                      └─ the stronger detail of each band, by weight and gain ──────────────────────┴─────┴─────┘

No detail is resampled, and none is invented: each comes from one source. The context looks further, and at the mean of
the whole picture, which the exposure of a fused image depends on.

The bands are integers from 0 to 255, here as in OpenCV, so that engines differ only in the learnt part. Training
computes without these roundings, whose slope is 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtfuse.fuse.bands import LOUDER, UNIT_GAIN, UNIT_WEIGHT

LEVELS = 3
"""Bands of details. The network works on pictures 2^LEVELS times smaller than its sources."""
MARK = "guide.context.down.weight"
"""The tensor that no other network has."""


class Context(nn.Module):
    """Add the wider surroundings, at half the resolution of the features: (N, C, H, W) to the same."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, inside, 3, stride=2, padding=1)
        self.near = nn.Conv2d(inside, inside, 3, padding=1)
        self.far = nn.Conv2d(inside, inside, 3, padding=3, dilation=3)
        self.whole = nn.Conv2d(inside, inside, 1)
        self.back = nn.Conv2d(inside, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return what to add to the features."""
        size = x.shape[2:]
        x = F.relu(self.near(F.relu(self.down(x))))
        x = F.relu(self.far(x) + self.whole(x.mean((2, 3), keepdim=True)))
        return F.interpolate(self.back(x), size=size, mode="bilinear")


class Guide(nn.Module):
    """All that is learnt: from rests and energies, (N, 2 + 2 L, H, W) from 0 to 255, to (N, 1 + 2 L, H, W).

    In: the rests of thermal and luma, then for each of L bands, from fine to coarse, the energies of thermal and luma.
    Out: the fused rest, a weight for each band and a gain for each band, in their bytes; not rounded, not cut off.
    """

    def __init__(self, channels: int, layers: int, context: int, levels: int = LEVELS) -> None:
        super().__init__()
        self.levels = levels
        self.stem = nn.Conv2d(2 + 2 * levels, channels, 3, padding=1)
        self.context = Context(channels, context)
        self.body = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))
        self.head = nn.Conv2d(channels, 3 + 2 * levels, 1)
        with torch.no_grad():  # begins as the mean of both rests, all weights and gains 1
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()  # type: ignore[union-attr]
            self.head.bias[:2] = 0.5  # type: ignore[index]

    def forward(self, planes: Tensor) -> Tensor:
        """Return fused rest, weights and gains."""
        x = planes / 255
        stem = F.relu(self.stem(x))
        y = F.relu(stem + self.context(stem))
        for layer in self.body:
            y = F.relu(layer(y))
        a, b, c, weights, gains = torch.split(self.head(y + stem), [1, 1, 1, self.levels, self.levels], 1)
        rest = a * planes[:, :1] + b * planes[:, 1:2] + 255 * c
        return torch.cat((rest, UNIT_WEIGHT * torch.exp(weights), UNIT_GAIN * (1 + gains)), 1)


class Student(nn.Module):
    """Thermal and visible luma, (N, 1, H, W) in [0, 1] each, to fused luma of the same shape; sides: `inputs.MULTIPLE`.

    `channels` are those of the guide's body, of `layers` 3×3 convolutions; `context` those of its coarser branch.
    """

    def __init__(self, channels: int = 24, layers: int = 2, context: int = 32) -> None:
        super().__init__()
        self.guide = Guide(channels, layers, context)

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma; in training it may leave [0, 1]."""
        exact = not self.training
        inside = torch.promote_types(ir.dtype, torch.float32)  # halves do not hold the bands
        image = _rounded(torch.cat((ir, luma), 1).to(inside) * 255, exact)
        bands, energies = [], []
        for level in range(LEVELS):
            coarse = _down(image, exact)
            band = image - _up(coarse, exact)
            loud = (LOUDER * band.abs()).clamp(max=255)
            for _ in range(LEVELS - level):
                loud = _rounded(F.avg_pool2d(loud, 2), exact)
            bands.append(band)
            energies.append(loud)
            image = coarse
        planes = torch.cat((image, *energies), 1)
        guided = _byte(self.guide(planes.to(ir.dtype)).to(inside), exact)
        fused, weights, gains = torch.split(guided, [1, LEVELS, LEVELS], 1)
        for level in reversed(range(LEVELS)):
            control = torch.cat((weights[:, level : level + 1], gains[:, level : level + 1]), 1)
            for _ in range(LEVELS - level):
                control = _up(control, exact)
            fused = _up(fused, exact) + _stronger(bands[level], control[:, :1], control[:, 1:], exact)
            fused = fused.clamp(0, 255) if exact else fused
        return (fused / 255).to(ir.dtype)


def _stronger(band: Tensor, weight: Tensor, gain: Tensor, exact: bool) -> Tensor:
    """Return thermal's detail where it is stronger than luma's, times the gain; `band` has both, (N, 2, H, W)."""
    ir, luma = band[:, :1], band[:, 1:]
    ahead = _byte(ir.abs() * weight / UNIT_WEIGHT, exact) - luma.abs()
    chosen = (ahead > 0).to(band.dtype)
    if exact:
        return torch.round((chosen * ir + (1 - chosen) * luma) * gain / UNIT_GAIN)
    soft = torch.sigmoid(ahead)  # its slope teaches the weight
    chosen = chosen + soft - soft.detach()
    return (chosen * ir + (1 - chosen) * luma) * gain / UNIT_GAIN


def _down(x: Tensor, exact: bool) -> Tensor:
    """Halve both sides, as OpenCV's pyrDown does: 5 binomial weights, mirrored at the edges.

    Sums of slices, since a convolution on a GPU may round 12 bits to 11 (TF32).
    """
    x = F.pad(x, (2, 2, 2, 2), mode="reflect")
    return _rounded(_halved(_halved(x, 3), 2) / 256, exact)


def _halved(x: Tensor, dim: int) -> Tensor:
    whole, last = slice(None), x.shape[dim] - 5
    a, b, c, d, e = (x[(*[whole] * dim, slice(k, k + last, 2))] for k in range(5))
    return a + 4 * (b + d) + 6 * c + e


def _up(x: Tensor, exact: bool) -> Tensor:
    """Double both sides, as OpenCV's pyrUp does: the same weights; mirrored at the top and left, repeated elsewhere."""
    return _rounded(_doubled(_doubled(x, 2), 3), exact)


def _doubled(x: Tensor, dim: int) -> Tensor:
    size = x.shape[dim]
    before = torch.cat((x.narrow(dim, 1, 1), x.narrow(dim, 0, size - 1)), dim)
    after = torch.cat((x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)), dim)
    return torch.stack(((before + 6 * x + after) / 8, (x + after) / 2), dim + 1).flatten(dim, dim + 1)


def _rounded(x: Tensor, exact: bool) -> Tensor:
    """Round halves up, as OpenCV's pyramids and means do."""
    return torch.floor(x + 0.5) if exact else x


def _byte(x: Tensor, exact: bool) -> Tensor:
    """Round halves to even, and cut off, as OpenCV's products do."""
    return torch.round(x).clamp(0, 255) if exact else x


def student_of(state: Mapping[str, Tensor]) -> Student:
    """Return the student whose tensors these are. Raises RuntimeError or KeyError if they are not, or not all."""
    context, channels = state[MARK].shape[:2]
    layers = sum(k.startswith("guide.body.") and k.endswith(".weight") for k in state)
    net = Student(channels, layers, context)
    net.load_state_dict(state)
    return net
