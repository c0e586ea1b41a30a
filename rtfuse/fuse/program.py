"""What engines run: raw bytes in, fused bytes out, with the network and every conversion inside.

    ir bytes ─ counts ─ table ─ warp ─┐
                                      ├─ seam ─ U-Fuser ─ seam ─┐
    rgb ─┬─ luma ─────────────────────┘                         ├─ fused
         └─────────────────────────────────── chroma ───────────┘

The calibration (`grid`, `mask`) and the gain control (`table`) are data, not part of the program: what was built once
serves every rig, and only `ir`, `rgb` and 64 KB of table change from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from rtfuse.fuse.ufuser import MULTIPLE
from rtfuse.types import Image

TABLE = 65536
Shapes = tuple[tuple[int, ...], ...]
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The arrays of N frames; H and W are multiples of 8, at least 16.

    `ir` is (N, h, w, 2) uint8: counts, low byte first. `rgb` is (N, H, W, 3) uint8. `table` is (N, 65536) uint8, the
    display luma of every count. `grid` is (N, H, W, 2) float32: where each RGB pixel lies in the thermal image, x and
    y from -1 (centre of the first pixel) to 1 (centre of the last). `mask` is (N, H, W) uint8: 255 where thermal
    reaches, 0 where the output is RGB alone.
    """

    ir: Image
    rgb: Image
    table: Image
    grid: Image
    mask: Image

    def arrays(self) -> tuple[Image, ...]:
        """Return the arrays in the order of a program's arguments."""
        return self.ir, self.rgb, self.table, self.grid, self.mask

    @property
    def shapes(self) -> Shapes:
        """The arrays' shapes."""
        return tuple(x.shape for x in self.arrays())

    def tensors(self, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
        """Return them as tensors on a device."""
        return tuple(torch.from_numpy(np.ascontiguousarray(x)).to(device) for x in self.arrays())


NAMES = tuple(f.name for f in fields(Inputs))


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


def exported(program: Program) -> torch.export.ExportedProgram:
    """Return the program as a graph for any number of frames of any size."""
    rows, columns = (MULTIPLE * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    h, w = (torch.export.Dim(name, min=2) for name in ("ir_rows", "ir_columns"))
    rigs = torch.export.Dim("rigs", min=1)
    size = {0: rigs, 1: rows, 2: columns}
    shapes = {"ir": {0: rigs, 1: h, 2: w}, "rgb": size, "table": {0: rigs}, "grid": size, "mask": size}
    return torch.export.export(program.eval(), sample((50, 60), (48, 64), 2).tensors(), dynamic_shapes=shapes)


def sample(ir_hw: tuple[int, int], rgb_hw: tuple[int, int], batch: int = 1, seed: int = 0) -> Inputs:
    """Return inputs of these sizes that exercise everything: noise on gradients, a table, a warp, a seam.

    Black, white and constant pictures make up a part of them.
    """
    rng = np.random.default_rng(seed)
    (h, w), (rows, columns) = ir_hw, rgb_hw
    ramp = np.linspace(0, 16000, w)[None, None] + rng.normal(0, 900, (batch, h, w))
    counts = np.clip(ramp, 0, TABLE - 1).astype("<u2")
    rgb = rng.integers(0, 256, (batch, rows, columns, 3), np.uint8)
    for k, level in enumerate((0, 255, 128)):
        part = np.s_[:, k * rows // 6 : (k + 1) * rows // 6, : columns // 2]
        rgb[part] = level
    counts[:, : h // 6], counts[:, h // 6 : h // 3] = 0, TABLE - 1
    table = np.clip(np.arange(TABLE) / 64, 0, 255).astype(np.uint8)
    y, x = np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    grid = np.stack([1.1 * x + 0.05 * y, 1.05 * y - 0.02 * x], -1).astype(np.float32)
    mask = np.clip(255 * 8 * (1 - np.abs(grid).max(-1)), 0, 255).astype(np.uint8)
    ir = counts.view(np.uint8).reshape(batch, h, w, 2)
    return Inputs(ir, rgb, *(np.repeat(a[None], batch, 0) for a in (table, grid, mask)))
