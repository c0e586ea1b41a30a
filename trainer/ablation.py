"""The paper's ablations of the network itself (table 2, V and VI): one branch of every block gone, its size kept."""

from __future__ import annotations

from torch import nn

from rtfuse.fuse.networks.ufuser import Block, Residual, Transformer, UFuser
from trainer.recipe import Branch


def fusion_net(without: Branch | None = None) -> UFuser:
    """Return an untrained U-Fuser; `without` one of its branches, of which the other takes the place.

    Without its Restormer branch (88 c² weights) a block has five more residual blocks (90 c²); without its residual
    branch (36 c²), a second Restormer block whose 3×3 convolution mixes queries, keys and values each for itself
    (34 c²). The whole network keeps its parameters to within 1 %.
    """
    net = UFuser()
    for block in [m for m in net.modules() if isinstance(m, Block)]:
        channels = block.embed.out_channels
        if without == "restormer":
            block.wide = nn.Sequential(*(Residual(channels) for _ in range(5)))
        elif without == "residual":
            block.near = _lighter(channels)
    return net


def _lighter(channels: int) -> Transformer:
    transformer = Transformer(channels)
    transformer.attention.mix = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3, bias=False)
    return transformer
