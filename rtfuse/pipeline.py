"""capture → sync → align → fuse → publish: the only file that knows all the stages.

    source thread (ir)  ─┐                                           ┌─ outlet thread: publish
                         ├─ Inbox ─ run(): Pairer → Aligner → fuser ─┤
    source thread (rgb) ─┘                                           └─ outlet thread: record

Live, the inbox and the outlets drop their oldest frame and count it, so the age of what comes out stays flat.
Lossless (recordings as fast as possible), every queue waits instead, and frames are taken in order of their time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from rtfuse.align import Aligner
from rtfuse.errors import NoOverlap, StageFailed
from rtfuse.fuse import Fuser, RawFuser
from rtfuse.queues import STREAMS, Inbox, Outlet, named
from rtfuse.stats import Snapshot, Stats
from rtfuse.sync import Pairer
from rtfuse.thermal import Agc, displayed
from rtfuse.types import Clock, Frame, Fused, Image, Pair, Sink, Source, Stamp, Stream

_JOIN_S = 0.8
"""How long a stopping pipeline waits for threads (live)."""
_DRAIN_S = 60.0
"""How long it waits for the outputs to take the last frames (lossless)."""


@dataclass(frozen=True, slots=True)
class Playback:
    """How recordings are played: `speed` times real time, None for as fast as they are taken; again if `loop`."""

    speed: float | None = 1.0
    loop: bool = False


@dataclass(slots=True)
class Rig:
    """The parts of one pipeline, opened and matched to each other; `rtfuse.rig.open_rig` makes them from a `Config`.

    `reopen` gives a source again from its start (for loops). `sinks` are named for the drop counts; the first one
    is where age is measured.
    """

    sources: dict[Stream, Source]
    pairer: Pairer
    aligner: Aligner
    fuser: Fuser
    sinks: dict[str, Sink] = field(default_factory=dict)
    agc: Agc = field(default_factory=Agc)
    playback: Playback = Playback()
    lossless: bool = False
    queue: int = 8
    reopen: Callable[[Stream], Source] | None = None
    clock: Clock = time.monotonic_ns


class Pipeline:
    """Runs a `Rig` until a source ends, a limit is reached, or `stop` is set."""

    def __init__(self, rig: Rig, stop: threading.Event | None = None) -> None:
        self.rig, self.stop = rig, stop or threading.Event()
        self.stats = Stats(rig.clock)
        offsets = rig.pairer.offset_ns
        self._inbox = Inbox(4 if rig.lossless else rig.queue, lossless=rig.lossless, offset_ns=offsets)
        self._outlets: list[Outlet] = []
        self._thermal: _Thermal | None = None
        self._cost_ns = 0.0

    def snapshot(self) -> Snapshot:
        """Return the counts so far; callable from any thread."""
        losses = {(str(s), cause): n for s, source in self.rig.sources.items() for cause, n in source.losses.items()}
        slow = {(o.name, "slow"): o.dropped for o in self._outlets}
        return self.stats.snapshot(self.rig.pairer.drops, self._inbox.drops, losses, slow)

    def run(self, *, frames: int | None = None, duration_s: float | None = None) -> Snapshot:
        """Fuse until the end and return the counts. Ends early after `frames` or `duration_s`.

        Raises the `RtfuseError` of the stage that failed, or StageFailed if it failed in another way, and
        NoOverlap if recordings ended without one pair. Sources are closed; sinks are left to their owner.
        """
        check_overlap(self.rig)
        names = list(self.rig.sinks)
        for name, sink in self.rig.sinks.items():
            written = self.stats.delivered if name == names[0] else _ignore
            self._outlets.append(Outlet(name, sink, lossless=self.rig.lossless, inbox=self._inbox, written=written))
        threads = self._start_sources()
        complete = False
        try:
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
        start_ns, origin_ns, period_ns = rig.clock(), *_timeline(rig)
        threads = []
        for stream in STREAMS:
            frames = _frames(rig, stream, period_ns)
            if not rig.lossless and not rig.sources[stream].info.live:
                frames = _paced(frames, rig, self.stop, start_ns, origin_ns)
            thread = threading.Thread(
                target=self._pump, args=(stream, frames), name=f"rtfuse-capture-{stream}", daemon=True
            )
            thread.start()
            threads.append(thread)
        return threads

    def _pump(self, stream: Stream, frames: Iterator[Frame]) -> None:
        try:
            for frame in frames:
                if self.stop.is_set() or not self._inbox.put(frame):
                    return
        except Exception as e:  # noqa: BLE001 - raised again in the fusing thread
            self._inbox.fail(named(f"capture of {stream}", e))
        finally:
            self._inbox.end(stream)

    def _loop(self, frames: int | None, duration_s: float | None) -> bool:
        """Fuse pairs until the streams end (returns True), or a limit or the stop event comes first."""
        rig, pairer, inbox = self.rig, self.rig.pairer, self._inbox
        end_ns = rig.clock() + round(duration_s * 1e9) if duration_s else None
        done = 0
        while not self.stop.is_set():
            for frame in inbox.take(self._patience_s(end_ns)):
                pairer.push(frame)
            for stream in STREAMS:
                if inbox.ended(stream):
                    pairer.end(stream)
            now = rig.clock()
            if end_ns is not None and now >= end_ns:
                return False
            pairs = pairer.pairs(now)
            over = inbox.ended("rgb") and not pairer.waiting
            for pair in self._newest(pairs):
                fused = self._fuse(pair)
                done += 1
                for outlet in self._outlets:
                    outlet.offer(fused)
                if not self._outlets:
                    self.stats.delivered(fused)
                if done == frames:
                    return False
            if over:
                pairer.finish()
                return True
        return False

    def _patience_s(self, end_ns: int | None) -> float:
        """How long to wait for frames: until the pairer must decide, the run must end, or 0.2 s."""
        due = [t for t in (self.rig.pairer.deadline_ns, end_ns) if t is not None]
        return min(0.2, max(0.0, (min(due) - self.rig.clock()) / 1e9)) if due else 0.2

    def _newest(self, pairs: list[Pair]) -> list[Pair]:
        """Skip to the newest pair when fusing takes longer than a frame; after a mere hiccup, catch up instead."""
        rate_hz = self.rig.sources["rgb"].info.rate_hz or 30
        if self.rig.lossless or len(pairs) < 2 or self._cost_ns < 1e9 / rate_hz:
            return pairs
        self.stats.drops["rgb", "busy"] += len(pairs) - 1
        return pairs[-1:]

    def _fuse(self, pair: Pair) -> Fused:
        rig, start_ns = self.rig, time.monotonic_ns()
        fuser, aligner = rig.fuser, rig.aligner
        try:
            if self._thermal is None or self._thermal.frame is not pair.ir:
                self._thermal = _Thermal(pair.ir, rig.agc.table(pair.ir), aligner)
            thermal = self._thermal
            aligned = None if isinstance(fuser, RawFuser) and not aligner.stretched else thermal()
        except Exception as e:
            raise named("align", e) from e
        try:
            if aligned is None:
                assert isinstance(fuser, RawFuser)
                image = fuser.raw(pair.ir.image, pair.rgb.image, thermal.table, aligner.grid, aligner.valid)
            else:
                image = fuser(aligned, pair.rgb.image, aligner.valid)
        except Exception as e:
            raise named(f"fuse with {fuser.name}", e) from e
        self._cost_ns += 0.2 * (time.monotonic_ns() - start_ns - self._cost_ns)
        return Fused(image, thermal, pair, aligner.valid, fuser.name)


class _Thermal:
    """One thermal frame, brought onto the RGB grid when somebody asks for it."""

    def __init__(self, frame: Frame, table: Image | None, aligner: Aligner) -> None:
        self.frame, self.table = frame, table
        self._aligner = aligner
        self._image: Image | None = None

    def __call__(self) -> Image:
        """Return it on the RGB grid, (H, W) uint8."""
        if self._image is None:
            self._image = self._aligner(displayed(self.frame.image, self.table))
        return self._image


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


def _timeline(rig: Rig) -> tuple[int, int]:
    """Return the earliest time of the recordings, and the length of one round when they loop, in nanoseconds."""
    infos = [s.info for s in rig.sources.values() if not s.info.live]
    origin_ns = min((i.start_ns or 0 for i in infos), default=0)
    return origin_ns, max((i.end_ns or 0 for i in infos), default=0) - origin_ns


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


def _paced(frames: Iterator[Frame], rig: Rig, stop: threading.Event, start_ns: int, origin_ns: int) -> Iterator[Frame]:
    """Yield each frame when it is due, its time mapped onto the local clock."""
    speed = rig.playback.speed or 1.0
    for frame in frames:
        due_ns = start_ns + round((frame.t_ns - origin_ns) / speed)
        wait_s = (due_ns - rig.clock()) / 1e9
        if wait_s > 0 and stop.wait(wait_s):
            return
        yield replace(frame, t_ns=due_ns, stamp=Stamp.PLAYBACK, arrival_ns=rig.clock())


def _ignore(_: Fused) -> None:
    return None
