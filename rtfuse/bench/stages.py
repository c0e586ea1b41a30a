"""Measure the cost of each stage of the pipeline per frame, in wall time and in processor time (`rtfuse bench`).

The stages run one after the other on real recordings, so that the processor time of all threads that a stage uses is
its own. A subscriber in another process counts what receiving costs.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from rich.table import Table

from rtfuse import wire
from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, Camera
from rtfuse.capture import open_source
from rtfuse.capture.paths import ffmpeg_name
from rtfuse.config import Config, Fuse
from rtfuse.fuse import open_fuser
from rtfuse.pipeline.stages import Stages
from rtfuse.publish.publisher import Publisher
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Frame, Stream

WARM_UP = 20
RECEIVE = "receive, another process"
NETWORK = "fuse"
ENCODE = "encode raw (part of publish)"
COLOUR = "RGB, for raw subscribers"
TOTAL = "all but the network"
_ROWS = {"align": "warp", "fuse": NETWORK}
"""The row that ends with each of the `Stages`: `warp` is gain control and warp."""


class Stopwatch:
    """Wall and processor nanoseconds by stage, one sample per frame."""

    def __init__(self) -> None:
        self.wall: dict[str, list[int]] = {}
        self.cpu: dict[str, list[int]] = {}
        self._begun = (0, 0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block as one sample of the stage `name`, the processor time of all threads included."""
        self.begin()
        yield
        self.lap(name)

    def begin(self) -> None:
        """Begin a sample."""
        self._begun = time.process_time_ns(), time.perf_counter_ns()

    def lap(self, name: str) -> None:
        """End the sample of the stage `name`, and begin the next."""
        cpu, wall = self._begun
        self.wall.setdefault(name, []).append(time.perf_counter_ns() - wall)
        self.cpu.setdefault(name, []).append(time.process_time_ns() - cpu)
        self.begin()


def record_scene(folder: Path, size_wh: tuple[int, int], frames: int, rate_hz: int = 30) -> tuple[str, str]:
    """Record the synthetic scene as two H.264 files in `folder` and return their paths."""
    scene = f"synthetic:?size={size_wh[0]}x{size_wh[1]}&fps={rate_hz}&duration_s={frames / rate_hz}"
    streams: tuple[Stream, Stream] = ("ir", "rgb")
    paths = [str(folder / f"{stream}.mp4") for stream in streams]
    for stream, path in zip(streams, paths, strict=True):
        source = open_source(scene, stream)
        with av.open(ffmpeg_name(path), "w") as container:
            video = container.add_stream("libx264", rate=rate_hz, options={"preset": "veryfast", "crf": "20"})
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = *size_wh, "yuv420p"
            for frame in source:
                layout = "gray" if stream == "ir" else "rgb24"
                container.mux(video.encode(VideoFrame.from_ndarray(frame.image, format=layout)))
            container.mux(video.encode(None))
    return paths[0], paths[1]


def example_calibration(size_wh: tuple[int, int]) -> Calibration:
    """Return a calibration with distortion, pose and a rim that thermal does not reach, for images of this size."""
    w, h = size_wh
    K = ((0.9 * w, 0.0, w / 2), (0.0, 0.9 * w, h / 2), (0.0, 0.0, 1.0))
    straight = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    camera = Camera(size_wh=size_wh, K=K, dist=(-0.05, 0.01, 0.0, 0.0, 0.0))
    return Calibration(ir=camera, rgb=camera, R_rgb_from_ir=straight, t_rgb_from_ir_m=(0.06, 0.0, 0.0), plane_m=5.0)


def bench_stages(ir: str, rgb: str, *, fuser_name: str, weights: str | None = None, frames: int = 300) -> Stopwatch:
    """Run `frames` pairs of two recordings of one size through every stage and return the times."""
    watch = Stopwatch()
    sources = [iter(open_source(uri, stream)) for uri, stream in ((ir, "ir"), (rgb, "rgb"))]  # type: ignore[arg-type]
    first = [next(source) for source in sources]
    aligner = Aligner(first[0].shape_hw, first[1].shape_hw, _fitting(first, first[1].shape_hw[::-1]))

    def done(stage: str) -> None:
        if stage in _ROWS:
            watch.lap(_ROWS[stage])

    stages = Stages(aligner, open_fuser(fuser_name, weights=weights), Config(fuse=Fuse(steady=False)), done=done)
    pairer = Pairer(tolerance_ns=20_000_000)
    with Publisher("tcp://127.0.0.1:*") as publisher:
        receiver = _start_receiver(publisher.endpoint)
        for _ in range(frames):
            with watch.stage("read ir"):
                ir_frame = next(sources[0], None)
            with watch.stage("read rgb"):
                rgb_frame = next(sources[1], None)
            if ir_frame is None or rgb_frame is None:
                break
            with watch.stage("pair"):
                pairer.push(ir_frame)
                pairer.push(rgb_frame)
                pairs = pairer.pairs()
            for pair in pairs:
                watch.begin()
                fused = stages.process(pair)
                with watch.stage(COLOUR):
                    _ = fused.image
                header = publisher.header(fused)
                with watch.stage(ENCODE):
                    wire.encode("bench", header, fused.image)
                with watch.stage("publish"):
                    publisher.write(fused)
    watch.cpu[RECEIVE] = _receiver_times(receiver)
    return watch


def _fitting(first: list[Frame], size_wh: tuple[int, int]) -> Calibration | None:
    return example_calibration(size_wh) if first[0].shape_hw == first[1].shape_hw else None


def _start_receiver(endpoint: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rtfuse.bench.stages", endpoint]
    # In a session of its own: Ctrl-C at the terminal is for the benchmark, whose end closes the stream.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()  # it has connected
    return process


def _receiver_times(process: subprocess.Popen[str]) -> list[int]:
    text, _ = process.communicate(timeout=60)
    return [int(ns) for ns in json.loads(text or "[]")]


def receive(endpoint: str) -> None:
    """Receive until nothing comes for two seconds, then print the processor time of each frame (the other process)."""
    from rtfuse.client.subscriber import Subscriber

    cpu = []
    with Subscriber(endpoint, latest=False) as subscriber:
        print("ready", flush=True)
        received = subscriber.recv(30)
        while received is not None:
            start = time.process_time_ns()
            received = subscriber.recv(2)
            cpu.append(time.process_time_ns() - start)
    print(cpu[:-1])  # the last one timed out


def table(watch: Stopwatch, title: str) -> Table:
    """Return the times as a table: milliseconds per frame, and the sum of all stages but the network."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    grid.add_column("stage")
    for clock in ("wall", "processor"):
        grid.add_column(f"{clock} p50 / p95 / p99 ms", justify="right")
    for name, row in rows(watch).items():
        cells = [" / ".join(f"{ms:.2f}" for ms in part) if part else "-" for part in (row["wall"], row["processor"])]
        grid.add_row(name, *cells, style="bold" if name == TOTAL else None)
    return grid


def rows(watch: Stopwatch) -> dict[str, dict[str, list[float]]]:
    """Return p50, p95 and p99 of `wall` and `processor` milliseconds per frame by stage, and of their sum."""
    found = {
        name: {"wall": _percentiles(watch.wall.get(name, [])), "processor": _percentiles(cpu)}
        for name, cpu in watch.cpu.items()
    }
    # RGB is computed once for all who take it, here before `publish`; `encode raw` is counted in `publish`.
    stages = [n for n in watch.cpu if n not in (NETWORK, ENCODE, RECEIVE)]
    count = min(len(watch.cpu[n]) for n in [*stages, RECEIVE])
    sums = {
        "wall": np.sum([watch.wall[n][:count] for n in stages], axis=0),
        "processor": np.sum([watch.cpu[n][:count] for n in [*stages, RECEIVE]], axis=0),
    }
    return found | {TOTAL: {clock: _percentiles(list(ns)) for clock, ns in sums.items()}}


def _percentiles(ns: list[int]) -> list[float]:
    return [float(x) / 1e6 for x in np.percentile(ns[WARM_UP:], [50, 95, 99])] if len(ns) > WARM_UP else []


def machine() -> str:
    """Name the processor and the number of its cores that this process may use."""
    import os

    name = platform.processor() or platform.machine()
    try:
        info = Path("/proc/cpuinfo").read_text()
        name = next(line.split(":", 1)[1].strip() for line in info.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores"


if __name__ == "__main__":
    receive(sys.argv[1])
