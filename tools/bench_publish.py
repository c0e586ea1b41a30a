"""Measure the cost of publishing and the age of frames in another process, with real processes on this machine.

    python tools/bench_publish.py latency            # 640x480 raw over ipc: capture stamp to array in another process
    python tools/bench_publish.py latency fuse.fuser=student   # the same, fused by a network
    python tools/bench_publish.py slow               # a subscriber that is three times too slow
    python tools/bench_publish.py churn --seconds 300  # 100 subscribers that come and go
    python tools/bench_publish.py encodings          # milliseconds and bytes of each encoding
    python tools/bench_publish.py stream --size 1920x1080 --encoding jpeg   # over tcp, at 30 frames a second
    python tools/bench_publish.py stream --size 1920x1080 --encoding jpeg --curve   # the same, encrypted

A rig runs in its own process: the real pipeline, by default with the pyramid fuser, fed at 30 Hz by two cameras that
repeat pictures drawn beforehand, so that drawing costs nothing. Ratios compare phases in turn, as a machine drifts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rtfuse.bench.stages import machine
from rtfuse.capture import open_source
from rtfuse.client.subscriber import Subscriber
from rtfuse.config import load_config
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.outputs import describing, open_publisher
from rtfuse.pipeline.run import Pipeline
from rtfuse.types import Frame, Image, SourceInfo, Stamp, Stream
from rtfuse.wire.images import compress
from rtfuse.wire.keys import new_client, new_rig
from rtfuse.wire.names import Encoding

_RATE_HZ = 30.0


def pictures(stream: Stream, size: str, count: int = 16) -> list[Image]:
    """Return pictures of the synthetic street."""
    source = iter(open_source(f"synthetic:?size={size}&duration_s=10", stream))
    return [next(source).image for _ in range(count)]


class Camera:
    """Repeat pictures at 30 Hz as a live source, each stamped with its due time."""

    def __init__(self, stream: Stream, size: str) -> None:
        self._stream, self._images, self._over = stream, pictures(stream, size), threading.Event()
        h, w = self._images[0].shape[:2]
        self.info = SourceInfo(f"memory:{stream}", stream, (w, h), "uint8", live=True, rate_hz=_RATE_HZ)
        self.losses: Mapping[str, int] = {}

    def __iter__(self) -> Iterator[Frame]:
        period_ns, k = round(1e9 / _RATE_HZ), 0
        next_ns = (time.monotonic_ns() // period_ns + 1) * period_ns  # both cameras at the same moments
        while not self._over.wait(max(0.0, (next_ns - time.monotonic_ns()) / 1e9)):
            image = self._images[k % len(self._images)]
            yield Frame(self._stream, image, k, next_ns, Stamp.EXPOSURE, time.monotonic_ns())
            next_ns, k = next_ns + period_ns, k + 1

    def close(self) -> None:
        self._over.set()


def serve(size: str, settings: list[str]) -> None:
    """Run a rig until stdin is closed; print its endpoints, at the end its own figures."""
    config = load_config(overrides=["fuse.fuser=pyramid", *settings])
    stop = threading.Event()
    rig = open_rig(config, sources={"ir": lambda: Camera("ir", size), "rgb": lambda: Camera("rgb", size)})
    publisher = open_publisher(
        config, statistics=lambda: pipeline.statistics(), states=rig.states, about=describing(config, rig)
    )
    assert publisher is not None
    pipeline = Pipeline(rig, {"publish": publisher}, age_at="publish", stop=stop)
    spent: list[int] = []
    took = pipeline.stats.took
    pipeline.stats.took = lambda stage, ns: (spent.append(ns) if stage == "fuse" else None, took(stage, ns))[1]  # type: ignore[method-assign]
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print(json.dumps(publisher.endpoints), flush=True)
    snapshot = pipeline.run()
    publisher.close()
    fuse = [float(x) / 1e6 for x in np.percentile(spent[30:] or [0], [50, 95, 99])]
    drops = {".".join(key): n for key, n in snapshot.drops.items()}
    print(json.dumps({"fuse_ms": fuse, "age_ms": snapshot.delay_ms, "frames": snapshot.frames, "drops": drops}))


class RigProcess:
    """Run a rig in its own process; `endpoints` are its addresses, `figures` its output at the end."""

    def __init__(self, size: str, *settings: str) -> None:
        command = [sys.executable, __file__, "serve", "--size", size, *settings]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"the rig did not start: {' '.join(command)}; the reason is above")
        self.endpoints: list[str] = json.loads(said)
        self.figures: dict[str, Any] = {}

    def held(self) -> dict[str, float]:
        """Return the resident memory, descriptors, threads and processor time of the process."""
        folder = Path(f"/proc/{self._process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        ticks = sum(int(n) for n in (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13])
        return {
            "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
            "descriptors": len(os.listdir(folder / "fd")),
            "threads": int(status["Threads"]),
            "cpu_s": ticks / os.sysconf("SC_CLK_TCK"),
        }

    def __enter__(self) -> RigProcess:
        return self

    def __exit__(self, *_: object) -> None:
        out, _err = self._process.communicate("", timeout=30)
        self.figures = json.loads(out.splitlines()[-1]) if out.strip() else {}


@contextlib.contextmanager
def rig_on_ipc(size: str, settings: list[str]) -> Iterator[RigProcess]:
    """Run a rig that publishes raw frames over ipc."""
    with (
        tempfile.TemporaryDirectory() as folder,
        RigProcess(size, f"publish.endpoint=ipc://{folder}/s", *settings) as rig,
    ):
        yield rig


def _lateness(late: list[float], over: threading.Event) -> None:
    while not over.is_set():
        start = time.perf_counter()
        time.sleep(0.005)
        late.append(1000 * (time.perf_counter() - start) - 5)


def listen(subscriber: Subscriber, seconds: float, *, pause_s: float = 0.0) -> list[float]:
    """Return the age in ms of every frame once it is an array in this process; pause after each."""
    ages, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        received = subscriber.recv(0.5)
        if received is not None:
            ages.append((time.monotonic_ns() - received.header.rgb_t_ns) / 1e6)
            if pause_s:
                time.sleep(pause_s)
    return ages


def percentiles(values: list[float]) -> str:
    """Return p50, p95 and p99 as text."""
    return "p50 {:.1f}  p95 {:.1f}  p99 {:.1f}".format(*np.percentile(values or [np.nan], [50, 95, 99]))


def latency(options: argparse.Namespace) -> None:
    """Print the age of frames in another process, and the fuser's time."""
    late, over = list[float](), threading.Event()
    thread = threading.Thread(target=_lateness, args=(late, over), daemon=True)
    with rig_on_ipc(options.size, options.settings) as rig, Subscriber(rig.endpoints[0]) as subscriber:
        listen(subscriber, 2)
        thread.start()
        ages = listen(subscriber, options.seconds)
        over.set()
    fuse = rig.figures["fuse_ms"]
    rate = f"{len(ages) / options.seconds:.1f} frames/s"
    print(f"{options.size} raw over ipc, {rate}: age in another process {percentiles(ages)} ms")
    print("  the fuser alone: p50 {:.1f}  p95 {:.1f}  p99 {:.1f} ms".format(*fuse))
    print(f"  delay of a sleeping thread on this machine in that time: {percentiles(late)} ms")
    beyond = float(np.percentile(ages, 99)) - fuse[0]
    print(f"  p99 of the age beyond the fuser's p50: {beyond:.1f} ms; drops {rig.figures['drops'] or 'none'}")


def slow(options: argparse.Namespace) -> None:
    """Print ages and memory with a subscriber that takes 100 ms for each frame."""
    pause_s = 3 / _RATE_HZ
    with rig_on_ipc(options.size, options.settings) as rig, Subscriber(rig.endpoints[0]) as subscriber:
        listen(subscriber, 2)
        before = rig.held()
        ages = listen(subscriber, options.seconds, pause_s=pause_s)
        after = rig.held()
    print(f"three times too slow, {len(ages)} frames: age {percentiles(ages)} ms, oldest {max(ages):.1f}")
    print(f"  publisher: {before['rss_mb']:.1f} MB before, {after['rss_mb']:.1f} MB after")


def come_and_go(endpoints: list[str], seconds: float, count: int = 100, seed: int = 0) -> int:
    """Open and close up to `count` subscribers at random, some of which read; return how many were opened."""
    import zmq

    rng, opened = random.Random(seed), 0
    subscribers: list[Subscriber | None] = [None] * count
    end = time.monotonic() + seconds
    with zmq.Context() as context:
        context.setsockopt(zmq.MAX_SOCKETS, 4 * count + 16)
        while time.monotonic() < end:
            for _ in range(5):
                k = rng.randrange(count)
                one = subscribers[k]
                if one is None:
                    topic = rng.choice(("fused", "fused", "stats", "about"))
                    latest = rng.random() < 0.5
                    endpoint = rng.choice(endpoints)
                    subscribers[k] = Subscriber(endpoint, topic=topic, latest=latest, queue=4, context=context)
                    opened += 1
                elif rng.random() < 0.3:
                    one.close()
                    subscribers[k] = None
                elif rng.random() < 0.3:
                    with contextlib.suppress(Exception):
                        one.recv(0)
            time.sleep(0.02)
        for left in subscribers:
            if left is not None:
                left.close()
    return opened


def churn(options: argparse.Namespace) -> None:
    """Print ages with and without a crowd of subscribers, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        where = json.dumps([{"endpoint": f"ipc://{folder}/s"}, {"endpoint": "tcp://127.0.0.1:*"}])
        with (
            RigProcess(options.size, f"publish.endpoints={where}") as rig,
            Subscriber(rig.endpoints[0]) as subscriber,
        ):
            listen(subscriber, 3)
            phase_s, quiet, crowded, held = min(15.0, options.seconds / 4), list[float](), list[float](), [rig.held()]
            end, visitors = time.monotonic() + options.seconds, 0
            while time.monotonic() < end:
                quiet += listen(subscriber, phase_s)
                command = [sys.executable, __file__, "visit", "--seconds", str(phase_s), *rig.endpoints]
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as crowd:
                    crowded += listen(subscriber, phase_s)
                    visitors += int(crowd.communicate(timeout=60)[0])
                listen(subscriber, 1)
                held.append(rig.held())
    print(f"{visitors} subscribers came and went, up to 100 at once; the steady reader lost {subscriber.lost} frames")
    print(f"  quiet:   {len(quiet)} frames, age {percentiles(quiet)} ms")
    print(f"  crowded: {len(crowded)} frames, age {percentiles(crowded)} ms")
    ratio = float(np.percentile(crowded, 99) / np.percentile(quiet, 99))
    figures = rig.figures
    print(f"  p99 crowded to quiet: {ratio:.2f}; frames {figures['frames']}, drops {figures['drops'] or 'none'}")
    for name in ("rss_mb", "descriptors", "threads"):
        print(f"  {name}: {' '.join(f'{sample[name]:.0f}' for sample in held)}")


def encodings(options: argparse.Namespace) -> None:
    """Print one thread's milliseconds and the bytes of each encoding, in turn."""
    import cv2

    from rtfuse.wire.h264 import H264Encoder

    cv2.setNumThreads(1)
    images = pictures("rgb", options.size) if not options.images else _read(options.images)
    grays = [np.ascontiguousarray(image[..., 1]) for image in images]
    counts = [gray.astype(np.uint16) * 40 + 7000 for gray in grays]
    h264, bound = H264Encoder(), H264Encoder(2000)
    ways: dict[str, Any] = {"raw (a copy)": lambda k: images[k].tobytes()}
    for quality in (60, 80, 90):
        ways[f"jpeg {quality}"] = lambda k, q=quality: compress(images[k], "jpeg", q)
    ways |= {
        "png": lambda k: compress(images[k], "png", 0),
        "h264": lambda k: h264(images[k], time.monotonic())[0],
        "h264 2000 kbit/s": lambda k: bound(images[k], time.monotonic())[0],
        "gray8 png": lambda k: compress(grays[k], "png", 0),
        "gray16le png": lambda k: compress(counts[k], "png", 0),
    }
    spent: dict[str, list[float]] = {name: [] for name in ways}
    sizes: dict[str, list[int]] = {name: [] for name in ways}
    end, k = time.monotonic() + options.seconds, 0
    while time.monotonic() < end or k < 20:
        for name, way in ways.items():
            start = time.perf_counter()
            data = way(k % len(images))
            spent[name].append(1000 * (time.perf_counter() - start))
            sizes[name].append(len(data))
        k += 1
    h, w = images[0].shape[:2]
    print(f"{w}x{h}, {k} pictures, one thread")
    for name in ways:
        size = float(np.mean(sizes[name]))
        print(f"  {name:18} {percentiles(spent[name])} ms  {size / 1000:7.0f} kB  {size * 8 * 30 / 1e6:6.1f} Mbit/s")


def _read(folder: Path) -> list[Image]:
    import cv2

    found = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in sorted(folder.iterdir())[:16]]
    return [image for image in found if image is not None]


def stream(options: argparse.Namespace) -> None:
    """Print rate, loss and age of one encoding over tcp, live; encrypted with new keys by --curve."""
    encoding: Encoding = options.encoding
    settings = ["publish.endpoint='tcp://127.0.0.1:*'", f"publish.encoding={encoding}", *options.settings]
    with tempfile.TemporaryDirectory() as folder:
        keys = None
        if options.curve:
            keys, rig_keys = Path(folder) / "client.key", Path(folder) / "keys"
            new_rig(rig_keys)
            new_client(rig_keys, "bench", keys)
            settings.append(f"publish.keys={rig_keys}")
        with (
            RigProcess(options.size, *settings) as rig,
            Subscriber(rig.endpoints[0], latest=False, keys=keys) as subscriber,
        ):
            listen(subscriber, 3)
            before, lost, start = rig.held(), subscriber.lost, time.monotonic()
            ages = listen(subscriber, options.seconds)
            wall_s, after = time.monotonic() - start, rig.held()
    print(
        f"{options.size} {encoding} over tcp, {'CURVE' if keys else 'plain'}: {len(ages) / wall_s:.1f} frames/s, "
        f"lost {subscriber.lost - lost}, age {percentiles(ages)} ms"
    )
    cpu_ms = 1000 * (after["cpu_s"] - before["cpu_s"]) / max(1, len(ages))
    fuse_ms, drops = rig.figures["fuse_ms"][0], rig.figures["drops"] or "none"
    print(f"  the rig took {cpu_ms:.1f} ms of the processor for each, the fuser p50 {fuse_ms:.1f} ms; drops {drops}")


def main() -> None:
    """Run the benchmark that the command line names."""
    runs = {"latency": latency, "slow": slow, "churn": churn, "encodings": encodings, "stream": stream}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=[*runs, "serve", "visit"])
    parser.add_argument("settings", nargs="*", help="KEY=VALUE of the rig's configuration")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--encoding", default="jpeg")
    parser.add_argument("--curve", action="store_true", help="stream: encrypt")
    parser.add_argument("--images", type=Path, help="encodings: pictures of this folder")
    options = parser.parse_intermixed_args()
    if options.what == "serve":
        serve(options.size, options.settings)
    elif options.what == "visit":
        print(come_and_go(options.settings, options.seconds))
    else:
        print(machine())
        runs[options.what](options)


if __name__ == "__main__":
    main()
