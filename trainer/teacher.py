"""Fuse whole pictures with the teacher once (`imitate`), and load batches of the results (`Pictures`).

A prepared folder holds:
`pictures.bin`: thermal, luma and fused of all pictures one after another, each (3, H, W) uint8;
`pictures.json`: the scene, size and offset of each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor

from rtfuse.errors import ConfigError, OutputUnwritable, SourceUnreadable
from rtfuse.types import Image
from trainer.pairs import Survey
from trainer.recipe import Data, Distill, Refine
from trainer.scenes import scenes

FuseLuma = Callable[[Image, Image], Image]


class Place(msgspec.Struct, frozen=True):
    """Entry of one picture: its scene, its size in px, its offset in the file in bytes, its weight in the draw."""

    scene: str
    height: int
    width: int
    offset: int
    weight: float


class PictureIndex(msgspec.Struct, frozen=True):
    """`pictures.json`: the pictures, the teacher that made them, and the survey of the data."""

    made_of: dict[str, str | int]
    pictures: list[Place]
    survey: Survey = msgspec.field(default_factory=Survey)

    def lines(self) -> list[str]:
        """Return the first lines of a command: the prepared data."""
        scenes = len({place.scene for place in self.pictures})
        return [*self.survey.lines(), f"{len(self.pictures)} pictures from {scenes} scenes"]


def imitate(
    data: Data, options: Distill | Refine, teacher: FuseLuma, about: dict[str, str | int], out: Path
) -> PictureIndex:
    """Fuse every pair of all roots, and its variants, with the teacher into the folder `out`; return their index.

    `teacher` takes thermal and luma, (H, W) uint8 each. `about` identifies it, for resumed runs. Raises ConfigError if
    fewer than `options.batch` pictures are left; OutputUnwritable.
    """
    survey, places, at = Survey(), list[Place](), 0
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "pictures.json").unlink(missing_ok=True)
        with (out / "pictures.bin").open("wb") as file:
            for name, weight, ir, luma in _pictures(data, options, survey):
                h, w = ir.shape
                planes = np.stack([ir, luma, teacher(ir, luma)])
                file.write(planes.data)
                places.append(Place(name, h, w, at, weight))
                at += planes.nbytes
        if len(places) < options.batch:
            raise ConfigError(f"data: {len(places)} pictures, at least {options.batch} are needed; {survey.summary()}")
        index = PictureIndex(about, places, survey)
        # The index comes last: a folder without it counts as not prepared.
        (out / "pictures.json").write_bytes(msgspec.json.encode(index))
    except OSError as e:
        raise OutputUnwritable(f"{out} cannot be written: {e.strerror or e}") from e
    return index


def _pictures(data: Data, options: Distill | Refine, survey: Survey) -> Iterator[tuple[str, float, Image, Image]]:
    w, h = options.crop
    for root, scene in scenes(data, survey):
        if scene.ir.shape[0] < h or scene.ir.shape[1] < w:
            survey.note(f"smaller than {w}x{h}", scene.name)
            continue
        rng = np.random.default_rng(abs(hash_of(scene.name)))
        yield scene.name, root.weight, scene.ir, scene.luma
        for _ in range(options.variants):
            yield scene.name, root.weight, exposed(scene.ir, rng), exposed(scene.luma, rng)


def hash_of(name: str) -> int:
    """Return a number derived from a name, the same in every process."""
    return int.from_bytes(name.encode()[-8:], "little")


def exposed(picture: Image, rng: np.random.Generator) -> Image:
    """Return a picture, (H, W) uint8, at another exposure: gamma, contrast and level are drawn from `rng`."""
    gamma, gain, level = np.exp(rng.uniform(-0.5, 0.5)), rng.uniform(0.5, 1.3), rng.uniform(-0.1, 0.1)
    table = gain * (np.arange(256) / 255) ** gamma + level
    changed: Image = np.clip(255 * table, 0, 255).round().astype(np.uint8)[picture]
    return changed


class Pictures:
    """Loads batches of the prepared pictures of a folder; a batch depends only on the seed and the step.

    Raises SourceUnreadable if the folder was not prepared completely.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        try:
            self.index = msgspec.json.decode((folder / "pictures.json").read_bytes(), type=PictureIndex)
            self._data = np.memmap(folder / "pictures.bin", np.uint8, "r")
        except (OSError, ValueError, msgspec.MsgspecError) as e:
            raise SourceUnreadable(f"no prepared pictures in {folder}: {e}") from e
        self._seed = seed
        self._weights = torch.tensor([p.weight for p in self.index.pictures], dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.index.pictures)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of pictures and of scenes, for manifests."""
        return {"pictures": len(self), "scenes": len({p.scene for p in self.index.pictures})}

    def steps(self, batch: int) -> int:
        """Return the steps of one epoch."""
        return max(1, len(self) // batch)

    def rng(self, step: int) -> torch.Generator:
        """Return the random number generator of one step."""
        return torch.Generator().manual_seed((self._seed * 1_000_003 + step) % 2**63)

    def rows(self, step: int, batch: int) -> list[int]:
        """Return the row numbers of one step's batch."""
        return torch.multinomial(self._weights, batch, replacement=True, generator=self.rng(-1 - step)).tolist()

    def scenes(self, rows: Sequence[int]) -> list[str]:
        """Return the scene of each of these rows."""
        return [self.index.pictures[row].scene for row in rows]

    def whole(self, row: int) -> Image:
        """Return thermal, luma and fused of one picture, (3, H, W) uint8."""
        place = self.index.pictures[row]
        end = place.offset + 3 * place.height * place.width
        planes: Image = self._data[place.offset : end].reshape(3, place.height, place.width)
        return planes

    def crops(self, rows: list[int], crop_wh: tuple[int, int], rng: torch.Generator) -> Tensor:
        """Return a random crop of each picture, mirrored half of the time, (N, 3, H, W) uint8."""
        (w, h), parts = crop_wh, []
        for row in rows:
            planes = self.whole(row)
            top, left = (
                int(torch.randint(side - part + 1, (), generator=rng))
                for side, part in zip(planes.shape[1:], (h, w), strict=True)
            )
            part = planes[:, top : top + h, left : left + w]
            parts.append(part[:, :, ::-1] if torch.rand((), generator=rng) < 0.5 else part)
        return torch.from_numpy(np.stack(parts))
