"""A real terminal of 80 columns for a command: a pseudo-terminal that is the controlling one, as a shell gives it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RTFUSE = (sys.executable, "-m", "rtfuse")


class Terminal:
    """A command in a terminal; `seen` is everything that it wrote."""

    def __init__(self, *command, columns=80, **env):
        self.seen = ""
        self._fd, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        kept |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)} | env
        # Not pty.fork: a copy of this process may die of the libraries that tests have loaded, before it runs anything.
        self._process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, command)], stdin=its, stdout=its, stderr=its, env=kept
        )
        self.pid = self._process.pid
        os.close(its)

    def read(self, timeout_s=0.1):
        """Read for a while; returns False at the end of the output."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def wait_for(self, text, timeout_s=90):
        """Read until `text` has been written."""
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            assert self.read() or text in self.seen, self.seen
            assert time.monotonic() < end, self.seen

    def type(self, text):
        """Type on the keyboard; `\\x03` is Ctrl-C."""
        os.write(self._fd, text.encode())

    def end(self, timeout_s=60):
        """Read to the end; returns the exit status."""
        end = time.monotonic() + timeout_s
        while self.read():
            assert time.monotonic() < end, self.seen
        return self._process.wait(timeout_s)

    def close(self):
        """Kill the process that still runs."""
        self._process.kill()
        self._process.wait()
        os.close(self._fd)
