"""`rtfuse bench --engines`: time the engines of the network, from raw bytes to fused bytes, side by side.

For every size and batch, the engines take turns, frame by frame, so that their ratios hold on a machine whose speed
wanders.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from rtfuse.errors import ConfigError
from rtfuse.fuse.engines.host import HostProgram
from rtfuse.fuse.engines.machine import torch_gpu
from rtfuse.fuse.engines.selection import PROGRAM_ENGINES, open_engine, open_network, shipped
from rtfuse.fuse.inputs import MULTIPLE, sample
from rtfuse.fuse.luma_fuser import LumaFuser
from rtfuse.fuse.raw_fuser import ProgramEngine, RawFuser

_WARM_UP = 3
_STUDENT = "student/"
_SETTLE_S = 60.0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one engine on frames of one size, `batch` of them at once: ms of a whole batch as p50, p95, p99.

    `ready_s` is the time to a new process's first fused frame: building or loading, checking, and that frame.
    `memory_mb` is what getting ready and fusing took at its peak, of the GPU or of the process.
    `times` is how many times as fast as the first engine of the size.
    """

    engine: str
    size_wh: tuple[int, int]
    batch: int
    ms: tuple[float, float, float]
    frames_per_s: float
    times: float
    memory_mb: float
    ready_s: float


def bench_engines(
    engines: Sequence[str],
    sizes_wh: Iterable[tuple[int, int]],
    *,
    batches: Sequence[int] = (1,),
    weights: str | None = None,
    frames: int = 50,
    seconds: float = _SETTLE_S,
) -> list[Row]:
    """Time engines on every size and batch; the first is what others compare to.

    They are given as `name` or `name:precision`, and `student/name…` for the student in place of U-Fuser.

    Each combination takes `frames` batches of each engine, or what fits into about `seconds`, at least three. Raises
    ConfigError for an unknown name, EngineUnavailable.
    """
    opened, opening = {}, {}
    for name in engines:
        start = time.perf_counter()
        opened[name] = open_program(name, weights)
        opening[name] = time.perf_counter() - start
    rows = []
    for w, h in sizes_wh:
        if w % MULTIPLE or h % MULTIPLE:
            raise ConfigError(f"size {w}x{h}: the engines are measured on multiples of {MULTIPLE}")
        for batch in batches:
            rows += _turns(opened, opening, (w, h), batch, frames, seconds)
    return rows


def _turns(
    engines: dict[str, ProgramEngine],
    opening: dict[str, float],
    size_wh: tuple[int, int],
    batch: int,
    frames: int,
    seconds: float,
) -> list[Row]:
    (w, h), on_gpu = size_wh, torch_gpu()
    inputs = [sample((h, w), (h, w), batch, seed) for seed in range(2)]
    ready, memory = {}, {}
    for name, engine in engines.items():
        before, start = _peak_mb(on_gpu, reset=True), time.perf_counter()
        engine.prepare(inputs[0])
        engine(inputs[0])
        ready[name] = opening[name] + time.perf_counter() - start
        for k in range(_WARM_UP if on_gpu else 0):
            engine(inputs[k % 2])
        memory[name] = _peak_mb(on_gpu) - before
    times: dict[str, list[float]] = {name: [] for name in engines}
    began = time.perf_counter()
    for k in range(frames):
        if k >= 3 and time.perf_counter() - began > seconds:
            break
        for name, engine in engines.items():
            start = time.perf_counter()
            engine(inputs[k % 2])
            times[name].append(1000 * (time.perf_counter() - start))
    first = float(np.median(next(iter(times.values()))))
    rows = []
    for name, ms in times.items():
        p50, p95, p99 = (float(x) for x in np.percentile(ms, [50, 95, 99]))
        rows.append(
            Row(
                engine=("student, " if name.startswith(_STUDENT) else "") + engines[name].name,
                size_wh=size_wh,
                batch=batch,
                ms=(p50, p95, p99),
                frames_per_s=1000 * batch / p50,
                times=first / p50,
                memory_mb=memory[name],
                ready_s=ready[name],
            )
        )
    return rows


def open_program(name: str, weights: str | None) -> ProgramEngine:
    """Return an engine, given as `bench_engines` says, on raw bytes. Raises ConfigError, EngineUnavailable."""
    engine, _, precision = name.removeprefix(_STUDENT).partition(":")
    if engine not in ("auto", "openvino", *PROGRAM_ENGINES):
        raise ConfigError(f"no engine is called {engine!r}: want one of auto, tensorrt, cuda, openvino, eager")
    if precision not in ("", "float32", "float16", "bfloat16"):
        raise ConfigError(f"engine {name!r}: want name:precision with float32, float16 or bfloat16")
    network = "student" if name.startswith(_STUDENT) else "ufuser"
    if engine in PROGRAM_ENGINES and precision:
        return open_engine(engine, weights or shipped(network), precision)
    fuser = open_network(network, weights, engine, precision or "auto").chosen
    if isinstance(fuser, RawFuser):
        return fuser.engine
    assert isinstance(fuser, LumaFuser)
    return HostProgram(fuser, precision or "auto")


def _peak_mb(on_gpu: bool, *, reset: bool = False) -> float:
    """Return the most memory in use since the last reset; with `reset`, that is what is in use now."""
    if on_gpu:
        import torch

        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    if reset:
        with suppress(OSError):  # Linux alone can; elsewhere only what grows beyond the last peak is seen
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def table(rows: Sequence[Row], title: str) -> Table:
    """Return the rows for people."""
    grid = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for column in ("size", "engine", "batch", "p50 / p95 / p99 ms", "frames/s", "times", "MB", "ready, s"):
        grid.add_column(column, justify="left" if column in ("size", "engine") else "right", no_wrap=column != "engine")
    last: Any = None
    for row in rows:
        size = f"{row.size_wh[0]}x{row.size_wh[1]}"
        grid.add_row(
            size if size != last else "",
            row.engine,
            str(row.batch),
            " / ".join(f"{x:.3g}" if x < 100 else f"{x:.0f}" for x in row.ms),
            f"{row.frames_per_s:.3g}",
            f"{row.times:.2f}",
            f"{row.memory_mb:.0f}",
            f"{row.ready_s:.1f}",
        )
        last = size
    return grid


def as_json(rows: Sequence[Row], machine: str) -> dict[str, Any]:
    """Return the rows for machines."""
    return {"machine": machine, "engines": msgspec.to_builtins(list(rows))}
