"""The student: a small network that imitates U-Fuser, fast enough for two processor cores.

Nearly all of it works at a quarter of the resolution. What it finds there are three numbers for every pixel of the full
picture, by which the sources themselves are mixed, so that no detail is ever resampled:

    ir, luma ─ unshuffle ÷4 ─ stem ─┬──────────────(+)─ body ─(+)─ head ─ a, b, c
                                    ├─ ÷8 ─ context ─┘         │
                                    └──────────────────────────┘
    fused = a · ir + b · luma + c

The context looks further, and at the mean of the whole picture, which the exposure of a fused image depends on.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FINE = 4
"""Factor by which the student's body is coarser than the picture."""
MARK = "context.down.weight"
"""The tensor that no other network has."""


class Context(nn.Module):
    """Add the wider surroundings, at half the resolution of the features: (N, C, H, W) to the same, H and W even."""

    def __init__(self, channels: int, inside: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, inside, 3, stride=2, padding=1)
        self.near = nn.Conv2d(inside, inside, 3, padding=1)
        self.far = nn.Conv2d(inside, inside, 3, padding=3, dilation=3)
        self.whole = nn.Conv2d(inside, inside, 1)
        self.up = nn.ConvTranspose2d(inside, channels, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return what to add to the features."""
        x = F.relu(self.near(F.relu(self.down(x))))
        x = F.relu(self.far(x) + self.whole(x.mean((2, 3), keepdim=True)))
        up: Tensor = self.up(x)
        return up


class Student(nn.Module):
    """Thermal and visible luma, (N, 1, H, W) in [0, 1] each, to fused luma of the same shape; H, W multiples of 8.

    `channels` are those of the body, of `layers` 3×3 convolutions; `context` those of the coarser branch.
    """

    def __init__(self, channels: int = 24, layers: int = 3, context: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2 * FINE**2, channels, 1)
        self.context = Context(channels, context)
        self.body = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers))
        self.head = nn.Conv2d(channels, 3 * FINE**2, 1)
        with torch.no_grad():  # begins as the mean of both
            self.head.weight.mul_(0.1)
            for part, value in zip(self.head.bias.split(FINE**2), (0.5, 0.5, 0.0), strict=True):  # type: ignore[union-attr]
                part.fill_(value)

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma; it may leave [0, 1] a little, and is to be clipped."""
        ir, luma = F.pixel_unshuffle(ir, FINE), F.pixel_unshuffle(luma, FINE)
        stem = F.relu(self.stem(torch.cat((ir, luma), 1)))
        x = F.relu(stem + self.context(stem))
        for layer in self.body:
            x = F.relu(layer(x))
        a, b, c = self.head(x + stem).split(FINE**2, 1)
        return F.pixel_shuffle(a * ir + b * luma + c, FINE)


def student_of(state: Mapping[str, Tensor]) -> Student:
    """Return the student whose tensors these are. Raises RuntimeError or KeyError if they are not, or not all."""
    context, channels = state[MARK].shape[:2]
    net = Student(channels, sum(k.startswith("body.") and k.endswith(".weight") for k in state), context)
    net.load_state_dict(state)
    return net
