"""Hand whole frames to an engine: the host's side of `rtfuse.fuse.engines.program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np

from rtfuse.fuse.inputs import MULTIPLE, TABLE, Inputs, sample
from rtfuse.types import Image, ThermalPicture


class ProgramEngine(Protocol):
    """Run the program by one engine."""

    @property
    def name(self) -> str:
        """The engine and where it runs."""
        ...

    @property
    def precision(self) -> str:
        """The number format of the network: float32, float16, bfloat16 or float64."""
        ...

    def prepare(self, inputs: Inputs) -> None:
        """Get ready for inputs of these shapes: build, load or compile. Raises EngineUnavailable."""
        ...

    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8; they are the caller's."""
        ...


Check = Callable[[ProgramEngine, tuple[int, int], tuple[int, int]], None]
"""Raises EngineUnavailable if an engine does not compute what it should for these sizes of thermal and RGB (h, w)."""


class RawFuser:
    """Fuse one rig's frames by an engine that takes them raw.

    Arrays that belong to the calibration are prepared once and recognised by identity: give the same arrays with every
    frame. `check` is called once for each size.
    """

    def __init__(self, name: str, engine: ProgramEngine, check: Check | None = None) -> None:
        self.name, self.engine, self._check = name, engine, check
        self._sizes: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        self._ready: tuple[Image | None, Image | None, tuple[int, ...], Image, Image] | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.engine.name})"

    def aim(self, rate_hz: float) -> None:
        """Ignore the rate."""

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes, so that the first of them does not wait. Raises EngineUnavailable."""
        if self._sizes == (ir_hw, rgb_hw):
            return
        rows, columns = (side + more for side, more in zip(rgb_hw, _missing(rgb_hw), strict=True))
        self.engine.prepare(sample(ir_hw, (rows, columns)))
        if self._check is not None:
            self._check(self.engine, ir_hw, (rows, columns))
        self._sizes = ir_hw, rgb_hw

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse aligned thermal; see `Fuser`."""
        return self._raw(ir, rgb, None, None, valid)

    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image:
        """Fuse a thermal picture as it came: the program maps and warps it, and takes luma as a grey RGB picture."""
        grey = cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB)
        if thermal.grid is None and thermal.image.shape != luma.shape:  # stretched, which the program cannot do
            fused = self._raw(thermal(), grey, None, None, thermal.valid)
        else:
            fused = self._raw(thermal.image, grey, thermal.table, thermal.grid, thermal.valid)
        return cv2.extractChannel(fused, 0)  # the three are equal

    def _raw(self, ir: Image, rgb: Image, table: Image | None, grid: Image | None, valid: Image | None) -> Image:
        h, w = rgb.shape[:2]
        self.prepare((ir.shape[0], ir.shape[1]), (h, w))
        below, right = _missing((h, w))
        grid, mask = self._placed(rgb.shape, grid, valid, below, right)
        if below or right:
            rgb = cv2.copyMakeBorder(rgb, 0, below, 0, right, cv2.BORDER_REPLICATE)
        table = _IDENTITY if table is None else table
        fused = self.engine(Inputs(_bytes(ir)[None], rgb[None], table[None], grid, mask))[0]
        return fused[:h, :w] if below or right else fused

    def _placed(
        self, shape: tuple[int, ...], grid: Image | None, valid: Image | None, below: int, right: int
    ) -> tuple[Image, Image]:
        """Return grid and mask as a batch of one, extended like the image: the same arrays for the same calibration."""
        ready = self._ready
        if ready is None or ready[0] is not grid or ready[1] is not valid or ready[2] != shape:
            whole = _pixels_themselves(*shape[:2]) if grid is None else grid
            mask = np.full(shape[:2], 255, np.uint8) if valid is None else valid
            if below or right:
                whole, mask = (cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in (whole, mask))
            self._ready = ready = grid, valid, shape, whole[None], mask[None]
        return ready[3], ready[4]


_IDENTITY = np.minimum(np.arange(TABLE), 255).astype(np.uint8)


def _missing(shape_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the rows and columns to add to an image so that the network takes it."""
    rows, columns = (max(-side % MULTIPLE, 2 * MULTIPLE - side) for side in shape_hw)
    return rows, columns


def _bytes(ir: Image) -> Image:
    """Return counts as their bytes, low byte first: (h, w) uint8 or uint16 to (h, w, 2) uint8."""
    return np.ascontiguousarray(ir.astype("<u2", copy=False)).view(np.uint8).reshape(*ir.shape, 2)


def _pixels_themselves(h: int, w: int) -> Image:
    y, x = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    return np.stack([x, y], -1).astype(np.float32)
