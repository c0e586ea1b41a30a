"""A watch over the pipeline's stages: one that hangs ends the process, with its stack in the log and its own status.

Where systemd started the process (`Type=notify`, `WatchdogSec=`), it hears that all is well for as long as it is; a
process whose interpreter itself hangs falls silent, and systemd ends it.
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


class Heart:
    """One stage's sign of life: it beats, or says what it is busy with; waiting for work is no work."""

    def __init__(self, name: str, limit_s: float) -> None:
        self.name, self.limit_s = name, limit_s
        self.thread_id: int | None = None
        self._since: float | None = None

    def beat(self) -> None:
        """Say that this thread's work goes on, and begin a new span of it."""
        self.thread_id, self._since = threading.get_ident(), time.monotonic()

    def rest(self) -> None:
        """Say that there is nothing to do."""
        self._since = None

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Be busy while the block runs."""
        self.beat()
        try:
            yield
        finally:
            self.rest()

    def busy_s(self) -> float:
        """Return for how many seconds it has been busy with one thing."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def stack(self) -> str:
        """Return where its thread is, as a traceback."""
        frame = sys._current_frames().get(self.thread_id or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "its thread has ended\n"


class Supervisor:
    """Looks every `every_s` whether a heart has been busy for longer than its limit; then calls `hung`, once.

    Use it as a context manager. `status` is a line for `systemctl status`.
    """

    def __init__(
        self,
        *,
        limit_s: float = 20.0,
        every_s: float = 1.0,
        hung: Callable[[Heart], None] | None = None,
        status: Callable[[], str] | None = None,
    ) -> None:
        self.limit_s, self._every_s = limit_s, every_s
        self._hung, self.status = hung or end_process, status
        self._hearts: list[Heart] = []
        self._over = threading.Event()
        self._systemd = Notifier()
        self._thread = threading.Thread(target=self._watch, name="rtfuse-supervisor", daemon=True)

    def heart(self, name: str, *, patience_s: float = 0.0) -> Heart:
        """Return the heart of a new stage; `patience_s` is added to the limit, for waits that are its work."""
        self._hearts.append(Heart(name, self.limit_s + patience_s))
        return self._hearts[-1]

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
            stuck = next((heart for heart in self._hearts if heart.busy_s() > heart.limit_s), None)
            if stuck is not None:
                event(
                    _log,
                    logging.ERROR,
                    "hung",
                    f"{stuck.name} has been at one thing for {stuck.busy_s():.0f} s",
                    stage=stuck.name,
                    stack=stuck.stack(),
                )
                self._hung(stuck)
                return
            self._systemd.send("WATCHDOG=1" + (f"\nSTATUS={self.status()}" if self.status else ""))


def end_process(_: Heart) -> None:
    """End the process at once with `EXIT_HUNG`: a thread that hangs in a driver cannot be ended otherwise."""
    for handler in logging.getLogger("rtfuse").handlers:
        handler.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_HUNG)


class Notifier:
    """Tells systemd (sd_notify(3)) how the service is doing; does nothing where systemd did not ask.

    `period_s` is how often it wants to hear of it, None: not at all.
    """

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        micros = os.environ.get("WATCHDOG_USEC", "")
        self.period_s = int(micros) / 1e6 if mine and micros.isdigit() and int(micros) else None

    def send(self, state: str) -> None:
        """Send `NAME=value` lines. A service manager that does not listen is no fault of the rig's."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.sendto(state.encode(), self._address)
        except OSError:
            return
