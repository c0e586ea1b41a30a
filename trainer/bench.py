"""`trainer bench`: time one optimizer step of each stage and its parts, and estimate the whole recipe's time."""

from __future__ import annotations

import importlib
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle, pairwise
from typing import Any

import msgspec
import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from trainer.data import Patches
from trainer.fusion import FusionTask, fusion_stage
from trainer.recipe import Recipe
from trainer.run import Run
from trainer.sensing import SensingTask, in_half, sensing_stage
from trainer.stage import Stage

PARTS = ("batch", "transfer", "fusion net", "sensing nets", "equivariance", "rest of forward", "backward", "optimizer")
"""The parts of a step, in order.

`batch` includes the drawing of the transforms. `equivariance` is both kinds of nets on the transformed images; the
transforms and the distances belong to the rest of the forward pass."""

_WARM_UP = 2

Percentiles = tuple[float, float, float]


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """Times of one kind of step, in ms as p50, p95, p99.

    `shares`: the parts' shares of the time of all measured steps; their sum is 1.
    `gflop_per_step`: the work of one process.
    `busy`: cores in use, or the share of the time in which the GPU works; None if the GPU does not report it.
    `memory_mb`: the peak of the phase on a GPU, else the peak of the process until now.
    `total_s`: `steps` times the median.

    On a GPU the times are the GPU's: the processor's work during that time costs nothing, as in training.
    """

    name: str
    steps: int
    step_ms: Percentiles
    parts_ms: dict[str, Percentiles]
    shares: dict[str, float]
    images_per_s: float
    gflop_per_step: float
    tflops: float
    busy: float | None
    memory_mb: float
    total_s: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All phases of a recipe, and the machine on which they were measured."""

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
    warm = min(recipe.fusion.warm_up_epochs * fusion.steps_per_epoch, fusion.steps)
    if warm:
        phases.append(_phase(run, fusion, "fusion, warming up", 0, warm, batch, steps))
    if fusion.steps > warm:
        phases.append(_phase(run, fusion, "fusion", warm, fusion.steps - warm, batch, steps))
    device = run.fabric.device
    return Report(
        recipe=recipe.name,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        gpu=device.type == "cuda",
        precision="bfloat16 and float32" if in_half(recipe) else "float32",
        threads=torch.get_num_threads(),
        torch_version=str(torch.__version__),
        phases=phases,
        total_s=sum(p.total_s for p in phases),
    )


def _processor() -> str:
    from rtfuse.bench.stages import machine

    return machine()


def _phase(run: Run, stage: Stage, name: str, first: int, count: int, batch: int, steps: int) -> Phase:
    device = run.fabric.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    task, optimizer = run.set_up(stage)
    numbers = cycle(range(first, first + count))
    for _ in range(_WARM_UP):
        run.step(stage, task, optimizer, next(numbers))
    clocks, cpu, begun = [], time.process_time(), time.perf_counter()
    for _ in range(steps):  # as in training, nothing waits for the device between them
        clocks.append(_Clock(cuda))
        with _split(stage.task, clocks[-1].mark):
            run.step(stage, task, optimizer, next(numbers), clocks[-1].mark)
    busy = _utilisation(device) if cuda else (time.process_time() - cpu) / (time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated(device) if cuda else _resident()
    with FlopCounterMode(display=False) as flops:
        run.step(stage, task, optimizer, next(numbers))
    spent = [clock.spent_ms() for clock in clocks]
    whole = [sum(ms.values()) for ms in spent]
    parts = {part: [ms[part] for ms in spent] for part in PARTS if part in spent[0]}
    middle, gflop = float(np.median(whole)), flops.get_total_flops() / 1e9
    return Phase(
        name=name,
        steps=count,
        step_ms=_percentiles(whole),
        parts_ms={part: _percentiles(ms) for part, ms in parts.items()},
        shares={part: sum(ms) / sum(whole) for part, ms in parts.items()},
        images_per_s=1000 * batch / middle,
        gflop_per_step=gflop,
        tflops=gflop / middle,
        busy=busy,
        memory_mb=peak / 1e6,
        total_s=count * middle / 1000,
    )


class _Clock:
    """Collects the times at which the parts of a step end; on a GPU as events, so that no call waits."""

    def __init__(self, cuda: bool) -> None:
        self._cuda = cuda
        self._moments: list[tuple[str, Any]] = [("", self._now())]

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def mark(self, part: str) -> None:
        """Count the time since the last mark as `part`; `forward` means the forward pass without the nets."""
        self._moments.append(("rest of forward" if part == "forward" else part, self._now()))

    def spent_ms(self) -> dict[str, float]:
        """Return the milliseconds of each part; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        spent = defaultdict[str, float](float)
        for (_, start), (part, end) in pairwise(self._moments):
            spent[part] += start.elapsed_time(end) if self._cuda else 1000 * (end - start)
        return spent


@contextmanager
def _split(task: nn.Module, mark: Callable[[str], None]) -> Iterator[None]:
    """Mark the nets' calls while the block runs; calls on transformed images count as equivariance."""
    sensing = task.sensing if isinstance(task, FusionTask) else task
    assert isinstance(sensing, SensingTask)
    fused: list[Tensor] = []

    def before(*_: Any) -> None:
        mark("forward")

    def fuses(_: nn.Module, __: Any, image: Tensor) -> None:
        mark("equivariance" if fused else "fusion net")
        fused.append(image)

    def senses(_: nn.Module, images: tuple[Tensor, ...], __: Any) -> None:
        mark("equivariance" if fused and images[0] is not fused[0] else "sensing nets")

    nets: list[tuple[nn.Module, Callable[..., None]]] = [(sensing.thermal, senses), (sensing.visible, senses)]
    if isinstance(task, FusionTask):
        nets.append((task.fusion, fuses))
    hooks = [
        hook
        for net, after in nets
        for hook in (net.register_forward_pre_hook(before), net.register_forward_hook(after))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _resident() -> int:
    """Return the peak memory of this process, in bytes."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _utilisation(device: torch.device) -> float | None:
    """Return the share of the last second or less in which the GPU worked; None if the GPU does not report it."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None
    try:
        return torch.cuda.utilization(device) / 100
    except (RuntimeError, nvml.NVMLError):
        return None


def _percentiles(ms: list[float]) -> Percentiles:
    p50, p95, p99 = np.percentile(ms, [50, 95, 99])
    return float(p50), float(p95), float(p99)


def table(report: Report) -> Table:
    """Return the report as a table: milliseconds of a step and its parts, then rates, memory and total time."""
    head = (
        f"{report.recipe}: {report.device}, {report.precision}, {report.threads} threads, torch {report.torch_version}"
    )
    grid = Table(title=head, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    grid.add_column("p50 / p95 / p99 ms, share", no_wrap=True)
    for phase in report.phases:
        grid.add_column(phase.name, justify="right", no_wrap=True)

    def row(name: str, cell: Callable[[Phase], str], style: str | None = None) -> None:
        grid.add_row(name, *(cell(p) for p in report.phases), style=style)

    for part in PARTS:
        row(part, lambda p, part=part: _part(p, part))  # type: ignore[misc]
    row("one step", lambda p: f"{_times(p.step_ms)}  100 %", "bold")
    row("images per second", lambda p: f"{p.images_per_s:.1f}")
    row("GFLOP per step", lambda p: f"{p.gflop_per_step:.1f}")
    row("TFLOP per second", lambda p: f"{p.tflops:.3f}")
    used = "GPU in use" if report.gpu else "cores in use"
    row(used, lambda p: "not available" if p.busy is None else f"{p.busy:.2f}")
    row("peak memory, MB", lambda p: f"{p.memory_mb:.0f}")
    row("steps of the recipe", lambda p: str(p.steps))
    row("all of them, minutes", lambda p: f"{p.total_s / 60:.1f}", "bold")
    grid.caption = f"the whole recipe: {report.total_s / 60:.1f} minutes"
    return grid


def _part(phase: Phase, part: str) -> str:
    return f"{_times(phase.parts_ms[part])}  {100 * phase.shares[part]:3.0f} %" if part in phase.shares else "-"


def _times(ms: Percentiles) -> str:
    return " / ".join(f"{x:.1f}" for x in ms)
