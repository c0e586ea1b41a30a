"""Run capture → sync → align → fuse → publish: the threads and the queues between them.

    source thread (ir)  ─┐                                              ┌─ sink thread: publish
                         ├─ PairQueue and Pairer ─ run(): the Stages ───┤
    source thread (rgb) ─┘                                              └─ sink thread: record

Live, pair queue and sink threads drop their oldest and count it, so the age of what comes out stays flat; a stream that
is lost, stalled or frozen does not stop the other. Lossless (recordings as fast as possible), every queue waits
instead, and frames are taken in order of their time. A replay takes them in the order, and at the pace, in which they
arrived then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

from rtfuse.capture.pacing import Playhead, as_played, timeline
from rtfuse.errors import CalibrationError, NoOverlap, SourceLost, StageFailed, named
from rtfuse.observe.health import State, of_stream
from rtfuse.observe.logs import event
from rtfuse.observe.stats import Snapshot, Stats
from rtfuse.pipeline.lowering import Lowering
from rtfuse.pipeline.overlay import marked
from rtfuse.pipeline.queues import STREAMS, Dropping, LivePairQueue, OrderedPairQueue, PairQueue, SinkThread
from rtfuse.pipeline.rig import Rig
from rtfuse.types import LABELS, Frame, Fused, Moment, Sink, Source, Stream

_JOIN_S = 0.8
"""Longest wait of a stopping pipeline for its threads (live)."""
_DRAIN_S = 60.0
"""Longest wait for the outputs to take the last frames (lossless)."""
_HOLD_PERIOD_NS = 100_000_000
"""Period of repeating the last picture under the policy `hold`."""
_log = logging.getLogger("rtfuse.pipeline")


class Pipeline:
    """Run a `Rig` until a source ends, a limit is reached, or `stop` is set.

    - `sinks`: take the fused frames, by the names of their drop counts; their owner closes them.
    - `age_at`: the sink at which age is measured and frames are counted; None: where frames leave the stages.
    - `taps`: are called with every captured frame, in the capture threads.

    Raises ValueError if `age_at` names no sink.
    """

    def __init__(
        self,
        rig: Rig,
        sinks: Mapping[str, Sink] | None = None,
        *,
        age_at: str | None = None,
        taps: Sequence[Callable[[Frame], None]] = (),
        stop: threading.Event | None = None,
    ) -> None:
        self.rig, self.sinks, self.stop = rig, dict(sinks or {}), stop or threading.Event()
        if age_at is not None and age_at not in self.sinks:
            raise ValueError(f"age_at: no sink is called {age_at!r}; want one of {', '.join(self.sinks) or 'none'}")
        self.stats = Stats(rig.clock)
        self._age_at, self._taps, self._costs_ns = age_at, taps, deque[int](maxlen=5)
        self._pair_queue = _pair_queue(rig)
        self._sink_threads: list[SinkThread] = []
        self._lowering: Lowering | None = None
        self._states: dict[Stream, State] = dict.fromkeys(STREAMS, State.STARTING)
        self._whys: dict[Stream, str | None] = dict.fromkeys(STREAMS)
        self._last: Fused | None = None
        self._last_ns = 0

    def snapshot(self) -> Snapshot:
        """Return the counts so far; callable from any thread."""
        rig = self.rig
        streams = {str(s): rig.health[s].condition(**_clock_of(source)) for s, source in rig.sources.items()}
        queues = {"fuse": self._pair_queue.waiting} | {o.name: o.waiting for o in self._sink_threads}
        lowering = self._lowering
        lowered, overload = (lowering.lowered, lowering.overload) if lowering is not None else ((), None)
        return self.stats.snapshot(*self._drops(), streams=streams, queues=queues, lowered=lowered, overload=overload)

    def statistics(self) -> dict[str, Any]:
        """Return the counts so far as the fields of the statistics message."""
        return self.snapshot().fields()

    def _drops(self) -> list[Mapping[Any, int]]:
        """Return the drops of every part but `stats`, by part and cause."""
        rig = self.rig
        losses = {(str(s), cause): n for s, source in rig.sources.items() for cause, n in source.losses.items()}
        slow = {(o.name, "slow"): o.dropped for o in self._sink_threads}
        spared = {(o.name, "spared"): o.spared for o in self._sink_threads}
        lost = [sink.drops for sink in self.sinks.values() if isinstance(sink, Dropping)]
        return [rig.pairer.drops, self._pair_queue.drops, losses, slow, spared, *lost]

    def run(self, *, frames: int | None = None, duration_s: float | None = None) -> Snapshot:
        """Fuse until the end and return the counts. Ends early after `frames` or `duration_s`.

        Raises the `RtfuseError` of the stage that failed, or StageFailed if it failed in another way, NoOverlap if
        recordings ended without one pair, and SourceLost if a stream is missing for too long under the policy `stop`.
        Sources are closed; sinks are left to their owner.
        """
        self.rig.check_overlap()
        for name, sink in self.sinks.items():
            written = partial(self._written, name)
            watchdog = self.rig.supervisor.watchdog(name)
            self._sink_threads.append(
                SinkThread(
                    name,
                    sink,
                    lossless=self.rig.lossless,
                    pair_queue=self._pair_queue,
                    written=written,
                    watchdog=watchdog,
                )
            )
        self._lowering = Lowering(self.rig, self._sink_threads) if self.rig.lowers else None
        threads = self._start_sources()
        complete = False
        try:
            with self.rig.supervisor if self.rig.order == "live" and self.rig.live else nullcontext():
                complete = self._loop(frames, duration_s)
        finally:
            self.stop.set()
            self._pair_queue.stop()
            for source in self.rig.sources.values():
                source.close()
            drained = self._join(threads)
        self._pair_queue.take(0)  # raises the last error of a sink thread
        if not drained:
            raise StageFailed("an output did not take its last frames in time")
        result = self.snapshot()
        if complete and not result.frames:
            raise NoOverlap(f"no RGB frame had a thermal frame near it: {self.rig.spans()}; see sync.tolerance_ms")
        return result

    def _join(self, sources: list[threading.Thread]) -> bool:
        """Let the sinks take the waiting frames, and the sources end; return True if the sinks did in time."""
        for sink_thread in self._sink_threads:
            sink_thread.finish()
        deadline = time.monotonic() + (_DRAIN_S if self.rig.lossless else _JOIN_S)
        drained = [o.joined(max(0.0, deadline - time.monotonic())) for o in self._sink_threads]
        deadline = time.monotonic() + _JOIN_S / 2
        for thread in sources:  # one that hangs in a driver or a socket is left behind: it is a daemon
            thread.join(max(0.0, deadline - time.monotonic()))
        return all(drained)

    def _start_sources(self) -> list[threading.Thread]:
        rig = self.rig
        origin_ns, period_ns = timeline(s.info for s in rig.sources.values())
        played = [s for s in STREAMS if rig.order == "live" and not rig.sources[s].info.live]
        playhead = Playhead(played, rig.clock, self.stop, origin_ns, rig.playback.speed or 1.0)
        threads = []
        for stream in STREAMS:
            frames = rig.frames(stream, period_ns)
            if stream in played:
                frames = playhead.play(stream, frames)
            elif rig.order == "replay":
                frames = as_played(frames)
            thread = threading.Thread(
                target=self._pump, args=(stream, frames), name=f"rtfuse-capture-{stream}", daemon=True
            )
            thread.start()
            threads.append(thread)
        return threads

    def _pump(self, stream: Stream, frames: Iterator[Frame]) -> None:
        health, watchdog = self.rig.health[stream], self.rig.watchdogs.get(stream)
        try:
            for frame in frames:
                if watchdog is not None:
                    watchdog.beat()
                put = self._pair_queue.put(frame)
                if put is None or self.stop.is_set():
                    return
                health.frame(put)
                if self.rig.trace is not None:
                    self.rig.trace.trace.captured(put)
                for tap in self._taps:
                    tap(put)
        except Exception as e:  # noqa: BLE001 - raised again in the fusing thread
            self._pair_queue.fail(named(f"capture of {stream}", e))
        finally:
            if watchdog is not None:
                watchdog.rest()
            health.ended()
            self._pair_queue.end(stream)

    def _loop(self, frames: int | None, duration_s: float | None) -> bool:
        """Fuse moments until the streams end (returns True), or a limit or the stop event comes first."""
        rig, pair_queue = self.rig, self._pair_queue
        end_ns = rig.clock() + round(duration_s * 1e9) if duration_s else None
        watchdog, done = rig.supervisor.watchdog("fuse"), 0
        while not self.stop.is_set():
            moments = waiting = pair_queue.take(self._patience_s(end_ns))
            if end_ns is not None and rig.clock() >= end_ns:
                return False
            if rig.live:
                self._follow()
            if self._lowering is not None:
                self._lowering.look(lambda: (self.stats.drops, *self._drops()))
            if rig.trace is not None:
                rig.trace.trace.drops(self.stats.drops, *self._drops())
            with watchdog.busy():
                while waiting:  # judged after each, as the machine may have become slow
                    moment, *waiting = self._newest(waiting)
                    if (fused := self._fuse(moment)) is None:
                        continue
                    done += 1
                    self._deliver(fused)
                    if done == frames:
                        return False
            if not moments and pair_queue.over:
                rig.pairer.finish()
                return True
        return False

    def _fuse(self, moment: Moment) -> Fused | None:
        """Return the output for a moment; None, counted, for pictures that cannot be aligned."""
        rig, begun_ns = self.rig, time.monotonic_ns()
        try:
            rig.stages.fit(moment)
        except CalibrationError:
            self.stats.drops[moment.leader.stream, "size"] += 1
            return None
        if moment.rgb is None or moment.rgb.depth is None:  # or the map of its depth counts
            begun_ns = time.monotonic_ns()
        fused = rig.stages.process(moment, aligned=any(o.wants_aligned() for o in self._sink_threads))
        ended_ns = time.monotonic_ns()
        if moment.complete:
            self._costs_ns.append(ended_ns - begun_ns)
            self.stats.took("fuse", ended_ns - begun_ns)
            if self._lowering is not None:
                self._lowering.cost(ended_ns - begun_ns)
        if rig.trace is not None:
            rig.trace.write(moment, fused.fuser, begun_ns, ended_ns)
        if not rig.live:
            return fused
        fused = replace(fused, states=dict(self._states))
        return marked(fused, rig.health) if rig.mark else fused

    def _patience_s(self, end_ns: int | None) -> float:
        """Return the longest wait for a moment: until the run must end, 0.2 s, or the next look at the streams."""
        left_s = 0.2 if end_ns is None else min(0.2, max(0.0, (end_ns - self.rig.clock()) / 1e9))
        return min(left_s, 0.05) if self.rig.live else left_s

    def _newest(self, moments: list[Moment]) -> list[Moment]:
        """Skip to the newest when frames are late, or take too long to fuse; after a mere hiccup, catch up instead.

        Where a frame costs more than half a period, catching up takes longer than the hiccup did; at a whole period the
        queue would stay full. Where the last one alone costs as much as a full queue, frames are lost in any case.
        """
        period_ns, costs_ns = 1e9 / (self.rig.sources["rgb"].info.rate_hz or 30), self._costs_ns
        slow = len(costs_ns) > 2 and median(costs_ns) >= period_ns / 2
        slow = slow or (len(costs_ns) > 0 and costs_ns[-1] >= self.rig.queue * period_ns)
        slow = slow or (self._lowering is not None and self._lowering.pressed)
        if self.rig.lossless or len(moments) < 2 or not slow:
            return moments
        for moment in moments[:-1]:
            self.stats.drops[moment.leader.stream, "busy"] += 1
        return moments[-1:]

    def _written(self, name: str, fused: Fused, spent_ns: int) -> None:
        """Count a frame that a sink has taken."""
        self.stats.took(name, spent_ns)
        if self.rig.trace is not None:
            self.rig.trace.trace.written(name, fused, spent_ns)
        if name == self._age_at:
            self._delivered(fused)

    def _delivered(self, fused: Fused) -> None:
        self.stats.delivered(fused)
        if self._lowering is not None:
            self._lowering.frame(fused)

    def _deliver(self, fused: Fused) -> None:
        for sink_thread in self._sink_threads:
            sink_thread.offer(fused)
        if self._age_at is None:
            self._delivered(fused)
        self._last, self._last_ns = fused, self.rig.clock()

    def _follow(self) -> None:
        """Check the streams: log each new state and reason, hold the picture, or stop, as the policy says."""
        rig, present = self.rig, {stream: self.rig.health[stream].present() for stream in STREAMS}
        for stream, (state, why) in present.items():
            before = self._states[stream]
            if state is not before or why not in (None, self._whys[stream]):
                _log_change(stream, before, state, why, rig.health[stream].condition().rate_hz)
            self._whys[stream] = why
        self._states = now = {stream: state for stream, (state, _) in present.items()}
        if rig.policy == "stop":
            for stream in STREAMS:
                if rig.health[stream].missing_ns() > rig.limit_ns:
                    raise SourceLost(
                        f"{LABELS[stream]} has shown nothing new for {rig.limit_ns / 1e9:g} s ({now[stream]}), and "
                        "degraded.policy is stop"
                    )
        missing = any(state not in (State.LIVE, State.ENDED) for state in now.values())
        due = rig.clock() - self._last_ns >= _HOLD_PERIOD_NS
        if rig.policy == "hold" and self._last is not None and missing and due:
            self._deliver(replace(self._last, mode="held", states=dict(now)))


def _pair_queue(rig: Rig) -> PairQueue:
    if rig.order == "live":
        return LivePairQueue(rig.pairer, rig.queue, clock=rig.clock)
    if rig.order == "replay":
        speed = rig.playback.speed
        due = None if speed is None else rig.clock
        return OrderedPairQueue(
            rig.pairer, when=lambda frame: frame.arrival_ns, replay=True, due=due, speed=speed or 1.0
        )
    offset_ns = rig.pairer.offset_ns
    return OrderedPairQueue(rig.pairer, when=lambda frame: frame.t_ns + offset_ns[frame.stream], complete=True)


def _clock_of(source: Source) -> dict[str, Any]:
    """Return the drift and the steps of a live source's own clock (`rtfuse.capture.clocks.ClockState`)."""
    clock = getattr(source, "clock", None)
    return {} if clock is None else {"drift_ppm": clock.drift_ppm, "clock_steps": clock.steps}


def _log_change(stream: Stream, before: State, now: State, why: str | None, rate_hz: float | None) -> None:
    """Log the new state of a stream, or the new reason why it is lost."""
    name = LABELS[stream]
    if now is State.LIVE:
        if before is not State.STARTING:
            event(_log, logging.INFO, "back", f"{name} is back", stream=stream, rate_hz=rate_hz, was=before.value)
        return
    said = {
        State.SHUTTER: "the shutter is closed",
        State.FROZEN: "the picture is frozen",
        State.STALLED: "no frame comes",
        State.LOST: why or "lost",
        State.ENDED: "has ended",
        State.STARTING: "starting",
    }[now]
    level = logging.INFO if now in (State.SHUTTER, State.ENDED, State.STARTING) else logging.WARNING
    event(_log, level, now.value, of_stream(stream, said), stream=stream)
