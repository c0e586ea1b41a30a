"""Share the work of all fusers that take luma: visible luma alone where thermal does not reach, and RGB arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np

from rtfuse.picture import luma_of, relit
from rtfuse.types import Image, ThermalPicture

FuseLuma = Callable[[Image, Image], Image]
"""Thermal and visible luma, (H, W) uint8 each, to fused luma (H, W) uint8."""


def luma(rgb: Image) -> Image:
    """Return the luma Y (BT.601, full range) of (H, W, 3) uint8 RGB as (H, W) uint8."""
    return luma_of(rgb)


def with_luma(rgb: Image, old: Image, new: Image) -> Image:
    """Return `rgb` with its luma `old` exchanged for `new` and its chroma kept; see `rtfuse.picture.relit`."""
    return relit(rgb, old, new)


class Blend:
    """Mix two (H, W) uint8 images by a mask: `inside` where it is 255, `outside` where it is 0."""

    def __init__(self, valid: Image) -> None:
        self.valid = valid
        self._inside = valid.astype(np.float32) / 255
        self._outside = 1 - self._inside

    def __call__(self, inside: Image, outside: Image) -> Image:
        """Return the mixture, (H, W) uint8; exact where the mask is 0 or 255."""
        return cv2.blendLinear(inside, outside, self._inside, self._outside)


class LumaFuser:
    """Fuse luma by a function of two pictures on one grid.

    `fuse_luma` sees a thermal image in which the parts that thermal does not reach are filled with visible luma,
    so that no artificial edge enters it; its result counts only where thermal is valid. `engine` names the engine.
    `prepare` is called with the RGB pictures' height and width before they come.
    """

    def __init__(
        self,
        name: str,
        fuse_luma: FuseLuma,
        *,
        engine: str | None = None,
        prepare: Callable[[tuple[int, int]], None] | None = None,
    ) -> None:
        self.name, self.engine = name, engine
        self._fuse_luma, self._prepare = fuse_luma, prepare
        self._blend: Blend | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.engine})" if self.engine else self.name

    def aim(self, rate_hz: float) -> None:
        """Ignore the rate."""

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes. Raises EngineUnavailable."""
        if self._prepare is not None:
            self._prepare(rgb_hw)

    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image:
        """Fuse a thermal picture, brought onto the RGB grid, with luma (H, W) uint8; see `Fuser`."""
        ir, valid = thermal(), thermal.valid
        if valid is None:
            return self._fuse_luma(ir, luma)
        if self._blend is None or self._blend.valid is not valid:
            self._blend = Blend(valid)
        return self._blend(self._fuse_luma(self._blend(ir, luma), luma), luma)

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse aligned thermal with RGB; see `Fuser`."""
        return fuse_rgb(self, ir, rgb, valid)


class _FusesLuma(Protocol):
    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image: ...


def fuse_rgb(fuser: _FusesLuma, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
    """Fuse thermal (H, W) uint8, on the RGB grid, with RGB (H, W, 3) uint8 into (H, W, 3) uint8, whose chroma is RGB's.

    `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
    """
    y = luma(rgb)
    thermal = ThermalPicture(ir, table=None, grid=None, valid=valid, warp=lambda: ir)
    return with_luma(rgb, y, fuser.fuse(thermal, y))
