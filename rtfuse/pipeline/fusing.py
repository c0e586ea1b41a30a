"""align → fuse: from a pair, or the one frame that is there, to what is put out."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np

from rtfuse.align.aligner import Aligner
from rtfuse.errors import CalibrationError
from rtfuse.observe.logs import event
from rtfuse.observe.stats import Stats
from rtfuse.pipeline.overlay import marked
from rtfuse.pipeline.parts import Rig
from rtfuse.pipeline.queues import Moment, named
from rtfuse.thermal import displayed
from rtfuse.types import Alone, Frame, Fused, Image, Pair, PlacedSpot, Spot, Stream

_log = logging.getLogger("rtfuse.pipeline")


class Fusing:
    """What the fusing thread does with each moment, by the parts of a rig; counts in `stats`.

    `cost_ns` is what fusing takes now. Raises the `RtfuseError` of the part that failed, or StageFailed if it failed in
    another way.
    """

    def __init__(self, rig: Rig, stats: Stats) -> None:
        self._rig, self._stats = rig, stats
        self.cost_ns = 0.0
        self._thermal: _Thermal | None = None
        self._unreached: Image | None = None
        self._unfit: set[tuple[tuple[int, int], tuple[int, int]]] = set()

    def __call__(self, moment: Moment, states: Mapping[Stream, str]) -> Fused | None:
        """Return the output for a pair or a lone frame; None, counted, for pictures that cannot be aligned.

        `states` says what each stream is doing.
        """
        if not self._fits(moment):
            self._stats.drops[moment.leader.stream, "size"] += 1
            return None
        fused = self._fuse(moment) if isinstance(moment, Pair) else self._pass(moment)
        if isinstance(moment, Pair) and moment.ir.thermal is not None:
            fused = replace(fused, spots=self._placed(moment.ir))
        fused = replace(fused, states=dict(states))
        return marked(fused, self._rig.health) if self._rig.mark and self._rig.live else fused

    def _fits(self, moment: Moment) -> bool:
        """Make the aligner fit the pictures' sizes, which change when a camera comes back with another one."""
        rig = self._rig
        if rig.fit is None:
            return True
        ir_hw, rgb_hw = rig.aligner.ir_hw, rig.aligner.rgb_hw
        for frame in (moment.ir, moment.rgb) if isinstance(moment, Pair) else (moment.frame,):
            if frame.stream == "ir":
                ir_hw = frame.shape_hw
            else:
                rgb_hw = frame.shape_hw
        if (ir_hw, rgb_hw) == (rig.aligner.ir_hw, rig.aligner.rgb_hw):
            return True
        if (ir_hw, rgb_hw) in self._unfit:
            return False
        sizes = f"thermal {ir_hw[1]}x{ir_hw[0]}, RGB {rgb_hw[1]}x{rgb_hw[0]}"
        try:
            aligner = rig.fit(ir_hw, rgb_hw)
        except CalibrationError as e:
            self._unfit.add((ir_hw, rgb_hw))
            event(_log, logging.ERROR, "size", str(e), sizes=sizes)
            return False
        event(_log, logging.WARNING, "size", f"the pictures have new sizes: {sizes}")
        rig.fuser.prepare(aligner.rgb_hw if aligner.stretched else aligner.ir_hw, aligner.rgb_hw)
        rig.aligner, self._thermal, self._unreached = aligner, None, None
        return True

    def _fuse(self, pair: Pair) -> Fused:
        rig, start_ns = self._rig, time.monotonic_ns()
        fuser, aligner = rig.fuser, rig.aligner
        try:
            thermal = self._seen(pair.ir)
        except Exception as e:
            raise named("align", e) from e
        seen_ns = time.monotonic_ns()
        try:
            image = fuser.fuse(thermal, pair.rgb.image)
            if rig.steady is not None:
                image = rig.steady(image, pair.leader.t_ns)
        except Exception as e:
            raise named(f"fuse with {fuser.name}", e) from e
        now = time.monotonic_ns()
        spent_ns = now - start_ns
        if rig.trace is not None:
            rig.trace.stage("thermal", "fuse", pair, start_ns, seen_ns)
            rig.trace.stage(f"fuse by {fuser.name}", "fuse", pair, seen_ns, now)
            rig.trace.stage("pair", "pair", pair, min(pair.leader.arrival_ns, start_ns), start_ns)
        self.cost_ns += 0.2 * (spent_ns - self.cost_ns)
        self._stats.took("fuse", spent_ns)
        return Fused(image, thermal, pair, aligner.valid, fuser.name)

    def _pass(self, alone: Alone) -> Fused:
        """Return the picture of the one stream that is there, on the RGB grid."""
        if alone.frame.stream == "ir":
            try:
                thermal = self._seen(alone.frame)
                image = cv2.cvtColor(thermal(), cv2.COLOR_GRAY2RGB)
            except Exception as e:
                raise named("align", e) from e
            spots = self._placed(alone.frame)
            return Fused(image, thermal, alone, self._rig.aligner.valid, "none", mode="ir", spots=spots)
        if self._unreached is None:
            self._unreached = np.zeros(self._rig.aligner.rgb_hw, np.uint8)
        unreached = self._unreached
        return Fused(alone.frame.image, lambda: unreached, alone, unreached, "none", mode="rgb")

    def _seen(self, frame: Frame) -> _Thermal:
        """Return the thermal frame as it is shown; the same for every picture that it is part of."""
        if self._thermal is None or self._thermal.frame is not frame:
            self._thermal = _Thermal(frame, *self._rig.agc.shown(frame), self._rig.aligner)
        return self._thermal

    def _placed(self, ir: Frame) -> tuple[PlacedSpot, PlacedSpot] | None:
        thermal = ir.thermal
        if thermal is None or thermal.hot is None or thermal.cold is None:
            return None

        def place(spot: Spot) -> PlacedSpot:
            return PlacedSpot(*self._rig.aligner.place((spot.x, spot.y)), spot.k)

        return place(thermal.hot), place(thermal.cold)


class _Thermal:
    """One thermal frame as it is shown, brought onto the RGB grid when somebody asks for it."""

    def __init__(self, frame: Frame, image: Image, table: Image | None, aligner: Aligner) -> None:
        self.frame, self.image, self.table = frame, image, table
        self.grid, self.valid, self._aligner = aligner.grid, aligner.valid, aligner
        self._aligned: Image | None = None

    def __call__(self) -> Image:
        """Return it on the RGB grid, (H, W) uint8."""
        if self._aligned is None:
            try:
                self._aligned = self._aligner(displayed(self.image, self.table))
            except Exception as e:
                raise named("align", e) from e
        return self._aligned
