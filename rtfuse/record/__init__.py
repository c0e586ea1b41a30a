"""Write files, and read back what was recorded.

`raw` records both streams as they come, `replay` reads them, `session` is `rtfuse record`; `video` writes fused frames.
"""

from rtfuse.record.raw import RawRecorder
from rtfuse.record.replay import Replay
from rtfuse.record.video import open_writer

__all__ = ["RawRecorder", "Replay", "open_writer"]
