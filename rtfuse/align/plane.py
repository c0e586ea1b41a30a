"""Register thermal at a distance that may change while frames are fused."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np

from rtfuse.align.aligner import Aligner, ir_pixels_of_rgb_grid
from rtfuse.align.calibration import Calibration
from rtfuse.align.doubts import FEW
from rtfuse.align.field import cubic_weights
from rtfuse.align.ground import ground_m
from rtfuse.align.limits import pose_fault
from rtfuse.align.parallax import parallax_px
from rtfuse.align.settings import Align
from rtfuse.align.source import DepthRegistration
from rtfuse.errors import CalibrationError
from rtfuse.observe.logs import event
from rtfuse.thermal_data import Depth, DepthFrame
from rtfuse.types import Image

DISTANCES_M = (2.0, 5.0, 10.0, 20.0, 50.0)
"""Distances of which a rig tells its error."""
_STEP_S = 0.05
"""Time between two steps of a move."""
_NODE_PX = 8
"""Steps compute the map at every so many pixels, and cubics between: for lenses within 0.02 px of the whole map."""
_log = logging.getLogger("rtfuse.align")


class MovingPlane:
    """Make the rig's aligners, and move the distance at which they are exact while frames are fused.

    - `calibration`: the rig's; only one with a stereo pose knows distances. None: no calibration.
    - `settings`: `depth.plane_m` takes the place of the calibration's own distance from the start; with `depth.ground`
      aligners are exact on the ground too.
    - `clock`: seconds, for the moves.

    A move goes evenly in inverse distance, so that the picture moves evenly. Its aligners are made in a thread of its
    own, which exists only while the plane moves: frames never wait for one. `fit` and `newest` are for the
    fusing thread, the others for any. Raises CalibrationError for a distance that the calibration does not allow.
    """

    def __init__(
        self, calibration: Calibration | None, settings: Align, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._calibration, self._seam_px, self._clock = calibration, settings.seam_px, clock
        self._move_s, self._ground = settings.depth.move_ms / 1000, settings.depth.ground
        self._lock, self._over = threading.Lock(), threading.Event()
        self._now: Aligner | None = None
        self._mover: threading.Thread | None = None
        self._asked_m: float | None = None
        """The distance that was asked for; None: nothing was, and aligners are those of the calibration."""
        if settings.depth.plane_m is not None:
            self._check(settings.depth.plane_m, "align.depth.plane_m")
            self._asked_m = settings.depth.plane_m
        elif self._ground is not None or settings.depth.source is not None:
            name = "align.depth.ground" if self._ground is not None else "align.depth.source (--depth)"
            self._check(self._own_m, name)
            self._asked_m = self._own_m
        self._by_depth: DepthRegistration | None = None
        if settings.depth.source is not None and calibration is not None:
            self._by_depth = DepthRegistration(
                calibration, settings.seam_px, self._ground, settings.depth.source.unit_mm
            )

    @property
    def target_m(self) -> float | None:
        """The distance at which thermal is registered, or to which it moves; None: the calibration knows none."""
        return self._own_m if self._asked_m is None else self._asked_m

    @property
    def on_ground(self) -> bool:
        """True if thermal is registered on the ground too."""
        return self._ground is not None

    @property
    def by_depth(self) -> bool:
        """True if thermal is registered by a depth camera, where that knows the distance."""
        return self._by_depth is not None

    @property
    def _own_m(self) -> float | None:
        c = self._calibration
        return c.plane_m if c is not None and c.R_rgb_from_ir is not None else None

    def _check(self, plane_m: float | None, name: str) -> None:
        c = self._calibration
        if c is None or c.R_rgb_from_ir is None or plane_m is None:
            found = "no calibration" if c is None else "a calibration with a homography, which has no distance"
            raise CalibrationError(
                f"{name} sets the distance of registration and needs the cameras' pose, found {found}: "
                "calibrate with a board (calib stereo) and give that file (--calib)"
            )
        R, t = np.array(c.R_rgb_from_ir, float), np.array(c.t_rgb_from_ir_m, float)
        if fault := pose_fault(R, t, plane_m, float(c.rgb.matrix[0, 0])):
            raise CalibrationError(fault.replace("plane_m", name, 1))

    def fit(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int], calibration: Calibration | None = None) -> Aligner:
        """Return the aligner for pictures of these sizes, by `calibration` where the pictures have one of their own.

        Raises CalibrationError.
        """
        if calibration is not None:
            return Aligner(ir_hw, rgb_hw, calibration, seam_px=self._seam_px)
        target = self._asked_m
        if target is None:
            made = Aligner(ir_hw, rgb_hw, self._calibration, seam_px=self._seam_px)
        else:
            made = self._made((ir_hw, rgb_hw), target, target, whole=True)
        if self._by_depth is not None:
            self._by_depth.prepare(ir_hw, rgb_hw)
        with self._lock:
            self._now = made
            if self._asked_m != target:  # it was moved meanwhile
                self._begin()
        return made

    def newest(self, aligner: Aligner, depth: DepthFrame | None = None) -> Aligner:
        """Return the aligner of the plane as it is now, for the sizes of the last `fit`, or that of a depth frame."""
        now = self._now or aligner
        return now if depth is None or self._by_depth is None else self._by_depth(now, depth)

    def move(self, plane_m: float | None) -> None:
        """Move to this distance in metres; None: to the calibration's own. Returns at once. Raises CalibrationError."""
        self._check(self._own_m if plane_m is None else plane_m, "plane_m")
        with self._lock:
            before, wanted = self.target_m, plane_m if plane_m is not None else self._own_m
            if before == wanted:
                return
            self._asked_m = wanted
            event(_log, logging.INFO, "plane", f"the distance of registration: {wanted:g} m (was {before:g} m)")
            self._begin()

    def errors_px(self, distances_m: tuple[float, ...] = DISTANCES_M) -> dict[float, float]:
        """Return the error in RGB pixels at each distance in metres; none without a stereo pose.

        Distances at which the cameras have nothing in common are left out.
        """
        c, errors = self._calibration, dict[float, float]()
        if c is None or self.target_m is None:
            return errors
        c = msgspec.structs.replace(c, plane_m=self.target_m)
        for distance in distances_m:
            with suppress(CalibrationError):
                errors[distance] = parallax_px(c, distance)
        return errors

    def close(self, timeout_s: float = 5.0) -> None:
        """End a move in progress."""
        self._over.set()
        if (mover := self._mover) is not None:
            mover.join(timeout_s)

    def _begin(self) -> None:
        """Start the thread that moves, unless it runs; the lock is held."""
        if self._mover is None and self._now is not None and not self._over.is_set():
            self._mover = threading.Thread(target=self._follow, name="rtfuse-plane", daemon=True)
            self._mover.start()

    def _follow(self) -> None:
        """Move until the plane is at its target, which may change on the way."""
        while True:
            with self._lock:
                start, target = self._now, self._asked_m
                if start is None or target is None or self._over.is_set() or self._plane_of(start) == target:
                    self._mover = None
                    return
            try:
                self._glide(start, target)
            except Exception as e:  # noqa: BLE001 - the picture stays where it is, and the next move may do better
                self._stay(target, e)

    def _stay(self, target_m: float, e: Exception) -> None:
        """Say that a move failed, and stay where it has come to, unless another one was asked for."""
        now = self._now
        assert now is not None
        text = f"the distance of registration stays at {self._plane_of(now):g} m; moving to {target_m:g} m failed"
        event(_log, logging.ERROR, "plane", f"{text}: {type(e).__name__}: {e}")
        with self._lock:
            if self._asked_m == target_m:
                self._asked_m = self._plane_of(now)
                now.depth = now.depth and replace(now.depth, target_m=now.depth.plane_m)

    def _glide(self, start: Aligner, target_m: float) -> None:
        """Publish aligners on the way to the target until it is reached, or another one, or another size is wanted."""
        begun, from_m, shown = self._clock(), self._plane_of(start), start
        while True:
            share = min((self._clock() - begun) / self._move_s, 1.0) if self._move_s else 1.0
            eased = share * share * (3 - 2 * share)
            plane_m = target_m if share >= 1 else 1 / ((1 - eased) / from_m + eased / target_m)
            made = self._made((start.ir_hw, start.rgb_hw), plane_m, target_m)
            with self._lock:
                if self._now is not shown or self._asked_m != target_m:
                    return
                self._now = shown = made
            if share >= 1:
                self._doubt(made, target_m)
                return
            if self._over.wait(_STEP_S):
                return

    def _made(
        self, sizes: tuple[tuple[int, int], tuple[int, int]], plane_m: float, target_m: float, *, whole: bool = False
    ) -> Aligner:
        """Return the aligner for a distance; `whole` computes its map at every pixel."""
        assert self._calibration is not None
        (ir_hw, rgb_hw), ground = sizes, self._ground
        c = msgspec.structs.replace(self._calibration, plane_m=plane_m)
        depth_of = None if ground is None else partial(ground_m, c=c, ground=ground)
        if whole:
            xy = ir_pixels_of_rgb_grid(c, ir_hw[::-1], rgb_hw[::-1], depth_of=depth_of)
        else:
            xy = map_at(c, ir_hw, rgb_hw, depth_of)
        depth = Depth(plane_m, target_m, "plane" if ground is None else "ground")
        return Aligner(ir_hw, rgb_hw, c, seam_px=self._seam_px, map_px=xy, depth=depth)

    def _plane_of(self, aligner: Aligner) -> float:
        plane_m = aligner.depth.plane_m if aligner.depth is not None else self._own_m
        assert plane_m is not None
        return plane_m

    def _doubt(self, made: Aligner, plane_m: float) -> None:
        if made.reach < FEW:
            text = f"at {plane_m:g} m thermal reaches {made.reach:.1%} of the RGB picture; is the distance in metres?"
            event(_log, logging.WARNING, "plane", text)


def map_at(
    c: Calibration,
    ir_hw: tuple[int, int],
    rgb_hw: tuple[int, int],
    depth_of: Callable[[Image], Image] | None = None,
) -> Image:
    """Return where RGB pixels lie in thermal, (H, W, 2) float32 in pixels, computed at every eighth pixel.

    Between them are cubics, within 0.02 px for lenses; it takes a small part of the time of `ir_pixels_of_rgb_grid`,
    which also says what `depth_of` is.
    Raises CalibrationError for a size that the calibration does not hold for.
    """
    coarse = ir_pixels_of_rgb_grid(c, ir_hw[::-1], rgb_hw[::-1], every=_NODE_PX, depth_of=depth_of)
    if (np.abs(coarse) >= 1e4).any():  # part of it lies behind the thermal camera: no cubic goes through that
        return ir_pixels_of_rgb_grid(c, ir_hw[::-1], rgb_hw[::-1], depth_of=depth_of)
    down, across = (cubic_weights(n, _NODE_PX, nodes) for n, nodes in zip(rgb_hw, coarse.shape[:2], strict=True))
    planes = [down @ coarse[..., k].astype(np.float64) @ across.T for k in (0, 1)]
    return np.ascontiguousarray(np.stack(planes, -1).astype(np.float32))
