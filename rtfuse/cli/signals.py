"""Turn Ctrl-C, SIGTERM and a closed terminal (SIGHUP) into an event, for commands that run until they are ended."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_GRACE_S = 1.7
"""The job has this time to end after Ctrl-C or SIGTERM; the process then ends without it."""
_WAIT_S = 0.05
_WINDOW_S = 0.016


def _ending() -> Iterator[int]:
    """Yield the signals that end a command; without SIGHUP where `nohup` wants it ignored."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


class Signals:
    """Note the signals that end a command.

    stop: set by each of them, and by the program when it wants to end.
    fired: True once one of them has come.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.fired = False

    def __call__(self, *_: object) -> None:
        self.fired = True
        self.stop.set()

    @contextmanager
    def caught(self) -> Iterator[Signals]:
        """Catch the signals while the block runs."""
        before = {number: signal.signal(number, self) for number in list(_ending())}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def interruptible(
    job: Callable[[Signals], T],
    idle: Callable[[Signals], object] | None = None,
    *,
    cut_off: str | None = None,
    tidy: Callable[[], object] = lambda: None,
) -> T:
    """Run `job` in a thread and return its result, or raise its error.

    The main thread stays free for signals: a job that hangs inside a driver or a socket, where Python's handlers
    do not run, still ends within 2 s of Ctrl-C. It calls `idle` all the while, some 60 times a second: a window, which
    some systems allow in the main thread alone, is drawn there.
    `cut_off`: what is said, with status 130, of a job that had to be left behind; None: it was to run until then.
    `tidy`: removes what such a job leaves.
    """
    signals, results, errors = Signals(), list[T](), list[BaseException]()

    def work() -> None:
        try:
            results.append(job(signals))
        except BaseException as e:  # noqa: BLE001 - raised again in the main thread
            errors.append(e)

    thread = threading.Thread(target=work, name="rtfuse-main", daemon=True)
    deadline = None
    with signals.caught():
        thread.start()
        while thread.is_alive():
            thread.join(_WINDOW_S if idle else _WAIT_S)
            if idle is not None and not signals.fired:
                idle(signals)
            if signals.fired and deadline is None:
                deadline = time.monotonic() + _GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                if sys.stdout.isatty():
                    sys.stdout.write("\x1b[?25h")  # the cursor, which a status that is drawn in place hides
                sys.stdout.flush()
                tidy()
                if cut_off is not None:
                    sys.stderr.write(f"error: {cut_off}\n")
                    sys.stderr.flush()
                os._exit(0 if cut_off is None else 130)
    if errors:
        raise errors[0]
    return results[0]
