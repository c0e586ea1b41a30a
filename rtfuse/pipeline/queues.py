"""Connect the pipeline's threads: a `PairQueue` before the fusing thread, a `SinkThread` before each sink.

Live, both drop their oldest when full and count it; lossless, they make the other side wait. An error in any thread
reaches the fusing thread through the pair queue.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from rtfuse.errors import named
from rtfuse.observe.watchdog import Watchdog
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Clock, Frame, Fused, Moment, Sink, Stream

STREAMS: tuple[Stream, Stream] = ("ir", "rgb")
_AHEAD = 4
"""Frames that a stream may be ahead of the other where none is dropped."""
_TICK_S = 0.05


class PairQueue(ABC):
    """Queue the frames of both streams into moments: source threads put, the fusing thread takes.

    `drops` counts the frames dropped here, by (stream, cause).
    """

    def __init__(self, pairer: Pairer) -> None:
        self._pairer = pairer
        self._open: set[Stream] = set(STREAMS)
        self._changed = threading.Condition()  # its lock may be taken again by its owner
        self._failure: Exception | None = None
        self._stopped = False
        self.drops: Counter[tuple[str, str]] = Counter()

    @abstractmethod
    def put(self, frame: Frame) -> Frame | None:
        """Hand over a frame; returns it with its time of arrival, None once stopped."""

    @abstractmethod
    def take(self, timeout_s: float) -> list[Moment]:
        """Return the moments to fuse, waiting at most `timeout_s` for the first; raises the first failure."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Approximate number of frames or moments that wait here, counted without a lock."""

    @property
    @abstractmethod
    def over(self) -> bool:
        """True if the streams have ended and everything was taken."""

    def end(self, stream: Stream) -> None:
        """Say that this stream has ended."""
        with self._changed:
            self._open.discard(stream)
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Hand an error of any thread to the fusing thread; the first one counts."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def stop(self) -> None:
        """Release every thread that waits."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._failure:
            raise self._failure


class LivePairQueue(PairQueue):
    """Pair frames when they arrive, however busy the fusing thread is; moments that it is too slow for are dropped.

    A frame's `arrival_ns` becomes the moment of `put`, on `clock`, so that pairing follows from the frames alone.
    """

    def __init__(self, pairer: Pairer, capacity: int, *, clock: Clock) -> None:
        super().__init__(pairer)
        self._clock, self._ready = clock, deque[Moment]()
        self._capacity = capacity

    def put(self, frame: Frame) -> Frame | None:
        with self._changed:
            frame = replace(frame, arrival_ns=self._clock())
            self._add(self._pairer.moments(frame.arrival_ns))
            self._pairer.push(frame)
            self._add(self._pairer.moments(frame.arrival_ns))
            if self._ready or self._pairer.deadline_ns is not None:
                self._changed.notify_all()
            return None if self._stopped else frame

    def end(self, stream: Stream) -> None:
        with self._changed:
            self._pairer.end(stream)
            self._add(self._pairer.moments(self._clock()))
            super().end(stream)

    def take(self, timeout_s: float) -> list[Moment]:
        end_ns = self._clock() + round(timeout_s * 1e9)
        with self._changed:
            while not (self._failure or self._ready or self._stopped or self.over):
                now_ns, due_ns = self._clock(), self._pairer.deadline_ns
                if due_ns is not None and now_ns >= due_ns:
                    self._add(self._pairer.moments(now_ns))
                elif now_ns >= end_ns:
                    break
                else:
                    until_ns = end_ns if due_ns is None else min(end_ns, due_ns)
                    self._changed.wait((until_ns - now_ns) / 1e9)
            self._raise()
            taken = list(self._ready)
            self._ready.clear()
            return taken

    @property
    def waiting(self) -> int:
        return len(self._ready)

    @property
    def over(self) -> bool:
        return "rgb" not in self._open and not self._pairer.waiting and not self._ready

    def _add(self, moments: list[Moment]) -> None:
        for moment in moments:
            if len(self._ready) >= self._capacity:
                self.drops[self._ready.popleft().leader.stream, "queue"] += 1
            self._ready.append(moment)


class OrderedPairQueue(PairQueue):
    """Take frames one by one in the order of `when(frame)`, and make sources wait: nothing is lost.

    `replay`: they are paired as they were when they arrived at their `arrival_ns`. `complete`: thermal frames after the
    end of RGB are taken, too, so that they are counted. `due`, if given, holds a frame back
    until this clock, which runs `speed` times as fast as time, has come to its `when`.
    """

    def __init__(
        self,
        pairer: Pairer,
        *,
        when: Callable[[Frame], int],
        replay: bool = False,
        complete: bool = False,
        due: Clock | None = None,
        speed: float = 1.0,
    ) -> None:
        super().__init__(pairer)
        self._speed, self._complete = speed, complete
        self._when, self._replay, self._due, self._flushed = when, replay, due, False
        self._frames: dict[Stream, deque[Frame]] = {s: deque() for s in STREAMS}

    def put(self, frame: Frame) -> Frame | None:
        with self._changed:
            queue = self._frames[frame.stream]
            self._changed.wait_for(lambda: len(queue) < _AHEAD or self._stopped)
            queue.append(frame)
            self._changed.notify_all()
            return None if self._stopped else frame

    def take(self, timeout_s: float) -> list[Moment]:
        moments: list[Moment] = []
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._known, timeout_s)
            self._raise()
            while self._known and (queue := self._next()) is not None:
                if self._due is not None and (when_ns := self._when(queue[0])) > self._due():
                    return moments or self._until(self._due, when_ns, timeout_s)
                moments += self._pair(queue.popleft())
                self._changed.notify_all()
                if self._due is None:
                    return moments
            if self._known:
                for stream in STREAMS:
                    self._pairer.end(stream)
                self._flushed = True
                moments += self._pairer.moments()
            return moments

    def _next(self) -> deque[Frame] | None:
        """Return the queue that holds the next frame, None if all are empty."""
        queues = [queue for queue in self._frames.values() if queue]
        return min(queues, key=lambda queue: self._when(queue[0]), default=None)

    def _until(self, due: Clock, when_ns: int, timeout_s: float) -> list[Moment]:
        """Return the moments that time alone decides before the next frame, or wait for them or for the frame."""
        now_ns = min(due(), when_ns)
        moments = self._pairer.moments(now_ns)
        if not moments:
            deadline_ns = self._pairer.deadline_ns
            until_ns = when_ns if deadline_ns is None else min(when_ns, deadline_ns)
            self._changed.wait(min(max(until_ns - now_ns, 0) / 1e9 / self._speed, timeout_s))
        return moments

    def _pair(self, frame: Frame) -> list[Moment]:
        now_ns = frame.arrival_ns if self._replay else None
        moments = self._pairer.moments(now_ns)
        self._pairer.push(frame)
        for stream in STREAMS:
            if stream not in self._open and not self._frames[stream]:
                self._pairer.end(stream)
        return moments + self._pairer.moments(now_ns)

    @property
    def waiting(self) -> int:
        return sum(len(queue) for queue in self._frames.values())

    @property
    def over(self) -> bool:
        ended = "rgb" not in self._open and not self._frames["rgb"] and not self._pairer.waiting
        return self._flushed or (ended and not self._complete)

    @property
    def _known(self) -> bool:
        """True if the next frame is certain, or if all streams have ended."""
        return all(self._frames[s] or s not in self._open for s in STREAMS)


@runtime_checkable
class Dropping(Protocol):
    """Sink that may lose frames that it has taken, and counts them by (where, cause)."""

    @property
    def drops(self) -> Mapping[tuple[str, str], int]: ...


@runtime_checkable
class Selective(Protocol):
    """Sink that does not always need the aligned thermal plane."""

    def wants_aligned(self) -> bool: ...


@runtime_checkable
class Ticking(Protocol):
    """Sink with periodic work, also while no frame comes."""

    def tick(self) -> None: ...


class SinkThread:
    """Run one sink in a thread of its own, so that a slow sink delays nothing.

    `written` is called with every frame that the sink has taken, and the nanoseconds that it took. The sink gets each
    frame, or one in `every`; the others count as `spared`.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        lossless: bool,
        pair_queue: PairQueue,
        written: Callable[[Fused, int], None],
        watchdog: Watchdog,
    ) -> None:
        self.name, self.sink = name, sink
        self.dropped = 0
        self.every, self.spared, self._offered = 1, 0, 0
        self._watchdog = watchdog
        self._lossless, self._pair_queue, self._written = lossless, pair_queue, written
        self._waiting: deque[Fused] = deque()
        self._capacity = 4 if lossless else 2
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._work, name=f"rtfuse-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of frames that wait for the sink."""
        return len(self._waiting)

    def wants_aligned(self) -> bool:
        """Return True if the sink needs the aligned thermal plane of the next frame."""
        return not isinstance(self.sink, Selective) or self.sink.wants_aligned()

    def offer(self, fused: Fused) -> None:
        """Hand a frame to the sink; when it lags, wait (lossless) or drop the oldest."""
        self._offered += 1
        if self._offered % self.every:
            self.spared += 1
            return
        with self._changed:
            if self._lossless:
                self._changed.wait_for(lambda: len(self._waiting) < self._capacity or self._over)
            elif len(self._waiting) >= self._capacity:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(fused)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that no frame will follow; the sink still takes what waits."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def joined(self, timeout_s: float) -> bool:
        """Wait until the sink has taken everything; return True if it has in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while True:
                fused = self._next()
                with self._watchdog.busy():
                    if isinstance(self.sink, Ticking):
                        self.sink.tick()
                    if fused is not None:
                        begun_ns = time.monotonic_ns()
                        self.sink.write(fused)
                        self._written(fused, time.monotonic_ns() - begun_ns)
                if fused is None and self._done:
                    return
        except Exception as e:  # noqa: BLE001 - raised again in the fusing thread
            self._pair_queue.fail(named(self.name, e))
            with self._changed:
                self._over = True
                self._waiting.clear()
                self._changed.notify_all()

    @property
    def _done(self) -> bool:
        return self._over and not self._waiting

    def _next(self) -> Fused | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over, _TICK_S)
            fused = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return fused
