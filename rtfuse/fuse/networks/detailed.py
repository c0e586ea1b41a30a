"""U-Fuser below the details of both sources: it works on smaller pictures, and finer details are chosen.

Both sources become bands of details and a rest (`rtfuse.fuse.bands`). U-Fuser fuses the rests, and each band adds the
stronger detail of both sources, times a gain that is learnt:

    ir, luma ─ bands ─┬─ rests ─ U-Fuser ─(+)─ (+)─ fused
                      │                    │     │
                      └─ the stronger detail of each band, by its gain

Of two bands the rests have 1/16 of the pixels, and so has U-Fuser's cost. No detail is resampled or invented.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rtfuse.fuse.bands import UNIT_GAIN
from rtfuse.fuse.networks import bands
from rtfuse.fuse.networks.ufuser import crop, pad_to_multiple, ufuser_of

MARK = "detail_gains"
"""The tensor that no other network has."""


class Detailed(nn.Module):
    """Thermal and visible luma, (N, 1, H, W) in [0, 1] each, to fused luma of the same shape.

    `net` fuses the rests, a U-Fuser in any of its forms. Sides are multiples of 2^`levels` and of `inputs.MULTIPLE`;
    the rests are extended where U-Fuser needs it.
    """

    def __init__(self, net: nn.Module, levels: int = 2) -> None:
        super().__init__()
        self.net, self.levels = net, levels
        self.detail_gains = nn.Parameter(torch.ones(levels))

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma; in training it may leave [0, 1]."""
        exact = not self.training
        inside = torch.promote_types(ir.dtype, torch.float32)  # halves do not hold the bands
        image = bands.rounded(torch.cat((ir, luma), 1).to(inside) * 255, exact)
        details, rests = bands.split(image, self.levels, exact)
        h, w = rests.shape[2:]
        seen = (pad_to_multiple(rests) / 255).to(ir.dtype)
        fused = crop(bands.byte(self.net(seen[:, :1], seen[:, 1:]).to(inside) * 255, exact), h, w)
        gains = self.gains(exact).to(inside)
        for level in reversed(range(self.levels)):
            fused = bands.up(fused, exact) + bands.stronger(details[level], None, gains[level], exact)
            fused = fused.clamp(0, 255) if exact else fused
        return (fused / 255).to(ir.dtype)

    def around(self, net: nn.Module) -> Detailed:
        """Return one with these gains around another form of its network."""
        made = Detailed(net, self.levels).train(self.training)
        made.detail_gains = nn.Parameter(self.detail_gains.detach().clone(), requires_grad=False)
        return made

    def gains(self, exact: bool = True) -> Tensor:
        """Return the gain of each band, from fine to coarse, in its byte: (L,)."""
        return bands.byte(self.detail_gains * UNIT_GAIN, exact)


def detailed_of(state: Mapping[str, Tensor], name: str) -> Detailed:
    """Return the network whose tensors these are; `name` is that of their file. Raises WeightsMissing."""
    gains = state[MARK]
    net = Detailed(ufuser_of({k: x for k, x in state.items() if k != MARK}, name), len(gains))
    with torch.no_grad():
        net.detail_gains.copy_(gains)
    return net
