"""capture → sync → align → fuse → publish: thermal and RGB in, one fused stream out.

The parts that programs import: `Subscriber` receives fused frames, `StatisticsSubscriber` how the rig is doing,
`StateSubscriber` what its cameras begin to do, `DetectionsSubscriber` what detectors find; `describe` asks what it is.
`open_source` and `open_fuser` give single stages, `Frame`, `Pair` and `Fused` are what flows between them.
"""

from rtfuse.capture import open_source
from rtfuse.errors import RtfuseError
from rtfuse.fuse import open_fuser
from rtfuse.messages import DetectionsSubscriber, StateSubscriber, StatisticsSubscriber, describe
from rtfuse.subscribe import Subscriber
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
    "open_fuser",
    "open_source",
]
__version__ = "0.1.0"
