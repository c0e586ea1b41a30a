"""Connect the `LoadController` to a running pipeline, and log its steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rtfuse.observe.health import State
from rtfuse.observe.logs import event
from rtfuse.observe.pressure import waited_ns
from rtfuse.pipeline.load_controller import LoadController
from rtfuse.pipeline.priority import niceness
from rtfuse.pipeline.queues import SinkThread
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.steps import Stepping, steps_of
from rtfuse.types import Fused

_CAUSES = ("busy", "queue", "stale")
"""Causes of lost frames that mean too little processor."""
_SETTLED_NS = 2_000_000_000
"""Frames of a stream that has just come back are stale for another reason."""
_LITTLE, _ENOUGH = "too little processor", "enough processor again"
_OTHER_FUSER = "the fuser was chosen by name and stays; load.fuser=true lets it change, --fuser auto chooses one"
_LESS = "end other programs, or let the cameras send smaller pictures, or fewer"
_PRIORITY = "; the system gives this rig no priority, see docs/live.md"
_log = logging.getLogger("rtfuse.load")


class Lowering:
    """Step parts of a rig down and up. `frame` may be called from any thread, the rest from the fusing thread."""

    def __init__(self, rig: Rig, sink_threads: Sequence[SinkThread]) -> None:
        self._rig, speed = rig, rig.playback.speed or 1.0
        self._speed, fuser = speed if rig.order == "replay" else 1.0, rig.fuser
        period_ns = 1e9 / ((rig.sources["rgb"].info.rate_hz or 30) * speed)
        self._controller = LoadController(
            steps_of(sink_threads, fuser), period_ns, patient=not isinstance(fuser, Stepping) or fuser.cheaper is None
        )
        self._forgiven = self._settled_ns = 0
        self._stuck: str | None = None
        named = not isinstance(fuser, Stepping) and fuser.name != "pyramid"
        self._remedy = _OTHER_FUSER if named else _LESS

    @property
    def lowered(self) -> tuple[str, ...]:
        """The lowered parts, in words."""
        return self._controller.lowered

    @property
    def overload(self) -> str | None:
        """Reason that frames stay late or lost although lowering parts does not help, with the remedy; else None."""
        if (stuck := self._stuck) is None:
            return None
        lowest = self._remedy is _LESS and niceness() >= 0
        more = _PRIORITY if lowest else ""
        return f"{_LITTLE} ({stuck}), and lowering other parts does not help: {self._remedy}{more}"

    @property
    def pressed(self) -> bool:
        """True while frames are late: then only the newest one is worth fusing."""
        return self._controller.pressed

    def frame(self, fused: Fused) -> None:
        """Note a frame that has just reached the sink."""
        if fused.mode != "held":
            self._controller.frame(round(fused.pair.leader.age_ns(self._rig.clock()) / self._speed))

    def cost(self, spent_ns: int) -> None:
        """Note how long a frame took to be fused."""
        self._controller.cost(spent_ns)

    def look(self, drops: Callable[[], Sequence[Mapping[Any, int]]]) -> None:
        """Judge the last frames, if it is time, and log the step that was made."""
        if not self._controller.due(now_ns := time.monotonic_ns()):
            return
        lost = sum(part.get(("rgb", cause), 0) for part in drops() for cause in _CAUSES)
        if self._rig.health["rgb"].state() in (State.STARTING, State.LOST):
            self._settled_ns = now_ns + _SETTLED_NS
        if now_ns < self._settled_ns:
            self._forgiven = lost
        change = self._controller.look(now_ns, lost=lost - self._forgiven, waited_ns=waited_ns())
        if change is not None:
            level, name = (logging.WARNING, "lowered") if change.down else (logging.INFO, "lifted")
            self._say(level, name, f"{_LITTLE if change.down else _ENOUGH} ({change.why}): {change.what}")
        stuck, self._stuck = self._stuck, self._controller.stuck
        if stuck is None and (overload := self.overload) is not None:
            self._say(logging.WARNING, "stuck", overload)
        elif stuck is not None and self._stuck is None:
            self._say(logging.INFO, "unstuck", f"{_ENOUGH}: frames are in time")

    def _say(self, level: int, name: str, what: str) -> None:
        event(_log, level, name, what, lowered=len(self.lowered))
