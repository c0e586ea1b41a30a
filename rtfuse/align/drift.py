"""Watch the registration of thermal on RGB slowly, and warn when the bracket was bumped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np

from rtfuse.align.structure import structure
from rtfuse.types import Clock, Depth, Fused, Image

_REACH_PX = 12
_WIDTH = 320
"""Shifts are searched within `_REACH_PX` of a picture of this width."""
_SURE = 0.3


class DriftMonitor:
    """Watch that thermal still lies on RGB, and warn when the bracket was bumped; no frame is changed.

    A sink of the pipeline, in a thread of its own: every `every_s` one frame is measured there. The first `settle` sure
    measurements, parallax included, are taken as the rig's usual state; `warn` gets one line when the median of
    the last `recent` has moved from it by more than `limit_px` (of an RGB image 640 across), and one when it is back.
    When the distance of registration changes, so does the parallax: the usual state is then measured again.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        every_s: float = 2.0,
        limit_px: float = 3.0,
        settle: int = 15,
        recent: int = 9,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._warn, self._every_ns, self._limit_px, self._clock = warn, round(every_s * 1e9), limit_px, clock
        self._first: list[Image] = []
        self._settle, self._recent = settle, deque[Image](maxlen=recent)
        self._next_ns, self._bumped = clock(), False
        self._depth: Depth | None = None
        self.moved_px: tuple[float, float] | None = None
        """Shift of thermal from its usual place, in RGB pixels, right and down; None: not known yet."""

    def wants_aligned(self) -> bool:
        """Return True if a measurement is due."""
        return self._clock() >= self._next_ns

    def write(self, fused: Fused) -> None:
        """Measure this frame if it is time."""
        now, rgb = self._clock(), fused.pair.rgb
        if now < self._next_ns or fused.aligned is None or fused.pair.ir is None or rgb is None:
            return
        self._next_ns = now + self._every_ns
        depth = fused.depth and replace(fused.depth, known=None)  # the share changes with each frame
        if depth != self._depth:
            self._depth, self._bumped, self.moved_px = depth, False, None
            self._first.clear()
            self._recent.clear()
        dx, dy, confidence = residual_shift(fused.aligned, rgb.image, fused.valid)
        if confidence < _SURE:
            return
        if len(self._first) < self._settle:
            self._first.append(np.array([dx, dy]))
            return
        self._recent.append(np.array([dx, dy]))
        if len(self._recent) == self._recent.maxlen:
            self._judge(fused.shape_hw[1])

    def close(self) -> None:
        """Do nothing."""

    def _judge(self, width: int) -> None:
        moved = np.median(self._recent, axis=0) - np.median(self._first, axis=0)
        self.moved_px = (float(moved[0]), float(moved[1]))
        far = float(np.linalg.norm(moved)) * 640 / width
        if far > self._limit_px and not self._bumped:
            self._bumped = True
            self._warn(
                f"thermal has moved by {moved[0]:+.1f}, {moved[1]:+.1f} px (right, down) on RGB since the start: was "
                "the bracket bumped? Calibrate again: calib register, or calib stereo"
            )
        elif far < 0.5 * self._limit_px and self._bumped:
            self._bumped = False
            self._warn("thermal is back where it was on RGB")


def residual_shift(ir_aligned: Image, rgb: Image, valid: Image | None = None) -> tuple[float, float, float]:
    """Return how far aligned thermal (H, W) uint8 lies off its RGB picture (H, W, 3) uint8, as one shift.

    Returns (dx, dy, confidence): the point at x of RGB is at x + (dx, dy), in pixels, of thermal; to be averaged
    over many frames, weighted by the confidence, 0 to 1. Sees up to 24 px of 640. `valid` (H, W) uint8 is 0 where
    thermal does not reach; None: it reaches everywhere.
    """
    step = max(1.0, max(rgb.shape[:2]) / _WIDTH)
    hw = round(rgb.shape[0] / step), round(rgb.shape[1] / step)
    seen, coloured = (cv2.resize(x, hw[::-1], interpolation=cv2.INTER_AREA) for x in (ir_aligned, rgb))
    framing = None
    if valid is not None:  # without the edge that the picture's own end makes
        reached = cv2.erode((valid > 0).astype(np.float32), np.ones((5, 5)), borderValue=1)
        framing = cv2.resize(reached, hw[::-1], interpolation=cv2.INTER_AREA)
    # Directions alone: strengths are off by a fraction of a pixel where an edge is warm on one side.
    a = structure(seen.astype(np.float32), framing)[:2]
    b = structure(coloured.astype(np.float32))[:2]
    size, r = [cv2.getOptimalDFTSize(n + _REACH_PX) for n in hw], _REACH_PX
    spectrum = (np.fft.rfft2(a, size) * np.fft.rfft2(b, size).conj()).sum(0)
    power = float(np.sqrt((a * a).sum() * (b * b).sum())) + 1e-6
    surface = np.roll(np.fft.irfft2(spectrum, size) / power, (r, r), (0, 1))[: 2 * r + 1, : 2 * r + 1]
    y, x = (int(k) for k in np.unravel_index(int(surface[1:-1, 1:-1].argmax()), (2 * r - 1, 2 * r - 1)))
    nine = surface[y : y + 3, x : x + 3]
    dx, dy = x + 1 - r + _vertex(nine[1]), y + 1 - r + _vertex(nine[:, 1])
    z = (surface.max() - np.median(surface)) / (surface.std() + 1e-4)
    return dx * step, dy * step, float(np.clip((z - 3) / 3, 0, 1))


def _vertex(three: Image) -> float:
    """Return where the parabola through values at -1, 0, 1 has its top, -0.5 to 0.5."""
    bend = three[0] - 2 * three[1] + three[2]
    return float(np.clip((three[0] - three[2]) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
