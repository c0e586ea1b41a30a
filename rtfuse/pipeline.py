"""capture → sync → align → fuse → publish: the only file that knows all the stages.

    source thread (ir)  ─┐                                              ┌─ outlet thread: publish
                         ├─ Inbox with its Pairer ─ run(): align, fuse ─┤
    source thread (rgb) ─┘                                              └─ outlet thread: record

Live, the inbox and the outlets drop their oldest and count it, so the age of what comes out stays flat; a stream that
is lost, stalled or frozen does not stop the other. Lossless (recordings as fast as possible), every queue waits
instead, and frames are taken in order of their time. A replay takes them in the order, and at the pace, in which they
arrived then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, Literal

import cv2
import numpy as np

from rtfuse.align import Aligner
from rtfuse.errors import CalibrationError, NoOverlap, SourceLost, StageFailed
from rtfuse.fuse import Fuser, RawFuser
from rtfuse.health import Health, State
from rtfuse.logs import event
from rtfuse.mark import marked
from rtfuse.playback import Playback, paced, timeline
from rtfuse.queues import STREAMS, Dropping, Inbox, LiveInbox, Moment, OrderedInbox, Outlet, named
from rtfuse.stats import Snapshot, Stats
from rtfuse.steady import Steady
from rtfuse.supervise import Heart, Supervisor
from rtfuse.sync import Pairer
from rtfuse.thermal import Agc, displayed
from rtfuse.trace import Trace
from rtfuse.types import Alone, Clock, Frame, Fused, Image, Pair, PlacedSpot, Sink, Source, Spot, Stream

_JOIN_S = 0.8
"""How long a stopping pipeline waits for threads (live)."""
_DRAIN_S = 60.0
"""How long it waits for the outputs to take the last frames (lossless)."""
_HOLD_PERIOD_NS = 100_000_000
"""How often the last picture is published again under the policy `hold`."""
_log = logging.getLogger("rtfuse.pipeline")
_NAMES: dict[Stream, str] = {"ir": "thermal", "rgb": "RGB"}

Policy = Literal["passthrough", "hold", "stop"]
Order = Literal["live", "lossless", "replay"]


@dataclass(slots=True)
class Rig:
    """The parts of one pipeline, opened and matched to each other; `rtfuse.rig.open_rig` makes them from a `Config`.

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


class Pipeline:
    """Runs a `Rig` until a source ends, a limit is reached, or `stop` is set."""

    def __init__(self, rig: Rig, stop: threading.Event | None = None) -> None:
        self.rig, self.stop = rig, stop or threading.Event()
        self.stats = Stats(rig.clock)
        self._inbox = _inbox(rig)
        self._outlets: list[Outlet] = []
        self._thermal: _Thermal | None = None
        self._unreached: Image | None = None
        self._unfit: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        self._states: dict[Stream, State] = dict.fromkeys(STREAMS, State.STARTING)
        self._last: Fused | None = None
        self._last_ns = 0
        self._cost_ns = 0.0

    def snapshot(self) -> Snapshot:
        """Return the counts so far; callable from any thread."""
        rig = self.rig
        streams = {str(s): rig.health[s].condition(**_clock_of(source)) for s, source in rig.sources.items()}
        queues = {"fuse": self._inbox.waiting} | {outlet.name: outlet.waiting for outlet in self._outlets}
        return self.stats.snapshot(*self._drops(), streams=streams, queues=queues)

    def _drops(self) -> list[Mapping[Any, int]]:
        """Return what every part but `stats` has dropped, by where and cause."""
        rig = self.rig
        losses = {(str(s), cause): n for s, source in rig.sources.items() for cause, n in source.losses.items()}
        slow = {(o.name, "slow"): o.dropped for o in self._outlets}
        lost = [sink.drops for sink in rig.sinks.values() if isinstance(sink, Dropping)]
        return [rig.pairer.drops, self._inbox.drops, losses, slow, *lost]

    def run(self, *, frames: int | None = None, duration_s: float | None = None) -> Snapshot:
        """Fuse until the end and return the counts. Ends early after `frames` or `duration_s`.

        Raises the `RtfuseError` of the stage that failed, or StageFailed if it failed in another way, NoOverlap if
        recordings ended without one pair, and SourceLost if a stream is missing for too long under the policy `stop`.
        Sources are closed; sinks are left to their owner.
        """
        check_overlap(self.rig)
        names = list(self.rig.sinks)
        for name, sink in self.rig.sinks.items():
            written = partial(self._written, name, first=name == names[0])
            heart = self.rig.supervisor.heart(name)
            self._outlets.append(
                Outlet(name, sink, lossless=self.rig.lossless, inbox=self._inbox, written=written, heart=heart)
            )
        threads = self._start_sources()
        complete = False
        try:
            with self.rig.supervisor if self.rig.order == "live" and self.rig.live else nullcontext():
                complete = self._loop(frames, duration_s)
        finally:
            self.stop.set()
            self._inbox.stop()
            for source in self.rig.sources.values():
                source.close()
            drained = self._join(threads)
        self._inbox.take(0)  # raises what an outlet reported last
        if not drained:
            raise StageFailed("an output did not take its last frames in time")
        result = self.snapshot()
        if complete and not result.frames:
            raise NoOverlap(f"no RGB frame had a thermal frame near it: {_spans(self.rig)}; see sync.tolerance_ms")
        return result

    def _join(self, sources: list[threading.Thread]) -> bool:
        """Let the outlets take what waits, and the sources end; returns whether the outlets did in time."""
        for outlet in self._outlets:
            outlet.finish()
        deadline = time.monotonic() + (_DRAIN_S if self.rig.lossless else _JOIN_S)
        drained = [o.joined(max(0.0, deadline - time.monotonic())) for o in self._outlets]
        deadline = time.monotonic() + _JOIN_S / 2
        for thread in sources:  # one that hangs in a driver or a socket is left behind: it is a daemon
            thread.join(max(0.0, deadline - time.monotonic()))
        return all(drained)

    def _start_sources(self) -> list[threading.Thread]:
        rig = self.rig
        start_ns, (origin_ns, period_ns) = rig.clock(), timeline(s.info for s in rig.sources.values())
        threads = []
        for stream in STREAMS:
            frames = _frames(rig, stream, period_ns)
            if rig.order == "live" and not rig.sources[stream].info.live:
                frames = paced(frames, rig.clock, self.stop, start_ns, origin_ns, rig.playback.speed or 1.0)
            thread = threading.Thread(
                target=self._pump, args=(stream, frames), name=f"rtfuse-capture-{stream}", daemon=True
            )
            thread.start()
            threads.append(thread)
        return threads

    def _pump(self, stream: Stream, frames: Iterator[Frame]) -> None:
        health, heart = self.rig.health[stream], self.rig.hearts.get(stream)
        try:
            for frame in frames:
                if heart is not None:
                    heart.beat()
                put = self._inbox.put(frame)
                if put is None or self.stop.is_set():
                    return
                health.frame(put)
                if self.rig.trace is not None:
                    self.rig.trace.captured(put)
                for tap in self.rig.taps:
                    tap(put)
        except Exception as e:  # noqa: BLE001 - raised again in the fusing thread
            self._inbox.fail(named(f"capture of {stream}", e))
        finally:
            if heart is not None:
                heart.rest()
            health.ended()
            self._inbox.end(stream)

    def _loop(self, frames: int | None, duration_s: float | None) -> bool:
        """Fuse what is paired until the streams end (returns True), or a limit or the stop event comes first."""
        rig, inbox = self.rig, self._inbox
        end_ns = rig.clock() + round(duration_s * 1e9) if duration_s else None
        heart, done = rig.supervisor.heart("fuse"), 0
        while not self.stop.is_set():
            moments = inbox.take(self._patience_s(end_ns))
            if end_ns is not None and rig.clock() >= end_ns:
                return False
            if rig.live:
                self._follow()
            if rig.trace is not None:
                rig.trace.drops(self.stats.drops, *self._drops())
            with heart.busy():
                for moment in self._newest(moments):
                    if (fused := self._made(moment)) is None:
                        continue
                    done += 1
                    self._deliver(fused)
                    if done == frames:
                        return False
            if not moments and inbox.over:
                rig.pairer.finish()
                return True
        return False

    def _patience_s(self, end_ns: int | None) -> float:
        """How long to wait for something to fuse: until the run must end, 0.2 s, or the next look at the streams."""
        left_s = 0.2 if end_ns is None else min(0.2, max(0.0, (end_ns - self.rig.clock()) / 1e9))
        return min(left_s, 0.05) if self.rig.live else left_s

    def _newest(self, moments: list[Moment]) -> list[Moment]:
        """Skip to the newest when fusing takes longer than a frame; after a mere hiccup, catch up instead."""
        rate_hz = self.rig.sources["rgb"].info.rate_hz or 30
        if self.rig.lossless or len(moments) < 2 or self._cost_ns < 1e9 / rate_hz:
            return moments
        for moment in moments[:-1]:
            self.stats.drops[moment.leader.stream, "busy"] += 1
        return moments[-1:]

    def _written(self, name: str, fused: Fused, spent_ns: int, *, first: bool) -> None:
        """Count a frame that a sink has taken; the first sink is where its age is measured."""
        self.stats.took(name, spent_ns)
        if self.rig.trace is not None:
            self.rig.trace.written(name, fused, spent_ns)
        if first:
            self.stats.delivered(fused)

    def _deliver(self, fused: Fused) -> None:
        for outlet in self._outlets:
            outlet.offer(fused)
        if not self._outlets:
            self.stats.delivered(fused)
        self._last, self._last_ns = fused, self.rig.clock()

    def _follow(self) -> None:
        """Look at what the streams are doing: log what has changed, hold the picture, or stop, as the policy says."""
        rig, now = self.rig, {stream: self.rig.health[stream].state() for stream in STREAMS}
        for stream in STREAMS:
            if now[stream] is not self._states[stream]:
                _log_change(stream, self._states[stream], rig.health[stream])
        self._states = now
        if rig.policy == "stop":
            for stream in STREAMS:
                if rig.health[stream].missing_ns() > rig.limit_ns:
                    raise SourceLost(
                        f"{_NAMES[stream]} has shown nothing new for {rig.limit_ns / 1e9:g} s ({now[stream]}), and "
                        "degraded.policy is stop"
                    )
        missing = any(state not in (State.LIVE, State.ENDED) for state in now.values())
        due = rig.clock() - self._last_ns >= _HOLD_PERIOD_NS
        if rig.policy == "hold" and self._last is not None and missing and due:
            self._deliver(replace(self._last, mode="held", states=dict(now)))

    def _made(self, moment: Moment) -> Fused | None:
        """Return the output for a pair or a lone frame; None, counted, for pictures that cannot be aligned."""
        if not self._fits(moment):
            self.stats.drops[moment.leader.stream, "size"] += 1
            return None
        fused = self._fuse(moment) if isinstance(moment, Pair) else self._pass(moment)
        states = dict(self._states) if self.rig.live else {}
        if isinstance(moment, Pair) and moment.ir.thermal is not None:
            fused = replace(fused, spots=self._placed(moment.ir))
        fused = replace(fused, states=states)
        return marked(fused, self.rig.health) if self.rig.mark and self.rig.live else fused

    def _fits(self, moment: Moment) -> bool:
        """Make the aligner fit the pictures' sizes, which change when a camera comes back with another one."""
        rig = self.rig
        if rig.fit is None:
            return True
        ir_hw, rgb_hw = rig.aligner.ir_hw, rig.aligner.rgb_hw
        for frame in (moment.ir, moment.rgb) if isinstance(moment, Pair) else (moment.frame,):
            if frame.stream == "ir":
                ir_hw = frame.shape_hw
            else:
                rgb_hw = frame.shape_hw
        if (ir_hw, rgb_hw) == (rig.aligner.ir_hw, rig.aligner.rgb_hw):
            return True
        if (ir_hw, rgb_hw) in self._unfit:
            return False
        sizes = f"thermal {ir_hw[1]}x{ir_hw[0]}, RGB {rgb_hw[1]}x{rgb_hw[0]}"
        try:
            aligner = rig.fit(ir_hw, rgb_hw)
        except CalibrationError as e:
            self._unfit.add((ir_hw, rgb_hw))
            event(_log, logging.ERROR, "size", str(e), sizes=sizes)
            return False
        event(_log, logging.WARNING, "size", f"the pictures have new sizes: {sizes}")
        if isinstance(rig.fuser, RawFuser):
            rig.fuser.prepare(aligner.rgb_hw if aligner.stretched else aligner.ir_hw, aligner.rgb_hw)
        rig.aligner, self._thermal, self._unreached = aligner, None, None
        return True

    def _fuse(self, pair: Pair) -> Fused:
        rig, start_ns = self.rig, time.monotonic_ns()
        fuser, aligner = rig.fuser, rig.aligner
        try:
            thermal = self._seen(pair.ir)
            aligned = None if isinstance(fuser, RawFuser) and not aligner.stretched else thermal()
        except Exception as e:
            raise named("align", e) from e
        seen_ns = time.monotonic_ns()
        try:
            if aligned is None:
                assert isinstance(fuser, RawFuser)
                image = fuser.raw(thermal.image, pair.rgb.image, thermal.table, aligner.grid, aligner.valid)
            else:
                image = fuser(aligned, pair.rgb.image, aligner.valid)
            if rig.steady is not None:
                image = rig.steady(image, pair.leader.t_ns)
        except Exception as e:
            raise named(f"fuse with {fuser.name}", e) from e
        now = time.monotonic_ns()
        spent_ns = now - start_ns
        if rig.trace is not None:
            rig.trace.stage("thermal", "fuse", pair, start_ns, seen_ns)
            rig.trace.stage(f"fuse by {fuser.name}", "fuse", pair, seen_ns, now)
            rig.trace.stage("pair", "pair", pair, min(pair.leader.arrival_ns, start_ns), start_ns)
        self._cost_ns += 0.2 * (spent_ns - self._cost_ns)
        self.stats.took("fuse", spent_ns)
        return Fused(image, thermal, pair, aligner.valid, fuser.name)

    def _pass(self, alone: Alone) -> Fused:
        """Return the picture of the one stream that is there, on the RGB grid."""
        if alone.frame.stream == "ir":
            try:
                thermal = self._seen(alone.frame)
                image = cv2.cvtColor(thermal(), cv2.COLOR_GRAY2RGB)
            except Exception as e:
                raise named("align", e) from e
            spots = self._placed(alone.frame)
            return Fused(image, thermal, alone, self.rig.aligner.valid, "none", mode="ir", spots=spots)
        if self._unreached is None:
            self._unreached = np.zeros(self.rig.aligner.rgb_hw, np.uint8)
        unreached = self._unreached
        return Fused(alone.frame.image, lambda: unreached, alone, unreached, "none", mode="rgb")

    def _seen(self, frame: Frame) -> _Thermal:
        """Return the thermal frame as it is shown; the same for every picture that it is part of."""
        if self._thermal is None or self._thermal.frame is not frame:
            self._thermal = _Thermal(frame, *self.rig.agc.shown(frame), self.rig.aligner)
        return self._thermal

    def _placed(self, ir: Frame) -> tuple[PlacedSpot, PlacedSpot] | None:
        thermal = ir.thermal
        if thermal is None or thermal.hot is None or thermal.cold is None:
            return None

        def place(spot: Spot) -> PlacedSpot:
            return PlacedSpot(*self.rig.aligner.place((spot.x, spot.y)), spot.k)

        return place(thermal.hot), place(thermal.cold)


class _Thermal:
    """One thermal frame as it is shown, brought onto the RGB grid when somebody asks for it."""

    def __init__(self, frame: Frame, image: Image, table: Image | None, aligner: Aligner) -> None:
        self.frame, self.image, self.table = frame, image, table
        self._aligner = aligner
        self._aligned: Image | None = None

    def __call__(self) -> Image:
        """Return it on the RGB grid, (H, W) uint8."""
        if self._aligned is None:
            self._aligned = self._aligner(displayed(self.image, self.table))
        return self._aligned


def _inbox(rig: Rig) -> Inbox:
    if rig.order == "live":
        return LiveInbox(rig.pairer, rig.queue, clock=rig.clock)
    if rig.order == "replay":
        speed = rig.playback.speed
        due = None if speed is None else rig.clock
        return OrderedInbox(rig.pairer, when=lambda frame: frame.arrival_ns, replay=True, due=due, speed=speed or 1.0)
    offset_ns = rig.pairer.offset_ns
    return OrderedInbox(rig.pairer, when=lambda frame: frame.t_ns + offset_ns[frame.stream])


def _clock_of(source: Source) -> dict[str, Any]:
    """Return what a live source knows of its own clock (`rtfuse.clockmap.ClockState`)."""
    clock = getattr(source, "clock", None)
    return {} if clock is None else {"drift_ppm": clock.drift_ppm, "clock_steps": clock.steps}


def _log_change(stream: Stream, before: State, health: Health) -> None:
    """Log what a stream has begun to do."""
    now, name = health.condition(), _NAMES[stream]
    if now.state is State.LIVE:
        if before is not State.STARTING:
            event(_log, logging.INFO, "back", f"{name} is back", stream=stream, rate_hz=now.rate_hz, was=before.value)
        return
    said = {
        State.SHUTTER: "the shutter is closed",
        State.FROZEN: "the picture is frozen",
        State.STALLED: "no frame comes",
        State.LOST: now.why or "lost",
        State.ENDED: "has ended",
        State.STARTING: "starting",
    }[now.state]
    level = logging.INFO if now.state in (State.SHUTTER, State.ENDED, State.STARTING) else logging.WARNING
    event(_log, level, now.state.value, f"{name}: {said}", stream=stream)


def check_overlap(rig: Rig) -> None:
    """Raise NoOverlap if both sources are recordings and have no moment in common."""
    ir, rgb = (rig.sources[s].info for s in STREAMS)
    if None in (ir.start_ns, ir.end_ns, rgb.start_ns, rgb.end_ns) or ir.live or rgb.live:
        return
    offset, reach = rig.pairer.offset_ns, max(rig.pairer.tolerance_ns, rig.pairer.max_reuse_ns)
    ir_span = [t + offset["ir"] for t in (ir.start_ns or 0, ir.end_ns or 0)]
    rgb_span = [t + offset["rgb"] for t in (rgb.start_ns or 0, rgb.end_ns or 0)]
    if ir_span[0] - rig.pairer.tolerance_ns >= rgb_span[1] or rgb_span[0] >= ir_span[1] + reach:
        raise NoOverlap(f"the streams never overlap in time: {_spans(rig)}; check the files, or set ir.offset_ms")


def _spans(rig: Rig) -> str:
    def span(stream: Stream) -> str:
        info = rig.sources[stream].info
        if info.start_ns is None or info.end_ns is None:
            return "unknown"
        return f"{info.start_ns / 1e9:.2f} to {info.end_ns / 1e9:.2f} s"

    return f"thermal {span('ir')}, RGB {span('rgb')}"


def _frames(rig: Rig, stream: Stream, period_ns: int) -> Iterator[Frame]:
    """Yield the frames of a source; with `loop`, round after round, each `period_ns` later than the last."""
    source, next_id = rig.sources[stream], 0
    for turn in count():
        first_id, shift_ns = next_id, turn * period_ns
        for frame in source:
            next_id = first_id + frame.frame_id + 1
            yield replace(frame, frame_id=next_id - 1, t_ns=frame.t_ns + shift_ns) if turn else frame
        if not rig.playback.loop or rig.reopen is None or source.info.live or next_id == first_id:
            return
        source = rig.sources[stream] = rig.reopen(stream)
