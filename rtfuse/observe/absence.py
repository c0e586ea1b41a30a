"""Tell once that a stream has stopped, and once that it is back."""

from __future__ import annotations

import time
from collections.abc import Callable

_LIMIT_S = 2.0
_GAPS = 4
"""A stream slower than one frame in half a second counts as gone after this many of its gaps."""


class Absence:
    """Watch the frames of a stream; `say` gets one line when they stop, and one when they come again.

    `unseen` returns the line for a stream of which no frame has come yet.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None],
        *,
        unseen: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._say, self._unseen, self._clock = name, say, unseen, clock
        self._last_s, self._limit_s = clock(), _LIMIT_S
        self._seen = self.gone = False

    def frame(self) -> None:
        """Note a frame."""
        now = self._clock()
        quiet_s, self._last_s = now - self._last_s, now
        if self._seen and self.gone:
            self._say(f"{self._name} is back after {quiet_s:.1f} s")
        elif self._seen:
            self._limit_s = max(_LIMIT_S, _GAPS * quiet_s)
        self._seen, self.gone = True, False

    def nothing(self) -> None:
        """Note that a wait for a frame has ended without one."""
        quiet_s = self._clock() - self._last_s
        if self.gone or quiet_s < self._limit_s:
            return
        self.gone = True
        gone = f"{self._name} is gone: no frame for {quiet_s:.1f} s; waiting for it"
        self._say(gone if self._seen else self._unseen())
