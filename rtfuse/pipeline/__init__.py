"""Put the stages together and run them: `build` opens a `Rig` from a `Config`, `run` has the threads.

`stages` turns a moment into a fused picture; `queues` are between the threads; `sources`, `outputs` open the ends.
"""

from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline

__all__ = ["Pipeline", "Rig", "open_rig"]
