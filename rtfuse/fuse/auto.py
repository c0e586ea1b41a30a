"""Choose the best network that holds a camera's rate: measured at the start, watched while it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import numpy as np

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.engines.machine import torch_gpu
from rtfuse.fuse.engines.selection import open_network
from rtfuse.fuse.fuser import Fuser, Options
from rtfuse.types import Clock, Image, ThermalPicture

_MARGIN, _FULL, _ROOM = 0.7, 0.95, 0.6
"""Shares of a frame's period: what the network may take at the start; when it is given up; when it is tried again."""
_PATIENCE = 30
"""Frames in a row that must be too slow, or have room, before something is changed."""
_BACKOFF_NS, _LONGEST_NS = 10_000_000_000, 300_000_000_000
_APART = 15.0
"""U-Fuser takes more than this many times as long as the student on any processor: then it is not even opened."""
_log = logging.getLogger("rtfuse.fuse")


class AutoFuser:
    """U-Fuser where it holds the rate with a margin, else its student; and from one to the other as the speed changes.

    `small` and `large` open them; `large` only where `likely` or where the student leaves it a chance. `name` is that
    of the one at work, which every frame carries. `clock` is in nanoseconds. Use it from one thread.
    """

    def __init__(
        self,
        small: Callable[[], Fuser],
        large: Callable[[], Fuser],
        *,
        likely: bool,
        clock: Clock = time.perf_counter_ns,
    ) -> None:
        self._open_small, self._open_large, self._likely, self._clock = small, large, likely, clock
        self._period_ns = 1e9 / 30
        self._small = self._now = small()
        self._large: Fuser | None = None
        self._failed = False
        self._costs: tuple[float, float] = (0.0, 0.0)  # of small and large at the start, ns
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._mean_ns, self._run, self._frames = 0.0, 0, 0
        self._wait_ns, self._retry_ns = _BACKOFF_NS, 0

    @property
    def name(self) -> str:
        """The name of the fuser at work."""
        return self._now.name

    def __str__(self) -> str:
        ms = [cost / 1e6 for cost in self._costs]
        there = f"the cameras allow {self._period_ns / 1e6:.0f} ms"
        if self._now is self._large:
            return f"{self._now}: {ms[1]:.1f} ms a frame, {there}"
        why = "ufuser failed" if self._failed else "ufuser would be too slow here"
        if self._now.name == "pyramid":
            why = "no network runs here, the log says why"
        if self._large is not None:
            why = f"ufuser takes {ms[1]:.0f}"
        return f"{self._now}: {ms[0]:.1f} ms a frame, {there}; {why}" if ms[0] else str(self._now)

    def aim(self, rate_hz: float) -> None:
        """Say how many frames come in a second."""
        self._period_ns = 1e9 / rate_hz

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes, and choose by what they cost. Raises EngineUnavailable."""
        if self._sizes == (ir_hw, rgb_hw):
            return
        self._sizes, self._run = (ir_hw, rgb_hw), 0
        small_ns, large_ns, room = self._measured(self._small), 0.0, _MARGIN * self._period_ns
        if self._large is not None or self._likely or small_ns * _APART < room:
            try:
                self._large = self._large or self._open_large()
                large_ns = self._measured(self._large)
            except EngineUnavailable as e:
                self._give_up_large(e)
        self._costs = small_ns, large_ns
        self._now = self._large if self._large is not None and large_ns < room else self._small

    def fuse(self, thermal: ThermalPicture, rgb: Image) -> Image:
        """Fuse; see `Fuser`."""
        return self._timed(thermal.image, rgb, lambda: self._now.fuse(thermal, rgb))

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse aligned thermal; see `Fuser`."""
        return self._timed(ir, rgb, lambda: self._now(ir, rgb, valid))

    def _timed(self, ir: Image, rgb: Image, job: Callable[[], Image]) -> Image:
        if self._sizes is None or self._sizes[1] != rgb.shape[:2]:
            self.prepare((ir.shape[0], ir.shape[1]), (rgb.shape[0], rgb.shape[1]))
        self._step()
        start = self._clock()
        try:
            fused = job()
        except EngineUnavailable as e:
            if self._now is not self._large:
                raise
            self._give_up_large(e)
            return job()
        self._count(self._clock() - start)
        return fused

    def _give_up_large(self, why: EngineUnavailable) -> None:
        _log.warning("%s; on with %s", why, self._small.name)
        self._large, self._likely, self._failed = None, False, True
        self._now, self._run, self._frames = self._small, 0, 0

    def _measured(self, fuser: Fuser) -> float:
        """Return what a frame costs, in ns: the median of some, after one that is not counted."""
        assert self._sizes is not None
        ir_hw, rgb_hw = self._sizes
        fuser.prepare(ir_hw, rgb_hw)
        rng, spent = np.random.default_rng(0), list[float]()
        thermal, rgb = _noise(rng, ir_hw, rgb_hw), rng.integers(0, 255, (*rgb_hw, 3), np.uint8)
        while len(spent) < 6 and sum(spent) < 10 * self._period_ns:
            start = self._clock()
            fuser.fuse(thermal, rgb)
            spent.append(self._clock() - start)
        return median(spent[1:] or spent)

    def _count(self, spent_ns: float) -> None:
        self._frames += 1
        self._mean_ns += (spent_ns - self._mean_ns) / min(self._frames, _PATIENCE)
        small_ns, large_ns = self._costs
        if self._now is self._large:
            wrong = self._mean_ns > _FULL * self._period_ns
        else:  # what the large one would take now: as much slower or faster as the small one has become
            slower = self._mean_ns / small_ns if small_ns else 1.0
            wrong = self._large is not None and slower * large_ns < _ROOM * self._period_ns
        self._run = self._run + 1 if wrong else 0

    def _step(self) -> None:
        """Change to the other one, if that has been due for long enough; between frames, never within one."""
        if self._run < _PATIENCE or self._large is None:
            return
        now = self._clock()
        if self._now is self._large:
            _log.warning(
                "%s takes %.0f ms a frame and %.0f are there: on with %s",
                *(self._large.name, self._mean_ns / 1e6, self._period_ns / 1e6, self._small.name),
            )
            self._now, self._retry_ns = self._small, now + self._wait_ns
            self._wait_ns = min(2 * self._wait_ns, _LONGEST_NS)
        elif now >= self._retry_ns:
            _log.info("there is room for %s again", self._large.name)
            self._now = self._large
        else:
            return
        self._run = self._frames = 0


def _noise(rng: np.random.Generator, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> ThermalPicture:
    """Return a thermal picture of noise, to measure with."""
    image, aligned = (rng.integers(0, 255, hw, np.uint8) for hw in (ir_hw, rgb_hw))
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in rgb_hw[::-1])), -1)
    return ThermalPicture(image, table=None, grid=grid, valid=None, warp=lambda: aligned)


def open_auto(options: Options) -> Fuser:
    """Return U-Fuser or its student, as the machine allows; U-Fuser alone where weights or a plan are given."""
    engine, precision = options.engine, options.precision
    if options.weights is not None or options.plan is not None:
        return open_network("ufuser", options.weights, engine, precision, options.plan)
    small = partial(open_network, "student", None, engine, precision, resort=engine == "auto")
    return AutoFuser(small, partial(open_network, "ufuser", None, engine, precision), likely=torch_gpu())
