"""A recipe: everything that decides a training run, in one YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml

from rtfuse.config import override
from rtfuse.errors import ConfigError, OutputUnwritable
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
    """One place of registered pairs: two folders matched by file name, or two recordings (or `synthetic:` sources).

    `name` is what its scenes are called in reports and split files. `weight` is how often its patches are drawn,
    relative to their number. Of recordings, `every` takes each n-th RGB frame, and thermal is aligned by the
    calibration file `calib`. `pseudo` are folders of fused images, one for each published method, with the pairs' file
    names.
    """

    name: str
    ir: str
    rgb: str
    weight: Positive = 1.0
    every: Count = 1
    calib: str | None = None
    pseudo: tuple[str, ...] = ()


class Data(_Part, frozen=True):
    """Which patches are learnt from.

    Patches of `patch_px` are cut every `stride_px`; one whose 10 to 90 percentile range is below `min_contrast` of
    its 90th percentile, in both pictures, is left out. `classical` names built-in fusions that serve as pseudo ground
    truth of the first stage beside the folders of `roots`. `validation` is a file of `root/stem` lines, never learnt
    from.
    """

    roots: tuple[Root, ...]
    patch_px: Multiple16 = 128
    stride_px: Count = 200
    min_contrast: NotNegative = 0.1
    min_patches: Count = 16
    classical: tuple[Classical, ...] = ("pyramid", "guided", "wavelet", "additive")
    validation: str | None = None


class Sensing(_Part, frozen=True):
    """First stage: the sensing nets, by mean squared error. `crop_px` is cut at random out of each patch.

    `optics` and `noise` (a standard deviation, of 1 as white), not in the paper, are what the nets look through, in
    both stages (`SensingNet`).
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
    """Second stage: the fusion net (eq. 6).

    `transforms` is `all` (`per_kind` shifts, rotations and reflections of every batch, as published), `one` (a single
    random transform for each step: far cheaper) or `none` (an ablation). `direct` compares the fused image with
    the sources themselves instead of their sensed forms (an ablation). `augment` applies the transforms to the
    sources instead (an ablation). `without` leaves out one branch of the network (an ablation; such weights are for
    `trainer eval` alone). `warm_up_epochs`, not in the paper, first teach the net to imitate one of the pseudo
    ground truths, `warm_up_on`: from there, short trainings reach a picture that from nothing they would not. Where
    they are all epochs, the first stage is left out.
    `start`, a weights file or `shipped`, is where the net begins instead of at random: fine-tuning for a rig.
    `anchor`, not in the paper either, is the weight with which that imitation goes on counting afterwards.
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
    """The student: a small network that learns to make what the teacher makes (`rtfuse.fuse.networks.student`).

    `teacher` is a weights file, or `shipped`. `channels`, `layers` and `context` are the student's sizes. Each pair is
    shown to the teacher as it is, and `variants` more times as another exposure would have it. `crop` is the width and
    height that a step sees of each picture; smaller pictures are left out. `gradient` and `structure` (1 - SSIM) weigh
    beside the intensities' own l1. `emma` is the weight of EMMA's terms (eq. 6), by the sensing nets of the run folder
    `sensing_run` and with the recipe's `fusion.alpha1`, `alpha2` and `transforms`. `start` is where the student begins
    instead of at random.
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


class Recipe(_Part, frozen=True):
    """A whole run. `precision` is what the sensing nets, nearly all of the arithmetic, compute in.

    `auto` takes bfloat16 where a GPU computes in it. All else is float32: a picture in bfloat16 has 256 levels at most,
    and its steps are as large as the differences that the fusion net learns from.
    """

    name: str
    data: Data
    sensing: Sensing = Sensing()
    fusion: Fusion = Fusion()
    distill: Distill = Distill()
    seed: int = 0
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    checkpoint_every_s: Positive = 120.0


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, then apply `key.sub=value` overrides.

    `base: FILE`, a path relative to the recipe, names a recipe that supplies every key that this one does not have.
    Raises ConfigError naming the file or the override, the key's path and the fault.
    """
    tree = _tree(Path(path), ())
    recipe = to_struct(tree, Recipe, f"recipe {path}")
    for item in overrides:
        override(tree, item, Recipe, "fusion.epochs=2")
        recipe = to_struct(tree, Recipe, f"override {item!r}")
    return recipe


def _tree(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in below:
        raise ConfigError(f"recipe {path}: `base` leads back to itself")
    tree = read_yaml(path)
    base = tree.pop("base", None)
    return tree if base is None else _merged(_tree(path.parent / str(base), (*below, path.resolve())), tree)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {k: _merged(base[k], v) for k, v in over.items() if isinstance(v, dict) and isinstance(base.get(k), dict)}
    return base | over | both


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, whole, whatever files it was read from."""
    return yaml.safe_dump(msgspec.to_builtins(recipe), sort_keys=False, width=100)


def claim(folder: Path, recipe: Recipe) -> None:
    """Write the recipe into the run folder.

    Raises ConfigError if the folder holds another recipe; OutputUnwritable.
    """
    kept = folder / "recipe.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            partial = folder / "recipe.yaml.partial"
            partial.write_text(dump_recipe(recipe), encoding="utf-8")
            partial.replace(kept)
        elif load_recipe(kept) != recipe:
            raise ConfigError(f"run folder {folder} was begun with another recipe ({kept}); give another with --run")
    except OSError as e:
        raise OutputUnwritable(f"run folder {folder} cannot be written: {e.strerror or e}") from e
