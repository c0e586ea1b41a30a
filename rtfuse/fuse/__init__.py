"""The fusers, behind `open_fuser(name)`: thermal and RGB on one pixel grid in, one RGB image out."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from rtfuse.errors import UnknownFuser
from rtfuse.types import Image

if TYPE_CHECKING:
    from rtfuse.fuse.network import NetworkFuser

FUSERS = {
    "auto": "ufuser where it holds the camera's rate, else student; may change while it runs",
    "ufuser": "U-Fuser, the network of EMMA (CVPR 2024), with weights trained here",
    "student": "a small network that imitates ufuser in real time on two processor cores",
    "pyramid": "Laplacian pyramid: a few milliseconds on a processor",
}
DEFAULT_FUSER = "ufuser"
Engine = Literal["auto", "tensorrt", "cuda", "openvino", "eager"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]
UFUSER_WEIGHTS = Path(__file__).parent / "weights" / "ufuser.safetensors"
STUDENT_WEIGHTS = Path(__file__).parent / "weights" / "student.safetensors"


@runtime_checkable
class RawFuser(Protocol):
    """A fuser that maps and warps thermal itself."""

    def prepare(self, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> None:
        """Get ready for frames of these sizes, so that the first of them does not wait."""
        ...

    def raw(self, ir: Image, rgb: Image, table: Image | None, grid: Image | None, valid: Image | None) -> Image:
        """Fuse a thermal image as it came, (h, w) uint8 or uint16, with RGB (H, W, 3) uint8 into (H, W, 3) uint8.

        `table` is (65536,) uint8, the display luma of every count; None for uint8. `grid` is (H, W, 2) float32: where
        each RGB pixel lies in the thermal image, from -1 (centre of the first pixel) to 1 (centre of the last); None:
        at the same pixel. `valid` as in `Fuser`.
        """
        ...


@runtime_checkable
class PacedFuser(Protocol):
    """A fuser that wants to know how fast it has to be."""

    def aim(self, rate_hz: float) -> None:
        """Say how many frames come in a second."""
        ...


@runtime_checkable
class Fuser(Protocol):
    """Fuses one pair; no frame's result depends on another frame."""

    @property
    def name(self) -> str: ...

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

    For the networks: `weights` is a file in place of the shipped ones. `engine` is what computes them: `tensorrt`,
    `cuda` (torch, compiled), `openvino` (processors), `eager` (torch, on a GPU if there is one), or `auto`, the fastest
    that works. `precision` is the network's; `auto`: float16 on GPUs, bfloat16 on processors with matrix units for it
    (AMX), float32 elsewhere and in eager torch. `plan` is an engine of TensorRT that `trainer export` wrote. Raises
    UnknownFuser, WeightsMissing if the network's weights are absent or do not fit it, or EngineUnavailable.
    """
    if name == "pyramid":
        from rtfuse.fuse.luma import LumaFuser
        from rtfuse.fuse.pyramid import fuse_pyramid

        return LumaFuser(name, fuse_pyramid)
    if name == "auto" and weights is None and plan is None:
        return _auto(engine, precision)
    if name in ("auto", "ufuser", "student"):
        name = "ufuser" if name == "auto" else name
        return _network(name, weights, engine, precision, plan)
    near = difflib.get_close_matches(name, FUSERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownFuser(f"no fuser is called {name!r}: there are {', '.join(FUSERS)}{hint}")


def _network(
    name: str, weights: str | Path | None, engine: Engine, precision: Precision, plan: str | Path | None = None
) -> NetworkFuser:
    from rtfuse.fuse.engines import open_engine
    from rtfuse.fuse.network import NetworkFuser

    shipped = STUDENT_WEIGHTS if name == "student" else UFUSER_WEIGHTS
    if name == "student" and precision == "auto" and engine in ("auto", "openvino", "eager"):
        precision = "auto" if _on_gpu() and engine == "auto" else "float32"  # it is fast enough, and exact
    return NetworkFuser(name, open_engine("tensorrt" if plan else engine, weights or shipped, precision, plan))


def _auto(engine: Engine, precision: Precision) -> Fuser:
    from rtfuse.fuse.auto import AutoFuser

    small, large = (partial(_network, name, None, engine, precision) for name in ("student", "ufuser"))
    return AutoFuser(small, large, likely=_on_gpu())


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
