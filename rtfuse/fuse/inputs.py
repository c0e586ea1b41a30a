"""Hold the arrays that whole programs take: raw bytes of thermal and RGB, the gain table, the warp and the mask."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from rtfuse.types import Image

MULTIPLE = 8
"""The networks take pictures whose height and width are multiples of this, and at least twice it."""
TABLE = 65536
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Arrays of N frames; H and W are multiples of 8, at least 16.

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


NAMES = tuple(f.name for f in fields(Inputs))


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
