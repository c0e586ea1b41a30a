"""Space the tries to open a lost source: quick for a camera that is away, slow for one that refuses."""

from __future__ import annotations

from rtfuse.errors import AccessRefused

LASTED_S = 10.0
"""A session at least this long, in seconds, begins the waits again: a shorter one counts as a failed try."""
_FIRST_S, _NEARBY_S, _FAR_S = 0.1, 0.5, 5.0
"""The first wait, and the longest ones for a device of this machine and for another machine."""
_REFUSED_FIRST_S, _REFUSED_S = 10.0, 300.0
"""The first and the longest wait after a wrong password: cameras lock out a client after five or so."""


class Backoff:
    """Tell the seconds before the next try to open a source, which double with every failure.

    `nearby`: True for a device of this machine, which costs nobody anything to look for.
    A refused login is counted by itself, and waits up to minutes.
    """

    def __init__(self, *, nearby: bool) -> None:
        self._longest_s = _NEARBY_S if nearby else _FAR_S
        self._next_s, self._next_refused_s = _FIRST_S, _REFUSED_FIRST_S

    def ended(self, session_s: float) -> None:
        """Note that the source was open for this long."""
        if session_s >= LASTED_S:
            self._next_s, self._next_refused_s = _FIRST_S, _REFUSED_FIRST_S

    def wait_s(self, failure: Exception | None = None) -> float:
        """Return the wait after a session that has ended, or after a try that has failed."""
        if isinstance(failure, AccessRefused):
            wait_s, self._next_refused_s = self._next_refused_s, min(2 * self._next_refused_s, _REFUSED_S)
        else:
            wait_s, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return wait_s
