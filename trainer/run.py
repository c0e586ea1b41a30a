"""Run the training loop of a stage, with its checkpoints and logs. Lightning Fabric handles devices and several GPUs.

A run folder holds `recipe.yaml`, `log.csv`, TensorBoard's events, `STAGE.ckpt` (written whole or not at all), sample
pictures, and in the end the weights. A step depends only on the seed and its number, so a resumed run follows the
curve of an undisturbed one.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import cv2
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor, nn

from rtfuse.errors import OutputUnwritable, RtfuseError, SourceUnreadable, WeightsMissing
from rtfuse.fuse.networks.checkpoints import fault_of, refuse_infinite
from rtfuse.outputs import replace_file
from trainer.recipe import Recipe
from trainer.stage import Stage

_LOG_EVERY = 10


class TrainingDiverged(RtfuseError, ArithmeticError):
    """Raised when a loss is not a number; names the step, the batch's scenes and the last good checkpoint."""

    exit_status = 1


def make_fabric() -> Fabric:
    """Return the devices of this process group: those that torchrun assigns, else all devices of the machine."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 0))  # set by torchrun
    nodes = int(os.environ.get("WORLD_SIZE", 1)) // here if here else 1
    fabric = Fabric(devices=here or "auto", num_nodes=nodes)
    fabric.launch()
    return fabric


@dataclass(slots=True)
class Run:
    """Trains the stages of a recipe in a run folder, on the devices of `fabric`."""

    folder: Path
    recipe: Recipe
    fabric: Fabric
    console: Console = field(default_factory=lambda: Console(stderr=True))

    def checkpoint(self, stage: str) -> Path:
        """Return the path of a stage's checkpoint."""
        return self.folder / f"{stage}.ckpt"

    def train(self, stage: Stage, *, until: int | None = None) -> nn.Module:
        """Run a stage to its end (or to step `until`), from its checkpoint where one exists, and return its task.

        Raises TrainingDiverged; SourceUnreadable if the checkpoint cannot be read; OutputUnwritable if the run folder
        cannot be written (a full disk), in which case the last checkpoint is whole.
        """
        task, optimizer = self.set_up(stage)
        saved = step = self._resume(stage, task, optimizer)
        saved_at, recent = time.monotonic(), deque[tuple[int, Tensor, dict[str, Tensor]]](maxlen=_LOG_EVERY)
        end = min(stage.steps, until or stage.steps)
        try:
            with self._progress() as bar, Log(self.folder, stage.name, enabled=self.fabric.is_global_zero) as log:
                shown = bar.add_task(stage.name, total=stage.steps, completed=step, loss="")
                while step < end:
                    loss, parts = self.step(stage, task, optimizer, step)
                    recent.append((step, loss.detach(), parts))
                    step += 1
                    if step % _LOG_EVERY == 0 or step == end:
                        mean = self._checked(stage, recent)
                        log.write(step, stage.rate(step - 1), mean)
                        bar.update(shown, completed=step, loss=f"{mean['loss']:.4f}")
                        recent.clear()
                        if time.monotonic() - saved_at > self.recipe.checkpoint_every_s or step == end:
                            self._save(stage, optimizer, step)
                            saved, saved_at = step, time.monotonic()
                            self._draw(stage, step)
        except RtfuseError:
            raise
        except OSError as e:
            kept = (
                f"last good checkpoint: {self.checkpoint(stage.name)}, step {saved}" if saved else "no checkpoint yet"
            )
            where = e.filename or self.folder
            raise OutputUnwritable(f"{stage.name}, step {step}: {where}: {e.strerror or e}; {kept}") from e
        return stage.task

    def set_up(self, stage: Stage) -> tuple[nn.Module, Any]:
        """Return the stage's task and its optimizer, ready on the devices."""
        # A fifth faster on processors, and the layout that tensor cores take.
        stage.task.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        trained = [p for p in stage.task.parameters() if p.requires_grad]
        task, optimizer = self.fabric.setup(stage.task, torch.optim.Adam(trained, lr=stage.learning_rate))
        return task, optimizer

    def step(
        self, stage: Stage, task: nn.Module, optimizer: Any, step: int, mark: Callable[[str], None] = lambda _: None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Take one optimizer step; return its loss and parts. Calls `mark` with the name of each finished phase."""
        for group in optimizer.param_groups:
            group["lr"] = stage.rate(step)
        torch.manual_seed((self.recipe.seed * 1_000_003 + step) * self.fabric.world_size + self.fabric.global_rank)
        batch = stage.batch(step)
        mark("batch")
        batch = self._mine(batch)
        mark("transfer")
        loss, parts = task(*batch)
        mark("forward")
        optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        mark("backward")
        optimizer.step()
        mark("optimizer")
        return loss, parts

    def _mine(self, batch: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return this process's share of a batch, on its device."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        return tuple(self.fabric.to_device(x[rank::world]) if torch.is_tensor(x) else x for x in batch)

    def _checked(self, stage: Stage, recent: Sequence[tuple[int, Tensor, dict[str, Tensor]]]) -> dict[str, float]:
        """Return the means of the last steps over all processes. Raises TrainingDiverged, in all of them."""
        losses = self._mean(torch.stack([loss for _, loss, _ in recent])).tolist()
        for (step, _, _), loss in zip(recent, losses, strict=True):
            if not math.isfinite(loss):
                last = self.checkpoint(stage.name)
                raise TrainingDiverged(
                    f"{stage.name}: the loss of step {step} is {loss}; its batch: "
                    f"{', '.join(stage.names(step))}; last good checkpoint: {last if last.exists() else 'none'}"
                )
        rows = [parts for _, _, parts in recent]
        means = {key: torch.stack([row[key].detach() for row in rows if key in row]).mean() for key in rows[-1]}
        return {"loss": sum(losses) / len(losses)} | {k: float(self._mean(v)) for k, v in means.items()}

    def _mean(self, x: Tensor) -> Tensor:
        """Return the mean over all processes."""
        mean = self.fabric.all_reduce(x, reduce_op="mean")
        assert isinstance(mean, Tensor)
        return mean

    def _save(self, stage: Stage, optimizer: Any, step: int) -> None:
        # Nothing here waits for other processes: their clocks may not agree that it is time to save.
        if not self.fabric.is_global_zero:
            return
        state = {
            "stage": stage.name,
            "step": step,
            "task": stage.task.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        try:
            refuse_infinite(state["task"], f"{stage.name}: the weights after step {step - 1}")
        except WeightsMissing as e:
            last = self.checkpoint(stage.name)
            raise TrainingDiverged(f"{e}; last good checkpoint: {last if last.exists() else 'none'}") from e
        buffer = io.BytesIO()  # torch's own file writer does not report why a write fails
        torch.save(state, buffer)
        replace_file(self.checkpoint(stage.name), buffer.getbuffer())

    def _draw(self, stage: Stage, step: int) -> None:
        if stage.sample is not None and self.fabric.is_global_zero:
            (self.folder / "samples").mkdir(exist_ok=True)
            _, jpeg = cv2.imencode(".jpg", stage.sample(stage.task))
            replace_file(self.folder / "samples" / f"{stage.name}-{step:07d}.jpg", jpeg.data)

    def _resume(self, stage: Stage, task: nn.Module, optimizer: Any) -> int:
        path = self.checkpoint(stage.name)
        if not path.exists():
            return 0
        try:
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            stage.task.load_state_dict(state["task"])
            optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, KeyError, ValueError, OSError, EOFError, UnpicklingError) as e:
            raise SourceUnreadable(f"checkpoint {path} does not fit this recipe, or is damaged: {fault_of(e)}") from e
        refuse_infinite(stage.task.state_dict(), f"weights in checkpoint {path}")
        return int(state["step"])

    def _progress(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
        )
        quiet = not (self.fabric.is_global_zero and self.console.is_terminal)
        return Progress(*columns, console=self.console, disable=quiet)


class Log:
    """Writes losses and learning rate to `log.csv` and for TensorBoard, on one process only.

    It does not use TensorBoard's writer, whose thread prints errors and raises them at a later step.
    """

    def __init__(self, folder: Path, stage: str, *, enabled: bool) -> None:
        self._folder, self._stage, self._enabled = folder, stage, enabled

    def __enter__(self) -> Log:
        if self._enabled:
            path, events = self._folder / "log.csv", self._folder / "tensorboard"
            path.touch()
            whole = path.read_bytes().rfind(b"\n") + 1
            os.truncate(path, whole)  # a full disk may have left half a line
            self._file = path.open("a", newline="")
            self._csv = csv.writer(self._file)
            if not whole:
                self._csv.writerow(["stage", "step", "learning_rate", "name", "value"])
            events.mkdir(exist_ok=True)
            self._events = (events / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}").open("wb")
            self._records = RecordWriter(self._events)
            self._record(file_version="brain.Event:2")
        return self

    def write(self, step: int, rate: float, values: dict[str, float]) -> None:
        """Write the means of the steps up to `step`. Raises OSError."""
        if self._enabled:
            for name, value in values.items():
                self._csv.writerow([self._stage, step, f"{rate:.3g}", name, f"{value:.6g}"])
            self._file.flush()
            tagged = [Summary.Value(tag=f"{self._stage}/{name}", simple_value=v) for name, v in values.items()]
            self._record(step=step, summary=Summary(value=tagged))

    def _record(self, **content: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._events.flush()

    def __exit__(self, *_: object) -> None:
        if self._enabled:
            with self._file, self._events:
                pass  # closes both, though one may fail
