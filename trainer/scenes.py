"""Read the pairs of a recipe's data as scenes: thermal, luma, and fused images of other methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtfuse.capture.stills import read_image
from rtfuse.errors import ConfigError, SourceNotFound
from rtfuse.fuse.luma_fuser import luma
from rtfuse.types import Image
from trainer.pairs import SAME, Pairs, Survey, by_name
from trainer.recipe import Data, Root

TWO_SIZES = "two sizes in one pair: name a calibration (calib), or resize: true if both show the same view"
NO_PSEUDO = "pseudo ground truth missing or of another size"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Registered pair: (H, W) uint8 thermal and luma, and fused images by method, under the name `root/name`.

    `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
    """

    name: str
    ir: Image
    luma: Image
    pseudo: dict[str, Image]
    valid: Image | None = None


def scenes(data: Data, survey: Survey) -> Iterator[tuple[Root, Scene]]:
    """Yield the scenes of all roots but those kept out for validation; count all of them in `survey`.

    Raises SourceNotFound, ConfigError, or the error of a recording that cannot be read.
    """
    held_out, met = validation_names(data), set[str]()
    for root in data.roots:
        survey.taken[root.name] = 0
        for scene in _scenes(root, survey):
            if scene.name in held_out:
                met.add(scene.name)
            else:
                survey.taken[root.name] += 1
                yield root, scene
    survey.held_out = len(met)
    names = {root.name for root in data.roots}
    absent = sorted(name for name in held_out - met if name.partition("/")[0] in names)
    if absent or (held_out and not met):
        example = f", for example {absent[0]}" if absent else ""
        survey.said.append(f"{data.validation}: {len(absent) or len(held_out)} names are those of no pair{example}")


def _scenes(root: Root, survey: Survey) -> Iterator[Scene]:
    pairs = Pairs(root.ir, root.rgb, root.calib, survey=survey, prefix=f"{root.name}/")
    methods = {method_name(folder): by_name(Path(folder), pairs.names) for folder in root.pseudo}
    for pair in pairs:
        if not pairs.names and pair.frame_id % root.every:
            continue
        name, v = f"{root.name}/{pair.name}", luma(pair.rgb)
        if pair.stretched and not root.resize:
            survey.note(TWO_SIZES, name)
        elif np.array_equal(pair.ir, v):
            survey.note(SAME, name)
        else:
            fused = {m: read_image(files[pair.name], "ir") for m, files in methods.items() if pair.name in files}
            fitting = {m: x for m, x in fused.items() if x is not None and x.shape == v.shape and x.dtype == np.uint8}
            if len(fitting) < len(methods):
                survey.note(NO_PSEUDO, name)
            yield Scene(name, pair.ir, v, fitting, pair.valid)


def method_name(folder: str) -> str:
    """Return METHOD of `…/pseudo/METHOD/dataset`, else the name of the folder."""
    parts = Path(folder).parts
    return parts[parts.index("pseudo") + 1] if "pseudo" in parts[:-1] else parts[-1]


def methods_of(data: Data) -> list[str]:
    """Return the names of the pseudo ground truth. Raises ConfigError without any."""
    methods = [*dict.fromkeys([*data.classical, *(method_name(f) for root in data.roots for f in root.pseudo)])]
    if not methods:
        raise ConfigError("data: no pseudo ground truth; name folders under roots.pseudo, or data.classical")
    return methods


def validation_names(data: Data) -> set[str]:
    """Return the names (`root/name`) in the split file; none if the recipe has no split file."""
    return split_lines(Path(data.validation)) if data.validation else set()


def split_lines(path: Path) -> set[str]:
    """Return the `root/name` lines of a split file. Raises SourceNotFound, ConfigError for a binary file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise SourceNotFound(f"split file {path}: {e.strerror or e}") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"split file {path}: want lines of root/name, found something other than text") from e
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def split_names(path: Path, root: str) -> set[str]:
    """Return the names that a split file lists under a root; of every root where `root` is empty.

    Raises ConfigError if it lists none, and what `split_lines` raises.
    """
    parts = [line.split("/", 1) for line in split_lines(path)]
    found = {name for owner, *rest in parts for name in rest if root in ("", owner)}
    if not found:
        roots = ", ".join(sorted({owner for owner, *rest in parts if rest})) or "none"
        raise ConfigError(f"split file {path} has no line {root or 'ROOT'}/NAME; its roots are {roots}")
    return found
