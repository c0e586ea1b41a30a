"""Cut pairs on disk into patches once (`prepare`), and load batches of them (`Patches`).

A prepared folder holds:
`patches.npy`: (N, 2, P, P) uint8, thermal and luma;
`pseudo.npy`: (N, M, P, P) uint8, fused by M methods;
`index.json`: the origin of every patch, and the number of refusals by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from rtfuse.capture.stills import is_image, read_image
from rtfuse.errors import ConfigError, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.fuse.luma import luma
from rtfuse.types import Image
from trainer.classical import CLASSICAL
from trainer.recipe import Data, Root
from trainer.recordings import registered


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One registered pair: (H, W) uint8 thermal and luma, and fused images by method, under the name `root/stem`.

    `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
    """

    name: str
    ir: Image
    luma: Image
    pseudo: dict[str, Image]
    valid: Image | None = None


class Refusals(Counter[str]):
    """Counts pairs and patches that were left out, by reason, and keeps an example of each."""

    def __init__(self) -> None:
        super().__init__()
        self.examples: dict[str, str] = {}

    def note(self, reason: str, name: str) -> None:
        """Count one refusal."""
        self[reason] += 1
        self.examples.setdefault(reason, name)

    def summary(self) -> str:
        """Return counts, reasons and examples as one line."""
        return ", ".join(f"{n} × {reason} (e.g. {self.examples[reason]})" for reason, n in self.items()) or "no pairs"


class PatchIndex(msgspec.Struct, frozen=True):
    """`index.json`: the scene and place (top, left) of each patch, their weights, the methods, the refusals."""

    patch_px: int
    scenes: list[str]
    places: list[tuple[int, int]]
    weights: list[float]
    methods: list[str]
    refused: dict[str, int]


def scenes(root: Root, refused: Refusals) -> Iterator[Scene]:
    """Yield the pairs of a root; count unusable ones in `refused`.

    Raises SourceNotFound, ConfigError, or the error of a recording that cannot be read.
    """
    for path in (root.ir, root.rgb, *root.pseudo, *([root.calib] if root.calib else [])):
        if not path.startswith("synthetic:") and not Path(path).exists():
            raise SourceNotFound(f"data root {root.name}: {path} does not exist")
    if Path(root.ir).is_dir() and root.calib:
        raise ConfigError(f"data root {root.name}: calib is for recordings; folders hold pairs that lie on each other")
    if Path(root.ir).is_dir():
        yield from _folder_scenes(root, refused)
    else:
        yield from _recorded_scenes(root, refused)


def _folder_scenes(root: Root, refused: Refusals) -> Iterator[Scene]:
    ir, rgb = (_by_stem(folder) for folder in (root.ir, root.rgb))
    methods = {_method_name(folder): _by_stem(folder) for folder in root.pseudo}
    for stem in sorted(ir.keys() | rgb.keys()):
        name = f"{root.name}/{stem}"
        if stem not in ir or stem not in rgb:
            refused.note("no partner of this name", name)
            continue
        thermal, colour = read_image(str(ir[stem]), "ir"), read_image(str(rgb[stem]), "rgb")
        if thermal is None or colour is None or thermal.dtype != np.uint8:
            refused.note("unreadable, or not 8 bits", name)
        elif thermal.shape != colour.shape[:2]:
            refused.note("two sizes in one pair", name)
        else:
            fused = {m: read_image(str(files[stem]), "ir") for m, files in methods.items() if stem in files}
            fitting = {m: x for m, x in fused.items() if x is not None and x.shape == thermal.shape}
            if len(fitting) < len(methods):
                refused.note("pseudo ground truth missing or of another size", name)
            yield Scene(name, thermal, luma(colour), fitting)


def _by_stem(folder: str) -> dict[str, Path]:
    return {p.stem: p for p in Path(folder).iterdir() if is_image(p)}


def _method_name(folder: str) -> str:
    """Return METHOD of `…/pseudo/METHOD/dataset`, else the name of the folder."""
    parts = Path(folder).parts
    return parts[parts.index("pseudo") + 1] if "pseudo" in parts[:-1] else parts[-1]


def _recorded_scenes(root: Root, refused: Refusals) -> Iterator[Scene]:
    for pair in registered(root.ir, root.rgb, root.calib):
        if pair.frame_id % root.every:
            continue
        name = f"{root.name}/{pair.frame_id:06d}"
        if pair.stretched:
            refused.note("two sizes in one pair and no calibration", name)
        else:
            yield Scene(name, pair.ir, luma(pair.rgb), {}, pair.valid)


def low_contrast(patch: Image, share: float) -> bool:
    """Return True if the 10 to 90 percentile range is below `share` of the 90th percentile."""
    low, high = np.percentile(patch, (10, 90))
    return bool(high - low < share * max(high, 1))


@dataclass
class _Collected:
    patches: list[Image] = field(default_factory=list)
    pseudo: list[Image] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def prepare(data: Data, out: Path) -> PatchIndex:
    """Cut the patches of all roots into the folder `out` and return their index.

    Raises ConfigError with the reasons of all refusals if fewer than `data.min_patches` are left; OutputUnwritable.
    """
    methods = [*data.classical, *dict.fromkeys(_method_name(f) for root in data.roots for f in root.pseudo)]
    if not methods:
        raise ConfigError("data: no pseudo ground truth; name folders under roots.pseudo, or data.classical")
    held_out = validation_names(data)
    kept, refused = _Collected(), Refusals()
    for root in data.roots:
        for scene in scenes(root, refused):
            if scene.name not in held_out:
                _cut(scene, root, data, methods, kept, refused)
    if len(kept.names) < data.min_patches:
        raise ConfigError(
            f"data: {len(kept.names)} patches, at least {data.min_patches} are needed; {refused.summary()}"
        )
    index = PatchIndex(data.patch_px, kept.names, kept.places, kept.weights, methods, dict(refused))
    try:
        out.mkdir(parents=True, exist_ok=True)
        np.save(out / "patches.npy", np.stack(kept.patches))
        np.save(out / "pseudo.npy", np.stack(kept.pseudo))
        # The index comes last: a folder without it counts as not prepared.
        (out / "index.json").write_bytes(msgspec.json.format(msgspec.json.encode(index)))
    except OSError as e:
        raise OutputUnwritable(f"{out} cannot be written: {e.strerror or e}") from e
    return index


def _cut(scene: Scene, root: Root, data: Data, methods: list[str], kept: _Collected, refused: Refusals) -> None:
    size, (h, w) = data.patch_px, scene.ir.shape
    if h < size or w < size:
        refused.note(f"smaller than {size} px", scene.name)
        return
    fused = scene.pseudo | {name: CLASSICAL[name](scene.ir, scene.luma) for name in data.classical}
    # Another method's image replaces a missing one, so that every patch has the same number of fused images.
    images = [fused.get(m, fused[next(iter(fused))]) for m in methods] if fused else []
    if not images:
        refused.note("no pseudo ground truth", scene.name)
        return
    for top in range(0, h - size + 1, data.stride_px):
        for left in range(0, w - size + 1, data.stride_px):
            part = np.s_[top : top + size, left : left + size]
            if scene.valid is not None and scene.valid[part].min() < 255:
                refused.note("patch beyond the thermal picture", f"{scene.name} at ({left}, {top})")
                continue
            pair = np.stack([scene.ir[part], scene.luma[part]])
            if all(low_contrast(x, data.min_contrast) for x in pair):
                refused.note("patch without contrast", f"{scene.name} at ({left}, {top})")
                continue
            kept.patches.append(pair)
            kept.pseudo.append(np.stack([x[part] for x in images]))
            kept.names.append(scene.name)
            kept.places.append((top, left))
            kept.weights.append(root.weight)


def validation_names(data: Data) -> set[str]:
    """Return the names (`root/stem`) in the split file; none if the recipe has no split file."""
    return split_lines(Path(data.validation)) if data.validation else set()


def split_lines(path: Path) -> set[str]:
    """Return the `root/stem` lines of a split file. Raises SourceNotFound."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise SourceNotFound(f"split file {path}: {e.strerror or e}") from e
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def split_names(path: Path, root: str) -> set[str]:
    """Return the stems that a split file lists under a root; of every root where `root` is empty."""
    parts = (line.split("/", 1) for line in split_lines(path))
    return {stem for name, *rest in parts for stem in rest if root in ("", name)}


class Patches:
    """Loads batches of the prepared patches of a folder; a batch depends only on the seed and the step.

    A run that is killed and resumed therefore sees the same batches as an undisturbed one. Raises SourceUnreadable if
    the folder was not prepared completely.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        try:
            self.index = msgspec.json.decode((folder / "index.json").read_bytes(), type=PatchIndex)
            self._patches = np.load(folder / "patches.npy", mmap_mode="r", allow_pickle=False)
            self._pseudo = np.load(folder / "pseudo.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, msgspec.MsgspecError) as e:
            raise SourceUnreadable(f"no prepared data in {folder} ({e}); run `trainer prepare` first") from e
        self._seed = seed
        self._weights = torch.tensor(self.index.weights, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.index.scenes)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of patches and of scenes, for manifests."""
        return {"patches": len(self), "scenes": len(set(self.index.scenes))}

    def steps(self, batch: int) -> int:
        """Return the steps of one epoch."""
        return max(1, len(self) // batch)

    def rng(self, step: int) -> torch.Generator:
        """Return the random number generator of one step."""
        return torch.Generator().manual_seed((self._seed * 1_000_003 + step) % 2**63)

    def rows(self, step: int, batch: int) -> list[int]:
        """Return the row numbers of one step's batch: in a new order each epoch, or drawn by weight."""
        if bool((self._weights != self._weights[0]).any()):
            return torch.multinomial(self._weights, batch, replacement=True, generator=self.rng(-1 - step)).tolist()
        per_epoch = self.steps(batch)
        epoch, place = divmod(step, per_epoch)
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self._seed * 7919 + epoch))
        return order[place * batch : place * batch + batch].tolist()

    def sources(self, rows: list[int], crop_px: int | None, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return thermal and luma, (N, 1, P, P) float32 in [0, 1], cropped at random places if `crop_px`."""
        pair = self._cropped(self._patches[rows], crop_px, rng)
        return pair[:, :1], pair[:, 1:]

    def imitated(self, rows: list[int], method: str, crop_px: int | None, rng: torch.Generator) -> Tensor:
        """Return the image that `method` fused, thermal and luma, (N, 3, P, P) float32 in [0, 1].

        Raises ConfigError if no such method was prepared.
        """
        if method not in self.index.methods:
            raise ConfigError(f"no pseudo ground truth is called {method!r}; there are {', '.join(self.index.methods)}")
        chosen = self._pseudo[rows][:, [self.index.methods.index(method)]]
        return self._cropped(np.concatenate([chosen, self._patches[rows]], 1), crop_px, rng)

    def fused(self, rows: list[int], crop_px: int | None, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Return an image fused by a random method, thermal and luma, (N, 1, P, P) float32 in [0, 1] each."""
        which = torch.randint(self._pseudo.shape[1], (len(rows),), generator=rng).tolist()
        chosen = np.stack([self._pseudo[row, method] for row, method in zip(rows, which, strict=True)])
        x = self._cropped(np.concatenate([chosen[:, None], self._patches[rows]], 1), crop_px, rng)
        return x[:, :1], x[:, 1:2], x[:, 2:]

    def _cropped(self, x: Image, crop_px: int | None, rng: torch.Generator) -> Tensor:
        size = x.shape[-1]
        if crop_px is not None and crop_px < size:
            places = torch.randint(size - crop_px + 1, (len(x), 2), generator=rng).tolist()
            x = np.stack(
                [p[:, top : top + crop_px, left : left + crop_px] for p, (top, left) in zip(x, places, strict=True)]
            )
        return torch.from_numpy(np.ascontiguousarray(x)).float().div_(255)
