"""Put the stages together and run them: `build` opens a `Rig` from a `Config`, `run` has the threads.

`queues` are between the threads; `fusing` does with each moment what the thread of the fuser does.
"""

from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.parts import Rig
from rtfuse.pipeline.run import Pipeline

__all__ = ["Pipeline", "Rig", "open_rig"]
