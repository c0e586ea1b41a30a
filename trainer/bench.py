"""`trainer bench`: what one optimizer step of each stage costs, in which parts, and how long the whole recipe takes."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import msgspec
import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.data import Patches
from trainer.fusion import FusionTask, fusion_stage
from trainer.recipe import Recipe
from trainer.run import Run, Stage
from trainer.sensing import SensingTask, sensing_stage

PARTS = ("batch", "transfer", "fusion net", "sensing nets", "equivariance", "losses", "backward", "optimizer")
"""In the order of a step. `equivariance` is both kinds of nets on the transformed images."""

_WARM_UP = 2

Percentiles = tuple[float, float, float]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of step. Times in ms as p50, p95, p99; `total_s` is `steps` times the median.

    `parts_ms` are from steps of their own, in which the device is waited for after each part. `busy` is cores in use
    (processor) or the share of the time that the GPU works, None where it does not say.
    """

    name: str
    steps: int
    step_ms: Percentiles
    parts_ms: dict[str, Percentiles]
    images_per_s: float
    gflop_per_step: float
    tflops: float
    busy: float | None
    memory_mb: float
    total_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All phases of a recipe, and what they were measured on."""

    recipe: str
    device: str
    gpu: bool
    precision: str
    threads: int
    torch_version: str
    phases: list[Phase]
    total_s: float


def bench(recipe: Recipe, patches: Patches, run: Run, steps: int) -> Report:
    """Time `steps` optimizer steps of every phase of a recipe, on real batches; nothing is written."""
    sensing = sensing_stage(recipe, patches)
    phases = [_phase(run, sensing, "sensing", 0, sensing.steps, recipe.sensing.batch, steps)]
    assert isinstance(sensing.task, SensingTask)
    fusion, batch = fusion_stage(recipe, patches, sensing.task), recipe.fusion.batch
    warm = recipe.fusion.warm_up_epochs * fusion.steps_per_epoch
    if warm:
        phases.append(_phase(run, fusion, "fusion, warming up", 0, warm, batch, steps))
    if fusion.steps > warm:
        phases.append(_phase(run, fusion, "fusion", warm, fusion.steps - warm, batch, steps))
    device = run.fabric.device
    return Report(
        recipe=recipe.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        gpu=device.type == "cuda",
        precision=str(run.fabric._precision.precision),
        threads=torch.get_num_threads(),
        torch_version=str(torch.__version__),
        phases=phases,
        total_s=sum(p.total_s for p in phases),
    )


def _processor() -> str:
    from rtfuse.bench import machine

    return machine()


def _phase(run: Run, stage: Stage, name: str, first: int, count: int, batch: int, steps: int) -> Phase:
    task, optimizer = run.set_up(stage)
    numbers = cycle(range(first, first + count))

    def step(mark: Callable[[str], None] = lambda _: None) -> None:
        run.step(stage, task, optimizer, next(numbers), mark)

    cuda = run.fabric.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(_WARM_UP):
        step()
    _wait()
    whole, cpu, begun = [], time.process_time(), time.perf_counter()
    for _ in range(steps):
        start = time.perf_counter()
        step()
        _wait()
        whole.append(1000 * (time.perf_counter() - start))
    elapsed = time.perf_counter() - begun
    busy = _utilisation() if cuda else (time.process_time() - cpu) / elapsed
    parts: dict[str, list[float]] = defaultdict(list)
    for _ in range(steps):
        with _split(stage.task) as clock:
            step(clock.mark)
        for part in PARTS:
            parts[part].append(1000 * clock.spent.get(part, 0.0))
    with FlopCounterMode(display=False) as flops:
        step()
    gflop = flops.get_total_flops() / 1e9
    peak = torch.cuda.max_memory_allocated() if cuda else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    middle = float(np.median(whole))
    return Phase(
        name=name,
        steps=count,
        step_ms=_percentiles(whole),
        parts_ms={part: _percentiles(ms) for part, ms in parts.items() if max(ms) > 0},
        images_per_s=1000 * batch / middle,
        gflop_per_step=gflop,
        tflops=gflop / middle,
        busy=busy,
        memory_mb=peak / 1e6,
        total_s=count * middle / 1000,
    )


class _Clock:
    """Books the time since the last mark on a part; waits for the device first."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        _wait()
        self._last = time.perf_counter()

    def mark(self, part: str) -> None:
        """Book what has passed on `part`; what is left of the forward pass are the losses."""
        _wait()
        now = time.perf_counter()
        self.spent["losses" if part == "forward" else part] += now - self._last
        self._last = now


@contextmanager
def _split(task: nn.Module) -> Iterator[_Clock]:
    """Book the nets' calls apart while the block runs: a step's first ones, and the further ones as equivariance."""
    sensing = task.sensing if isinstance(task, FusionTask) else task
    assert isinstance(sensing, SensingTask)
    nets: list[tuple[nn.Module, str]] = [(sensing.thermal, "sensing nets"), (sensing.visible, "sensing nets")]
    if isinstance(task, FusionTask):
        nets.append((task.fusion, "fusion net"))
    clock, calls, hooks = _Clock(), defaultdict[nn.Module, int](int), []

    def book(part: str) -> Callable[..., None]:
        def after(net: nn.Module, *_: Any) -> None:
            calls[net] += 1
            clock.mark(part if calls[net] == 1 else "equivariance")

        return after

    for net, part in nets:
        hooks.append(net.register_forward_pre_hook(lambda *_: clock.mark("losses")))
        hooks.append(net.register_forward_hook(book(part)))
    try:
        yield clock
    finally:
        for hook in hooks:
            hook.remove()


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _utilisation() -> float | None:
    try:
        return torch.cuda.utilization() / 100
    except (ModuleNotFoundError, RuntimeError):  # the driver's library for Python is not installed
        return None


def _percentiles(ms: list[float]) -> Percentiles:
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    return float(p50), float(p95), float(p99)


def table(report: Report) -> Table:
    """Return the report as a table: milliseconds of a step and its parts, then what follows from them."""
    head = (
        f"{report.recipe}: {report.device}, {report.precision}, {report.threads} threads, torch {report.torch_version}"
    )
    grid = Table(title=head, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("p50 / p95 / p99 ms", no_wrap=True)
    for phase in report.phases:
        grid.add_column(phase.name, justify="right", no_wrap=True)

    def row(name: str, cell: Callable[[Phase], str], style: str | None = None) -> None:
        grid.add_row(name, *(cell(p) for p in report.phases), style=style)

    for part in PARTS:
        row(part, lambda p, part=part: _times(p.parts_ms.get(part)))  # type: ignore[misc]
    row("one step", lambda p: _times(p.step_ms), "bold")
    row("images per second", lambda p: f"{p.images_per_s:.1f}")
    row("GFLOP per step", lambda p: f"{p.gflop_per_step:.1f}")
    row("TFLOP per second", lambda p: f"{p.tflops:.3f}")
    row("GPU in use" if report.gpu else "cores in use", lambda p: "not said" if p.busy is None else f"{p.busy:.2f}")
    row("peak memory, MB", lambda p: f"{p.memory_mb:.0f}")
    row("steps of the recipe", lambda p: str(p.steps))
    row("all of them, minutes", lambda p: f"{p.total_s / 60:.1f}", "bold")
    grid.caption = f"the whole recipe: {report.total_s / 60:.1f} minutes"
    return grid


def _times(ms: Percentiles | None) -> str:
    return " / ".join(f"{x:.1f}" for x in ms) if ms else "-"
