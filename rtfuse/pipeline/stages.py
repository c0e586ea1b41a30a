"""Turn one moment into one fused picture: thermal, align, fuse, hot, deflicker; no threads, clocks or sockets.

`run`, `fuse`, `bench` and `trainer` call `Stages`. To add a stage, write its file and add a line to `Stages._chain`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import cv2
import numpy as np

from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration
from rtfuse.align.plane import MovingPlane
from rtfuse.config import Config
from rtfuse.errors import CalibrationError, ConfigError, named
from rtfuse.fuse import Fuser
from rtfuse.fuse.deflicker import Deflicker
from rtfuse.fuse.hot import KeepHot
from rtfuse.fuse.lean import Lean
from rtfuse.observe.logs import event
from rtfuse.thermal.agc import Agc, displayed
from rtfuse.thermal.planck import count_at
from rtfuse.types import Frame, Fused, Image, Mode, Moment, Picture, PlacedSpot, Spot, Stage, ThermalPicture, Work

_log = logging.getLogger("rtfuse.pipeline")
Size = tuple[int, int]
Fit = Callable[..., Aligner]
"""Make an aligner for thermal and RGB pictures of these sizes (h, w), by the rig's calibration or the one given as
`calibration`. Raises CalibrationError."""
Place = Callable[[Moment], Calibration | None]
"""Return the calibration of a moment's own pictures, where their file tells one."""


class Stages:
    """Process moments one after another, from one thread.

    - `aligner` lays thermal on the RGB grid; `fit` makes another one when a camera changes its size (None: sizes stay),
      and for each moment for which `place` has a calibration of its own.
    - `fuser` fuses; `config` has the settings of the other stages.
    - `scenes`: True if moments have nothing to do with each other (stills): each is fused as if it were the only one.
    - `plane`: moves the distance of registration while moments are fused; its `fit` is then `fit`.
    - `done`, if given, is called with a stage's name each time that it has ended; nothing is measured here.

    Raises ConfigError for settings that contradict each other.
    """

    def __init__(
        self,
        aligner: Aligner,
        fuser: Fuser,
        config: Config | None = None,
        *,
        fit: Fit | None = None,
        scenes: bool = False,
        place: Place | None = None,
        done: Callable[[str], None] | None = None,
        plane: MovingPlane | None = None,
    ) -> None:
        config = config or Config()
        self.aligner, self.fuser, self.agc = aligner, fuser, Agc(config.thermal.agc)
        self._weight = config.fuse.thermal_weight
        self._deflicker = Deflicker() if config.fuse.steady and not scenes else None
        self._lean = Lean(hold=not scenes) if config.fuse.lean else None
        self.scenes, self._fit, self._place, self._done, self.plane = scenes, fit, place, done, plane
        self._own: Calibration | None = None
        self._unfit: dict[tuple[Size, Size], CalibrationError] = {}
        self._thermal: tuple[Frame, ThermalPicture] | None = None
        self._unreached: Image | None = None
        self._chain: list[tuple[str, Stage]] = [
            ("thermal", self._show),
            ("align", self._align),
            ("fuse", self._fuse),
            *([("hot", hot)] if (hot := hot_of(config, hold=not scenes)) is not None else []),
            ("deflicker", self._hold),
        ]

    @property
    def placed_by_files(self) -> bool:
        """True if each moment may have a calibration of its own."""
        return self._place is not None

    def process(self, moment: Moment, *, aligned: bool = True) -> Fused:
        """Fuse a pair, or show a single frame on the RGB grid.

        Without `aligned`, `Fused.aligned` may be None. Raises CalibrationError for sizes that cannot be aligned, the
        `RtfuseError` of a stage that failed, or StageFailed, naming the stage, if it failed in another way.
        """
        self.fit(moment)
        work = Work(moment, aligned)
        for name, stage in self._chain:
            try:
                stage(work)
            except Exception as e:
                raise named(f"fuse with {self.fuser.name}" if name == "fuse" else name, e) from e
            if self._done is not None:
                self._done(name)
        return self._fused(work)

    def fit(self, moment: Moment) -> None:
        """Make align fit the frames' sizes, which change when a camera comes back, and a calibration of their own.

        Raises CalibrationError.
        """
        if self._fit is None:
            return
        ir_hw = self.aligner.ir_hw if moment.ir is None else moment.ir.shape_hw
        rgb_hw = self.aligner.rgb_hw if moment.rgb is None else moment.rgb.shape_hw
        own = self._place(moment) if self._place is not None and moment.complete else self._own
        old_sizes = self.aligner.ir_hw, self.aligner.rgb_hw
        if (ir_hw, rgb_hw) == old_sizes and own == self._own:
            if self.plane is not None and own is None:
                depth = None if moment.rgb is None or moment.ir is None else moment.rgb.depth
                self._replace(self.plane.newest(self.aligner, depth))
            return
        if (ir_hw, rgb_hw) in self._unfit:
            raise self._unfit[ir_hw, rgb_hw]
        sizes = f"thermal {ir_hw[1]}x{ir_hw[0]}, RGB {rgb_hw[1]}x{rgb_hw[0]}"
        try:
            aligner = self._fit(ir_hw, rgb_hw) if own is None else self._fit(ir_hw, rgb_hw, calibration=own)
        except CalibrationError as e:
            self._unfit[ir_hw, rgb_hw] = e
            event(_log, logging.ERROR, "size", str(e), sizes=sizes)
            raise
        if (ir_hw, rgb_hw) != old_sizes and not self.scenes:
            event(_log, logging.WARNING, "size", f"the pictures have new sizes: {sizes}")
        self.aligner, self._own, self._thermal, self._unreached = aligner, own, None, None
        self.prepare()

    def _replace(self, aligner: Aligner) -> None:
        """Take an aligner of the same sizes; a thermal frame that is shown again is warped again."""
        if aligner is not self.aligner:
            self.aligner = aligner
            if self._thermal is not None:
                ir, shown = self._thermal
                self._thermal = ir, self._warped_by(aligner, shown.image, shown.table)

    def prepare(self) -> None:
        """Make the fuser ready for the aligner's sizes, so that the first frame does not wait."""
        aligner = self.aligner
        self.fuser.prepare(aligner.rgb_hw if aligner.stretched else aligner.ir_hw, aligner.rgb_hw)

    def thermal(self, ir: Frame) -> ThermalPicture:
        """Return the thermal frame as displayed; the same for every moment that it is part of."""
        if self._thermal is None or self._thermal[0] is not ir:
            if self.scenes:
                self.agc.forget()
            self._thermal = ir, self._warped_by(self.aligner, *self.agc.shown(ir))
        return self._thermal[1]

    def _warped_by(self, aligner: Aligner, image: Image, table: Image | None) -> ThermalPicture:
        def warp() -> Image:
            try:
                return aligner(displayed(image, table))
            except Exception as e:
                raise named("align", e) from e

        return ThermalPicture(image, table, aligner.grid, aligner.valid, warp)

    def _show(self, work: Work) -> None:
        if work.moment.ir is not None:
            work.thermal = self.thermal(work.moment.ir)

    def _align(self, work: Work) -> None:
        if work.thermal is not None and (work.aligned_wanted or work.moment.rgb is None):
            work.thermal()

    def _fuse(self, work: Work) -> None:
        rgb = work.moment.rgb
        if work.thermal is not None:
            work.luma = work.thermal() if rgb is None else self._weighted(work.thermal, rgb)

    def _weighted(self, thermal: ThermalPicture, rgb: Frame) -> Image:
        luma, weight = rgb.picture.luma, self._weight
        if self._lean is not None:
            thermal = self._lean(thermal, rgb.t_ns, self.aligner)
        fused = self.fuser.fuse(thermal, luma)
        return fused if weight == 1 else cv2.addWeighted(fused, weight, luma, 1 - weight, 0)

    def _hold(self, work: Work) -> None:
        if self._deflicker is not None and work.luma is not None and work.moment.complete:
            work.luma = self._deflicker(work.luma, work.moment.leader.t_ns)

    def _fused(self, work: Work) -> Fused:
        """Return the result of all stages."""
        moment, thermal, picture = work.moment, work.thermal, _picture(work)
        if moment.ir is None or thermal is None:
            if self._unreached is None:
                self._unreached = np.zeros(self.aligner.rgb_hw, np.uint8)
            return Fused(picture, self._unreached, moment, self._unreached, "none", mode="rgb")
        fuser, mode = (self.fuser.name, _FUSED) if moment.rgb is not None else ("none", _IR)
        spots, aligner = self._placed(moment.ir), self.aligner
        return Fused(
            picture, thermal.aligned, moment, aligner.valid, fuser, mode=mode, spots=spots, depth=aligner.depth
        )

    def _placed(self, ir: Frame) -> tuple[PlacedSpot, PlacedSpot] | None:
        """Return the hottest and the coldest pixel of a radiometric frame on the RGB grid."""
        thermal = ir.thermal
        if thermal is None or thermal.hot is None or thermal.cold is None:
            return None

        def place(spot: Spot) -> PlacedSpot:
            return PlacedSpot(*self.aligner.place((spot.x, spot.y)), spot.k)

        return place(thermal.hot), place(thermal.cold)


def hot_of(config: Config, *, hold: bool = True) -> KeepHot | None:
    """Return the stage that keeps hot places as thermal shows them; None if it is off. Raises ConfigError."""
    share, above_c = config.fuse.keep_hot, config.fuse.keep_hot_c
    if share is None and above_c is None:
        return None
    if share is not None and above_c is not None:
        raise ConfigError("fuse.keep_hot and fuse.keep_hot_c: give one of the two, a share or a temperature")
    if config.thermal.agc.method == "clahe":
        raise ConfigError(
            "fuse.keep_hot needs a gain control by which hotter is brighter everywhere: "
            "thermal.agc.method must be plateau or linear, found clahe"
        )
    if above_c is not None and config.thermal.polarity == "black-hot":
        raise ConfigError("fuse.keep_hot_c needs counts that rise with temperature, and thermal.polarity is black-hot")
    return KeepHot(share, above_c=above_c, count_at=count_at, hold=hold)


def _picture(work: Work) -> Picture:
    """Return the fused luma with the chroma of RGB; of one stream alone, that stream."""
    rgb, luma = work.moment.rgb, work.luma
    if luma is None:
        assert rgb is not None
        return rgb.picture
    return Picture.of_luma(luma) if rgb is None else rgb.picture.with_luma(luma)


_FUSED: Mode = "fused"
_IR: Mode = "ir"
