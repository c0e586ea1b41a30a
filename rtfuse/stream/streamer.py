"""Stream fused video to one address in a thread of its own, and connect again when the connection breaks."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque

from rtfuse.capture.backoff import Backoff
from rtfuse.errors import DeviceUnavailable, redact
from rtfuse.observe.logs import event
from rtfuse.stream.sender import Job, SenderProcess
from rtfuse.stream.settings import Streaming
from rtfuse.types import Clock, Fused, Picture

_WAITING = 2
"""Pictures that wait for the encoder."""
_CLOSE_S = 1.0
_log = logging.getLogger("rtfuse.stream")


class Streamer:
    """Stream to one address; `write` never waits.

    A server that is away costs its own stream alone: it is tried again after waits that grow, and after a
    refused login only after ten seconds to minutes. The log has one line when it is gone and one when it is back.
    `drops`: pictures that were not sent: `slow` while the connection held, `away` without one.
    """

    def __init__(
        self,
        uri: str,
        settings: Streaming,
        *,
        encoder: str,
        rate_hz: float,
        clock: Clock = time.monotonic_ns,
        backoff: Backoff | None = None,
    ) -> None:
        self._job, self._encoder = Job(uri, settings, encoder, rate_hz), encoder
        self._clock, self._backoff = clock, backoff or Backoff(nearby=False)
        self._name = f"stream {redact(uri)}"
        self._drops: Counter[tuple[str, str]] = Counter()
        self._waiting: deque[tuple[Picture, int]] = deque()
        self._changed = threading.Condition()
        self._up, self._told, self._over = False, False, False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="rtfuse-stream", daemon=True)
        self._thread.start()

    @property
    def drops(self) -> dict[tuple[str, str], int]:
        """Pictures that were not sent, by address and cause; from any thread."""
        with self._changed:
            return dict(self._drops)

    def wants_aligned(self) -> bool:
        """Return False: the fused picture alone is sent."""
        return False

    def write(self, fused: Fused) -> None:
        """Take a picture; the oldest one that waits is dropped. Raises an error of the program in the thread."""
        utc_us = (time.time_ns() - (self._clock() - fused.pair.leader.t_ns)) // 1000
        with self._changed:
            if self._error is not None:
                raise self._error
            if len(self._waiting) >= _WAITING:
                self._waiting.popleft()
                self._drops[self._name, "slow" if self._up else "away"] += 1
            self._waiting.append((fused.picture, utc_us))
            self._changed.notify_all()

    def close(self) -> None:
        """Send what waits, and end the connection; do not wait for a server that does not answer."""
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        try:
            while not self._over:
                self._pause(self._connected())
        except Exception as e:  # noqa: BLE001 - raised again by `write`
            with self._changed:
                self._error = e

    def _next(self) -> tuple[Picture, int] | None:
        """Wait for the next picture; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._over)
            return self._waiting.popleft() if self._waiting else None

    def _connected(self) -> DeviceUnavailable | None:
        """Send until the connection breaks, and return the reason; None at the end."""
        process, began_s = SenderProcess(self._job), time.monotonic()
        try:
            while (item := self._next()) is not None:
                try:
                    process.send(*item)
                except DeviceUnavailable as e:
                    self._backoff.ended(time.monotonic() - began_s if self._up else 0.0)
                    return e
                self._opened()
            return None
        finally:
            process.close()
            with self._changed:
                self._up = False

    def _opened(self) -> None:
        """Note that the connection holds, and say so if it was gone."""
        if self._up:
            return
        with self._changed:
            self._up = True
        said = "is back" if self._told else f"runs, by {self._encoder}"
        event(_log, logging.INFO, "stream", f"{self._name} {said}", stage=self._name)
        self._told = False

    def _pause(self, failure: DeviceUnavailable | None) -> None:
        """Say once that the server is gone, and wait before the next try; drop what waits meanwhile."""
        if failure is None:
            return
        wait_s = self._backoff.wait_s(failure)
        if not self._told and not self._over:
            event(_log, logging.WARNING, "stream", f"{failure}; the rig goes on, and tries again", stage=self._name)
        self._told = True
        with self._changed:
            self._drops[self._name, "away"] += 1 + len(self._waiting)  # one was lost as it was sent
            self._waiting.clear()
            self._changed.wait_for(lambda: self._over, wait_s)
