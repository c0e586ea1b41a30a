"""Name the parts of a rig that may be lowered when it has too little processor, in their order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from rtfuse.fuse import Fuser
from rtfuse.pipeline.load_controller import Step
from rtfuse.pipeline.queues import SinkThread

PREVIEWS = {
    "window": "the window",
    "drift": "the watch on the registration",
    "beside": "the comparison of both pictures",
}
"""Sinks that show or watch frames beside the outputs, by name and in words."""
_EVERY = 5


@runtime_checkable
class Easing(Protocol):
    """Sink that can lower its rate or quality for its viewers.

    `degree`: how far it is lowered now, from 0 to `degrees`.
    `watched`: True if somebody watches.
    """

    degree: int

    @property
    def degrees(self) -> int: ...

    @property
    def watched(self) -> bool: ...

    def eased(self) -> str:
        """Return how it is at this degree, in words."""
        ...


@runtime_checkable
class Stepping(Protocol):
    """Fuser that can change to a cheaper one and back: `rtfuse.fuse.auto.SteppingFuser`."""

    @property
    def name(self) -> str: ...

    @property
    def cheaper(self) -> str | None: ...

    @property
    def better(self) -> str | None: ...

    @property
    def room(self) -> bool: ...

    def lower(self) -> None: ...

    def lift(self) -> None: ...


def steps_of(sink_threads: Sequence[SinkThread], fuser: Fuser) -> list[Step]:
    """Return what may be lowered, in this order: the page, previews, the fuser if it can change."""
    sinks = [thread.sink for thread in sink_threads]
    steps: list[Step] = [EasingStep(sink) for sink in sinks if isinstance(sink, Easing)]
    if previews := [thread for thread in sink_threads if thread.name in PREVIEWS]:
        steps.append(PreviewStep(previews))
    if isinstance(fuser, Stepping):
        steps.append(FuserStep(fuser))
    return steps


class EasingStep:
    """Lower a sink that can do less."""

    def __init__(self, sink: Easing) -> None:
        self._sink = sink

    @property
    def lowered(self) -> str | None:
        """The state of the sink, if it is lowered."""
        return self._sink.eased() if self._sink.degree else None

    @property
    def can_lower(self) -> bool:
        """True if somebody watches, and it can do still less."""
        return self._sink.watched and self._sink.degree < self._sink.degrees

    @property
    def can_lift(self) -> bool:
        """True if it is lowered."""
        return self._sink.degree > 0

    def lower(self) -> str:
        """Do less."""
        self._sink.degree += 1
        return self._sink.eased()

    def lift(self) -> str:
        """Do more."""
        self._sink.degree -= 1
        return self._sink.eased()


class PreviewStep:
    """Give previews one frame in five."""

    def __init__(self, previews: Iterable[SinkThread]) -> None:
        self._previews = list(previews)

    @property
    def _names(self) -> str:
        return ", ".join(PREVIEWS[thread.name] for thread in self._previews)

    @property
    def lowered(self) -> str | None:
        """The share of frames that the previews get, if not all."""
        return f"{self._names} to one frame in {_EVERY}" if self.can_lift else None

    @property
    def can_lower(self) -> bool:
        """True if the previews get all frames."""
        return not self.can_lift

    @property
    def can_lift(self) -> bool:
        """True if the previews get fewer than all frames."""
        return self._previews[0].every > 1

    def lower(self) -> str:
        """Give the previews few frames."""
        return self._give(_EVERY)

    def lift(self) -> str:
        """Give the previews all frames."""
        return self._give(1)

    def _give(self, every: int) -> str:
        for thread in self._previews:
            thread.every = every
        return self.lowered or f"{self._names} to all frames"


class FuserStep:
    """Change to a cheaper fuser."""

    def __init__(self, fuser: Stepping) -> None:
        self._fuser, self._down = fuser, 0

    @property
    def lowered(self) -> str | None:
        """The fuser at work, if it was better."""
        return self._said if self._down > 0 else None

    @property
    def can_lower(self) -> bool:
        """True if there is a cheaper one."""
        return self._fuser.cheaper is not None

    @property
    def can_lift(self) -> bool:
        """True if there is a better one that would hold the rate."""
        return self._fuser.better is not None and self._fuser.room

    def lower(self) -> str:
        """Change to the next cheaper one."""
        self._fuser.lower()
        self._down += 1
        return self._said

    def lift(self) -> str:
        """Change to the next better one."""
        self._fuser.lift()
        self._down -= 1
        return self._said

    @property
    def _said(self) -> str:
        return f"the fuser to {self._fuser.name}"
