"""T_g: draw and apply shifts, rotations and reflections, which do not change an image's meaning (EMMA, section 3.3).

Drawing (`draw`) and applying are separate, so that one transform can be applied to several images.
`valid` marks the pixels of the result that come from inside the image: all of them for the exact transforms (cyclic
shifts, quarter turns, reflections), fewer for a rotation by another angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Transform(Protocol):
    """Applies one drawn transform to (N, C, H, W)."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def valid(self, x: Tensor) -> Tensor | None:
        """Return (1, 1, H, W) of 0 and 1 where the result is of the image; None where it is everywhere."""
        ...


@dataclass(frozen=True, slots=True)
class Shift:
    """Shift cyclically by whole pixels."""

    down: int
    right: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the shifted images."""
        return x.roll((self.down, self.right), (-2, -1))

    def valid(self, x: Tensor) -> Tensor | None:
        """Return None: all of it is valid."""
        return None


@dataclass(frozen=True, slots=True)
class QuarterTurns:
    """Rotate by a multiple of 90 degrees, counter-clockwise."""

    turns: int

    def __call__(self, x: Tensor) -> Tensor:
        """Return the turned images."""
        return x.rot90(self.turns, (-2, -1))

    def valid(self, x: Tensor) -> Tensor | None:
        """Return None: all of it is valid."""
        return None


@dataclass(frozen=True, slots=True)
class Reflection:
    """Reflect: left for right, top for bottom, or both."""

    horizontal: bool
    vertical: bool

    def __call__(self, x: Tensor) -> Tensor:
        """Return the reflected images."""
        axes = [axis for axis, wanted in ((-1, self.horizontal), (-2, self.vertical)) if wanted]
        return x.flip(axes)

    def valid(self, x: Tensor) -> Tensor | None:
        """Return None: all of it is valid."""
        return None


@dataclass(frozen=True, slots=True)
class Rotation:
    """Rotate about the centre by any angle, counter-clockwise as seen, bilinear; 0 outside the image."""

    degrees: float

    def __call__(self, x: Tensor) -> Tensor:
        """Return the rotated images."""
        return F.grid_sample(x, self._grid(x), mode="bilinear", padding_mode="zeros", align_corners=False)

    def valid(self, x: Tensor) -> Tensor | None:
        """Return 1 where all four interpolated pixels are inside the image, else 0, (1, 1, H, W)."""
        ones = torch.ones(1, 1, *x.shape[-2:], device=x.device, dtype=torch.float32)
        inside = F.grid_sample(ones, self._grid(ones), mode="bilinear", padding_mode="zeros", align_corners=False)
        return (inside > 0.999).to(x.dtype)

    def _grid(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        angle = torch.deg2rad(torch.tensor(self.degrees, dtype=torch.float32))
        c, s = float(angle.cos()), float(angle.sin())
        # Normalised coordinates stretch the image to a square: undo and redo that around the rotation.
        theta = torch.tensor([[c, -s * h / w, 0.0], [s * w / h, c, 0.0]], device=x.device, dtype=torch.float32)
        return F.affine_grid(theta.expand(x.shape[0], 2, 3), [x.shape[0], 1, h, w], align_corners=False).to(x.dtype)


KINDS = ("shift", "rotation", "reflection")


def draw(kind: str, size_hw: tuple[int, int], rng: torch.Generator, *, any_angle: bool = False) -> Transform:
    """Draw one transform of a kind of `KINDS` for images of this size; `any_angle` allows all rotations."""

    def whole(below: int) -> int:
        return int(torch.randint(below, (), generator=rng))

    if kind == "shift":
        return Shift(whole(size_hw[0]), whole(size_hw[1]))
    if kind == "reflection":
        which = 1 + whole(3)
        return Reflection(bool(which & 1), bool(which & 2))
    if kind == "rotation" and any_angle:
        return Rotation(float(torch.rand((), generator=rng)) * 360.0)
    if kind == "rotation":
        # A quarter turn of an image that is not square would not fit into its batch.
        return QuarterTurns(1 + whole(3)) if size_hw[0] == size_hw[1] else QuarterTurns(2)
    raise ValueError(f"no transform is called {kind!r}; there are {', '.join(KINDS)}")


def draw_set(
    size_hw: tuple[int, int], rng: torch.Generator, *, per_kind: int, any_angle: bool = False
) -> list[Transform]:
    """Draw `per_kind` transforms of every kind; 3 as published."""
    return [draw(kind, size_hw, rng, any_angle=any_angle) for kind in KINDS for _ in range(per_kind)]
