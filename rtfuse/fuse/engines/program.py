"""Define the program that engines run: raw bytes in, fused bytes out, the network and all conversions inside.

    ir bytes ─ counts ─ table ─ warp ─┐
                                      ├─ seam ─ U-Fuser ─ seam ─┐
    rgb ─┬─ luma ─────────────────────┘                         ├─ fused
         └─────────────────────────────────── chroma ───────────┘

The calibration (`grid`, `mask`) and the gain control (`table`) are data, not part of the program: an engine built once
serves every rig, and only `ir`, `rgb` and 64 KB of table change from frame to frame.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from rtfuse.fuse.inputs import Inputs

_LUMA = (0.299, 0.587, 0.114)


class Program(nn.Module):
    """U-Fuser, in any of its forms and precisions, from raw bytes to fused bytes. Shapes as in `Inputs`.

    All but the network computes in float32, or in float64 if the network does.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.inside = next((p.dtype for p in [*net.parameters(), *net.buffers()]), torch.float32)
        self.outside = torch.float64 if self.inside == torch.float64 else torch.float32

    def forward(self, ir: Tensor, rgb: Tensor, table: Tensor, grid: Tensor, mask: Tensor) -> Tensor:
        """Return the fused images, (N, H, W, 3) uint8."""
        n, h, w, _ = ir.shape
        # TensorRT takes uint8 at its borders only: everything is cast before it is touched.
        ir, rgb, table, inside = (x.to(self.outside) for x in (ir, rgb, table, mask))
        counts = ir[..., 0] + 256 * ir[..., 1]
        heat = torch.gather(table, 1, counts.to(torch.int64).reshape(n, h * w)).reshape(n, 1, h, w)
        heat = nn.functional.grid_sample(heat, grid.to(self.outside), padding_mode="zeros", align_corners=True)
        inside = inside[:, None] / 255
        # BT.601, full range. With chroma kept, a change of luma is the same change of R, G and B.
        luma = (_LUMA[0] * rgb[..., 0] + _LUMA[1] * rgb[..., 1] + _LUMA[2] * rgb[..., 2])[:, None]
        # Where thermal does not reach the network sees luma, so that no artificial edge enters it.
        seen = luma + inside * (heat - luma)
        fused = self.net((seen / 255).to(self.inside), (luma / 255).to(self.inside)).to(self.outside) * 255
        change = inside * (fused - luma)
        return (rgb + change.permute(0, 2, 3, 1)).round().clamp(0, 255).to(torch.uint8)


def tensors(inputs: Inputs, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
    """Return the arrays as tensors on a device."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in inputs.arrays())
