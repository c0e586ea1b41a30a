"""Correct the shift of a registration whose scale and turn are known: parallax, which changes with the distance."""

from __future__ import annotations

import cv2
import numpy as np

from calib.register.comparison import Comparison
from calib.register.refine import compared
from calib.register.search import SEARCH_PX, search, starts
from calib.register.view import View, closer_view, whole_view
from rtfuse.align.calibration import Calibration, matrix3
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

_LEVEL, _RADIUS, _FINE_RADIUS = 1, 16, 3
_CENTRAL = 0.3
"""Deviation of the weight around thermal's centre, where the subject is, as a share of thermal's width."""
_APART_PX = 4.0
LEAST_CORRELATION, LEAST_MARGIN = 0.17, 0.3
"""Of 50 registered pairs of street scenes, half of them at night, moved by up to 3 % of the width, 49 reach both, with
a median error of 1.3 and at most 5.4 RGB px; of 50 unrelated pairs none does."""

_BESIDE = (0.94, 1.0, 1.06), (-5.0, -2.5, 0.0, 2.5, 5.0)
"""Scales and turns (degrees) that are searched to tell whether thermal lies beside RGB."""
_COARSE_WINDOW = 20.0
_LEAST_AGREEMENT, _BETTER, _FAR = 0.13, 1.15, 0.15
"""Least correlation; least ratio to the stretched picture's; largest distance, as a share of the width. Of 20 real
pairs beside each other all reach a ratio of 1.26, of 48 registered ones none exceeds 1.04."""


def shifted(ir: Image, rgb: Image, start: Calibration) -> Calibration:
    """Return the calibration with its homography moved to where the two pictures agree best, near the middle most.

    ir, rgb: thermal (h, w) uint8 or uint16 and RGB (H, W, 3) uint8. Shifts of up to 5 % of thermal's width are tried.
    Raises CalibrationError if no shift stands out.
    """
    H = np.array(start.H_rgb_from_ir)
    whole = whole_view([(ir, rgb)])
    view, view_from_ir = closer_view([(ir, rgb)], whole, np.linalg.inv(whole.rgb_from_view) @ H)
    moved = np.zeros(2)  # of thermal, in RGB pixels
    for level, radius in ((_LEVEL, _RADIUS), (0, _FINE_RADIUS)):
        scale = np.diag(view.rgb_from_view @ view.view_from_level(level))[:2]
        there = _translation(moved / np.diag(view.rgb_from_view)[:2]) @ view_from_ir
        comparison = compared(view, level, radius, there)
        correlation = _correlation(comparison, np.linalg.inv(view.view_from_level(level)) @ there, ir.shape)
        if level == _LEVEL:
            _require_peak(correlation, comparison.shifts)
        # Thermal at x + shift fits RGB at x.
        moved = moved - _peak(correlation, radius) * scale
    return Calibration(ir=start.ir, rgb=start.rgb, H_rgb_from_ir=matrix3(_translation(moved) @ H))


def beside_px(ir: Image, rgb: Image) -> float | None:
    """Return how far thermal lies beside RGB when it is stretched over it, in RGB pixels; None if it cannot be told.

    ir, rgb: see `shifted`. Searches small turns and scales with all shifts. The result is 0 where the best place agrees
    hardly better than the stretched picture does.
    """
    view = whole_view([(ir, rgb)])
    if np.ptp(ir) < 8 or np.ptp(rgb) < 8:
        return None
    stretched = starts(view, (ir.shape[0], ir.shape[1]), None)[0]
    best = search(view, [stretched], *_BESIDE)[0].view_from_ir
    agreed, before = (_agreement(view, matrix) for matrix in (best, stretched))
    if max(agreed, before) < _LEAST_AGREEMENT:
        return None
    if agreed < _BETTER * before:
        return 0.0
    h, w = ir.shape
    points = np.array([[[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1], [w / 2, h / 2]]], float)
    places = (cv2.perspectiveTransform(points, matrix) for matrix in (best, stretched))
    off_px = float(np.linalg.norm(np.subtract(*places), axis=-1).mean())
    return off_px * float(view.rgb_from_view[0, 0]) if off_px < _FAR * view.hw[1] else None


def _agreement(view: View, view_from_ir: Image) -> float:
    """Return the mean correlation of the cells, each at the best shift of up to one pixel of the search's level."""
    level = max(0, round(np.log2(max(view.hw) / SEARCH_PX)))
    comparison = compared(view, level, 1, view_from_ir)
    weight = comparison.weight(_COARSE_WINDOW)
    return float(comparison.ncc(_COARSE_WINDOW).max(0) @ weight) / max(float(weight.sum()), 1e-9)


def _correlation(comparison: Comparison, level_from_ir: Image, ir_hw: tuple[int, ...]) -> Image:
    """Return the correlation (S,) of the whole pictures under each shift, the middle of thermal weighted most."""
    h, w = ir_hw
    (x, y, z) = level_from_ir @ [(w - 1) / 2, (h - 1) / 2, 1]
    width = np.hypot(*level_from_ir[:2, 0]) * w
    far = ((comparison.centres() - [x / z, y / z]) ** 2).sum(1)
    weight = np.exp(-far / (2 * (_CENTRAL * width) ** 2))
    dot, power = (x.reshape(len(comparison.shifts), -1) @ weight for x in (comparison.dot, comparison.power_ir))
    found: Image = dot / np.sqrt(power * float(comparison.power_rgb.ravel() @ weight) + 1e-9)
    return found


def _require_peak(correlation: Image, shifts: Image) -> None:
    """Raise CalibrationError if the best shift is weak, at the edge of the search, or has rivals."""
    best = int(correlation.argmax())
    apart = np.hypot(*(shifts - shifts[best]).T) > _APART_PX
    spread = float(correlation[apart].std()) + 1e-9
    margin = float(correlation[best] - correlation[apart].max()) / spread
    at_edge = bool(np.abs(shifts[best]).max() >= np.abs(shifts).max())
    if correlation[best] < LEAST_CORRELATION or margin < LEAST_MARGIN or at_edge:
        raise CalibrationError(
            f"no shift of thermal stands out: the best one correlates by {correlation[best]:.2f} (at least "
            f"{LEAST_CORRELATION} is needed), {margin:.1f} deviations above its best rival ({LEAST_MARGIN} are needed)"
        )


def _peak(correlation: Image, radius: int) -> Image:
    """Return the shift (dx, dy) of the highest correlation, between pixels by a parabola in each direction."""
    side = 2 * radius + 1
    surface = correlation.reshape(side, side)
    y, x = np.unravel_index(int(surface.argmax()), surface.shape)
    at = np.array([x, y], float)
    for axis, (k, line) in enumerate(((x, surface[y]), (y, surface[:, x]))):
        if 0 < k < side - 1:
            before, here, after = line[k - 1 : k + 2]
            at[axis] += (before - after) / (2 * min(before - 2 * here + after, -1e-9))
    return at - radius


def _translation(by: Image) -> Image:
    return np.array([[1.0, 0.0, by[0]], [0.0, 1.0, by[1]], [0.0, 0.0, 1.0]])
