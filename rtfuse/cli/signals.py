"""Ctrl-C and SIGTERM, for commands that run until they are ended."""

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
"""After Ctrl-C or SIGTERM, what has not ended after this time is left behind."""


class Signals:
    """Ctrl-C and SIGTERM as an event to wait for and a fact to ask for."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.fired = False

    def __call__(self, *_: object) -> None:
        self.fired = True
        self.stop.set()

    @contextmanager
    def caught(self) -> Iterator[Signals]:
        """Catch both signals while the block runs."""
        before = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def interruptible(job: Callable[[Signals], T]) -> T:
    """Run `job` in a thread and return its result, or raise its error.

    The main thread stays free for signals: a job that hangs inside a driver or a socket, where Python's handlers
    do not run, still ends within 2 s of Ctrl-C.
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
            thread.join(0.05)
            if signals.fired and deadline is None:
                deadline = time.monotonic() + _GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                sys.stdout.flush()
                os._exit(0)
    if errors:
        raise errors[0]
    return results[0]
