"""The fusers, behind `open_fuser(name)`: thermal and RGB on one pixel grid in, one RGB image out."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from rtfuse.errors import UnknownFuser
from rtfuse.types import Image

FUSERS = {
    "auto": "ufuser where it holds the camera's rate, else student; may change while it runs",
    "ufuser": "U-Fuser, the network of EMMA (CVPR 2024), with weights trained here",
    "student": "a small network that imitates ufuser in real time on two processor cores",
    "pyramid": "Laplacian pyramid: a few milliseconds on a processor",
}
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


def open_fuser(
    name: str = DEFAULT_FUSER,
    *,
    weights: str | Path | None = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    plan: str | Path | None = None,
) -> Fuser:
    """Return the fuser of this name (see `FUSERS`), ready to use.

    For the networks: `weights` is a file in place of the shipped ones: a program that `trainer export` wrote (`.xml`),
    or safetensors, which need torch. `engine` is what computes them: `tensorrt`, `cuda` (torch, compiled), `openvino`
    (processors), `eager` (torch, on a GPU if there is one), or `auto`, the fastest that works. `precision` is the
    network's; `auto`: float16 on GPUs, bfloat16 on processors with matrix units for it (AMX), float32 elsewhere and in
    eager torch. `plan` is an engine of TensorRT that `trainer export` wrote. Raises UnknownFuser, WeightsMissing if the
    network's weights are absent or do not fit it, or EngineUnavailable.
    """
    if name == "pyramid":
        from rtfuse.fuse.pyramid import open_pyramid

        return open_pyramid()
    if name in ("auto", "ufuser", "student"):
        from rtfuse.fuse.engines import open_network, torch_gpu

        if name != "auto":
            return open_network(name, weights, engine, precision, plan)
        if weights is not None or plan is not None:
            return open_network("ufuser", weights, engine, precision, plan)
        from rtfuse.fuse.auto import AutoFuser

        small = partial(open_network, "student", None, engine, precision, resort=engine == "auto")
        return AutoFuser(small, partial(open_network, "ufuser", None, engine, precision), likely=torch_gpu())
    near = difflib.get_close_matches(name, FUSERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownFuser(f"no fuser is called {name!r}: there are {', '.join(FUSERS)}{hint}")
