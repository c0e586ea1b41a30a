"""Cut pairs on disk into patches once (`prepare`), and load batches of them (`Patches`).

A prepared folder holds:
`patches.npy`: (N, 2, P, P) uint8, thermal and luma;
`pseudo.npy`: (N, M, P, P) uint8, fused by M methods;
`index.json`: the origin of every patch, and the number of refusals by reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from rtfuse.errors import ConfigError, OutputUnwritable, SourceUnreadable
from rtfuse.types import Image
from trainer.classical import CLASSICAL
from trainer.pairs import Survey
from trainer.recipe import Data, Root
from trainer.scenes import Scene, methods_of, scenes


class PatchIndex(msgspec.Struct, frozen=True):
    """`index.json`: the scene and place (top, left) of each patch, their weights, the methods, the survey."""

    patch_px: int
    scenes: list[str]
    places: list[tuple[int, int]]
    weights: list[float]
    methods: list[str]
    survey: Survey = msgspec.field(default_factory=Survey)

    def lines(self) -> list[str]:
        """Return the first lines of a command: the prepared data."""
        found = f"{len(self.scenes)} patches of {self.patch_px} px from {len(set(self.scenes))} scenes"
        return [*self.survey.lines(), f"{found}; pseudo ground truth: {', '.join(self.methods)}"]


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
    methods = methods_of(data)
    kept, survey = _Collected(), Survey()
    for root, scene in scenes(data, survey):
        _cut(scene, root, data, methods, kept, survey)
    if len(kept.names) < data.min_patches:
        found = f"{len(kept.names)} patches of {data.patch_px} px"
        raise ConfigError(f"data: {found}, at least {data.min_patches} are needed; {survey.summary()}")
    index = PatchIndex(data.patch_px, kept.names, kept.places, kept.weights, methods, survey)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "index.json").unlink(missing_ok=True)
        np.save(out / "patches.npy", np.stack(kept.patches))
        np.save(out / "pseudo.npy", np.stack(kept.pseudo))
        # The index comes last: a folder without it counts as not prepared.
        (out / "index.json").write_bytes(msgspec.json.format(msgspec.json.encode(index)))
    except OSError as e:
        raise OutputUnwritable(f"{out} cannot be written: {e.strerror or e}") from e
    return index


def _cut(scene: Scene, root: Root, data: Data, methods: list[str], kept: _Collected, survey: Survey) -> None:
    size, (h, w) = data.patch_px, scene.ir.shape
    if h < size or w < size:
        survey.note(f"smaller than {size} px", scene.name)
        return
    fused = scene.pseudo | {name: CLASSICAL[name](scene.ir, scene.luma) for name in data.classical}
    # Another method's image replaces a missing one, so that every patch has the same number of fused images.
    images = [fused.get(m, fused[next(iter(fused))]) for m in methods] if fused else []
    if not images:
        survey.note("no pseudo ground truth", scene.name)
        return
    for top in range(0, h - size + 1, data.stride_px):
        for left in range(0, w - size + 1, data.stride_px):
            part = np.s_[top : top + size, left : left + size]
            if scene.valid is not None and scene.valid[part].min() < 255:
                survey.note("patch beyond the thermal picture", f"{scene.name} at ({left}, {top})")
                continue
            pair = np.stack([scene.ir[part], scene.luma[part]])
            if all(low_contrast(x, data.min_contrast) for x in pair):
                survey.note("patch without contrast", f"{scene.name} at ({left}, {top})")
                continue
            kept.patches.append(pair)
            kept.pseudo.append(np.stack([x[part] for x in images]))
            kept.names.append(scene.name)
            kept.places.append((top, left))
            kept.weights.append(root.weight)


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

    def scenes(self, rows: Sequence[int]) -> list[str]:
        """Return the scene of each of these rows."""
        return [self.index.scenes[row] for row in rows]

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
