"""Fuse by the first of several fusers that works on this machine; log one line for each that does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from rtfuse.errors import EngineUnavailable, RtfuseError
from rtfuse.fuse.fuser import Fuser
from rtfuse.types import Image, ThermalPicture

T = TypeVar("T")
Candidate = tuple[str, Callable[[], Fuser]]
"""Name of a fuser for messages, and the function that opens it."""
_log = logging.getLogger("rtfuse.fuse")


class FallbackFuser:
    """Fuse by the first candidate that works.

    Foreign libraries fail in their own ways: any exception that one raises while it is opened, prepared or run is
    logged in one line, and the next candidate takes over. Errors in the user's own input (WeightsMissing, ConfigError
    …) are raised at once. Raises EngineUnavailable, with every reason, when no candidate is left.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._candidates = list(candidates)
        self._reasons: list[str] = []
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None
        self._now = self._open()

    @property
    def name(self) -> str:
        """The name of the fuser at work."""
        return self._now.name

    def __str__(self) -> str:
        return str(self._now)

    @property
    def chosen(self) -> Fuser:
        """The fuser at work."""
        return self._now

    def aim(self, rate_hz: float) -> None:
        """Tell the fuser at work the frame rate; see `Fuser`."""
        self._now.aim(rate_hz)

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes."""
        self._sizes = ir_hw, rgb_hw
        self._by_one_that_works(lambda: self._now.prepare(ir_hw, rgb_hw))

    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image:
        """Fuse; see `Fuser`."""
        return self._by_one_that_works(lambda: self._now.fuse(thermal, luma))

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse aligned thermal; see `Fuser`. Raises ValueError if the arrays do not fit each other."""
        if rgb.shape != (*ir.shape, 3) or (valid is not None and valid.shape != ir.shape):
            shapes = f"thermal {ir.shape}, RGB {rgb.shape}" + (f", valid {valid.shape}" if valid is not None else "")
            raise ValueError(f"want thermal and valid (H, W) and RGB (H, W, 3) of one size, got {shapes}")
        return self._by_one_that_works(lambda: self._now(ir, rgb, valid))

    def _by_one_that_works(self, job: Callable[[], T]) -> T:
        ready = True
        while True:
            try:
                if not ready and self._sizes is not None:
                    self._now.prepare(*self._sizes)
                return job()
            except Exception as e:  # noqa: BLE001 - a foreign library's errors are its own
                self._give_up(e)
                self._now, ready = self._open(), False

    def _open(self) -> Fuser:
        while True:
            try:
                return self._candidates[0][1]()
            except Exception as e:  # noqa: BLE001 - a foreign library's errors are its own
                self._give_up(e)

    def _give_up(self, why: Exception) -> None:
        if isinstance(why, RtfuseError) and not isinstance(why, EngineUnavailable):
            raise why
        self._reasons.append(reason(self._candidates[0][0], why))
        if len(self._candidates) == 1:
            raise EngineUnavailable("; ".join(self._reasons)) from why
        del self._candidates[0]
        _log.warning("%s; trying %s", self._reasons[-1], self._candidates[0][0])


def reason(label: str, why: Exception) -> str:
    """Return one line that names what failed and why."""
    text = " ".join(str(why).split())[:300]
    if isinstance(why, EngineUnavailable):
        return text
    return f"{label} failed: {type(why).__name__}{': ' + text if text else ''}"
