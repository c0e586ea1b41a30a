"""The fusers, behind `open_fuser(name)`: thermal and RGB on one pixel grid in, one RGB image out."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import Literal, Protocol

from rtfuse.errors import EngineUnavailable, UnknownFuser
from rtfuse.types import Image

FUSERS = {
    "ufuser": "U-Fuser, the network of EMMA (CVPR 2024), with weights trained here",
    "pyramid": "Laplacian pyramid: a few milliseconds on a processor",
}
DEFAULT_FUSER = "ufuser"
Engine = Literal["auto", "eager", "openvino"]
UFUSER_WEIGHTS = Path(__file__).parent / "weights" / "ufuser.safetensors"


class Fuser(Protocol):
    """Fuses one pair; no frame's result depends on another frame."""

    @property
    def name(self) -> str: ...

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        """Fuse thermal (H, W) uint8, on the RGB grid, with RGB (H, W, 3) uint8 into (H, W, 3) uint8.

        `valid` is (H, W) uint8, 255 where thermal reaches; None means everywhere.
        """
        ...


def open_fuser(name: str = DEFAULT_FUSER, *, weights: str | Path | None = None, engine: Engine = "auto") -> Fuser:
    """Return the fuser of this name (see `FUSERS`), ready to use.

    For `ufuser`: `weights` is a file in place of the shipped ones. `engine` is what computes the network: `eager`
    (torch, on a GPU if there is one), `openvino` (processors), or `auto`, the faster that works. Raises UnknownFuser,
    WeightsMissing if the network's weights are absent or do not fit it, or EngineUnavailable.
    """
    from rtfuse.fuse.luma import LumaFuser

    if name == "pyramid":
        from rtfuse.fuse.pyramid import fuse_pyramid

        return LumaFuser(name, fuse_pyramid)
    if name == "ufuser":
        return _open_network(Path(weights or UFUSER_WEIGHTS), engine)
    near = difflib.get_close_matches(name, FUSERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownFuser(f"no fuser is called {name!r}: there are {', '.join(FUSERS)}{hint}")


def _open_network(weights: Path, engine: Engine) -> Fuser:
    import torch

    from rtfuse.fuse.luma import LumaFuser

    if engine == "openvino" or (engine == "auto" and not torch.cuda.is_available()):
        from rtfuse.fuse.openvino import OpenVinoUFuser

        try:
            return LumaFuser("ufuser", OpenVinoUFuser(weights), "OpenVINO on the processor")
        except EngineUnavailable as e:
            if engine == "openvino":
                raise
            logging.getLogger("rtfuse").warning("%s; going on with torch, which is slower", e)
    from rtfuse.fuse.eager import EagerUFuser

    return LumaFuser("ufuser", EagerUFuser(weights), "torch on the GPU" if torch.cuda.is_available() else "torch")
