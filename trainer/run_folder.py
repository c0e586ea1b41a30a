"""Claim a run folder for a recipe; a changed recipe goes on in it where no checkpoint depends on the change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.outputs import replace_file
from trainer.recipe import Recipe, dump_recipe, load_recipe

_CHECKPOINTS = ("sensing.ckpt", "fusion.ckpt", "distill.ckpt", "refine.ckpt")
_FREE = (
    "name",
    "precision",
    "checkpoint_every_s",
    "fusion.epochs",
    "distill.epochs",
    "refine.epochs",
    "data.min_patches",
)
"""Keys that may change at any time: the steps taken until now stay right."""
_DEPEND = {
    "sensing.epochs": ("fusion.ckpt",),
    "sensing": ("sensing.ckpt", "fusion.ckpt"),
    "fusion": ("fusion.ckpt", "distill.ckpt"),
    "distill": ("distill.ckpt",),
    "refine": ("refine.ckpt",),
}
"""The checkpoints that depend on a key, or on all keys of a part; on any other key, all do."""
_MADE_OF = {
    "data/index.json": ("data",),
    "data/pictures.json": ("data", "distill.teacher", "distill.variants", "distill.crop"),
    "bases/pictures.json": ("data", "refine.base_on", "refine.contrast", "refine.variants", "refine.crop"),
}
"""The indexes of prepared data, and the keys or parts that they are made of."""


def claim(folder: Path, recipe: Recipe) -> list[str]:
    """Write the recipe into the run folder; return the keys in which it differs from the one that was there.

    Data that were prepared by another recipe, and that no checkpoint has seen, are forgotten. Raises ConfigError if a
    checkpoint depends on a key that differs, OutputUnwritable.
    """
    kept = folder / "recipe.yaml"
    if folder.exists() and not folder.is_dir():
        raise OutputUnwritable(f"run folder {folder} is a file; name a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        changed = _changed(load_recipe(kept), recipe) if kept.exists() else []
        for key in changed:
            if found := [name for name in _dependent(key) if (folder / name).exists()]:
                raise ConfigError(
                    f"run folder {folder} was begun with another recipe ({kept}): {key} differs, and {found[0]} "
                    "depends on it; give another folder with --run, or take the change back"
                )
        for index, sources in _MADE_OF.items():
            if any(_is_part(key, source) and key not in _FREE for key in changed for source in sources):
                (folder / index).unlink(missing_ok=True)
        if changed or not kept.exists():
            replace_file(kept, dump_recipe(recipe).encode())
    except OSError as e:
        raise OutputUnwritable(f"run folder {folder} cannot be written: {e.strerror or e}") from e
    return changed


def _changed(old: Recipe, new: Recipe) -> list[str]:
    a, b = (dict(_flat(msgspec.to_builtins(recipe))) for recipe in (old, new))
    return [key for key in b if a[key] != b[key]]


def _flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _is_part(key: str, part: str) -> bool:
    return key == part or key.startswith(f"{part}.")


def _dependent(key: str) -> tuple[str, ...]:
    if key in _FREE:
        return ()
    return next((names for part, names in _DEPEND.items() if _is_part(key, part)), _CHECKPOINTS)
