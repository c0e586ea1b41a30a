"""Share the work of all fusers: luma out of RGB, chroma back, and RGB alone where thermal does not reach."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from rtfuse.types import Image, ThermalPicture

FuseLuma = Callable[[Image, Image], Image]
"""Thermal and visible luma, (H, W) uint8 each, to fused luma (H, W) uint8."""


def luma(rgb: Image) -> Image:
    """Return the luma Y (BT.601, full range) of (H, W, 3) uint8 RGB as (H, W) uint8."""
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)


def with_luma(rgb: Image, old: Image, new: Image) -> Image:
    """Return `rgb` with its luma `old` exchanged for `new` and its chroma kept; (H, W, 3) uint8.

    In BT.601, R = Y + 1.402 Cr, B = Y + 1.772 Cb and G is the same sum with other factors: with chroma kept, a
    change of Y is the same change of R, G and B. Adding the difference therefore equals the way through YCbCr,
    without its rounding: where the luma is unchanged the pixel is unchanged, bit for bit.
    """
    brighter = cv2.cvtColor(cv2.subtract(new, old), cv2.COLOR_GRAY2RGB)
    darker = cv2.cvtColor(cv2.subtract(old, new), cv2.COLOR_GRAY2RGB)
    cv2.add(rgb, brighter, dst=brighter)
    return cv2.subtract(brighter, darker, dst=darker)


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
    """A fuser that fuses luma and restores chroma.

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
        """See `Fuser`; one method does not depend on the rate."""

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes. Raises EngineUnavailable."""
        if self._prepare is not None:
            self._prepare(rgb_hw)

    def fuse(self, thermal: ThermalPicture, rgb: Image) -> Image:
        """Fuse a thermal picture, brought onto the RGB grid."""
        return self(thermal(), rgb, thermal.valid)

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse thermal (H, W) uint8, on the RGB grid, with RGB (H, W, 3) uint8 into (H, W, 3) uint8.

        `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
        """
        y = luma(rgb)
        if valid is None:
            return with_luma(rgb, y, self._fuse_luma(ir, y))
        if self._blend is None or self._blend.valid is not valid:
            self._blend = Blend(valid)
        fused = self._fuse_luma(self._blend(ir, y), y)
        return with_luma(rgb, y, self._blend(fused, y))
