"""What engines run: bytes in, bytes out, with the network and every conversion inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rtfuse.fuse.ufuser import MULTIPLE


class LumaProgram(nn.Module):
    """Thermal and visible luma, (H, W) uint8, to fused luma, (H, W) uint8; H and W multiples of 8, at least 16.

    `net` is U-Fuser in any of its forms.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Scale to [0, 1], fuse, scale back and round half to even."""
        fused = self.net(ir[None, None].float() / 255, luma[None, None].float() / 255)[0, 0]
        return (fused * 255).round().clamp(0, 255).to(torch.uint8)


def exported(program: LumaProgram) -> torch.export.ExportedProgram:
    """Return the program as a graph for any size."""
    ir, luma = (torch.zeros(6 * MULTIPLE, 8 * MULTIPLE, dtype=torch.uint8) for _ in range(2))
    free = {0: MULTIPLE * torch.export.Dim("rows", min=2), 1: MULTIPLE * torch.export.Dim("columns", min=2)}
    return torch.export.export(program.eval(), (ir, luma), dynamic_shapes={"ir": free, "luma": free})
