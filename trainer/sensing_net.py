"""Define the sensing nets A_i and A_v: predict the picture of the thermal, or the RGB, camera from a fused image.

Five-level U-Nets (Ronneberger et al., MICCAI 2015). They are trained in the first stage, frozen in the second, and
never deployed, so their width affects only the training time.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PUBLISHED_WIDTH = 64
LEVELS = 5
MULTIPLE = 2 ** (LEVELS - 1)
"""Height and width must be multiples of this."""


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class SensingNet(nn.Module):
    """Maps a fused image, (N, 1, H, W) in [0, 1], to one of its sources, (N, 1, H, W) in (0, 1).

    H and W are multiples of 16.
    `width`: channels of the finest level, doubled at each coarser one; 64 as published (39 M parameters).
    `optics`: not in the paper: a binomial low pass (1, 2, 1)²/16 on the input, which removes a checkerboard of one
    pixel, like a lens and a detector.
    `noise`: not in the paper: standard deviation of Gaussian noise on the input. Low pass and noise keep the fusion net
    from telling the sensing nets about the sources by patterns that a camera does not resolve.
    `autocast`: compute in bfloat16, except for the input and output pictures.
    """

    def __init__(
        self, width: int = PUBLISHED_WIDTH, *, optics: bool = False, noise: float = 0.0, autocast: bool = False
    ) -> None:
        super().__init__()
        self.optics, self.noise, self.autocast = optics, noise, autocast
        widths = [width << level for level in range(LEVELS)]
        self.down = nn.ModuleList(_twice(i, o) for i, o in pairwise([1, *widths]))
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(c, f, 4, stride=2, padding=1, bias=False) for f, c in pairwise(widths)
        )
        self.up = nn.ModuleList(_twice(2 * f, f) for f in widths[:-1])
        self.head = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the predicted source."""
        x = self._arriving(x)
        with torch.autocast(x.device.type, torch.bfloat16) if self.autocast else nullcontext():
            x = self._features(x)
        return self.head(x.to(self.head.weight.dtype)).sigmoid()

    def _features(self, x: Tensor) -> Tensor:
        skips = [self.down[0](x)]
        for block in self.down[1:]:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        x = skips.pop()
        for rise, block in zip(reversed(self.rise), reversed(self.up), strict=True):
            x = block(torch.cat((skips.pop(), F.relu(rise(x))), 1))
        return x

    def _arriving(self, x: Tensor) -> Tensor:
        if self.optics:
            binomial = x.new_tensor([1.0, 2.0, 1.0])
            x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), torch.outer(binomial, binomial)[None, None] / 16)
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def frozen(self) -> SensingNet:
        """Freeze the weights and BatchNorm's statistics."""
        self.requires_grad_(False)
        return self.eval()
