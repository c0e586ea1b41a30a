"""Helpers of live tests: free ports, a publisher that repeats one frame, waiting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import count

from scenes import make_frame, picture

from rtfuse.types import Fused, Pair

# Below the range from which the kernel takes ports by itself, so that none is taken between here and its use; each of
# the processes that share the tests has a band of its own.
_BAND = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_ports = count(20_000 + 1_200 * _BAND + os.getpid() % 600)


def free_port(kind=socket.SOCK_STREAM):
    """Return a port of 127.0.0.1 that nobody listens at, never the same one."""
    for port in _ports:
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError


def fused(k=0, size_wh=(64, 48)):
    """Frame `k` of the moving picture, fused, RGB and thermal of the same size."""
    ir, rgb = make_frame("ir", k, size_wh=size_wh), make_frame("rgb", k, size_wh=size_wh)
    return Fused(picture(k, size_wh), ir.image, Pair(ir, rgb, skew_ns=5), None, "test")


@contextmanager
def publishing(publisher, frame, *, every_s=0.005):
    """Publish a frame again and again, in a thread of its own, and close the publisher at the end."""
    over = threading.Event()

    def play():
        while not over.wait(every_s):
            publisher.tick()
            publisher.write(frame)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield publisher
    finally:
        over.set()
        thread.join(10)
        publisher.close()


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def programs():
    """A function that starts Python with arguments and pipes; what still runs at the end is killed."""
    running = []

    def start(*args):
        command = [sys.executable, *map(str, args)]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()
