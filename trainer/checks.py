"""Find the mistakes of a recipe before its first step, and before its run folder is touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from rtfuse.capture.paths import is_pattern
from rtfuse.errors import ConfigError, SourceNotFound
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import load_weights
from trainer.fusion import fusion_start
from trainer.recipe import Data, Recipe
from trainer.refine import start_of
from trainer.scenes import methods_of, validation_names
from trainer.sensing import sensing_net_of

StageName = Literal["both", "sensing", "fusion"]


def check_data(data: Data) -> None:
    """Raise ConfigError or SourceNotFound for data that cannot be read as the recipe says."""
    if not data.roots:
        raise ConfigError("data.roots: name at least one set of pairs")
    names = Counter(root.name for root in data.roots)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ConfigError(f"data.roots: two are called {twice[0]}: scenes are named after their root")
    methods_of(data)
    validation_names(data)
    for root in data.roots:
        for path in (root.ir, root.rgb, *root.pseudo, *([root.calib] if root.calib else [])):
            if not path.startswith("synthetic:") and not is_pattern(path) and not Path(path).exists():
                raise SourceNotFound(f"data root {root.name}: {path} does not exist")
        for folder in root.pseudo:
            if not Path(folder).is_dir():
                raise ConfigError(f"data root {root.name}: pseudo {folder} is not a folder of fused images")


def check_train(recipe: Recipe, folder: Path, stage: StageName) -> None:
    """Raise an RtfuseError for a recipe that `trainer train` cannot follow to its end, or a stage that is not ready."""
    data, fusion = recipe.data, recipe.fusion
    check_data(data)
    for name, crop in (("sensing", recipe.sensing.crop_px), ("fusion", fusion.crop_px)):
        if crop is not None and crop > data.patch_px:
            raise ConfigError(f"{name}.crop_px: {crop} px do not fit into a patch (data.patch_px: {data.patch_px})")
    if stage == "sensing":
        return
    methods = methods_of(data)
    if (fusion.warm_up_epochs or fusion.anchor) and fusion.warm_up_on not in methods:
        raise ConfigError(
            f"fusion.warm_up_on: no pseudo ground truth is called {fusion.warm_up_on!r}; there are {', '.join(methods)}"
        )
    if fusion.start:
        fusion_start(fusion)
    if stage == "fusion" and fusion.epochs > fusion.warm_up_epochs and not (folder / "sensing.ckpt").exists():
        raise ConfigError(f"--stage fusion needs {folder / 'sensing.ckpt'}; run --stage sensing first")


def check_distill(recipe: Recipe) -> None:
    """Raise an RtfuseError for a recipe that `trainer distill` cannot follow to its end."""
    options = recipe.distill
    check_data(recipe.data)
    if options.teacher != "shipped":
        load_weights(options.teacher)
    if options.start and not isinstance(load_network(options.start), Student):
        raise ConfigError(f"distill.start: {options.start} is not a student")
    if options.emma and options.sensing_run:
        sensing_net_of(Path(options.sensing_run))


def check_refine(recipe: Recipe) -> None:
    """Raise an RtfuseError for a recipe that `trainer refine` cannot follow to its end."""
    check_data(recipe.data)
    start_of(recipe.refine)
