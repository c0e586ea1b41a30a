"""Pass each frame of a source through a chain of steps, in its capture thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from rtfuse.capture.clocks import ClockGuard, ClockState
from rtfuse.types import Frame, Source, SourceInfo

Step = Callable[[Frame], Frame]


class Prepared:
    """Wrap `source`; each of `steps` takes a frame and returns it, or another in its place.

    `described`: returns the source's info with the size and depth after the steps. `ended`: called after the last
    frame.
    Where a step changed the picture, `Frame.raw` keeps the original. The times of a live source pass a `ClockGuard`
    first.
    """

    def __init__(
        self,
        source: Source,
        steps: Sequence[Step],
        described: Callable[[SourceInfo], SourceInfo] = lambda info: info,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.source, self._steps, self._described, self._ended = source, steps, described, ended
        self._guard = ClockGuard() if source.info.live else None

    @property
    def info(self) -> SourceInfo:
        return self._described(self.source.info)

    @property
    def losses(self) -> Mapping[str, int]:
        return self.source.losses

    @property
    def clock(self) -> ClockState:
        """The state of the source's clock."""
        own = getattr(self.source, "clock", ClockState())
        return ClockState(own.drift_ppm, own.steps + (self._guard.steps if self._guard else 0))

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.source:
            made = frame
            if self._guard is not None and (t_ns := self._guard(frame.t_ns, frame.arrival_ns)) != frame.t_ns:
                made = replace(frame, t_ns=t_ns)
            for step in self._steps:
                made = step(made)
            yield made if made.content is frame.content else replace(made, raw=frame.content)
        self._ended()

    def close(self) -> None:
        """Close the source."""
        self.source.close()
