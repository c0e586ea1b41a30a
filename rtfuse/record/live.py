"""Record fused video while a rig runs; the rig goes on when the disk is full."""

from __future__ import annotations

import logging
from collections import Counter

from rtfuse.errors import OutputUnwritable
from rtfuse.observe.logs import event
from rtfuse.record.video import Writer
from rtfuse.types import Fused

_log = logging.getLogger("rtfuse.record")


class LiveRecording:
    """Hand frames to a writer until the disk is full; then complete the output and keep it.

    `stopped`: the reason why recording ended, None until then. `drops`: counts the frames that came later.
    Raises OutputUnwritable for frames that do not fit the output: that is an error of the configuration.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.stopped: str | None = None
        self.drops: Counter[tuple[str, str]] = Counter()

    def write(self, fused: Fused) -> None:
        """Record one frame."""
        if self.stopped is None:
            try:
                self._writer.write(fused)
                return
            except OutputUnwritable as e:
                if e.__cause__ is None:  # not the disk's
                    raise
                self._end(str(e))
        self.drops["record", "ended"] += 1

    def _end(self, why: str) -> None:
        self.stopped = why
        how = "the file is complete up to here, and the rig goes on"
        try:
            self._writer.close()
        except OutputUnwritable as e:
            how = f"it could not be completed ({e}); the rig goes on"
        event(_log, logging.ERROR, "recording", f"recording of fused video has ended: {why}; {how}")

    def close(self) -> None:
        """Complete the output. Raises OutputUnwritable if the disk does not take its end."""
        if self.stopped is None:
            self._writer.close()
