"""Many subscribers that come, go, get stuck and die, in seconds; `tools/bench_publish.py churn` does it for minutes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from live import fused, programs, publishing

from rtfuse.client.subscriber import Subscriber
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher

TOOL = Path(__file__).parents[2] / "tools" / "bench_publish.py"

STUCK = """
import sys, time
from rtfuse.client.subscriber import Subscriber
with Subscriber(sys.argv[1], latest=False) as stream:
    print(stream.recv(20).header.seq, flush=True)
    time.sleep(600)
"""

IDLERS = """
import random, sys, time, zmq
from rtfuse.client.subscriber import Subscriber

end, taken = time.monotonic() + float(sys.argv[2]), 0
with zmq.Context() as context:
    streams = [Subscriber(sys.argv[1], latest=False, queue=1, context=context) for _ in range(100)]
    due = [time.monotonic() + 3 + 3 * random.random() for _ in streams]
    while time.monotonic() < end:
        time.sleep(0.002)
        for k, stream in enumerate(streams):
            if time.monotonic() > due[k]:
                taken += (stream.recv(0) is not None) + (stream.recv(0) is not None)
                due[k] = time.monotonic() + 3 + 1.5 * random.random()
    for stream in streams:
        stream.close()
print(taken)
"""


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.fixture
def playing(tmp_path):
    """A publisher on two endpoints that publishes 640x480 all the time."""
    publisher = Publisher([Offer(f"ipc://{tmp_path}/s"), Offer("tcp://127.0.0.1:*", "jpeg")])
    with publishing(publisher, fused(1, (640, 480)), every_s=0.01):
        yield publisher


@pytest.fixture
def python():
    """Run Python with arguments; whatever still runs at the end of the test is killed."""
    yield from programs()


def test_a_crowd_that_comes_and_goes_leaves_nothing_and_takes_nothing(playing, python):
    with Subscriber(playing.endpoint, latest=False, queue=300) as reader:
        assert reader.recv(20) is not None
        crowd = python(TOOL, "visit", "--seconds", "4", *playing.endpoints)
        before = resident_mb(), len(os.listdir("/proc/self/fd"))
        peak = 0
        while crowd.poll() is None:
            assert reader.recv(10) is not None
            peak = max(peak, sum(playing.subscribers().values()))
        assert (crowd.returncode, int(crowd.stdout.read()) > 100) == (0, True)
        assert peak > 20
        deadline = time.monotonic() + 20
        while sum(playing.subscribers().values()) > 1 or len(os.listdir("/proc/self/fd")) > before[1]:
            reader.recv(1)
            assert time.monotonic() < deadline
        assert resident_mb() - before[0] < 40
        assert reader.malformed == 0


def test_stopped_and_killed_subscribers_are_let_go_of(playing, python):
    stuck = [python("-c", STUCK, endpoint) for endpoint in playing.endpoints for _ in range(2)]
    with Subscriber(playing.endpoint, latest=False, queue=300) as reader:
        assert all(int(process.stdout.readline()) >= 0 for process in stuck)
        assert sum(playing.subscribers().values()) >= 4
        before = resident_mb()
        for process in stuck:
            process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 30
        ipc, tcp = playing.endpoints
        while playing.subscribers()[tcp, "fused"] > 0:  # until the kernel gives it up, five seconds
            assert reader.recv(10) is not None
            assert time.monotonic() < deadline
        for process in stuck:
            process.kill()
        while playing.subscribers()[ipc, "fused"] > 1:
            assert reader.recv(10) is not None
            assert time.monotonic() < deadline
        assert resident_mb() - before < 40
        assert reader.malformed == 0


@pytest.mark.slow
def test_a_reader_of_every_frame_may_be_idle_for_longer_than_a_heartbeat(playing, python):
    idlers = python("-c", IDLERS, playing.endpoints[1], "15")
    assert int(idlers.communicate(timeout=120)[0]) > 200
    assert idlers.returncode == 0
