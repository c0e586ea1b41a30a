"""The fusers, behind `open_fuser(name)`: thermal and RGB on one pixel grid in, one RGB image out."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Protocol

from rtfuse.errors import UnknownFuser, WeightsMissing
from rtfuse.types import Image

FUSERS = {
    "pyramid": "Laplacian pyramid: no weights, a few milliseconds on a processor",
    "ufuser": "U-Fuser, the network of EMMA (CVPR 2024): needs weights",
}
DEFAULT_FUSER = "pyramid"
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


def open_fuser(name: str = DEFAULT_FUSER, *, weights: str | Path | None = None) -> Fuser:
    """Return the fuser of this name (see `FUSERS`), ready to use.

    `weights` is a file of network weights in place of the shipped ones (`ufuser` only). Raises UnknownFuser, or
    WeightsMissing if the network's weights are absent or do not fit it.
    """
    from rtfuse.fuse.luma import LumaFuser

    if name == "pyramid":
        from rtfuse.fuse.pyramid import fuse_pyramid

        return LumaFuser(name, fuse_pyramid)
    if name == "ufuser":
        if weights is None and not UFUSER_WEIGHTS.exists():
            raise WeightsMissing(
                "fuser 'ufuser' needs weights and none are shipped yet: "
                "give some with fuse.weights=FILE, or use --fuser pyramid"
            )
        from rtfuse.fuse.eager import EagerUFuser

        return LumaFuser(name, EagerUFuser(weights or UFUSER_WEIGHTS))
    near = difflib.get_close_matches(name, FUSERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownFuser(f"no fuser is called {name!r}: there are {', '.join(FUSERS)}{hint}")
