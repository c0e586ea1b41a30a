"""Describe one stage of a training run, as the loop of `trainer.run` takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from trainer.recipe import Distill, Fusion, Refine, Sensing


@dataclass(slots=True)
class Stage:
    """Module to train, its batches and its learning rate.

    `task` takes what `batch` returns for a step; it returns the loss and its named parts.
    `names` returns the scenes of a step's batch.
    `sample` draws a picture of the progress, (H, W, 3) uint8 BGR.
    """

    name: str
    task: nn.Module
    steps_per_epoch: int
    epochs: int
    learning_rate: float
    halve_every: int
    batch: Callable[[int], tuple[Any, ...]]
    names: Callable[[int], Sequence[str]]
    sample: Callable[[nn.Module], Any] | None = None

    @property
    def steps(self) -> int:
        """The number of steps of the whole stage."""
        return self.steps_per_epoch * self.epochs

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate * float(0.5 ** (step // self.steps_per_epoch // self.halve_every))


class TrainingData(Protocol):
    """Patches or pictures of a run folder; the rows of a batch depend only on the seed and the step."""

    def steps(self, batch: int) -> int: ...

    def rows(self, step: int, batch: int) -> list[int]: ...

    def scenes(self, rows: Sequence[int]) -> list[str]: ...


def stage_on(
    name: str,
    options: Sensing | Fusion | Distill | Refine,
    data: TrainingData,
    task: nn.Module,
    batch: Callable[[int], tuple[Any, ...]],
    sample: Callable[[nn.Module], Any],
) -> Stage:
    """Return a stage that learns from `data`, with the epochs and rates of `options`."""
    return Stage(
        name=name,
        task=task,
        steps_per_epoch=data.steps(options.batch),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        halve_every=options.halve_every,
        batch=batch,
        names=lambda step: data.scenes(data.rows(step, options.batch)),
        sample=sample,
    )
