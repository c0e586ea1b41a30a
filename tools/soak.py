"""Check that a rig does not grow over time: memory, file descriptors, threads, and the age of its frames.

    python tools/soak.py --minutes 60          # a real `rtfuse run` on the live synthetic street, 30 frames a second
    python tools/soak.py --frames 1000000      # the same pipeline in compressed time: as fast as it goes, with faults

Prints a line a minute (or a twentieth), compares the last quarter with the second, and ends with status 1 after growth.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtfuse.align.aligner import Aligner
from rtfuse.capture.pacing import Playback
from rtfuse.client.subscriber import Subscriber
from rtfuse.config import Config, Fuse
from rtfuse.fuse.luma_fuser import LumaFuser
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.stages import Stages
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Frame, Fused, Image, SourceInfo, Stamp, Stream

_MS = 1_000_000
SCENE = "synthetic:?live=1&size=320x240&bits=16&drop=0.02&ffc_every_s=60&ffc_s=1.5&jitter_ms=3"


@dataclass(frozen=True, slots=True)
class Sample:
    """State of a process: frames, resident memory (kB), file descriptors, threads, p99 of the frames' age (ms)."""

    frames: int
    resident_kb: int
    descriptors: int
    threads: int
    age_p99_ms: float

    def __str__(self) -> str:
        return (
            f"{self.frames:>9} frames  {self.resident_kb / 1024:7.1f} MB  {self.descriptors:3} descriptors  "
            f"{self.threads:3} threads  age p99 {self.age_p99_ms:.1f} ms"
        )


def held_by(pid: int, frames: int, ages_ms: list[float]) -> Sample:
    """Sample a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Sample(
        frames=frames,
        resident_kb=int(status["VmRSS"].split()[0]),
        descriptors=len(os.listdir(f"/proc/{pid}/fd")),
        threads=int(status["Threads"]),
        age_p99_ms=float(np.percentile(ages_ms, 99)) if ages_ms else float("nan"),
    )


def grown(samples: list[Sample]) -> list[str]:
    """Return the values that grew from the second to the last quarter of the samples; the first is the warm-up."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]

    def median(kind: str, of: list[Sample]) -> float:
        return float(np.median([getattr(sample, kind) for sample in of]))

    faults = []
    limits = {"resident_kb": (1.05, 2048), "descriptors": (1.0, 0), "threads": (1.0, 0), "age_p99_ms": (1.5, 5)}
    for kind, (factor, slack) in limits.items():
        before, after = median(kind, early), median(kind, late)
        if after > factor * before + slack:
            faults.append(f"{kind}: {before:.1f} -> {after:.1f}")
    return faults


def soak(minutes: float, scene: str = SCENE) -> list[Sample]:
    """Run the real command, and return a sample of every minute (of every twentieth of a short run)."""
    every_s, samples = min(60.0, 3.0 * minutes), list[Sample]()
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/soak"
        command = [sys.executable, "-m", "rtfuse", "run", "--ir", scene, "--rgb", scene, "--fuser", "pyramid"]
        process = subprocess.Popen([*command, "--publish", endpoint], stdout=subprocess.DEVNULL)
        try:
            with Subscriber(endpoint, latest=False) as stream:
                if stream.recv(60) is None:
                    raise RuntimeError("nothing was published within a minute")
                end = time.monotonic() + 60 * minutes
                while time.monotonic() < end:
                    ages, until = [], time.monotonic() + every_s
                    while time.monotonic() < until and (received := stream.recv(10)) is not None:
                        ages.append(received.header.age_ns / _MS)
                    samples.append(held_by(process.pid, stream.received, ages))
                    print(samples[-1], flush=True)
        finally:
            process.terminate()
            process.wait(10)
    return samples


class Compressed:
    """Play a camera in compressed time: frames as fast as they are taken, with losses, freezes, jitter and pauses."""

    def __init__(self, stream: Stream, frames: int, seed: int = 3) -> None:
        self._frames, self._rng = frames, np.random.default_rng([seed, stream == "ir"])
        self.info = SourceInfo("compressed", stream, (32, 24), "uint8", live=False, rate_hz=30.0)
        self.losses: dict[str, int] = {}
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        stream, block = self.info.stream, 4096
        shape = (24, 32) if stream == "ir" else (24, 32, 3)
        image: Image = self._rng.integers(0, 255, shape, np.uint8)
        for first in range(0, self._frames, block):
            lost, jitter, late = (
                self._rng.random(block),
                self._rng.normal(0, 2, block),
                self._rng.exponential(4, block),
            )
            pause, freeze = (range(*sorted(self._rng.integers(0, block, 2))) for _ in range(2))
            for k in range(first, min(first + block, self._frames)):
                at = k - first
                if self._closed:
                    return
                if lost[at] < 0.05 or (at in pause and len(pause) < 300):
                    continue
                t_ns = round((k * 1000 / 30 + jitter[at]) * _MS)
                frozen = at in freeze and len(freeze) < 300
                yield Frame(stream, image, k, t_ns, Stamp.END, t_ns + round(late[at] * _MS), frozen=frozen)

    def close(self) -> None:
        self._closed = True


class _Through(LumaFuser):
    """Return RGB: a fuser that costs nothing."""

    def __init__(self) -> None:
        super().__init__("through", lambda ir, luma: luma)

    def __call__(self, ir: Image, rgb: Image, valid: Image | None = None) -> Image:
        return rgb


class _Sampler:
    """Sample the own process every `every` frames; ages mean nothing in compressed time."""

    def __init__(self, every: int) -> None:
        self._every, self.frames, self.samples = every, 0, list[Sample]()

    def write(self, fused: Fused) -> None:
        self.frames += 1
        if self.frames % self._every == 0:
            self.samples.append(held_by(os.getpid(), self.frames, [0.0]))

    def close(self) -> None:
        return None


def compressed(frames: int) -> list[Sample]:
    """Run `frames` frames of both cameras through the pipeline, and return samples of the process."""
    quiet: dict[Stream, int] = {"ir": 100 * _MS, "rgb": 100 * _MS}
    sampler = _Sampler(max(1, frames // 22))
    rig = Rig(
        sources={stream: Compressed(stream, frames) for stream in ("ir", "rgb")},
        pairer=Pairer(
            tolerance_ns=17 * _MS,
            max_reuse_ns=150 * _MS,
            wait_ns=20 * _MS,
            alone_after_ns=quiet,
            shutter_ns=1000 * _MS,
        ),
        stages=Stages(Aligner((24, 32), (24, 32)), _Through(), Config(fuse=Fuse(steady=False))),
        playback=Playback(None),
        order="replay",
    )
    result = Pipeline(rig, {"sampler": sampler}, age_at="sampler").run()
    if result.frames < 0.5 * frames:
        raise RuntimeError(f"only {result.frames} of {frames} frames came out")
    return sampler.samples


def main() -> None:
    """Run a soak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the real command runs")
    parser.add_argument("--frames", type=int, help="compressed time instead: this many frames")
    asked = parser.parse_args()
    samples = compressed(asked.frames) if asked.frames else soak(asked.minutes)
    if asked.frames:
        print(*samples, sep="\n")
    faults = grown(samples)
    print("\n".join(["has grown:", *faults]) if faults else "flat: memory, descriptors, threads, age")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
