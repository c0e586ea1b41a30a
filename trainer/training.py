"""Run the stages of a recipe in a run folder, up to the weights that rtfuse loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lightning_fabric import Fabric
from torch import nn

from trainer.checks import StageName
from trainer.data import Patches, prepare
from trainer.distill import DistillTask, distill_stage, taught
from trainer.export import export, manifest_of, trained
from trainer.fusion import fusion_stage
from trainer.recipe import Recipe
from trainer.refine import RefineTask, name_of, prepare_pictures, refine_stage
from trainer.run import Run, make_fabric
from trainer.sensing import SensingTask, sensing_stage
from trainer.teacher import Pictures


def train(recipe: Recipe, folder: Path, stage: StageName = "both") -> Path | None:
    """Train the stages of a recipe, resuming from the checkpoints in `folder`; prepare the patches if none are there.

    Returns the weights file. Returns None after the first stage alone, after an ablation, and in every process but the
    first. `checks` finds the mistakes of a recipe before.
    """
    fabric = make_fabric()
    if fabric.is_global_zero and not (folder / "data" / "index.json").exists():
        prepare(recipe.data, folder / "data")
    fabric.barrier()
    patches = Patches(folder / "data", seed=recipe.seed)
    if fabric.is_global_zero:
        print("\n".join([*patches.index.lines(), *_small(recipe, len(patches))]), flush=True)
    run = Run(folder, recipe, fabric)
    first = sensing_stage(recipe, patches)
    # A recipe that is all warm-up does not use the sensing nets.
    sensed = stage == "sensing" or recipe.fusion.epochs > recipe.fusion.warm_up_epochs
    sensing = run.train(first) if sensed else first.task
    if stage == "sensing":
        return None
    assert isinstance(sensing, SensingTask)
    run.train(fusion_stage(recipe, patches, sensing))
    if not fabric.is_global_zero:
        return None
    if recipe.fusion.without:
        print(f"an ablation, not for deployment; judge it: trainer eval --run {folder} --ir IR --rgb RGB")
        return None
    net, steps = trained(folder)
    return _write(net, folder / "ufuser.safetensors", recipe, steps, patches.counts)


def _small(recipe: Recipe, count: int) -> Iterator[str]:
    """Yield a line for each stage whose batch is larger than the number of patches."""
    for name, batch in (("sensing", recipe.sensing.batch), ("fusion", recipe.fusion.batch)):
        if batch > count:
            yield f"note: {name}.batch is {batch}, more than the {count} patches: each step takes all of them"


def _pictures(fabric: Fabric, recipe: Recipe, folder: Path, make: Callable[[Recipe, Path], object]) -> Pictures:
    """Load the pictures of a folder; the first process makes them if they are not there, and prints their counts."""
    if fabric.is_global_zero and not (folder / "pictures.json").exists():
        make(recipe, folder)
    fabric.barrier()
    pictures = Pictures(folder, seed=recipe.seed)
    if fabric.is_global_zero:
        print("\n".join(pictures.index.lines()), flush=True)
    return pictures


def distill(recipe: Recipe, folder: Path) -> Path | None:
    """Train the student, resuming from the checkpoint in `folder`; run the teacher if its pictures are not there.

    Returns the weights file; None in every process but the first.
    """
    fabric = make_fabric()
    pictures = _pictures(fabric, recipe, folder / "data", taught)
    stage = distill_stage(recipe, pictures)
    task = Run(folder, recipe, fabric).train(stage)
    if not fabric.is_global_zero:
        return None
    assert isinstance(task, DistillTask)
    return _write(task.student, folder / "student.safetensors", recipe, stage.steps, pictures.counts)


def refine(recipe: Recipe, folder: Path) -> Path | None:
    """Refine a network, resuming from the checkpoint in `folder`; make the base pictures if they are not there.

    Returns the weights file; None in every process but the first.
    """
    fabric = make_fabric()
    pictures = _pictures(fabric, recipe, folder / "bases", prepare_pictures)
    stage = refine_stage(recipe, pictures)
    task = Run(folder, recipe, fabric).train(stage)
    if not fabric.is_global_zero:
        return None
    assert isinstance(task, RefineTask)
    weights = folder / f"{name_of(task.network)}.safetensors"
    return _write(task.network, weights, recipe, stage.steps, pictures.counts)


def _write(net: nn.Module, weights: Path, recipe: Recipe, steps: int, counts: Mapping[str, int]) -> Path:
    export(net, weights, manifest_of(recipe, steps, counts, {}, network=weights.stem))
    return weights
