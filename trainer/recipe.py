"""Read and write recipes: all settings of a training run, in one YAML file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from rtfuse.config import override
from rtfuse.errors import ConfigError
from rtfuse.settings import read_yaml, to_struct

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Multiple16 = Annotated[int, msgspec.Meta(ge=32, multiple_of=16)]

Classical = Literal["pyramid", "guided", "wavelet", "additive"]
Branch = Literal["restormer", "residual"]
"""A branch of the network's blocks that an ablation leaves out."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all parts: keyword-only, immutable, unknown keys refused."""


class Root(_Part, frozen=True):
    """Set of registered pairs: two folders matched by file name, or two recordings (or `synthetic:` sources).

    `name`: prefix of its scenes' names in reports and split files.
    `weight`: how often its patches are drawn, relative to their number.
    `every`: of recordings, take each n-th RGB frame.
    `calib`: the calibration file that aligns thermal.
    `resize`: True if pictures of two sizes show the same view; without it, and without `calib`, they are left out.
    `pseudo`: folders of fused images with the pairs' file names, one for each published method.
    """

    name: str
    ir: str
    rgb: str
    weight: Positive = 1.0
    every: Count = 1
    calib: str | None = None
    resize: bool = False
    pseudo: tuple[str, ...] = ()


class Data(_Part, frozen=True):
    """Settings of the patches to learn from.

    `roots`: the pairs.
    `patch_px`, `stride_px`: size of a patch and distance between patches.
    `min_contrast`: leave out a patch whose 10 to 90 percentile range is below this share of its 90th percentile, in
    both pictures.
    `min_patches`: fewer are an error.
    `classical`: built-in fusions that serve as pseudo ground truth, in addition to `pseudo` of the roots.
    `validation`: a file of `root/stem` lines; these scenes are kept out of the training.
    """

    roots: tuple[Root, ...]
    patch_px: Multiple16 = 128
    stride_px: Count = 200
    min_contrast: NotNegative = 0.1
    min_patches: Count = 16
    classical: tuple[Classical, ...] = ("pyramid", "guided", "wavelet", "additive")
    validation: str | None = None


class Sensing(_Part, frozen=True):
    """First stage: train the sensing nets by mean squared error.

    `width`: channels of the nets' finest level.
    `optics`, `noise`: not in the paper: a low pass, and noise of this standard deviation (white is 1), before the
    nets, in both stages (`SensingNet`).
    `crop_px`: size of a random crop out of each patch; null: the whole patch.
    `halve_every`: epochs after which the learning rate is halved.
    """

    width: Count = 64
    optics: bool = False
    noise: NotNegative = 0.0
    epochs: Count = 40
    batch: Count = 64
    crop_px: Multiple16 | None = None
    learning_rate: Positive = 1e-4
    halve_every: Count = 10


class Fusion(_Part, frozen=True):
    """Second stage: train the fusion net (eq. 6).

    `warm_up_epochs`: not in the paper: epochs that teach the net to imitate the pseudo ground truth `warm_up_on`. From
    there, a short training reaches a picture that it does not reach from random weights. If all epochs are warm-up,
    the first stage is left out.
    `start`: a weights file, or `shipped`, from which the net begins: fine-tuning for a rig.
    `anchor`: not in the paper: weight of the imitation after the warm-up.
    `crop_px`: size of a random crop out of each patch; null: the whole patch.
    `halve_every`: epochs after which the learning rate is halved.
    `alpha1`, `alpha2`: weights of the visible and of the equivariance term.
    `transforms`: `all`: `per_kind` shifts, rotations and reflections of every batch, as published; `one`: a single
    random transform for each step, far cheaper; `none`: an ablation.
    `any_angle`: rotate by any angle, not by quarter turns alone.
    `direct`: an ablation: compare the fused image with the sources, not with their sensed forms.
    `augment`: an ablation: transform the sources instead of the fused image.
    `without`: an ablation: leave out one branch of the network; only `trainer eval` loads such weights.
    """

    epochs: Count = 100
    warm_up_epochs: Annotated[int, msgspec.Meta(ge=0)] = 0
    warm_up_on: str = "additive"
    start: str | None = None
    anchor: NotNegative = 0.0
    batch: Count = 8
    crop_px: Multiple16 | None = None
    learning_rate: Positive = 1e-4
    halve_every: Count = 20
    alpha1: NotNegative = 1.0
    alpha2: NotNegative = 0.1
    transforms: Literal["all", "one", "none"] = "all"
    per_kind: Count = 3
    any_angle: bool = False
    direct: bool = False
    augment: bool = False
    without: Branch | None = None

    def __post_init__(self) -> None:
        if self.start and self.without:
            raise ValueError("`start` gives weights of the whole network, `without` leaves a part of it out")


class Distill(_Part, frozen=True):
    """Settings of a student (`rtfuse.fuse.networks.student`) with a teacher; the shipped one has none (`Refine`).

    `teacher`: a weights file, or `shipped`.
    `start`: a weights file from which the student begins.
    `channels`, `layers`, `context`: the student's sizes.
    `variants`: how many more times the teacher sees each pair, at other exposures.
    `crop`: width and height in px of the part of each picture that a step sees; smaller pictures are left out.
    `gradient`, `structure`: weights of the gradients' l1 and of 1 - SSIM; the intensities' l1 has the weight 1.
    `emma`: weight of EMMA's terms (eq. 6), with the recipe's `fusion.alpha1`, `alpha2` and `transforms`.
    `sensing_run`: run folder of the sensing nets for EMMA's terms.
    """

    teacher: str = "shipped"
    start: str | None = None
    channels: Count = 24
    layers: Count = 3
    context: Count = 32
    variants: Annotated[int, msgspec.Meta(ge=0)] = 2
    crop: tuple[Multiple16, Multiple16] = (320, 240)
    batch: Count = 8
    epochs: Count = 100
    learning_rate: Positive = 2e-3
    halve_every: Count = 20
    gradient: NotNegative = 1.0
    structure: NotNegative = 0.2
    emma: NotNegative = 0.0
    sensing_run: str | None = None

    def __post_init__(self) -> None:
        if self.emma and not self.sensing_run:
            raise ValueError("`emma` needs `sensing_run`, a run folder with trained sensing nets")


class Refine(_Part, frozen=True):
    """Training a network by what its pictures keep of both sources (`trainer.fidelity`), without a teacher.

    `start`: `student` or `ufuser`, the shipped weights; a weights file of either network; or `new`, a student that was
    never trained, of the size `channels`, `layers`, `context`.
    `base_on`: the classical fusion that the local means follow, over windows of `base_px` pixels.
    `variants`: how many more times each pair is seen, at other exposures.
    `crop`: width and height in px of the part of each picture that a step sees; smaller pictures are left out.
    `gradient`, `base`, `structure`, `fidelity`, `edges`, `noise`, `range`: weights of the signed gradients' l1, of the
    local means' l1, of 2 - SSIM with both sources, of -VIF, of -Qabf, of noise added where both sources are flat, and
    of values outside [0, 1].
    `grain`: the network sees the sources with noise of up to so many grey levels, and is judged by those without it.
    `detail`: factor by which the wanted gradients are those of the stronger source.
    `flat`: gradients of both sources below so many grey levels a pixel count as noise; 0: none does.
    """

    start: str = "student"
    channels: Count = 24
    layers: Count = 2
    context: Count = 32
    base_on: Classical = "additive"
    base_px: Count = 9
    variants: Annotated[int, msgspec.Meta(ge=0)] = 2
    crop: tuple[Multiple16, Multiple16] = (144, 144)
    batch: Count = 4
    epochs: Count = 20
    learning_rate: Positive = 5e-4
    halve_every: Count = 5
    gradient: NotNegative = 12.0
    base: NotNegative = 0.4
    structure: NotNegative = 0.05
    fidelity: NotNegative = 0.3
    edges: NotNegative = 0.5
    noise: NotNegative = 0.0
    range: NotNegative = 1.0
    detail: Positive = 1.0
    grain: NotNegative = 0.0
    flat: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.base_px > min(self.crop):
            raise ValueError(f"`base_px` {self.base_px} does not fit into a crop of {self.crop[0]}x{self.crop[1]}")


class Recipe(_Part, frozen=True):
    """All settings of a run.

    `precision`: of the sensing nets, which are nearly all of the arithmetic; `auto` is bfloat16 on a GPU that computes
    in it. All other parts are float32: a picture in bfloat16 has 256 levels at most, and the fusion net learns from
    differences as small as one of them.
    `checkpoint_every_s`: seconds between two checkpoints.
    """

    name: str
    data: Data
    sensing: Sensing = Sensing()
    fusion: Fusion = Fusion()
    distill: Distill = Distill()
    refine: Refine = Refine()
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    checkpoint_every_s: Positive = 120.0


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, then apply `key.sub=value` overrides.

    `base: FILE`, a path relative to the recipe, names a recipe that supplies every key that this one does not have.
    `~` in a path is the home folder.
    Raises ConfigError naming the file or the override, the key's path and the fault.
    """
    tree = _tree(Path(path), ())
    recipe = to_struct(tree, Recipe, f"recipe {path}")
    for item in overrides:
        override(tree, item, Recipe, "fusion.epochs=2")
        recipe = to_struct(tree, Recipe, f"override {item!r}")
    return _at_home(recipe)


def _at_home(recipe: Recipe) -> Recipe:
    """Return the recipe with `~` at the beginning of its texts expanded; only paths begin with it."""
    return msgspec.convert(_expanded(msgspec.to_builtins(recipe)), Recipe)


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _expanded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_expanded(v) for v in value]
    return os.path.expanduser(value) if isinstance(value, str) and value.startswith("~") else value


def _tree(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        raise ConfigError(f"recipe {path}: `base` leads back to itself")
    tree = read_yaml(path)
    base = tree.pop("base", None)
    return (
        tree
        if base is None
        else _merged(_tree(path.parent / os.path.expanduser(str(base)), (*below, path.resolve())), tree)
    )


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | over | both


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, complete, with the keys of its `base`."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, width=100)
