"""Build the paper's ablations of the network (table 2, V and VI): every block loses one branch and keeps its size."""

from __future__ import annotations

from torch import nn

from rtfuse.fuse.networks.ufuser import Block, Residual, Transformer, UFuser
from trainer.recipe import Branch


def fusion_net(without: Branch | None = None) -> UFuser:
    """Return an untrained U-Fuser; layers of the other kind replace the branch that `without` names.

    Five more residual blocks (90 c² weights, c channels) replace the Restormer branch (88 c²) of a block. A second
    Restormer block, whose 3×3 convolution mixes queries, keys and values separately (34 c²), replaces its residual
    branch (36 c²). The number of parameters changes by less than 1 %.
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
