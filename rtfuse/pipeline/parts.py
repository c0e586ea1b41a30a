"""What a pipeline is made of: the opened parts of one rig, matched to each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal

from rtfuse.align.aligner import Aligner
from rtfuse.capture.pacing import Playback
from rtfuse.errors import NoOverlap
from rtfuse.fuse import Fuser
from rtfuse.fuse.deflicker import Steady
from rtfuse.observe.health import Health
from rtfuse.observe.trace import Trace
from rtfuse.observe.watchdog import Heart, Supervisor
from rtfuse.pipeline.queues import STREAMS
from rtfuse.sync.pairer import Pairer
from rtfuse.thermal import Agc
from rtfuse.types import Clock, Frame, Sink, Source, Stream

Policy = Literal["passthrough", "hold", "stop"]
Order = Literal["live", "lossless", "replay"]


@dataclass(slots=True)
class Rig:
    """The parts of one pipeline, opened and matched to each other; `build.open_rig` makes them from a `Config`.

    `reopen` gives a source again from its start (for loops); `fit` an aligner for other picture sizes (h, w) of thermal
    and RGB, where a camera came back with another one. `sinks` are named for the drop counts; the first one is where
    age is measured. `taps` see every frame in the capture threads. `policy` says what happens while a stream is
    missing, `mark` whether the picture says so; `health` is what each stream is doing, and `limit_ns` how long it may
    be missing under the policy `stop`. `steady` takes the flicker out of what was fused. `hearts` are the capture
    threads' signs of life for the `supervisor`. `trace` hears of every frame's stages.
    """

    sources: dict[Stream, Source]
    pairer: Pairer
    aligner: Aligner
    fuser: Fuser
    sinks: dict[str, Sink] = field(default_factory=dict)
    taps: list[Callable[[Frame], None]] = field(default_factory=list)
    agc: Agc = field(default_factory=Agc)
    steady: Steady | None = None
    playback: Playback = field(default_factory=Playback)
    order: Order = "live"
    queue: int = 8
    policy: Policy = "passthrough"
    limit_ns: int = 5_000_000_000
    mark: bool = False
    reopen: Callable[[Stream], Source] | None = None
    fit: Callable[[tuple[int, int], tuple[int, int]], Aligner] | None = None
    health: dict[Stream, Health] = field(default_factory=dict)
    supervisor: Supervisor = field(default_factory=Supervisor)
    hearts: dict[Stream, Heart] = field(default_factory=dict)
    trace: Trace | None = None
    clock: Clock = time.monotonic_ns

    def __post_init__(self) -> None:
        for stream in STREAMS:
            if stream not in self.health:
                self.health[stream] = Health(stream, quiet_ns=150_000_000, clock=self.clock)

    @property
    def live(self) -> bool:
        """Whether a source is a camera, or a recording of cameras as they were, so that one may be missing."""
        return self.order == "replay" or any(source.info.live for source in self.sources.values())

    @property
    def lossless(self) -> bool:
        """Whether every frame is fused, however long it takes."""
        return self.order == "lossless" or (self.order == "replay" and self.playback.speed is None)

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
            raise NoOverlap(f"the streams never overlap in time: {self.spans()}; check the files, or set ir.offset_ms")

    def spans(self) -> str:
        """Say from when to when both streams reach."""

        def span(stream: Stream) -> str:
            info = self.sources[stream].info
            if info.start_ns is None or info.end_ns is None:
                return "unknown"
            return f"{info.start_ns / 1e9:.2f} to {info.end_ns / 1e9:.2f} s"

        return f"thermal {span('ir')}, RGB {span('rgb')}"
