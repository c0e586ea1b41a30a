"""Define what a fuser is: thermal and RGB on one pixel grid in, one RGB image out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from rtfuse.types import Image

DEFAULT_FUSER = "ufuser"
Engine = Literal["auto", "tensorrt", "cuda", "openvino", "eager"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
_WEIGHTS = Path(__file__).parent / "weights"
UFUSER_WEIGHTS = _WEIGHTS / "ufuser.safetensors"
STUDENT_WEIGHTS = _WEIGHTS / "student.safetensors"


class ThermalPicture(Protocol):
    """A thermal picture as it is shown, and where it lies on the RGB grid.

    `image` is (h, w) uint8 or uint16. `table` is (65536,) uint8, the display luma of every count; None for uint8.
    `grid` is (H, W, 2) float32: the place of each RGB pixel in the thermal image, from -1 (centre of the first pixel)
    to 1 (centre of the last); None: the same pixel, or stretched. `valid` is (H, W) uint8, 255 where thermal reaches;
    None: everywhere. Calling it returns the picture on the RGB grid, (H, W) uint8.
    """

    @property
    def image(self) -> Image: ...

    @property
    def table(self) -> Image | None: ...

    @property
    def grid(self) -> Image | None: ...

    @property
    def valid(self) -> Image | None: ...

    def __call__(self) -> Image: ...


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

    def fuse(self, thermal: ThermalPicture, rgb: Image) -> Image:
        """Fuse a thermal picture with RGB (H, W, 3) uint8 into (H, W, 3) uint8."""
        ...

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse thermal (H, W) uint8, on the RGB grid, with RGB (H, W, 3) uint8 into (H, W, 3) uint8.

        `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
        """
        ...
