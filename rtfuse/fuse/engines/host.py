"""Run a network on the processor as a whole program: gain table, warp, seam and colours by OpenCV around it.

In a rig the stages before the fuser do that. This form takes the same raw bytes as engines on a GPU, to compare them.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.fuse.inputs import Inputs
from rtfuse.fuse.luma_fuser import LumaFuser
from rtfuse.types import Image


class HostProgram:
    """Runs a `LumaFuser` on `Inputs`, frame by frame; see `ProgramEngine`."""

    def __init__(self, fuser: LumaFuser, precision: str) -> None:
        self.name, self.precision, self._fuser = fuser.engine or fuser.name, precision, fuser
        self._maps: dict[int, tuple[Image, list[Image]]] = {}

    def prepare(self, inputs: Inputs) -> None:
        """Get ready for inputs of these shapes."""
        (_, h, w, _), (_, rows, columns, _), *_ = inputs.shapes
        self._fuser.prepare((h, w), (rows, columns))

    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8."""
        frames = zip(inputs.ir, inputs.rgb, inputs.table, self._pixels(inputs), inputs.mask, strict=True)
        return np.stack([self._frame(*arrays) for arrays in frames])

    def _pixels(self, inputs: Inputs) -> list[Image]:
        """Return each frame's grid in pixels of its thermal image, (H, W, 2) float32; kept for the same array."""
        known = self._maps.get(id(inputs.grid))
        if known is None:
            size = np.array(inputs.ir.shape[2:0:-1], np.float32) - 1
            known = inputs.grid, [(grid + 1) * (size / 2) for grid in inputs.grid]
            self._maps = {id(inputs.grid): known} | dict(list(self._maps.items())[:3])
        return known[1]

    def _frame(self, ir: Image, rgb: Image, table: Image, xy: Image, mask: Image) -> Image:
        luma = table[ir.view("<u2")[..., 0]]
        aligned = cv2.remap(luma, xy, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        return self._fuser(aligned, rgb, mask)
