"""Watch the pipeline's stages: one that hangs ends the process, with its stack in the log and a status of its own.

If systemd started the process (`Type=notify`, `WatchdogSec=`), it is notified while no stage hangs. If the interpreter
hangs, the notifications stop and systemd ends the process.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rtfuse.observe.logs import event

EXIT_HUNG = 70
"""Status of a process that ended itself because a stage hung (EX_SOFTWARE of sysexits.h)."""

_log = logging.getLogger("rtfuse.supervise")


class Watchdog:
    """Measure how long one stage is busy with one thing; waiting for work does not count."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name, self.limit_s = name, limit_s
        self.thread_id: int | None = None
        self._since: float | None = None

    def beat(self) -> None:
        """Begin a new span of work in this thread."""
        self.thread_id, self._since = threading.get_ident(), time.monotonic()

    def rest(self) -> None:
        """End the span of work: the stage waits."""
        self._since = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Count the time of the block as work."""
        self.beat()
        try:
            yield
        finally:
            self.rest()

    def busy_s(self) -> float:
        """Return the length of the present span of work in seconds, 0 while the stage waits."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stack(self) -> str:
        """Return the stack of its thread as a traceback."""
        frame = sys._current_frames().get(self.thread_id or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "its thread has ended\n"


class Supervisor:
    """Check every `every_s` seconds if a stage is busy for longer than its limit; then call `hung`, once.

    `limit_s`: the limit in seconds.
    `hung`: called with the stage's watchdog; None ends the process.
    `status`: returns a line for `systemctl status`.
    Use it as a context manager.
    """

    def __init__(
        self,
        *,
        limit_s: float = 20.0,
        every_s: float = 1.0,
        hung: Callable[[Watchdog], None] | None = None,
        status: Callable[[], str] | None = None,
    ) -> None:
        self.limit_s, self._every_s = limit_s, every_s
        self._hung, self.status = hung or end_process, status
        self._watchdogs: list[Watchdog] = []
        self._over = threading.Event()
        self._systemd = Notifier()
        self._thread = threading.Thread(target=self._watch, name="rtfuse-supervisor", daemon=True)

    def watchdog(self, name: str, *, patience_s: float = 0.0) -> Watchdog:
        """Return the watchdog of a new stage; `patience_s` extends its limit, for waits that count as work."""
        self._watchdogs.append(Watchdog(name, self.limit_s + patience_s))
        return self._watchdogs[-1]

    def __enter__(self) -> Supervisor:
        self._systemd.send("READY=1")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._systemd.send("STOPPING=1")
        self._thread.join(1.0)

    def _watch(self) -> None:
        every_s = min([self._every_s, *([self._systemd.period_s / 3] if self._systemd.period_s else [])])
        while not self._over.wait(every_s):
            stuck = next((watchdog for watchdog in self._watchdogs if watchdog.busy_s() > watchdog.limit_s), None)
            if stuck is not None:
                event(
                    _log,
                    logging.ERROR,
                    "hung",
                    f"{stuck.name} has been busy with one thing for {stuck.busy_s():.0f} s",
                    stage=stuck.name,
                    stack=stuck.stack(),
                )
                self._hung(stuck)
                return
            self._systemd.send("WATCHDOG=1" + (f"\nSTATUS={self.status()}" if self.status else ""))


def end_process(_: Watchdog) -> None:
    """End the process at once with `EXIT_HUNG`: a thread that hangs in a driver cannot be ended otherwise."""
    for handler in logging.getLogger("rtfuse").handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_HUNG)


class Notifier:
    """Notify systemd of the service's state (sd_notify(3)), if systemd has asked for it.

    `period_s`: the longest time between two notifications; None if systemd wants none.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = os.environ.get("WATCHDOG_USEC", "")
        self.period_s = int(micros) / 1e6 if mine and micros.isdigit() and int(micros) else None

    def send(self, state: str) -> None:
        """Send `NAME=value` lines. Errors of the socket are ignored: the rig does not depend on systemd."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.sendto(state.encode(), self._address)
        except OSError:
            return
