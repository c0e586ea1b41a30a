"""Measure how cost grows with the number of rigs on a machine, the size of the pictures and the rate of the cameras.

Each rig is an `rtfuse run` of H.264 recordings of the synthetic street, in a loop, in real time, with a subscriber of
raw planes. Prints a row for each case and fuser:

- frames/s: published by the slowest rig; ! if it misses more than 2 % of the cameras' rate
- age: from capture to publication, of the rig with the largest p99
- processor: of all threads of all rigs, for each frame, and as a number of cores
- MB: resident, and the rig's own share, in which memory that rigs share is divided by their number; mean of the rigs

    python tools/bench_rigs.py                                            # all three tables: minutes
    python tools/bench_rigs.py --rigs 1,2,4,8 --sizes 640x480 --rates 30
    python tools/bench_rigs.py --rigs 1 --sizes 320x240,3840x2160 --fusers student

Other work on the machine counts as load: run it on a quiet one; the load before each case is printed. Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from rtfuse.bench import stages
from rtfuse.bench.live import stop
from rtfuse.client.subscriber import Subscriber

RIGS, SIZES, RATES = [1, 2, 4, 8], ["320x240", "640x480", "1280x720", "1920x1080", "3840x2160"], [9, 30, 60, 120]
USUAL = 1, "640x480", 30
FIRST_S, SETTLE_S = 120.0, 2.0
"""Longest wait for the first frame of each rig; the time after it that is not measured."""
MISSED = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """Number of rigs, size of their pictures, rate of their cameras, and their fuser."""

    rigs: int
    size: str
    rate_hz: int
    fuser: str


@dataclass(slots=True)
class Watched:
    """Frames of one rig: sequence numbers and ages at publication; `started` is set by the first."""

    seqs: list[int] = field(default_factory=list)
    ages_ms: list[float] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)

    def watch(self, endpoint: str, over: threading.Event) -> None:
        """Receive frames until it is over."""
        with Subscriber(endpoint, latest=False) as stream:
            while not over.is_set():
                if (received := stream.recv(0.1)) is not None:
                    self.seqs.append(received.header.seq)
                    self.ages_ms.append(received.header.age_ns / 1e6)
                    self.started.set()


@dataclass(frozen=True, slots=True)
class Found:
    """Measured values of a case: rate and ages of each rig, processor seconds of all, memory of each."""

    seconds: float
    published: list[int]
    ages_ms: list[list[float]]
    processor_s: float
    resident_mb: list[float]
    own_mb: list[float]

    def row(self, case: Case) -> str:
        """Return the row of the table."""
        rate_hz = min(self.published) / self.seconds
        worst = max(
            (np.percentile(ages, [50, 95, 99]) for ages in self.ages_ms if ages), key=lambda p: p[2], default=[]
        )
        lost = " !" if rate_hz < (1 - MISSED) * case.rate_hz else ""
        each_ms = 1000 * self.processor_s / max(sum(self.published), 1)
        cells = [case.rigs, case.size.replace("x", "×"), case.rate_hz, case.fuser, f"{rate_hz:.1f}{lost}"]
        cells += [
            " / ".join(f"{ms:.0f}" for ms in worst) or "-",
            f"{each_ms:.1f}",
            f"{self.processor_s / self.seconds:.2f}",
        ]
        cells += [f"{np.mean(self.resident_mb):.0f}, {np.mean(self.own_mb):.0f}"]
        return f"| {' | '.join(map(str, cells))} |"


def measure(case: Case, recordings: tuple[str, str], seconds: float) -> Found:
    """Run the rigs of a case. Raises SystemExit with the log of a rig that ends or publishes nothing."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        over, watched = threading.Event(), [Watched() for _ in range(case.rigs)]
        rigs = [stack.enter_context(running(folder, k, recordings, case.fuser)) for k in range(case.rigs)]
        threads = [threading.Thread(target=w.watch, args=(endpoint(folder, k), over)) for k, w in enumerate(watched)]
        for thread in threads:
            stack.callback(thread.join)
            thread.start()
        stack.callback(over.set)
        for k, (rig, one) in enumerate(zip(rigs, watched, strict=True)):
            if not one.started.wait(FIRST_S) or rig.poll() is not None:
                raise SystemExit(f"rig {k} published nothing or ended: {log(folder, k).read_text()[-500:]}")
        time.sleep(SETTLE_S)
        begun_s, spent_s, first = time.monotonic(), sum(map(processor_s, rigs)), [len(w.seqs) for w in watched]
        time.sleep(seconds)
        last = [len(w.seqs) for w in watched]
        lasted_s, spent_s = time.monotonic() - begun_s, sum(map(processor_s, rigs)) - spent_s
        memory = [memory_mb(rig) for rig in rigs]
        published = [w.seqs[b - 1] - w.seqs[a - 1] for w, a, b in zip(watched, first, last, strict=True)]
        ages = [w.ages_ms[a:b] for w, a, b in zip(watched, first, last, strict=True)]
    return Found(lasted_s, published, ages, spent_s, [m[0] for m in memory], [m[1] for m in memory])


def endpoint(folder: Path, k: int) -> str:
    """Return the endpoint of a rig."""
    return f"ipc://{folder}/rig{k}"


def log(folder: Path, k: int) -> Path:
    """Return the path of a rig's log."""
    return folder / f"log{k}"


@contextmanager
def running(folder: Path, k: int, recordings: tuple[str, str], fuser: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a rig while the block runs."""
    command = [sys.executable, "-m", "rtfuse", "run", "--ir", recordings[0], "--rgb", recordings[1], "--loop"]
    command += ["--fuser", fuser, "--publish", endpoint(folder, k), "publish.pixel_format=yuv420p"]
    with log(folder, k).open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as rig:
        try:
            yield rig
        finally:
            stop(rig)


def processor_s(rig: subprocess.Popen[bytes]) -> float:
    """Return the processor time of a rig, user and system."""
    fields = Path(f"/proc/{rig.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(rig: subprocess.Popen[bytes]) -> tuple[float, float]:
    """Return the resident memory of a rig, and its own share of it."""
    lines = Path(f"/proc/{rig.pid}/smaps_rollup").read_text().splitlines()[1:]
    kb = {name: int(rest.split()[0]) for name, rest in (line.split(":", 1) for line in lines)}
    return kb["Rss"] / 1e3, kb["Pss"] / 1e3


def cases(asked: argparse.Namespace) -> list[Case]:
    """Return all combinations of the options given; without any, one series for each."""
    if asked.rigs is None and asked.sizes is None and asked.rates is None:
        series = [(n, *USUAL[1:]) for n in RIGS] + [(1, size, USUAL[2]) for size in SIZES]
        series += [(*USUAL[:2], rate) for rate in RATES]
    else:
        rigs, sizes, rates = asked.rigs or [USUAL[0]], asked.sizes or [USUAL[1]], asked.rates or [USUAL[2]]
        series = [(n, size, rate) for n in rigs for size in sizes for rate in rates]
    return [Case(*one, fuser) for one in dict.fromkeys(series) for fuser in asked.fusers]


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas. Raises ValueError for one below 1."""
    found = [int(n) for n in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


def names(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return text.split(",")


def main() -> None:
    """Measure all cases and print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rigs", type=numbers, metavar="N,…", help="numbers of rigs")
    options.add_argument("--sizes", type=names, metavar="WxH,…", help="sizes of the pictures")
    options.add_argument("--rates", type=numbers, metavar="HZ,…", help="rates of the cameras")
    options.add_argument("--fusers", type=names, default=["pyramid", "student"], metavar="NAME,…")
    options.add_argument("--seconds", type=float, default=10, help="of each case")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def recordings(size: str, rate_hz: int) -> tuple[str, str]:
            width, height = map(int, size.split("x"))
            (place := Path(folder, f"{size}_{rate_hz}")).mkdir()
            return stages.record_scene(place, (width, height), 2 * rate_hz, rate_hz)

        print(stages.machine())
        columns = ["rigs", "size", "Hz", "fuser", "frames/s", "age p50 / p95 / p99 ms", "processor ms a frame", "cores"]
        print(f"| {' | '.join([*columns, 'MB', 'load'])} |\n|{'---|' * (len(columns) + 2)}")
        for case in cases(asked):
            files, load = recordings(case.size, case.rate_hz), os.getloadavg()[0]
            print(f"{measure(case, files, asked.seconds).row(case)} {load:.1f} |", flush=True)


if __name__ == "__main__":
    main()
