"""Fuse thermal and RGB on one pixel grid into one RGB image: `open_fuser(name)`.

`pyramid` computes the pixels, or a network of `networks`, run by an engine of `engines`; `lean` finds the parts in
which thermal shows nothing, `hot` keeps thermal's order in hot places, `deflicker` holds the fused picture still. The
package is also the public function `rtfuse.fuse(ir, rgb)`, which lives in `rtfuse.arrays`.
"""

import inspect
import sys
from collections.abc import Callable
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
    """Make the package callable: `rtfuse.fuse` is its name and that of the function for two arrays.

    Its signature and docstring are the function's, so that `help(rtfuse.fuse)` in a notebook shows them. Reading one of
    them imports the function.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Fuse two arrays; see `rtfuse.arrays.fuse`."""
        return _function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature of the function, for `inspect.signature`."""
        return inspect.signature(_function())

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        """Docstring of the function, with its signature after the first paragraph."""
        first, _, rest = (inspect.getdoc(_function()) or "").partition("\n\n")
        return f"{first}\n\nrtfuse.fuse{self.__signature__}\n\n{rest}"


def _function() -> Callable[..., Any]:
    found: Callable[..., Any] = import_module("rtfuse.arrays").fuse
    return found


sys.modules[__name__].__class__ = _Callable
