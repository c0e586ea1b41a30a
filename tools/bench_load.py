"""Measure a rig that has too little processor: `rtfuse run` on the drawn street, with other processes on its cores.

The rig (30 Hz, `--web`) and everything else share two processor cores. The phases: the rig alone; a browser and a
detector; more processes that only compute; the rig alone again. Prints age and rate of each phase, at the publisher,
and the log's lines about load as they come. The browser is Chromium where it is installed, and always a client that
reads and decodes as one; the detector is `rtfuse detect`.

    python tools/bench_load.py
    python tools/bench_load.py --no-stepping             # the same, and nothing is lowered
    python tools/bench_load.py --interleave 3            # with and without, in turn, three times
    python tools/bench_load.py --fuser pyramid --seconds 60
    python tools/bench_load.py --one-core --rate 15      # a small board: half of one core

With `--one-core` the rig has one core, and in the second phase shares it with a process that only computes, of the
rig's own priority.

Other work on the machine counts as load: run it on a quiet one. Ends with status 1 if, with a browser and a detector,
p99 of the age is above three frame periods: 100 ms at 30 Hz. With `--one-core`, if in the second phase the rig neither
keeps 15 Hz (the cameras' rate, if that is lower) with an age that is within three periods and does not grow, nor says
in its log that it has too little processor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LIMIT_PERIODS = 3.0
LEAST_HZ, GROWTH = 15.0, 1.5
"""With one core: the least rate, and the most by which the age may grow from the first to the last third of a phase."""
CORES = 2
SAID = re.compile(r"processor|warning|error|rtfuse\.fuse|rtfuse\.load", re.IGNORECASE)
"""Lines of the rig's log that are shown."""
TOO_LITTLE = "too little processor"
BURNER = sys.executable, "-c", "while True: pass"
CALM = "headless disable-gpu no-first-run disable-background-networking disable-dev-shm-usage window-size=1000,700"


@dataclass(frozen=True, slots=True)
class Phase:
    """Name of a phase, the age and rate of its frames, and the log's lines about load."""

    name: str
    ages_ms: np.ndarray
    seconds: float
    said: list[str]

    @property
    def p99_ms(self) -> float:
        """The age that one frame in a hundred exceeds."""
        return float(np.percentile(self.ages_ms, 99)) if len(self.ages_ms) else float("inf")

    @property
    def rate_hz(self) -> float:
        """Frames published in a second."""
        return len(self.ages_ms) / self.seconds

    @property
    def growth(self) -> float:
        """Median age of the last third of the frames, divided by that of the first."""
        thirds = np.array_split(self.ages_ms, 3)
        return float(np.median(thirds[2]) / np.median(thirds[0])) if len(thirds[2]) else float("inf")

    def __str__(self) -> str:
        p = np.percentile(self.ages_ms, [50, 95, 99, 100]) if len(self.ages_ms) else [float("nan")] * 4
        ages = " / ".join(f"{n:.0f}" for n in p)
        return f"| {self.name} | {self.rate_hz:.1f} | {ages} |"


@contextmanager
def started(*command: str, quiet: bool = True) -> Iterator[subprocess.Popen[str]]:
    """Run a process while the block runs; what it prints is thrown away if `quiet`."""
    out = subprocess.DEVNULL if quiet else subprocess.PIPE
    env = os.environ | {"COLUMNS": "250"}  # each line of the log whole
    process = subprocess.Popen(
        command, stdout=out, stderr=out if quiet else subprocess.STDOUT, text=True, process_group=0, env=env
    )
    try:
        yield process
    finally:
        with ExitStack() as stack:
            stack.callback(process.wait)
            try:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


@contextmanager
def browsing(url: str, folder: Path) -> Iterator[None]:
    """Watch the page: by Chromium, if it is installed, and by a client that decodes what it gets."""
    with ExitStack() as stack:
        stack.enter_context(started(sys.executable, __file__, "--read", url))
        program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if program is not None:
            flags = [*CALM.split(), "remote-debugging-port=0", f"user-data-dir={folder / 'chromium'}"]
            flags += ["no-sandbox"] if os.geteuid() == 0 else []
            # Chromium of root would give itself a priority that a user's browser cannot have.
            plain = ["setpriv", "--bounding-set=-sys_nice"] if os.geteuid() == 0 and shutil.which("setpriv") else []
            stack.enter_context(started(*plain, program, *(f"--{flag}" for flag in flags), url))
        yield


async def read(url: str) -> None:
    """Take frames as a browser does, decoding each, until the rig ends."""
    import aiohttp
    import cv2

    async with aiohttp.ClientSession() as session, session.ws_connect(url + "/live", max_msg_size=0) as socket:
        await socket.send_str(json.dumps({"want": {"planes": ["fused"], "quality": "medium"}}))
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY:
                continue
            length = int.from_bytes(message.data[:4], "little")
            header = json.loads(message.data[4 : 4 + length])
            await socket.send_str(json.dumps({"ack": header["seq"]}))
            at = 4 + length
            for _, size, *_ in header["planes"]:
                cv2.imdecode(np.frombuffer(message.data, np.uint8, size, at), cv2.IMREAD_COLOR)
                at += size


def ages_of(trace: Path) -> np.ndarray:
    """Return time of publication (s) and age (ms) of each published frame, (N, 2), from a trace of `rtfuse run`."""
    events = json.loads(trace.read_text())
    names = {one["tid"]: one["args"]["name"] for one in events if one["name"] == "thread_name"}
    spans = [one for one in events if one["ph"] == "X"]
    captured = {one["args"]["id"]: one["ts"] for one in spans if names[one["tid"]] == "capture rgb"}
    written = [(one["ts"] + one["dur"], one["args"].get("rgb")) for one in spans if one["name"] == "publish"]
    ages = [(done / 1e6, (done - captured[rgb]) / 1e3) for done, rgb in written if rgb in captured]
    return np.array(ages).reshape(-1, 2)


class Rig:
    """Run `rtfuse run`, which traces its frames; `url` is its page, `said` its log's lines about load, with times."""

    def __init__(self, process: subprocess.Popen[str], trace: Path, zero: float) -> None:
        self.trace, self.pid, self._process, self._zero = trace, process.pid, process, zero
        assert process.stdout is not None
        self.url, self.said = "", list[tuple[float, str]]()
        for line in process.stdout:
            if found := re.search(r"http://\S+", line):
                self.url = found[0]
                break
            self._show(line)
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._show(line)

    def _show(self, line: str) -> None:
        if SAID.search(line) and "rate=" not in line:
            self.said.append((time.monotonic(), line))
            print(f"    {time.monotonic() - self._zero:6.1f} s  {line.rstrip()}", flush=True)


Others = Callable[[Rig, Path, Callable[[str], None]], None]
"""Run other processes beside a rig, which publishes in a folder, and begin phases by name."""


@contextmanager
def running(asked: argparse.Namespace, folder: Path, stepping: bool) -> Iterator[Rig]:
    """Run the rig in a folder for its trace and its socket."""
    scene = f"synthetic:?live=1&size={asked.size}&fps={asked.rate}"
    command = [sys.executable, "-m", "rtfuse", "run", "--ir", scene, "--rgb", scene, "--fuser", asked.fuser]
    command += ["--web", "127.0.0.1:0", "--publish", f"ipc://{folder}/rig", "--trace", str(folder / "trace.json")]
    command += [*asked.more, f"load.step={str(stepping).lower()}"]
    with started(*command, quiet=False) as process:
        yield Rig(process, folder / "trace.json", time.monotonic())


def measured(asked: argparse.Namespace, stepping: bool, others: Others) -> list[Phase]:
    """Run a rig alone, with other processes, and alone again; return the phases. `others` starts phases by name."""
    phases: list[tuple[str, float, float]] = []

    def phase(name: str) -> None:
        print(f"  {name}", flush=True)
        time.sleep(asked.settle)
        begun = time.monotonic()
        time.sleep(asked.seconds)
        phases.append((name, begun, time.monotonic()))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(asked, folder, stepping) as rig:
            time.sleep(3)  # the start of the rig does not count
            phase("rig alone")
            others(rig, folder, phase)
            phase("rig alone again")
        ages = ages_of(folder / "trace.json")
    at = [(begun < ages[:, 0]) & (ages[:, 0] <= ended) for _, begun, ended in phases]
    return [
        Phase(name, ages[k, 1], e - b, [line for t, line in rig.said if b < t <= e])
        for (name, b, e), k in zip(phases, at, strict=True)
    ]


def crowd(burners: int) -> Others:
    """Return the phases with a browser and a detector, and with processes that compute as well."""

    def others(rig: Rig, folder: Path, phase: Callable[[str], None]) -> None:
        with browsing(rig.url, folder), started(*detector(folder)):
            phase("browser and detector")
            with ExitStack() as stack:
                for _ in range(burners):
                    stack.enter_context(started(*BURNER))
                phase(f"and {burners} processes that compute")

    return others


def half(rig: Rig, folder: Path, phase: Callable[[str], None]) -> None:
    """Share the rig's core with a process of its priority."""
    with started(*BURNER) as burner:
        os.setpriority(os.PRIO_PROCESS, burner.pid, os.getpriority(os.PRIO_PROCESS, rig.pid))
        phase("a process that computes")


def detector(folder: Path) -> list[str]:
    """Return the command of the detector of the rig."""
    rig, boxes = f"ipc://{folder}/rig", f"ipc://{folder}/boxes"
    return [sys.executable, "-m", "rtfuse", "detect", rig, "--publish", boxes]


def fault(phase: Phase, rate_hz: float, one_core: bool) -> str | None:
    """Return why a phase is not as it must be; None if it is."""
    limit_ms, least_hz = 1000 * LIMIT_PERIODS / rate_hz, 0.95 * min(LEAST_HZ, rate_hz)
    if not one_core:
        late = phase.p99_ms > limit_ms
        return f"p99 of the age is {phase.p99_ms:.0f} ms, want at most {limit_ms:.0f}" if late else None
    kept = phase.rate_hz >= least_hz and phase.p99_ms <= limit_ms and phase.growth <= GROWTH
    if kept or any(TOO_LITTLE in line for line in phase.said):
        return None
    found = f"{phase.rate_hz:.1f} frames/s, p99 of the age {phase.p99_ms:.0f} ms, growth {phase.growth:.1f} times"
    wanted = f"want {least_hz:.1f}, {limit_ms:.0f} and {GROWTH}, or a line in the log about {TOO_LITTLE}"
    return f"{found}; {wanted}"


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="640x480")
    options.add_argument("--rate", type=float, default=30.0, help="of the cameras, Hz; fewer on a busy machine")
    options.add_argument("--fuser", default="auto")
    options.add_argument("--seconds", type=float, default=20.0, help="of each phase")
    options.add_argument("--settle", type=float, default=0.0, help="seconds of each phase that are left out")
    options.add_argument("--burners", type=int, default=2, help="processes that compute, in the third phase")
    options.add_argument("--one-core", action="store_true", help="one core, and one process that computes on it")
    options.add_argument("--no-stepping", action="store_true", help="nothing is lowered")
    options.add_argument("--interleave", type=int, metavar="TIMES", help="with and without stepping, in turn")
    options.add_argument("--read", metavar="URL", help=argparse.SUPPRESS)
    options.add_argument("more", nargs="*", metavar="KEY=VALUE", help="settings of the rig")
    return options.parse_intermixed_args()


def main() -> None:
    """Measure, and print the tables."""
    asked = parsed()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: 1 if asked.one_core else CORES])
    if asked.read:
        asyncio.run(read(asked.read))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    faults = []
    for stepping in [True, False] * asked.interleave if asked.interleave else [not asked.no_stepping]:
        print(f"stepping {'on' if stepping else 'off'}, load {os.getloadavg()[0]:.1f} before it", flush=True)
        phases = measured(asked, stepping, half if asked.one_core else crowd(asked.burners))
        print("| phase | frames/s | age p50 / p95 / p99 / worst, ms |\n|---|---|---|")
        print("\n".join(map(str, phases)), flush=True)
        if stepping and (found := fault(phases[1], asked.rate, asked.one_core)):
            faults.append(f"{phases[1].name}: {found}")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
