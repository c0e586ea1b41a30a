"""Measure a whole live rig in a process of its own: start, processor, memory, threads, age (Linux).

Processor time is counted in turns of the known work (`rtfuse.bench.work`), which this process does at the same time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rtfuse.bench.work import Work
from rtfuse.client.subscriber import Subscriber
from rtfuse.errors import StageFailed

STREET = "synthetic:?live=1&size=640x480"
OPTIONS = ("--ir", STREET, "--rgb", STREET, "--fuser", "student")
_CORES = 2
_FIRST_S = 120.0
"""Longest wait for the first frame."""


@dataclass(frozen=True, slots=True)
class Live:
    """Cost of a live rig.

    - `start_turns`: processor time of all its threads to its first frame received, in turns of the known work.
    - `frame_turns`: the same for each frame published after it, drawing of the street included.
    - `start_s`, `turn_ms`: the time to the first frame by the clock, and of a turn.
    - `delay_ms`: 95th percentile of a turn's waits for a core, while other processes have it.
    - `resident_mb`, `threads`: at the end.
    - `rate_hz`, `ages_ms`: of the frames received; age from capture to publication.
    """

    start_turns: float
    frame_turns: float
    start_s: float
    turn_ms: float
    delay_ms: float
    resident_mb: float
    threads: int
    rate_hz: float
    ages_ms: np.ndarray


def measure(options: Sequence[str] = OPTIONS, seconds: float = 5) -> Live:
    """Run `rtfuse run` with these options for some seconds after its first frame.

    Raises StageFailed, with its last lines, if it publishes nothing or ends early.
    """
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/rig"
        command = [sys.executable, "-m", "rtfuse", "run", *options, "--publish", endpoint]
        log = Path(folder, "log")
        with log.open("wb") as file, Subscriber(endpoint, latest=False) as stream:
            rig = _start(command, file)
            try:
                return _watch(rig, stream, seconds)
            except (OSError, _Silent) as e:
                raise StageFailed(f"the rig sent no frame, or ended: {log.read_text()[-500:]}") from e
            finally:
                stop(rig)


def _start(command: Sequence[str], log: BinaryIO) -> subprocess.Popen[bytes]:
    """Start a process on the first cores that this thread may use, without limits to its threads by environment."""
    cores = os.sched_getaffinity(0)
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    os.sched_setaffinity(0, sorted(cores)[:_CORES])
    try:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=env)
    finally:
        os.sched_setaffinity(0, cores)


class _Silent(Exception):
    """No frame came."""


def _watch(rig: subprocess.Popen[bytes], stream: Subscriber, seconds: float) -> Live:
    work, turns, began = Work(), list[int](), time.monotonic()
    received = None
    while received is None:
        turns.append(work.turn())
        received = stream.recv(0.05)
        if time.monotonic() - began > _FIRST_S or rig.poll() is not None:
            raise _Silent
    start_ms, start_s, start_turn_ms = _processor_ms(rig.pid), time.monotonic() - began, float(np.median(turns)) / 1e6
    first, last, ages, turns = received.header.seq, received.header.seq, list[float](), []
    delays = list[int]()
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if (received := stream.recv(left)) is not None:
            last = received.header.seq
            ages.append(received.header.age_ns / 1e6)
        begun_ns = time.monotonic_ns()
        turns.append(work.turn())
        delays.append(time.monotonic_ns() - begun_ns - turns[-1])
    spent_ms, turn_ms = _processor_ms(rig.pid) - start_ms, float(np.median(turns)) / 1e6
    if last == first:
        raise _Silent
    status = dict(line.split(":", 1) for line in Path(f"/proc/{rig.pid}/status").read_text("ascii").splitlines())
    return Live(
        start_turns=start_ms / start_turn_ms,
        frame_turns=spent_ms / (last - first) / turn_ms,
        start_s=start_s,
        turn_ms=turn_ms,
        delay_ms=float(np.percentile(delays, 95)) / 1e6,
        resident_mb=int(status["VmRSS"].split()[0]) / 1e3,
        threads=int(status["Threads"]),
        rate_hz=len(ages) / seconds,
        ages_ms=np.array(ages),
    )


def _processor_ms(pid: int) -> float:
    """Return the processor time of a process, user and system. Raises OSError if it has ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process by SIGTERM, after ten seconds by SIGKILL, and wait for its end."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
