"""The command line as real processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest
from terminals import Terminal

ENV = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}


def quick(args):
    """`rtfuse run` and `fuse` with the pyramid, unless a fuser is named: most tests are not about the network."""
    args = [str(a) for a in args]
    return [*args, "--fuser", "pyramid"] if args[:1] in (["run"], ["fuse"]) and "--fuser" not in args else args


class Process:
    """A running `rtfuse` command whose output can be waited for, line by line."""

    def __init__(self, *args, cwd=None):
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "rtfuse", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=ENV,
            cwd=cwd,
        )
        self.lines, self._changed = [], threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def wait_for(self, text, timeout_s=60):
        """Wait until a line with `text` was printed, and return it."""
        with self._changed:
            found = self._changed.wait_for(lambda: next((x for x in self.lines if text in x), None), timeout_s)
        assert found, "\n".join(self.lines)
        return found

    def signal(self, number):
        self.popen.send_signal(number)

    def end(self, timeout_s=60):
        """Wait for the process to end and return its status."""
        return self.popen.wait(timeout_s)

    @property
    def output(self):
        return "\n".join(self.lines)


@pytest.fixture
def endpoint(tmp_path):
    """A ZeroMQ endpoint of this test alone."""
    return f"ipc://{tmp_path}/s"


@pytest.fixture
def usual_ports(tmp_path_factory):
    """The ports that rtfuse and its pages name, for this test alone among the processes that share the tests."""
    with (tmp_path_factory.getbasetemp().parent / "usual_ports").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _starting():
    running = []

    def begin(*args, **kwargs):
        running.append(Process(*quick(args), **kwargs))
        return running[-1]

    yield begin
    for process in running:
        if process.popen.poll() is None:
            process.signal(signal.SIGKILL)
            process.end(10)


@pytest.fixture
def start():
    """Start `rtfuse ARGS…`; whatever still runs at the end of the test is killed."""
    yield from _starting()


@pytest.fixture(scope="module")
def start_for_all():
    """The same for all tests of a module."""
    yield from _starting()


@pytest.fixture
def rtfuse():
    """Run `rtfuse ARGS…` to its end, as they stand if `literally`; returns the completed process with its texts."""

    def run(*args, timeout_s=120, literally=False, **kwargs):
        command = [sys.executable, "-m", "rtfuse", *(map(str, args) if literally else quick(args))]
        sdl = {k: v for k, v in os.environ.items() if k.startswith("SDL_")}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=ENV | sdl, **kwargs)

    return run


@pytest.fixture
def terminal():
    """Start a command in a terminal of 80 columns; it is killed at the end if it still runs."""
    opened = []

    def start(*command, **env):
        opened.append(Terminal(*command, **env))
        return opened[-1]

    yield start
    for one in opened:
        one.close()
