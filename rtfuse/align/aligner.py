"""Lay thermal on the RGB camera's pixel grid, with a mask of its validity.

The map is computed once per calibration and pair of image sizes; a frame costs one `cv2.remap`, or one `grid_sample` in
the network's program.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np

from rtfuse.align.calibration import Calibration, Camera, SensorMode, ir_pixels_of_rgb, rgb_pixels_of_ir
from rtfuse.errors import CalibrationError
from rtfuse.thermal_data import Depth
from rtfuse.types import Image


class Aligner:
    """Warp thermal images (h, w) uint8 onto the RGB grid (H, W).

    Without a calibration the thermal image is stretched to the RGB size, or passed through untouched where the
    sizes agree. `seam_px` is the width, in RGB pixels, over which thermal fades in where its picture ends. `map_px` is
    the calibration's map, `ir_pixels_of_rgb_grid`, where it is known, and `valid` its mask; `depth` tells its distance
    if that can change.
    Raises CalibrationError if the calibration was made for other image sizes.
    """

    def __init__(
        self,
        ir_hw: tuple[int, int],
        rgb_hw: tuple[int, int],
        calibration: Calibration | None = None,
        *,
        seam_px: int = 16,
        map_px: Image | None = None,
        valid: Image | None = None,
        depth: Depth | None = None,
    ) -> None:
        self.ir_hw, self.rgb_hw, self.seam_px = ir_hw, rgb_hw, seam_px
        self.depth = depth
        self.stretched = calibration is None and ir_hw != rgb_hw
        self._calibration = calibration
        self._map: Image | None = None
        self.valid: Image | None = None
        """(H, W) uint8: 255 where thermal is valid, 0 where it does not reach, between on the seam; None: 255."""
        self.grid: Image | None = None
        """(H, W, 2) float32: where each RGB pixel lies in the thermal image, x and y from -1 (centre of the first
        pixel) to 1 (centre of the last); None: at the same pixel, or stretched."""
        if calibration is None:
            return
        xy = ir_pixels_of_rgb_grid(calibration, ir_hw[::-1], rgb_hw[::-1]) if map_px is None else map_px
        self.valid = _validity(xy, ir_hw, seam_px) if valid is None else valid
        self.grid = xy * (2 / (np.array(ir_hw[::-1], np.float32) - 1)) - 1
        self._map = xy

    def __call__(self, ir: Image) -> Image:
        """Return the thermal image (h, w) uint8 on the RGB grid, (H, W) uint8; 0 where it does not reach."""
        if self._map is not None:
            return cv2.remap(ir, self._map, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if self.ir_hw == self.rgb_hw:
            return ir
        shrinks = self.rgb_hw[0] * self.rgb_hw[1] < ir.size
        return cv2.resize(ir, self.rgb_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

    def place(self, ir_xy: tuple[float, float]) -> tuple[float, float]:
        """Return where on the RGB grid a thermal pixel (x, y) is shown, possibly outside of the picture."""
        (h, w), (ir_h, ir_w), c = self.rgb_hw, self.ir_hw, self._calibration
        if c is None or self._map is None:
            return (ir_xy[0] + 0.5) * w / ir_w - 0.5, (ir_xy[1] + 0.5) * h / ir_h - 0.5
        ir, rgb = _mode("thermal", c.ir, (ir_w, ir_h)), _mode("RGB", c.rgb, (w, h))
        wanted = np.array(ir_xy, float)
        xy = rgb.streamed(rgb_pixels_of_ir(ir.calibrated(wanted[None]), c))[0]
        for _ in range(2):  # onto the map itself, which knows more: Newton's method on its pixels
            x, y = (int(n) for n in np.rint(xy)) if np.isfinite(xy).all() else (-1, -1)
            if not (0 < x < w - 1 and 0 < y < h - 1):
                break
            m = self._map
            slope = np.stack([m[y, x + 1] - m[y, x - 1], m[y + 1, x] - m[y - 1, x]], 1).astype(float) / 2
            if abs(np.linalg.det(slope)) < 1e-6:
                break
            xy = np.array([x, y]) + np.linalg.solve(slope, wanted - m[y, x])
        return float(xy[0]), float(xy[1])

    @cached_property
    def reach(self) -> float:
        """Share of the RGB image that thermal reaches, 0 to 1."""
        return 1.0 if self.valid is None else float(np.count_nonzero(self.valid)) / self.valid.size


def ir_pixels_of_rgb_grid(
    c: Calibration,
    ir_wh: tuple[int, int] | None = None,
    rgb_wh: tuple[int, int] | None = None,
    *,
    every: int = 1,
    depth_of: Callable[[Image], Image] | None = None,
) -> Image:
    """Return, for every RGB pixel, where in the thermal image it lies: (H, W, 2) float32, x and y in pixels.

    With `every` above 1, only for the pixels at -every, 0, every … to the second one after the last. The sizes are the
    streams'; None is the calibrated one. What lies behind the thermal camera, or far outside its image, gets a place
    far outside. `depth_of` tells the distances (N,) of calibrated RGB pixels (N, 2) in metres; None: the calibration's.
    Raises CalibrationError if the calibration does not hold for a size.
    """
    ir, rgb = _mode("thermal", c.ir, ir_wh), _mode("RGB", c.rgb, rgb_wh)
    x, y = (np.arange(n, dtype=np.float64) if every == 1 else _nodes(n, every) for n in rgb.size_wh)
    pixels = rgb.calibrated(np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))
    xy = ir.streamed(ir_pixels_of_rgb(pixels, c, None if depth_of is None else depth_of(pixels)))
    return np.ascontiguousarray(np.clip(xy, -1e4, 3e4).reshape(len(y), len(x), 2).astype(np.float32))


def _nodes(length: int, every: int) -> Image:
    """Return each `every`th place from -every to the second one after the last pixel."""
    return np.arange(-1, (length - 1) // every + 3, dtype=np.float64) * every


def _mode(name: str, camera: Camera, size_wh: tuple[int, int] | None) -> SensorMode:
    mode = camera.mode(size_wh or camera.size_wh)
    if mode is None:
        (w, h), known = size_wh or camera.size_wh, [camera.size_wh, *(m.size_wh for m in camera.modes)]
        sizes = " or ".join(f"{cw}x{ch}" for cw, ch in known)
        raise CalibrationError(
            f"the calibration was made for {name} images of {sizes}, but the {name} stream is {w}x{h}; set the camera "
            "to that size, calibrate at this one, or describe it under `modes`"
        )
    return mode


def _validity(xy: Image, ir_hw: tuple[int, int], seam_px: int) -> Image | None:
    """Mask (H, W) uint8 of where thermal reaches, fading in over `seam_px` inside its own edge."""
    h, w = ir_hw
    inside = (xy[..., 0] >= 0) & (xy[..., 0] <= w - 1) & (xy[..., 1] >= 0) & (xy[..., 1] <= h - 1)
    if inside.all():
        return None
    if seam_px <= 0:
        return inside.astype(np.uint8) * 255
    depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    x = np.clip(depth / (seam_px + 1), 0, 1)
    return np.rint(255 * x * x * (3 - 2 * x)).astype(np.uint8)
