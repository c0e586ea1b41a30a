"""Define the interface of a fuser: thermal and visible luma in, fused luma out; chroma never passes through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from rtfuse.types import Image
from rtfuse.types import ThermalPicture as ThermalPicture

DEFAULT_FUSER = "ufuser"
Engine = Literal["auto", "tensorrt", "cuda", "openvino", "eager"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
_WEIGHTS = Path(__file__).parent / "weights"
UFUSER_WEIGHTS = _WEIGHTS / "ufuser.safetensors"
STUDENT_WEIGHTS = _WEIGHTS / "student.safetensors"


@dataclass(frozen=True, slots=True)
class Options:
    """Arguments of `open_fuser`: the fuser's name, and the options of networks."""

    name: str = DEFAULT_FUSER
    weights: str | Path | None = None
    engine: Engine = "auto"
    precision: Precision = "auto"
    plan: str | Path | None = None


@runtime_checkable
class Fuser(Protocol):
    """Fuses one pair; no frame's result depends on another frame."""

    @property
    def name(self) -> str:
        """The fuser at work, which every fused frame carries."""
        ...

    def aim(self, rate_hz: float) -> None:
        """Set how many frames come in a second."""
        ...

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes, so that the first of them does not wait. Raises EngineUnavailable."""
        ...

    def fuse(self, thermal: ThermalPicture, luma: Image) -> Image:
        """Fuse a thermal picture with visible luma (H, W) uint8, full range, into luma of the same kind."""
        ...

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse thermal (H, W) uint8, on the RGB grid, with RGB (H, W, 3) uint8 into (H, W, 3) uint8, with RGB's chroma.

        `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
        """
        ...


class Opener(Protocol):
    """Opens a fuser; the registry names one for each."""

    def __call__(self, options: Options, /) -> Fuser: ...
