"""Fuse thermal and RGB on one pixel grid into one RGB image: `open_fuser(name)`.

`pyramid` computes the pixels, or a network of `networks`, run by an engine of `engines`; `lean` finds the parts in
which thermal shows nothing, `hot` keeps thermal's order in hot places, `deflicker` holds the fused picture still. The
package is also the public function `rtfuse.fuse(ir, rgb)`, which lives in `rtfuse.arrays`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from rtfuse.fuse.fuser import DEFAULT_FUSER, STUDENT_WEIGHTS, UFUSER_WEIGHTS, Engine, Fuser, Precision, ThermalPicture
from rtfuse.fuse.registry import FUSERS, open_fuser

__all__ = [
    "DEFAULT_FUSER",
    "FUSERS",
    "STUDENT_WEIGHTS",
    "UFUSER_WEIGHTS",
    "Engine",
    "Fuser",
    "Precision",
    "ThermalPicture",
    "open_fuser",
]


class _Callable(ModuleType):
    """Make the package callable: `rtfuse.fuse` is its name and that of the function for two arrays."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Fuse two arrays; see `rtfuse.arrays.fuse`."""
        return import_module("rtfuse.arrays").fuse(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
