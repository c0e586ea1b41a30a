"""Which engine runs the network: the one that was asked for, or the fastest that works."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.eager import EagerEngine
from rtfuse.fuse.network import Engine
from rtfuse.fuse.program import Inputs, sample
from rtfuse.types import Image

_log = logging.getLogger("rtfuse")


def open_engine(name: str, weights: str | Path, precision: str = "auto", plan: str | Path | None = None) -> Engine:
    """Return the engine of this name (see `rtfuse.fuse.open_fuser`); what it makes is checked against eager torch.

    `auto` takes the fastest that works, and says in the log why others do not. Raises EngineUnavailable if a named one
    does not work, or WeightsMissing.
    """
    if name != "auto":
        names = [name]
    else:
        names = ["tensorrt", "cuda", "eager"] if torch.cuda.is_available() else ["openvino", "eager"]
    kinds = [(n, p) for n in names for p in ([precision] if precision != "auto" else _fastest_first(n))]
    return _Chosen(kinds, weights, plan)


def _fastest_first(engine: str) -> list[str]:
    """Return the precisions worth trying: the picture is the same to the eye in all of them."""
    if engine in ("tensorrt", "cuda"):
        return ["float16"]
    return ["bfloat16", "float32"] if engine == "openvino" and _has_amx() else ["float32"]


def _has_amx() -> bool:
    """Tell whether the processor has matrix units for bfloat16: three times as fast as float32."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


class _Chosen:
    """The first of several engines, each of a precision, that works for the frames at hand."""

    def __init__(self, kinds: Sequence[tuple[str, str]], weights: str | Path, plan: str | Path | None) -> None:
        self._kinds, self._weights, self._plan = list(kinds), weights, plan
        self._reference = EagerEngine(weights)
        self._engine = self._next()

    @property
    def name(self) -> str:
        return self._engine.name

    @property
    def dtype(self) -> torch.dtype:
        return self._engine.dtype

    def prepare(self, inputs: Inputs) -> None:
        """Get ready for inputs of these shapes, by another engine if this one does not work for them."""
        while True:
            try:
                self._engine.prepare(inputs)
                if self._engine is not self._reference:
                    # The reference takes a second for a frame on a processor, where engines do not depend on sizes.
                    given = inputs if self._reference.on_gpu else sample((50, 60), (48, 64))
                    check(self._kinds[0][0], self._engine, self._reference, given)
                return
            except EngineUnavailable as e:
                self._give_up(e)
                self._engine = self._next()

    def __call__(self, inputs: Inputs) -> Image:
        return self._engine(inputs)

    def _next(self) -> Engine:
        while True:
            name, precision = self._kinds[0]
            try:
                if (name, precision) == ("eager", "float32"):
                    return self._reference
                return _open(name, self._weights, getattr(torch, precision), self._plan)
            except EngineUnavailable as e:
                self._give_up(e)

    def _give_up(self, why: EngineUnavailable) -> None:
        if len(self._kinds) == 1:
            raise why
        _log.warning("%s; trying the next fastest engine", why)
        del self._kinds[0]


def check(name: str, engine: Engine, reference: Engine, inputs: Inputs) -> None:
    """Raise EngineUnavailable if an engine's picture is not the reference's, but for rounding.

    The inputs hold black, white, constant and noisy parts; a number that is not finite would come out as black.
    """
    error = np.abs(engine(inputs).astype(int) - reference(inputs))
    allowed, share = tolerance(engine)
    if (error > allowed).mean() > share or error.max() > 8 * allowed:
        raise EngineUnavailable(
            f"engine {name!r} differs from torch by up to {error.max()} grey levels on this machine "
            f"({100 * (error > allowed).mean():.2f} % of values by more than {allowed})"
        )


def tolerance(engine: Engine) -> tuple[int, float]:
    """Return by how many grey levels an engine may differ, and the share of values that may differ by more."""
    return (1, 0.0) if engine.dtype in (torch.float32, torch.float64) else (3, 1e-3)


def _open(name: str, weights: str | Path, dtype: torch.dtype, plan: str | Path | None) -> Any:
    if name == "openvino":
        from rtfuse.fuse.openvino import OpenVinoEngine

        return OpenVinoEngine(weights, dtype)
    if name == "cuda":
        from rtfuse.fuse.cuda import CudaEngine

        return CudaEngine(weights, dtype)
    if name == "tensorrt":
        from rtfuse.fuse.tensorrt import TensorRtEngine

        return TensorRtEngine(weights, dtype, plan=plan)
    return EagerEngine(weights, dtype=dtype)
