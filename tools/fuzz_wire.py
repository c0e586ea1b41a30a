"""Fuzz every decoder with random and mutated messages, and the sockets with raw bytes.

    python tools/fuzz_wire.py --messages 1000000

Every message goes to every decoder. A decoder must return or raise WireError at once and keep no memory; a socket must
go on serving. Any other result ends the run with the seed that repeats it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rtfuse.client.subscriber import Subscriber
from rtfuse.errors import WireError
from rtfuse.picture import Picture
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Frame, Fused, Pair, Stamp
from rtfuse.wire import description, detections, statistics
from rtfuse.wire import message as wire
from rtfuse.wire.h264 import H264Decoder, H264Encoder

_SIZE_WH = (34, 26)
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\0NULL" + bytes(16) + b"\0" + bytes(31)
_READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"
_REQUESTS = (
    b"\0\x07\1fused\0",
    b"\0\x07\0fused\0",
    b"\0\1\1",
    b"\0\1\0",
    b"\0\0",
    b"\x04\x10\x09SUBSCRIBEfused\0",
    b"\x04\x0d\x06CANCELfused\0",
)
"""A handshake of ZMTP 3 (ZeroMQ RFC 23), and a subscriber's requests after it."""
_NUMBERS = (0, 1, -1, 2, 255, 256, 65_535, 65_536, 16_384, 16_385, 2**31, 2**32, 2**63, -(2**63), 2**64, 1e308, 0.5)
_NAMES = "raw jpeg png h264 rgb24 gray8 gray16le nv12 bt709 fused statistics"
_TEXTS = (*_NAMES.split(), "", "x" * 300, "\0", "ä")


def header(**changes: Any) -> wire.Header:
    """Return a valid header."""
    w, h = _SIZE_WH
    numbers = dict.fromkeys(("ir_id", "rgb_id", "ir_t_ns", "rgb_t_ns", "skew_ns", "age_ns", "published_ns"), 5)
    texts = dict.fromkeys(("session", "rig", "mode", "fuser", "stamp"), "x")
    return msgspec.convert(
        {**numbers, **texts, "seq": 0, "published_unix_ms": 1, "width": w, "height": h, "encoding": "raw", **changes},
        wire.Header,
    )


def picture(pixels: str, k: int = 0) -> np.ndarray[Any, Any]:
    """Return a picture of one pixel format with noise in it."""
    rng, (w, h) = np.random.default_rng(k), _SIZE_WH
    if pixels == "gray16le":
        return rng.integers(0, 65_536, (h, w), np.uint16)
    return rng.integers(0, 256, (h, w, 3) if pixels == "rgb24" else (h, w), np.uint8)


def seeds() -> list[bytes]:
    """Return valid messages of every kind."""
    found = []
    for pixels in ("rgb24", "gray8", "gray16le"):
        for encoding in ("raw", "jpeg", "png"):
            if (pixels, encoding) != ("gray16le", "jpeg"):
                head = header(pixel_format=pixels, encoding=encoding)
                found.append(bytes(wire.encode("fused", head, picture(pixels))))
    colours = Picture.of_rgb(picture("rgb24"))
    found += [bytes(wire.encode("fused", header(pixel_format=name), colours)) for name in ("yuv420p", "nv12")]
    for pixels in ("rgb24", "gray8"):
        encoder = H264Encoder()
        for k in range(6):
            unit, key = encoder(picture(pixels, k), k / 30)
            head = header(pixel_format=pixels, encoding="h264", key_frame=key, unit=k, seq=k)
            found.append(bytes(wire.message("fused", head, np.frombuffer(unit, np.uint8))))
    common = {"session": "x", "rig": "x", "published_ns": 5, "published_unix_ms": 1}
    numbers = {"frames": 1, "pair_rate_hz": 30.0, "reused": 0, "age_ms": [1.0, None, 2.0], "skew_ms": [0.0, 0.0, 0.0]}
    streams = {"ir": {"state": "live", "for_s": 1.0, "rate_hz": 30.0}}
    whole = {**common, **numbers, "skew_histogram": [(1.0, 3)], "modes": {"fused": 1}, "drops": {}, "streams": streams}
    found.append(statistics.encode_statistics("stats", msgspec.convert(whole, statistics.Statistics)))
    box = detections.Box(x=1.0, y=2.0, width=3.0, height=4.0, label="person", score=0.5)
    origin = {"detector": "d", "frame_session": "x", "frame_seq": 1, "frame_width": 34, "frame_height": 26}
    boxed = {"session": "x", "rig": "x", "seq": 1, "rgb_t_ns": 1, "published_ns": 1, "spent_ms": 1.0, **origin}
    found.append(detections.encode_detections("boxes", detections.Detections(boxes=[box, box], **boxed)))
    camera = description.CameraAbout(uri="synthetic:", width=34, height=26, dtype="uint8", live=True)
    plane = description.PlaneAbout(topic="fused", plane="fused", pixel_format="rgb24", encoding="raw")
    described = description.Description(software="0", fuser="x", streams={"ir": camera}, planes=[plane], **common)  # type: ignore[arg-type]
    found.append(description.encode_description("about", described, "plane_m: 5\n"))
    state = description.StreamState(state="lost", why="gone")
    found.append(
        description.encode_state(
            "state", description.StateChange(stream="ir", before="live", streams={"ir": state}, **common)
        )
    )  # type: ignore[arg-type]
    return found


def decoders() -> dict[str, Callable[[bytes], object]]:
    """Return every decoder of the package, by name."""
    h264 = H264Decoder()

    def unit(message: bytes) -> object:
        _, head, payload = wire.split(message)
        if head.encoding != "h264":
            raise WireError("another encoding")
        return getattr(h264(head, payload), "rgb", None)

    return {
        "image": lambda message: getattr(wire.decode(message)[2], "rgb", None),  # of YUV: computed when asked for
        "h264": unit,
        "statistics": statistics.decode_statistics,
        "detections": detections.decode_detections,
        "description": description.decode_description,
        "state": description.decode_state,
    }


def mutated(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Return the message with one to four changes of random kinds."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = rng.choice(_MUTATIONS)(data, rng, others)
    return data


def _flip(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    out = bytearray(data or b"\0")
    for _n in range(rng.choice((1, 1, 3, 10))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _overwrite(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    at, new = rng.randrange(len(data) + 1), rng.randbytes(rng.choice((1, 2, 4, 8)))
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randrange(1, 20)) + data[at:]


def _cut(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    a, b = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:a] if rng.random() < 0.5 else data[:a] + data[b:]


def _splice(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _length(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    at = data.find(b"\0") + 1
    return data[:at] + struct.pack("<I", rng.choice((0, 1, 65_535, 65_536, 2**32 - 1, len(data)))) + data[at + 4 :]


def _field(data: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """Change one field of the JSON header and keep the rest, which reaches deepest into a decoder."""
    at = data.find(b"\0") + 1
    if at < 1 or at + 4 > len(data):
        return data
    (n,) = struct.unpack_from("<I", data, at)
    try:
        fields = msgspec.json.decode(data[at + 4 : at + 4 + n])
        name = rng.choice(list(fields))
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, IndexError, ValueError):
        return data
    value = rng.choice((rng.choice(_NUMBERS), rng.choice(_TEXTS), None, [], {}, True, [[[]]], rng.randrange(40)))
    if isinstance(fields, dict):
        fields[name] = value
    text = msgspec.json.encode(fields)
    return data[:at] + struct.pack("<I", len(text)) + text + data[at + 4 + n :]


_MUTATIONS = (_flip, _overwrite, _insert, _cut, _splice, _length, _field, _field)


def messages(count: int, seed: int) -> Iterator[bytes]:
    """Yield messages: a tenth random, a tenth valid, which gives decoders a state, the rest mutated."""
    rng, valid = random.Random(seed), seeds()
    for k in range(count):
        draw = rng.random()
        if draw < 0.1:
            yield rng.randbytes(rng.randrange(300))
        elif draw < 0.2:
            yield valid[k % len(valid)]
        else:
            yield mutated(rng.choice(valid), rng, valid)


@dataclass
class Result:
    """Results by decoder, the longest processor time of a message in ms, resident memory over the run in MB."""

    accepted: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    longest_ms: float = 0.0
    rss_mb: list[float] = field(default_factory=list)
    spent_s: float = 0.0


def rss_mb() -> float:
    """Return this process's resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def fuzz_decoders(count: int, seed: int = 0, *, marks: int = 10) -> Result:
    """Give `count` messages to every decoder. Raises AssertionError for any error that is not a WireError."""
    result, all_decoders, begun = Result(), decoders(), time.monotonic()
    for k, message in enumerate(messages(count, seed)):
        start = time.process_time()
        for name, decoder in all_decoders.items():
            try:
                decoder(message)
                result.accepted[name] += 1
            except WireError:
                result.refused[name] += 1
            except Exception as e:
                raise AssertionError(f"{name}, seed {seed}, message {k}: {message[:2000]!r}") from e
        result.longest_ms = max(result.longest_ms, 1000 * (time.process_time() - start))
        if k % max(1, count // marks) == 0:
            result.rss_mb.append(rss_mb())
    result.rss_mb.append(rss_mb())
    result.spent_s = time.monotonic() - begun
    return result


def frame(k: int) -> Fused:
    """Return a fused frame to publish."""
    rgb = Frame("rgb", picture("rgb24", k), k, k, Stamp.ARRIVAL, k)
    ir = Frame("ir", picture("gray8", k), k, k, Stamp.ARRIVAL, k)
    return Fused(rgb.image, ir.image, Pair(ir, rgb), None, "test")


def fuzz_subscriber(count: int, seed: int = 0) -> tuple[int, int]:
    """Send messages to a real subscriber over a socket; return how many it took and how many it skipped.

    Raises AssertionError if it does not receive a good frame afterwards.
    """
    import zmq

    with zmq.Context() as context, context.socket(zmq.PUB) as rogue:
        rogue.setsockopt(zmq.LINGER, 0)
        rogue.setsockopt(zmq.SNDHWM, 1000)
        port = rogue.bind_to_random_port("tcp://127.0.0.1")
        with Subscriber(f"tcp://127.0.0.1:{port}", topic="fused", latest=False, queue=1000) as subscriber:
            good = bytes(wire.encode("fused", header(session="good"), picture("rgb24")))
            for k, message in enumerate(messages(count, seed)):
                rogue.send(b"fused\0" + message.partition(b"\0")[2])
                if k % 50 == 49:
                    _drain(subscriber)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                rogue.send(good)
                received = subscriber.recv(0.05)
                if received is not None and received.header.session == "good":
                    return subscriber.received, subscriber.malformed
    raise AssertionError("the subscriber no longer receives")


def _drain(subscriber: Subscriber) -> None:
    """Receive until the socket is empty; a bad message ends one `recv`, but not this function."""
    seen = -1
    while seen != (seen := subscriber.received + subscriber.malformed):
        subscriber.recv(0.002)


def _rogue(port: int, rng: random.Random, valid: list[bytes]) -> socket.socket:
    """Connect, and send wrong bytes: at once, or after a subscriber's handshake."""
    rogue = socket.create_connection(("127.0.0.1", port), timeout=5)
    said = mutated(rng.choice([_GREETING, _READY, *_REQUESTS, *valid]), rng, valid)
    with contextlib.suppress(OSError):  # the publisher closed the connection, as it should
        if rng.random() < 0.7:
            rogue.sendall(_GREETING)
            while len(rogue.recv(64, socket.MSG_PEEK)) not in (0, 64):
                time.sleep(0.001)
            if rng.random() < 0.8:
                rogue.sendall(_READY)
        rogue.setblocking(False)
        for _ in range(rng.choice((1, 5, 50))):
            rogue.send(said + mutated(rng.choice(_REQUESTS), rng, valid))
    return rogue


def fuzz_publisher(connections: int, seed: int = 0) -> int:
    """Send raw bytes to a publisher's socket while a subscriber listens; return the number of connections.

    Raises AssertionError if the listener misses a frame.
    """
    rng, valid = random.Random(seed), seeds()
    publisher = Publisher("tcp://127.0.0.1:*")
    port, held = int(publisher.endpoint.rsplit(":", 1)[1]), list[socket.socket]()
    try:
        with Subscriber(publisher.endpoint, latest=False) as listener:
            deadline = time.monotonic() + 20
            while listener.recv(0.02) is None:
                publisher.write(frame(0))
                assert time.monotonic() < deadline, "the listener did not connect"
            for k in range(connections):
                held.append(_rogue(port, rng, valid))
                if len(held) > 20:
                    held.pop(0).close()
                publisher.write(frame(k))
                assert listener.recv(5) is not None, f"no frame while raw bytes came, seed {seed}, connection {k}"
            assert listener.malformed == 0
    finally:
        for one in held:
            one.close()
        publisher.close()
    return connections


def main() -> None:
    """Run everything and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    result = fuzz_decoders(options.messages, options.seed)
    print(f"{options.messages} messages, each to {len(result.refused)} decoders, in {result.spent_s:.0f} s")
    for name in result.refused:
        print(f"  {name}: {result.accepted[name]} accepted, {result.refused[name]} refused")
    print(f"  most for one message: {result.longest_ms:.1f} ms of the processor")
    print("  resident memory, MB:", " ".join(f"{mb:.0f}" for mb in result.rss_mb))
    before = rss_mb()
    taken, skipped = fuzz_subscriber(options.messages // 10, options.seed)
    print(f"{options.messages // 10} messages to a subscriber: {taken} taken, {skipped} skipped; it goes on")
    count = fuzz_publisher(max(20, options.messages // 500), options.seed)
    print(f"{count} connections with raw bytes to a publisher: its listener missed no frame")
    print(f"  resident memory, MB: {before:.0f} before the sockets, {rss_mb():.0f} after")
    sys.exit(0)


if __name__ == "__main__":
    main()
