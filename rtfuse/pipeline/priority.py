"""Raise the priority of a live rig, where the system allows it, and lower that of threads that may wait."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

_THREADS, _GROUP = Path("/proc/self/task"), Path("/proc/self/autogroup")
_log = logging.getLogger("rtfuse.load")


def raise_priority(nice: int) -> bool:
    """Give all threads of this process, and those that they start, the niceness `nice`; returns False if not allowed.

    Does nothing, and returns True, where this thread's is that low already. Linux allows a negative niceness by
    `CAP_SYS_NICE` or the limit `RLIMIT_NICE`. Where it shares the processors among sessions first (sched(7), "The
    autogroup feature"), a niceness counts inside the session alone: then the session gets it too.
    """
    if not hasattr(os, "getpriority") or niceness() <= nice:
        return True
    try:
        for thread in os.listdir(_THREADS) if _THREADS.exists() else ("0",):
            with suppress(ProcessLookupError):  # it has just ended
                os.setpriority(os.PRIO_PROCESS, int(thread), nice)
    except OSError as e:
        _log.debug("niceness %d is not allowed: %s", nice, e)
        return False
    try:
        _GROUP.write_text(str(nice), encoding="ascii")
    except OSError as e:  # no such feature, or not allowed
        _log.debug("%s: %s", _GROUP, e)
    return True


def lower_priority(nice: int) -> None:
    """Give this thread, and the threads and programs that it starts, at least the niceness `nice`, 0 to 19."""
    if hasattr(os, "setpriority") and niceness() < nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)


def niceness() -> int:
    """Return the niceness of this thread, from -20 (first) to 19 (last); 0 where the system has none."""
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0
