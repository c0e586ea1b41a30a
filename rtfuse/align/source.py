"""Register thermal by a depth camera: each RGB pixel goes to its own point in thermal, and hidden ones are masked.

With q = 1 / distance, a pixel's ray r (in the thermal camera's system) and the thermal camera's place t there, the
point r / q - t is seen in the direction r - q t. Divided by its z, that is linear in u = q / (r_z - q t_z), through a
lens nearly so: A + u (B + u C), whose planes A, B and C are computed once.
"""

from __future__ import annotations

from functools import partial

import cv2
import msgspec
import numpy as np

from rtfuse.align.aligner import Aligner, ir_pixels_of_rgb_grid
from rtfuse.align.calibration import Calibration
from rtfuse.align.ground import ground_m
from rtfuse.align.settings import Ground
from rtfuse.errors import CalibrationError
from rtfuse.thermal_data import Depth, DepthFrame
from rtfuse.types import Image

NEAREST_M = 0.3
"""Nearer points count as this far."""
_FIT_M = (2.0, 1.0)
"""Distances, beside infinity, through which A + u (B + u C) goes."""
_FILLS = (3, 5, 9, 17, 33)
"""Sides of the windows in which unknown pixels look for known ones."""
_EVERY, _CELL_PX, _HIDDEN_PX = 2, 3, 2.5
"""RGB pixels between two points of the z-buffer; its cells in thermal pixels; parallax from which a point is hidden."""
_ASPECT = 0.01


class SourceAligner(Aligner):
    """Aligner of one depth frame; neighbouring pixels may lie far apart in thermal."""

    def place(self, ir_xy: tuple[float, float]) -> tuple[float, float]:
        """Return the RGB pixel that shows a thermal pixel (x, y); for one that none shows, the plane's place."""
        assert self._map is not None
        far = np.abs(self._map - np.array(ir_xy, np.float32)).max(-1)
        y, x = np.unravel_index(int(far.argmin()), far.shape)
        return (float(x), float(y)) if far[y, x] < 2 else super().place(ir_xy)


class DepthRegistration:
    """Make the aligner of each depth frame by a calibration with a pose; where depth is unknown, as without it.

    `ground`: takes the place of the plane there. `unit_mm`: millimetres of a count of depth.
    """

    def __init__(
        self, calibration: Calibration, seam_px: int, ground: Ground | None = None, unit_mm: float = 1
    ) -> None:
        self._calibration, self._seam_px, self._ground, self._unit_mm = calibration, seam_px, ground, unit_mm
        self._planes: _Planes | None = None
        self._else: tuple[Aligner, Image | np.float32] | None = None
        self._last: tuple[Aligner, DepthFrame, Aligner] | None = None

    def __call__(self, base: Aligner, depth: DepthFrame) -> Aligner:
        """Return the aligner of a depth frame; `base` is that of the plane. Raises CalibrationError for its shape."""
        last = self._last
        if last is None or last[0] is not base or last[1] is not depth:
            self._last = last = base, depth, self._made(base, depth)
        return last[2]

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> _Planes:
        """Compute what frames of these sizes need, so that the first of them does not wait."""
        if self._planes is None or self._planes.sizes != (ir_hw, rgb_hw):
            self._planes = _Planes(self._calibration, ir_hw, rgb_hw)
        return self._planes

    def _made(self, base: Aligner, depth: DepthFrame) -> Aligner:
        planes = self.prepare(base.ir_hw, base.rgb_hw)
        inverse, unknown, known = self._inverse(base, depth)
        xy = planes.map_px(inverse)
        hidden = planes.hidden(xy, inverse, unknown)
        valid = _reached(xy, base.ir_hw, self._seam_px * planes.scale)
        if hidden.any():
            xy[hidden > 0] = -1e4
            soft = cv2.blur(hidden, (3, 3))
            valid = cv2.min(valid, cv2.bitwise_not(cv2.max(soft, hidden)))
        assert base.depth is not None
        plane_m, target_m = base.depth.plane_m, base.depth.target_m
        return SourceAligner(
            base.ir_hw,
            base.rgb_hw,
            msgspec.structs.replace(self._calibration, plane_m=plane_m),
            map_px=xy,
            valid=valid,
            depth=Depth(plane_m, target_m, "source", known),
        )

    def _inverse(self, base: Aligner, depth: DepthFrame) -> tuple[Image, Image, float]:
        """Return inverse distances, (H, W) float32 in 1/m, True where they are the plane's, and the measured share."""
        (h, w), (rows, columns) = base.rgb_hw, depth.counts.shape
        if abs(columns * h / (rows * w) - 1) > _ASPECT:
            raise CalibrationError(
                f"depth is {columns}x{rows} and RGB {w}x{h}: it must be the picture of RGB's pixels, at any scale; "
                "let the depth camera align it to colour"
            )
        known = cv2.countNonZero(depth.counts) / depth.counts.size
        whole = filled(depth.counts)
        if whole.shape != (h, w):
            whole = cv2.resize(whole, (w, h), interpolation=cv2.INTER_NEAREST_EXACT)
        with np.errstate(divide="ignore"):
            inverse = np.float32(1000 / self._unit_mm) / whole.astype(np.float32)
        unknown = whole == 0
        if unknown.any():
            np.copyto(inverse, self._elsewhere(base), where=unknown)
        return np.minimum(inverse, np.float32(1 / NEAREST_M), out=inverse), unknown, known

    def _elsewhere(self, base: Aligner) -> Image | np.float32:
        """Return the inverse distances, (H, W) or one, where depth is unknown."""
        if self._else is None or self._else[0] is not base:
            assert base.depth is not None
            self._else = base, np.float32(1 / base.depth.plane_m)
            if self._ground is not None:
                c = msgspec.structs.replace(self._calibration, plane_m=base.depth.plane_m)
                self._else = base, (1 / ground_m(_pixels(c, base.rgb_hw), c, self._ground)).reshape(base.rgb_hw)
        return self._else[1]


def filled(counts: Image) -> Image:
    """Return depth, (h, w) uint16, in which pixels of 0 near known ones have the farthest distance around them.

    Unknown pixels lie mostly beside a near object, in its shadow on what is behind. Far from known ones they stay 0.
    """
    whole = counts
    for side in _FILLS:
        unknown = whole == 0
        if not unknown.any():
            break
        whole = np.where(unknown, cv2.dilate(whole, np.ones((side, side), np.uint8)), whole)
    return whole


class _Planes:
    """Planes of one pair of sizes, (H, W) float32: thermal pixels are A + u (B + u C)."""

    def __init__(self, c: Calibration, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        self.sizes = ir_hw, rgb_hw
        R, t = np.array(c.R_rgb_from_ir, float), np.array(c.t_rgb_from_ir_m, float)
        pixels = _pixels(c, rgb_hw)
        rays = (np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(c.rgb.matrix).T) @ R
        self._ahead, self._back = rays[:, 2].reshape(rgb_hw).astype(np.float32), float((t @ R)[2])
        at = partial(ir_pixels_of_rgb_grid, c, ir_hw[::-1], rgb_hw[::-1])
        far, *nearer = (at(depth_of=partial(_all_at, m)).astype(np.float64) for m in (1e7, *_FIT_M))
        u = [(1 / (m * self._ahead.astype(float) - self._back))[..., None] for m in _FIT_M]
        first, second = ((n - far) / v for n, v in zip(nearer, u, strict=True))
        bend = (second - first) / (u[1] - u[0])
        parts = far, first - u[0] * bend, bend
        self._parts = [[np.ascontiguousarray(p[..., k], np.float32) for p in parts] for k in (0, 1)]
        self._per_m = float(np.median(np.linalg.norm(parts[1], axis=-1)))
        self.scale = float(np.median(np.abs(np.diff(far[..., 0], axis=1)))) or 1.0
        """Thermal pixels of one RGB pixel."""

    def map_px(self, inverse: Image) -> Image:
        """Return where RGB pixels lie in thermal, (H, W, 2) float32, for inverse distances (H, W) in 1/m."""
        ahead = self._ahead - np.float32(self._back) * inverse if self._back else self._ahead
        u = inverse / np.maximum(ahead, np.float32(1e-3))
        return cv2.merge([a + u * (b + u * c) for a, b, c in self._parts])

    def hidden(self, xy: Image, inverse: Image, unknown: Image) -> Image:
        """Return 255 where thermal sees something nearer in front of an RGB pixel, (H, W) uint8, else 0.

        `unknown` pixels, (H, W) bool, hide none.
        """
        (h, w), cell = self.sizes[0], max(_CELL_PX, round(_EVERY * self.scale + 1))
        near = np.ascontiguousarray(inverse[::_EVERY, ::_EVERY])
        x, y = (np.ascontiguousarray(xy[::_EVERY, ::_EVERY, k]) for k in (0, 1))
        inside = (x >= 0) & (y >= 0) & (x <= w - 1) & (y <= h - 1)
        columns = w // cell + 1
        index = (y * np.float32(1 / cell)).astype(np.intp) * columns + (x * np.float32(1 / cell)).astype(np.intp)
        index[~inside] = (h // cell + 1) * columns  # a cell of their own
        buffer = np.zeros((h // cell + 1) * columns + 1, np.float32)
        hides = inside & ~unknown[::_EVERY, ::_EVERY]
        np.maximum.at(buffer, index.ravel(), (near * hides).ravel())
        step = np.float32((_HIDDEN_PX + cell - _CELL_PX) / max(self._per_m, 1e-9))
        behind = np.where(inside & (near < buffer[index] - step), np.uint8(255), np.uint8(0))
        behind = cv2.medianBlur(behind, 3)
        # One cell more, as cells at the ends are shared, but not onto the nearer thing itself.
        around = cv2.dilate(np.where(behind > 0, near, np.float32(-1)), np.ones((3, 3), np.uint8))
        behind = np.where((around >= 0) & (near <= around + step), np.uint8(255), np.uint8(0))
        return cv2.resize(behind, xy.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _all_at(distance_m: float, pixels: Image) -> Image:
    return np.full(len(pixels), distance_m)


def _pixels(c: Calibration, rgb_hw: tuple[int, int]) -> Image:
    """Return the calibrated RGB pixels (N, 2) of a stream's pixels, row by row."""
    pixels = np.stack(np.meshgrid(*(np.arange(n, dtype=float) for n in rgb_hw[::-1])), -1).reshape(-1, 2)
    mode = c.rgb.mode(rgb_hw[::-1])
    return pixels if mode is None else mode.calibrated(pixels)


def _reached(xy: Image, ir_hw: tuple[int, int], seam: float) -> Image:
    """Mask (H, W) uint8 of where thermal reaches, fading in over `seam` thermal pixels inside its edge."""
    (h, w), (x, y) = ir_hw, cv2.split(xy)
    edge = cv2.min(cv2.min(x, w - 1 - x), cv2.min(y, h - 1 - y))
    if seam <= 0:
        return np.where(edge >= 0, np.uint8(255), np.uint8(0))
    share = np.clip((edge + 1) / np.float32(seam + 1), 0, 1) * (edge >= 0)
    return np.rint(255 * share * share * (3 - 2 * share)).astype(np.uint8)
