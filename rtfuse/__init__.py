"""capture → sync → align → fuse → publish: thermal and RGB in, one fused stream out.

Programs import these names (docs/api.md):

- `fuse` fuses two arrays.
- `Subscriber` receives fused frames; `StatisticsSubscriber`, `StateSubscriber` and `DetectionsSubscriber` receive
  statistics, the states of the cameras and the boxes of detectors; `describe` asks a rig for its description.
- `open_source` and `open_fuser` open single stages. `Frame`, `Pair` and `Fused` flow between the stages.
- `RtfuseError` is the base of all errors.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtfuse.arrays import fuse
    from rtfuse.capture.sources import open_source
    from rtfuse.client.messages import DetectionsSubscriber, StateSubscriber, StatisticsSubscriber, describe
    from rtfuse.client.subscriber import Subscriber
    from rtfuse.errors import RtfuseError
    from rtfuse.fuse.registry import open_fuser
    from rtfuse.types import Frame, Fused, Pair, Stamp

__all__ = [
    "DetectionsSubscriber",
    "Frame",
    "Fused",
    "Pair",
    "RtfuseError",
    "Stamp",
    "StateSubscriber",
    "StatisticsSubscriber",
    "Subscriber",
    "describe",
    "fuse",
    "open_fuser",
    "open_source",
]
__version__ = "0.1.0"
_HOMES = {
    "capture.sources": ["open_source"],
    "client.messages": ["DetectionsSubscriber", "StateSubscriber", "StatisticsSubscriber", "describe"],
    "client.subscriber": ["Subscriber"],
    "errors": ["RtfuseError"],
    "fuse.registry": ["open_fuser"],
    "types": ["Frame", "Fused", "Pair", "Stamp"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `import rtfuse` itself costs nothing."""
    if name == "fuse":  # the package, which can be called
        return import_module("rtfuse.fuse")
    if name not in _HOME:
        raise AttributeError(f"module 'rtfuse' has no attribute {name!r}")
    found = getattr(import_module(f"rtfuse.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
