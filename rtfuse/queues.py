"""What stands between the pipeline's threads: the `Inbox` before the fusing thread, an `Outlet` before each sink.

Live, both drop their oldest frame when full and count it; lossless, they make the other side wait. An error in any
thread reaches the fusing thread through the inbox.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping

from rtfuse.errors import RtfuseError, StageFailed
from rtfuse.types import Frame, Fused, Sink, Stream

STREAMS: tuple[Stream, Stream] = ("ir", "rgb")


class Inbox:
    """Frames on their way from the source threads to the fusing thread."""

    def __init__(self, capacity: int, *, lossless: bool, offset_ns: Mapping[Stream, int] | None = None) -> None:
        self._capacity, self._lossless = capacity, lossless
        self._offset_ns = offset_ns or {}
        self._frames: dict[Stream, deque[Frame]] = {s: deque() for s in STREAMS}
        self._open: set[Stream] = set(STREAMS)
        self._changed = threading.Condition()
        self._failure: Exception | None = None
        self._stopped = False
        self.drops: Counter[tuple[str, str]] = Counter()

    def put(self, frame: Frame) -> bool:
        """Hand over a frame; when full, wait (lossless) or drop the oldest. Returns False once stopped."""
        with self._changed:
            queue = self._frames[frame.stream]
            if self._lossless:
                self._changed.wait_for(lambda: len(queue) < self._capacity or self._stopped)
            elif len(queue) >= self._capacity:
                queue.popleft()
                self.drops[frame.stream, "queue"] += 1
            queue.append(frame)
            self._changed.notify_all()
            return not self._stopped

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

    def take(self, timeout_s: float) -> list[Frame]:
        """Return what has arrived, waiting at most `timeout_s` for something; raises the first failure.

        Lossless, it returns one frame at a time, the earliest of both streams, and nothing until that is certain.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._failure or self._ready(), timeout_s)
            if self._failure:
                raise self._failure
            if not self._lossless:
                taken = [f for s in STREAMS for f in self._frames[s]]
                for queue in self._frames.values():
                    queue.clear()
                return taken
            heads = [self._frames[s] for s in STREAMS if self._frames[s]]
            if not heads or not self._ready():
                return []
            first = min(heads, key=lambda q: q[0].t_ns + self._offset_ns.get(q[0].stream, 0))
            self._changed.notify_all()
            return [first.popleft()]

    def ended(self, stream: Stream) -> bool:
        """Whether the stream has ended and all its frames were taken."""
        with self._changed:
            return stream not in self._open and not self._frames[stream]

    def _ready(self) -> bool:
        if self._lossless:
            return all(self._frames[s] or s not in self._open for s in STREAMS)
        return any(self._frames.values()) or not self._open


class Outlet:
    """A thread between the fusing thread and one sink, so that a slow sink delays nothing."""

    def __init__(self, name: str, sink: Sink, *, lossless: bool, inbox: Inbox, written: Callable[[Fused], None]):
        self.name = name
        self.dropped = 0
        self._sink, self._lossless, self._inbox, self._written = sink, lossless, inbox, written
        self._waiting: deque[Fused] = deque()
        self._capacity = 4 if lossless else 2
        self._changed = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._work, name=f"rtfuse-{name}", daemon=True)
        self._thread.start()

    def offer(self, fused: Fused) -> None:
        """Hand a frame to the sink; when it lags, wait (lossless) or drop the oldest."""
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
        """Wait for the sink to have taken everything; returns whether it has in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while (fused := self._next()) is not None:
                self._sink.write(fused)
                self._written(fused)
        except Exception as e:  # noqa: BLE001 - raised again in the fusing thread
            self._inbox.fail(named(self.name, e))
            with self._changed:
                self._over = True
                self._waiting.clear()
                self._changed.notify_all()

    def _next(self) -> Fused | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            fused = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
            return fused


def named(stage: str, error: Exception) -> Exception:
    """Return an error that names the stage; the package's own errors speak for themselves."""
    if isinstance(error, RtfuseError):
        return error
    failed = StageFailed(f"{stage} failed: {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed
