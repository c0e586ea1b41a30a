"""Hold the opened parts of one rig, matched to each other; closing the rig closes its sources."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from rtfuse.align.aligner import Aligner
from rtfuse.align.plane import MovingPlane
from rtfuse.capture.pacing import Playback
from rtfuse.capture.scenes.choosing import Chosen
from rtfuse.errors import NoOverlap
from rtfuse.fuse import Fuser
from rtfuse.observe.health import Health
from rtfuse.observe.trace import Trace
from rtfuse.observe.watchdog import Supervisor, Watchdog
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.stages import Stages
from rtfuse.sync.pairer import Pairer
from rtfuse.thermal.agc import Agc
from rtfuse.types import Clock, Frame, Moment, Source, Stream

OutagePolicy = Literal["passthrough", "hold", "stop"]
Order = Literal["live", "lossless", "replay"]


class StageTrace:
    """Write the stages of each moment into a trace; `done` goes to `Stages`."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self._ended = trace, list[tuple[str, int]]()

    def done(self, stage: str) -> None:
        """Note that a stage has just ended."""
        self._ended.append((stage, time.monotonic_ns()))

    def write(self, moment: Moment, fuser: str, begun_ns: int, ended_ns: int) -> None:
        """Write the stages of a pair, which took from `begun_ns` to `ended_ns`."""
        stages, self._ended = self._ended, []
        if not moment.complete:
            return
        start_ns = begun_ns
        for k, (stage, end_ns) in enumerate(stages):
            end_ns = ended_ns if k + 1 == len(stages) else end_ns
            self.trace.stage(f"fuse by {fuser}" if stage == "fuse" else stage, "fuse", moment, start_ns, end_ns)
            start_ns = end_ns
        self.trace.stage("pair", "pair", moment, min(moment.leader.arrival_ns, begun_ns), begun_ns)


@dataclass(slots=True)
class Rig:
    """Parts of one pipeline; `build.open_rig` opens them from a `Config`. Use it as a context manager.

    - `sources`: where the frames come from; `reopen` opens one again at its start, for loops.
    - `pairer`, `stages`: from frames to moments, from moments to fused pictures.
    - `playback`, `order`: the pace and the order in which frames are taken.
    - `queue`: the most moments that wait for the stages.
    - `policy`: the output while a stream is missing; under `stop` the run ends after `limit_ns`.
    - `lowers`: True lowers parts while there is too little processor (`rtfuse.pipeline.load_controller`).
    - `mark`: True writes on the picture which stream is missing.
    - `health`: the state of each stream.
    - `supervisor`: the watchdog; `watchdogs` are the signs of life of capture threads.
    - `trace`: takes every frame's stages.
    - `remark`: a line about how the times of two recordings are compared.
    - `chosen`: the stills of both streams that were paired by name, if they are stills.
    - `clock`: monotonic nanoseconds.
    """

    sources: dict[Stream, Source]
    pairer: Pairer
    stages: Stages
    playback: Playback = field(default_factory=Playback)
    order: Order = "live"
    queue: int = 8
    policy: OutagePolicy = "passthrough"
    limit_ns: int = 5_000_000_000
    lowers: bool = False
    mark: bool = False
    reopen: Callable[[Stream], Source] | None = None
    health: dict[Stream, Health] = field(default_factory=dict)
    supervisor: Supervisor = field(default_factory=Supervisor)
    watchdogs: dict[Stream, Watchdog] = field(default_factory=dict)
    trace: StageTrace | None = None
    remark: str | None = None
    chosen: Chosen | None = None
    clock: Clock = time.monotonic_ns

    def __post_init__(self) -> None:
        for stream in STREAMS:
            if stream not in self.health:
                self.health[stream] = Health(stream, quiet_ns=150_000_000, clock=self.clock)

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sources; a second call does nothing."""
        for source in self.sources.values():
            source.close()
        if self.stages.plane is not None:
            self.stages.plane.close()

    @property
    def fuser(self) -> Fuser:
        """The fuser; its text names the engine."""
        return self.stages.fuser

    @property
    def aligner(self) -> Aligner:
        """The aligner for the pictures' present sizes."""
        return self.stages.aligner

    @property
    def agc(self) -> Agc:
        """The gain control, whose settings may change while the rig runs."""
        return self.stages.agc

    @property
    def plane(self) -> MovingPlane | None:
        """The distance of registration, which may change while the rig runs."""
        return self.stages.plane

    @property
    def live(self) -> bool:
        """True if a source is a camera, or a replay of cameras, so that a stream may be missing."""
        return self.order == "replay" or any(source.info.live for source in self.sources.values())

    @property
    def lossless(self) -> bool:
        """True if every frame is fused, however long it takes."""
        return self.order == "lossless" or (self.order == "replay" and self.playback.speed is None)

    def states(self) -> dict[str, tuple[str, str | None]]:
        """Return the state of each stream, and the reason where it is lost."""
        conditions = {stream: self.health[stream].condition() for stream in STREAMS}
        return {stream: (c.state.value, c.why) for stream, c in conditions.items()}

    def frames(self, stream: Stream, period_ns: int) -> Iterator[Frame]:
        """Yield the frames of a source; with `loop`, round after round, each `period_ns` later than the last."""
        source, next_id = self.sources[stream], 0
        for turn in count():
            first_id, shift_ns = next_id, turn * period_ns
            for frame in source:
                next_id = first_id + frame.frame_id + 1
                yield replace(frame, frame_id=next_id - 1, t_ns=frame.t_ns + shift_ns) if turn else frame
            if not self.playback.loop or self.reopen is None or source.info.live or next_id == first_id:
                return
            source = self.sources[stream] = self.reopen(stream)

    def check_overlap(self) -> None:
        """Raise NoOverlap if both sources are recordings and have no moment in common."""
        ir, rgb = (self.sources[s].info for s in STREAMS)
        if None in (ir.start_ns, ir.end_ns, rgb.start_ns, rgb.end_ns) or ir.live or rgb.live:
            return
        offset, reach = self.pairer.offset_ns, max(self.pairer.tolerance_ns, self.pairer.max_reuse_ns)
        ir_span = [t + offset["ir"] for t in (ir.start_ns or 0, ir.end_ns or 0)]
        rgb_span = [t + offset["rgb"] for t in (rgb.start_ns or 0, rgb.end_ns or 0)]
        if ir_span[0] - self.pairer.tolerance_ns >= rgb_span[1] or rgb_span[0] >= ir_span[1] + reach:
            raise NoOverlap(
                f"the streams never overlap in time: {self.spans()}; "
                "check the files; --align-starts takes their first frames as one moment, ir.offset_ms shifts thermal"
            )

    def spans(self) -> str:
        """Return the time span of both streams as text."""

        def span(stream: Stream) -> str:
            info = self.sources[stream].info
            if info.start_ns is None or info.end_ns is None:
                return "unknown"
            return f"{info.start_ns / 1e9:.2f} to {info.end_ns / 1e9:.2f} s"

        return f"thermal {span('ir')}, RGB {span('rgb')}"
