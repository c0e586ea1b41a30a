"""What encryption costs: messages over TCP to another process, in plain text and with CURVE; on loopback.

    python tools/bench_curve.py            # a table for three sizes, then 1080p JPEG at 30 Hz

Times are per message: from before it is sent to when the other process has it (one at a time), and the processor's in
both processes together. The stream is a synthetic picture, encoded, encrypted, decrypted and decoded.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import zmq

from rtfuse.capture import open_source
from rtfuse.client.subscriber import Subscriber
from rtfuse.publish.auth import Gate
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Fused, Pair
from rtfuse.wire.keys import client_keys, curve_client, new_client, new_rig

SIZES = {"1080p JPEG": 400_000, "640x480 raw": 921_600, "1080p raw": 6_220_800}


def receive(pipe: Connection, endpoint: str, keys: str | None, count: int) -> None:
    """Receive messages, each with the time at which it was sent; send back how long they took."""
    context = zmq.Context()
    s = context.socket(zmq.SUB)
    for option, value in curve_client(keys, endpoint).items() if keys else ():
        s.setsockopt(option, value)
    s.subscribe(b"")
    s.connect(endpoint)
    s.recv()
    pipe.send("ready")
    took, begun = [], 0.0
    while len(took) < count:
        message = s.recv(copy=False).buffer
        if not bytes(message[8:9]):
            raise SystemExit("an empty message")
        sent_ns = int.from_bytes(message[:8], "little")
        if sent_ns:
            begun = begun or time.process_time()
            took.append(time.monotonic_ns() - sent_ns)
            pipe.send(None)
    pipe.send((took, time.process_time() - begun))


def messages(size: int, keys: Path | None, client: str | None, count: int) -> tuple[np.ndarray, float]:
    """Send messages of `size` bytes one by one; returns the times they took in ms, and the processor's ms for each."""
    context, (here, there) = zmq.Context(), multiprocessing.Pipe()
    gate, s = Gate(context, keys), context.socket(zmq.PUB)
    endpoint = gate.bind(s, "tcp://127.0.0.1:*")
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(there, endpoint, client, count))
    process.start()
    while not here.poll(0.05):
        s.send(bytes(100))
    here.recv()
    body, begun = np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes(), time.process_time()
    for _ in range(count):
        s.send(time.monotonic_ns().to_bytes(8, "little") + body)
        here.recv()
    spent = time.process_time() - begun
    took, other = here.recv()
    process.join()
    gate.close()
    s.close()
    context.term()
    return np.array(took) / 1e6, 1000 * (spent + other) / count


def watch(pipe: Connection, endpoint: str, keys: str | None, seconds: float) -> None:
    """Receive and decode frames for some seconds; send back their ages in ms, gaps, sizes and the processor's share."""
    with Subscriber(endpoint, keys=keys, latest=False) as stream:
        stream.recv(20)
        pipe.send("ready")
        begun, spent, ages, lost = time.monotonic(), time.process_time(), [], stream.lost
        while time.monotonic() - begun < seconds:
            received = stream.recv(1)
            if received is not None:
                ages.append((time.monotonic_ns() - received.header.published_ns) / 1e6)
        pipe.send((ages, stream.lost - lost, (time.process_time() - spent) / seconds))


def stream(keys: Path | None, client: str | None, rate_hz: float, seconds: float) -> str:
    """Publish 1080p JPEG at a rate; returns what the other process saw, as a line."""
    ir, rgb = (next(iter(open_source("synthetic:?size=1920x1080", s))) for s in ("ir", "rgb"))
    publisher, (here, there) = Publisher([Offer("tcp://127.0.0.1:*", "jpeg")], keys=keys), multiprocessing.Pipe()
    frame = Fused(rgb.image, ir.image, Pair(ir, rgb), None, "bench")
    args = (there, publisher.endpoint, client, seconds)
    process = multiprocessing.get_context("spawn").Process(target=watch, args=args)
    process.start()
    due, begun, spent, first = time.monotonic(), 0.0, 0.0, 0
    while process.is_alive():
        publisher.write(frame)
        if not begun and here.poll():
            here.recv()
            begun, spent, first = time.monotonic(), time.process_time(), publisher.sent
        elif here.poll():
            break
        due += 1 / rate_hz
        time.sleep(max(0.0, due - time.monotonic()))
    took = time.monotonic() - begun
    sent, share = (publisher.sent - first) / took, (time.process_time() - spent) / took
    size = publisher.sent_bytes / publisher.sent
    ages, lost, other = here.recv()
    process.join()
    publisher.close()
    p50, p99 = np.percentile(ages, [50, 99])
    return (
        f"{sent:.1f} sent/s of {size / 1000:.0f} kB, {len(ages) / seconds:.1f} received/s, {lost} lost, "
        f"published to decoded p50 {p50:.1f} p99 {p99:.1f} ms, cores used {share:.2f} + {other:.2f}"
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, libzmq {zmq.zmq_version()}, pyzmq {zmq.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        keys, client = Path(folder) / "keys", Path(folder) / "client.key"
        new_rig(keys)
        new_client(keys, "bench", client)
        client_keys(client)
        both: tuple[tuple[str, Path | None, str | None], ...] = (("plain", None, None), ("CURVE", keys, str(client)))
        for name, size in SIZES.items():
            for how, folder_of_keys, file in both:
                took, spent = messages(size, folder_of_keys, file, options.count)
                p50, p99 = np.percentile(took, [50, 99])
                print(
                    f"{name:12} {size / 1000:7.0f} kB {how}: p50 {p50:5.2f} p99 {p99:5.2f} ms, "
                    f"processor {spent:5.2f} ms"
                )
        for how, folder_of_keys, file in both:
            print(f"1080p JPEG at 30 Hz, {how}: {stream(folder_of_keys, file, 30, options.seconds)}")


if __name__ == "__main__":
    main()
