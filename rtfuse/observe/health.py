"""Follow the state of each stream: live, frozen, stalled or lost, its rate, and since when."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from rtfuse.types import LABELS, Clock, Frame, Stream


class State(StrEnum):
    """State of a stream, by its name in headers, statistics and logs."""

    STARTING = "starting"
    """No frame has come yet."""
    LIVE = "live"
    SHUTTER = "shutter"
    """The thermal camera reports that its shutter is closed (FFC), and repeats an old picture."""
    FROZEN = "frozen"
    """Frames come, but bit for bit the same picture."""
    STALLED = "stalled"
    """No frame comes, though the source is open."""
    LOST = "lost"
    """The source is gone and is being opened again; the state lasts until its first picture."""
    ENDED = "ended"
    """The source has ended."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Describe one stream now.

    `state`, `for_s`: its state, and for how many seconds.
    `rate_hz`: the measured rate.
    `latency_ms`: the delay from capture to arrival (median of the last frames).
    `drift_ppm`: how much faster than the local clock the source's clock runs.
    `clock_steps`: the number of jumps of that clock.
    `reconnects`: how often the source came back.
    `why`: the newest reason why it is lost.
    """

    state: State
    for_s: float
    rate_hz: float | None = None
    latency_ms: float | None = None
    drift_ppm: float | None = None
    clock_steps: int = 0
    reconnects: int = 0
    why: str | None = None


def of_stream(stream: Stream, said: str) -> str:
    """Return what is said of a stream with its name before it, unless it begins with the name already."""
    name = LABELS[stream]
    return said if said.startswith(f"{name} ") else f"{name}: {said}"


class Health:
    """Follow one stream. The capture thread calls `frame`, `lost` and `found`; any thread may read.

    `quiet_ns`: the time without a new picture after which a stream is stalled or frozen.
    """

    def __init__(self, stream: Stream, *, quiet_ns: int, clock: Clock) -> None:
        self.stream, self.quiet_ns = stream, quiet_ns
        self.reconnects = 0
        self._clock, self._lock = clock, threading.Lock()
        self._shutter = self._ended = False
        self._why: str | None = None
        self._any_ns: int | None = None
        self._shown_ns: int | None = None
        self._since_ns = self._lost_ns = clock()
        self._recent: deque[tuple[int, int, int]] = deque(maxlen=64)

    def frame(self, frame: Frame) -> None:
        """Note a frame that has arrived."""
        with self._lock:
            self._any_ns = now = self._clock()
            self._why = None
            self._shutter = frame.frozen and frame.thermal is not None and frame.thermal.shutter == "closed"
            if not frame.frozen:
                if self._shown_ns is None or now - self._shown_ns > self.quiet_ns:
                    self._since_ns = now
                self._shown_ns = now
            self._recent.append((frame.frame_id, frame.t_ns, now - frame.t_ns))

    def lost(self, why: str) -> None:
        """Note that the source is gone, or the newest reason why it is not back."""
        with self._lock:
            if self._why is None:
                self._lost_ns = self._clock()
            self._why = why
            self._recent.clear()

    def found(self) -> None:
        """Note that the source is open again. It counts as lost until a frame comes."""
        with self._lock:
            self.reconnects += 1

    def ended(self) -> None:
        """Note the end of the source."""
        with self._lock:
            self._ended = True

    def state(self) -> State:
        """Return the present state."""
        with self._lock:
            return self._state(self._clock())

    def present(self) -> tuple[State, str | None]:
        """Return the present state, and the newest reason why the source is lost; None if it is not."""
        with self._lock:
            return self._state(self._clock()), self._why

    @property
    def why(self) -> str | None:
        """The newest reason why the source is lost; None if it is not."""
        return self._why

    def missing_ns(self) -> int:
        """Return the time since the last new picture, 0 while the stream is live."""
        with self._lock:
            now = self._clock()
            quiet_ns = now - (self._since_ns if self._shown_ns is None else self._shown_ns)
            return quiet_ns if self._state(now) not in (State.LIVE, State.ENDED) else 0

    def condition(self, *, drift_ppm: float | None = None, clock_steps: int = 0) -> Condition:
        """Return the state with its numbers."""
        with self._lock:
            now = self._clock()
            state = self._state(now)
            return Condition(
                state,
                (now - self._began_ns(state)) / 1e9,
                rate_hz=self._rate_hz(),
                latency_ms=sorted(late for _, _, late in self._recent)[len(self._recent) // 2] / 1e6
                if self._recent
                else None,
                drift_ppm=drift_ppm,
                clock_steps=clock_steps,
                reconnects=self.reconnects,
                why=self._why,
            )

    def _state(self, now: int) -> State:
        if self._ended:
            return State.ENDED
        if self._why is not None:
            return State.LOST
        if self._any_ns is None or self._shown_ns is None:
            return State.STARTING
        if self._shutter:
            return State.SHUTTER
        if now - self._any_ns > self.quiet_ns:
            return State.STALLED
        return State.FROZEN if now - self._shown_ns > self.quiet_ns else State.LIVE

    def _began_ns(self, state: State) -> int:
        if state is State.LOST:
            return self._lost_ns
        if state is State.STALLED and self._any_ns is not None:
            return self._any_ns
        if state in (State.FROZEN, State.SHUTTER) and self._shown_ns is not None:
            return self._shown_ns
        return self._since_ns

    def _rate_hz(self) -> float | None:
        if len(self._recent) < 8:
            return None
        (first_id, first_ns, _), (last_id, last_ns, _) = self._recent[0], self._recent[-1]
        return (last_id - first_id) * 1e9 / (last_ns - first_ns) if last_ns > first_ns else None
