"""Choose the best fuser that holds a camera's rate, and change to a cheaper one and back while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median

import numpy as np

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.engines.machine import torch_gpu
from rtfuse.fuse.engines.selection import open_network
from rtfuse.fuse.fuser import Fuser, Options
from rtfuse.fuse.pyramid import open_pyramid
from rtfuse.types import Clock, Image, ThermalPicture

_MARGIN, _ROOM = 0.7, 0.6
"""Largest shares of a frame's period: for the network at the start; for a better one before it is tried again."""
_RECENT = 30
"""Frames over which the cost of the fuser at work is averaged."""
_APART = 3.5
"""U-Fuser takes some 3.5 times as long as the student with matrix units, 5.7 without (640×480): it is not even opened
where the student's time leaves no room for that."""
_log = logging.getLogger("rtfuse.fuse")


class SteppingFuser:
    """Several fusers, the best first, one of them at work; `lower` and `lift` change to the next cheaper or better one.

    - `openers`: open them. One after `first` that is unavailable is left out, with a line in the log.
    - `first`: the index of the one to begin with. The one before it is opened only where it is `likely` to hold the
      rate, or where the cost of `first` leaves it a chance; it is taken if it does.
    - `clock`: nanoseconds.

    `name` is that of the fuser at work, which every frame carries. `rtfuse.pipeline.load_controller` decides when to
    change. Use it from one thread.
    """

    def __init__(
        self,
        openers: Sequence[Callable[[], Fuser]],
        *,
        first: int = 0,
        likely: bool = False,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self._likely, self._clock = likely, clock
        self._open_better = openers[first - 1] if first else None
        self._fusers = [openers[first](), *_available(openers[first + 1 :])]
        self._costs = [0.0] * len(self._fusers)  # ns a frame where nothing disturbs it; 0: not measured
        self._at, self._failed = 0, False
        self._period_ns = 1e9 / 30
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._mean_ns, self._frames = 0.0, 0

    @property
    def name(self) -> str:
        """The name of the fuser at work."""
        return self._fusers[self._at].name

    def __str__(self) -> str:
        now, cost_ns = self._fusers[self._at], self._costs[self._at]
        if not cost_ns:
            return str(now)
        why = ""
        if self._at:
            why = f"; {self._fusers[self._at - 1].name} takes {self._costs[self._at - 1] / 1e6:.0f}"
        elif self._open_better is not None or self._failed:
            why = "; ufuser failed" if self._failed else "; ufuser would be too slow here"
            why = "; no network runs here, the log says why" if now.name == "pyramid" else why
        return f"{now}: {cost_ns / 1e6:.1f} ms a frame, the cameras allow {self._period_ns / 1e6:.0f} ms{why}"

    def aim(self, rate_hz: float) -> None:
        """Set how many frames come in a second."""
        self._period_ns = 1e9 / rate_hz

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes, and choose by their cost. Raises EngineUnavailable."""
        if self._sizes == (ir_hw, rgb_hw):
            return
        chosen, self._sizes, self._frames = self._sizes is None, (ir_hw, rgb_hw), 0
        self._costs = [self._measured(fuser) for fuser in self._fusers]
        room_ns = _MARGIN * self._period_ns
        if self._open_better is not None and (self._likely or self._costs[0] * _APART < room_ns):
            try:
                better = self._open_better()
                self._costs.insert(0, self._measured(better))
            except EngineUnavailable as e:
                self._give_up(e, self._fusers[self._at].name)
            else:
                self._fusers.insert(0, better)
                self._open_better, self._at = None, self._at + (not chosen or self._costs[0] >= room_ns)

    @property
    def cheaper(self) -> str | None:
        """The name of the next cheaper fuser; None if the cheapest is at work."""
        below = self._fusers[self._at + 1 :]
        return below[0].name if below and below[0].name != self.name else None

    @property
    def better(self) -> str | None:
        """The name of the next better fuser that is open; None if the best one is at work."""
        return self._fusers[self._at - 1].name if self._at else None

    @property
    def room(self) -> bool:
        """True if the next better fuser would now hold the rate, with a margin.

        It is as much slower than where nothing disturbs it as the one at work has become.
        """
        slower = self._mean_ns / self._costs[self._at] if self._frames and self._costs[self._at] else 1.0
        return bool(self._at) and max(slower, 1.0) * self._costs[self._at - 1] < _ROOM * self._period_ns

    def lower(self) -> None:
        """Change to the next cheaper fuser, between frames. Raises IndexError at the cheapest."""
        self._change(self._at + 1)

    def lift(self) -> None:
        """Change to the next better fuser, between frames. Raises IndexError at the best."""
        self._change(self._at - 1)

    def _change(self, to: int) -> None:
        if not 0 <= to < len(self._fusers):
            raise IndexError(f"fuser {to} of {len(self._fusers)}, counted from 0")
        self._at, self._frames = to, 0

    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image:
        """Fuse; see `Fuser`."""
        return self._timed(thermal.image, luma, lambda fuser: fuser.fuse(thermal, luma))

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse aligned thermal; see `Fuser`."""
        return self._timed(ir, rgb, lambda fuser: fuser(ir, rgb, valid))

    def _timed(self, ir: Image, visible: Image, job: Callable[[Fuser], Image]) -> Image:
        if self._sizes is None or self._sizes[1] != visible.shape[:2]:
            self.prepare((ir.shape[0], ir.shape[1]), (visible.shape[0], visible.shape[1]))
        start = self._clock()
        try:
            fused = job(self._fusers[self._at])
        except EngineUnavailable as e:
            if self._at + 1 >= len(self._fusers):
                raise
            self._give_up(e, self._fusers[self._at + 1].name)
            del self._fusers[self._at], self._costs[self._at]
            return job(self._fusers[self._at])
        self._frames += 1
        self._mean_ns += (self._clock() - start - self._mean_ns) / min(self._frames, _RECENT)
        if self._frames >= _RECENT:
            self._costs[self._at] = min(self._costs[self._at], self._mean_ns)
        return fused

    def _give_up(self, why: EngineUnavailable, on_with: str) -> None:
        _log.warning("%s; on with %s", why, on_with)
        self._open_better, self._failed, self._frames = None, True, 0

    def _measured(self, fuser: Fuser) -> float:
        """Return the cost of a frame, in ns: the median of some, after one that is not counted."""
        assert self._sizes is not None
        ir_hw, rgb_hw = self._sizes
        fuser.prepare(ir_hw, rgb_hw)
        rng, spent = np.random.default_rng(0), list[float]()
        thermal, luma = _noise(rng, ir_hw, rgb_hw), rng.integers(0, 255, rgb_hw, np.uint8)
        while len(spent) < 6 and sum(spent) < 10 * self._period_ns:
            start = self._clock()
            fuser.fuse(thermal, luma)
            spent.append(self._clock() - start)
        return median(spent[1:] or spent)


def _available(openers: Sequence[Callable[[], Fuser]]) -> list[Fuser]:
    """Open fusers; leave out, with a line in the log, those that do not work here."""
    there = list[Fuser]()
    for opener in openers:
        try:
            there.append(opener())
        except EngineUnavailable as e:
            _log.warning("a cheaper fuser is not there: %s", e)
    return there


def _noise(rng: np.random.Generator, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> ThermalPicture:
    """Return a thermal picture of noise, to measure with."""
    image, aligned = (rng.integers(0, 255, hw, np.uint8) for hw in (ir_hw, rgb_hw))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in rgb_hw[::-1])), -1)
    return ThermalPicture(image, table=None, grid=grid, valid=None, warp=lambda: aligned)


def open_auto(options: Options) -> Fuser:
    """Return U-Fuser or its student, as the machine allows, and the pyramid below them.

    Where weights or a plan are given it is U-Fuser alone.
    """
    engine, precision = options.engine, options.precision
    if options.weights is not None or options.plan is not None:
        return open_network("ufuser", options.weights, engine, precision, options.plan)
    student = partial(open_network, "student", None, engine, precision, resort=engine == "auto")
    ufuser = partial(open_network, "ufuser", None, engine, precision)
    return SteppingFuser([ufuser, student, open_pyramid], first=1, likely=torch_gpu())


def open_stepping(name: str, named: Callable[[], Fuser]) -> Fuser:
    """Return the fuser of this name, which `named` opens, with the cheaper ones below it; the pyramid has none."""
    below: dict[str, list[Callable[[], Fuser]]] = {
        "ufuser": [partial(open_network, "student"), open_pyramid],
        "student": [open_pyramid],
    }
    return SteppingFuser([named, *below[name]]) if name in below else named()
