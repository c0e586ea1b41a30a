"""The page's words around the picture: streams in words, the last minutes, and what detectors have found."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import zmq
from pages import fused, serving, watching
from scenes import make_frame

from rtfuse.errors import ConfigError, KeysUnusable
from rtfuse.observe.health import Condition, State
from rtfuse.observe.stats import Stats
from rtfuse.pipeline.controls import Change
from rtfuse.publish.detections import DetectionsPublisher
from rtfuse.types import Fused, Pair
from rtfuse.web.boxes import BoxFeed
from rtfuse.web.live import Said
from rtfuse.web.state import Chronicle, in_words
from rtfuse.wire.detections import Box, Detections, encode_detections
from rtfuse.wire.keys import new_client, new_rig


@pytest.fixture
def serve():
    """Start a page; all are closed at the end."""
    yield from serving()


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Condition(State.LIVE, 5, rate_hz=8.96), "Thermal: live, 9.0 Hz"),
        (Condition(State.LIVE, 5), "Thermal: live"),
        (Condition(State.STALLED, 3.21), "Thermal: no frame for 3.2 s"),
        (Condition(State.LOST, 600, why="unplugged"), "Thermal: lost for 10 min, trying again"),
        (Condition(State.FROZEN, 1), "Thermal: picture frozen for 1.0 s"),
        (Condition(State.SHUTTER, 0.4), "Thermal: shutter closed for 0.4 s"),
        (Condition(State.STARTING, 1), "Thermal: no frame yet"),
        (Condition(State.ENDED, 1), "Thermal: has ended"),
    ],
)
def test_a_stream_in_words(condition, words):
    assert in_words("ir", condition) == words


def test_the_last_minutes_are_differences_between_snapshots():
    now = [10**9]
    stats, chronicle = Stats(lambda: now[0]), Chronicle()
    for second in range(400):
        for _ in range(2):
            now[0] += 500_000_000
            frame = fused(size_wh=(16, 16))
            late = make_frame("rgb", t_ns=now[0] - (second + 1) * 1_000_000, size_wh=(16, 16))
            stats.delivered(Fused(frame.image, frame.aligned, Pair(frame.pair.ir, late, skew_ns=4_000_000), None, "x"))
        stats.drops["ir", "busy"] += 3
        sample = chronicle.add(stats.snapshot(), worst_age_ms=9.0, unix_s=second)
        if second:
            assert sample["age"] == pytest.approx(second + 1)
            assert sample["skew"] == 4
            assert sample["drops"] == {"ir.busy": 3}
    assert len(chronicle.samples) == 300
    idle = chronicle.add(stats.snapshot(), worst_age_ms=0.0, unix_s=500)
    assert (idle["age"], idle["worst"], idle["skew"], idle["drops"]) == (None, None, None, {})


def said(k=0, *, rig="mast", detector="hog", boxes=1, rgb_t_ns=0):
    box = Box(x=64, y=48, width=128, height=96, label="person <b>", score=0.876)
    return encode_detections(
        "boxes",
        Detections(
            session="d",
            seq=k,
            rig=rig,
            detector=detector,
            frame_session="f",
            frame_seq=k,
            frame_width=640,
            frame_height=480,
            rgb_t_ns=rgb_t_ns,
            published_ns=0,
            spent_ms=1.0,
            boxes=[box] * boxes,
        ),
    )


def test_boxes_come_with_the_frames_and_go_when_they_are_old(serve, tmp_path):
    endpoint = f"ipc://{tmp_path}/boxes"
    server = serve(detections=(endpoint,))
    feed = server._page._boxes
    one = fused()

    async def watch(publisher):
        async with watching(server) as (viewer,):
            await viewer.want("fused")
            for k in range(500):
                for message in (
                    said(k, rgb_t_ns=one.pair.rgb.t_ns - 40_000_000),
                    b"boxes\0nonsense",
                    said(k, rig="other"),
                ):
                    publisher.send(message)
                server.live.write(one)
                header, _ = await viewer.frame()
                if header["boxes"] and feed.foreign and feed.malformed:
                    break
                await asyncio.sleep(0.02)
            (shown,) = header["boxes"]
            assert shown["boxes"] == [[0.1, 0.1, 0.2, 0.2, "person <b>", 0.88]]
            assert shown["detector"] == "hog"
            assert shown["behind_ms"] == 40
            assert 0 <= shown["age_ms"] < 500
            for _ in range(200):  # the detector falls silent
                server.live.write(one)
                header, _ = await viewer.frame()
                if not header["boxes"]:
                    return
                await asyncio.sleep(0.05)
            pytest.fail("old boxes stay")

    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(endpoint)
        asyncio.run(watch(publisher))


def test_boxes_come_off_detectors_that_encrypt_each_with_its_own_keys(tmp_path):
    received, files, detectors = {}, {}, {}
    header = SimpleNamespace(rig="mast", session="f", seq=0, width=640, height=480, rgb_t_ns=0)
    with ExitStack() as stack:
        for name in ("front", "back"):
            folder = tmp_path / name
            new_rig(folder)
            new_client(folder, "page", tmp_path / f"{name}.key")
            publisher = DetectionsPublisher("tcp://127.0.0.1:*", detector=name, keys=folder)
            detectors[name] = stack.enter_context(publisher)
            files[publisher.endpoint] = str(tmp_path / f"{name}.key")
        wrong = DetectionsPublisher("tcp://127.0.0.1:*", detector="wrong", keys=tmp_path / "back")
        detectors["wrong"] = stack.enter_context(wrong)
        files[wrong.endpoint] = tmp_path / "front.key"
        plain = BoxFeed(dict.fromkeys(files), rig="mast", fresh_s=60)
        feed = BoxFeed(files, rig="mast", fresh_s=60)
        for _ in range(500):
            for publisher in detectors.values():
                publisher.write(header, [Box(x=0, y=0, width=64, height=48, label="a", score=1.0)], 1.0)
            received = {each["detector"] for each in feed.shown(0)}
            if received == {"front", "back"}:
                break
            time.sleep(0.02)
        shown_in_plain = plain.shown(0)
        feed.close()
        plain.close()
    assert received == {"front", "back"}
    assert shown_in_plain == []


def test_keys_for_boxes_that_are_no_clients_are_refused(tmp_path):
    new_rig(tmp_path / "keys")
    for file, fault in (("keys/rig.key", "is a rig's key"), ("none.key", "No such file")):
        with pytest.raises(KeysUnusable, match=rf"web\.detections: .*{fault}"):
            BoxFeed({"tcp://127.0.0.1:5556": tmp_path / file}, rig="mast")


def test_detectors_cannot_fill_the_memory():
    feed = BoxFeed({}, rig="mast", fresh_s=60)
    for k in range(100):
        feed._take(said(detector=f"detector {k}", boxes=400))
    assert len(feed.shown(0)) == 8
    assert len(feed.shown(0)[0]["boxes"]) == 100
    feed.close()
    with pytest.raises(ConfigError, match=r"web\.detections"):
        BoxFeed({"nonsense": None}, rig="mast")


def test_whatever_comes_is_understood_or_refused():
    """Mutated messages against everything that the page decodes: each is understood or is a plain error."""
    rng = np.random.default_rng(7)
    feed = BoxFeed({}, rig="mast", fresh_s=60)
    good = [
        (said(), feed._take),
        (b'{"ack": 7}', msgspec.json.Decoder(Said).decode),
        (b'{"want": {"planes": ["ir", "fused"], "quality": "high"}}', msgspec.json.Decoder(Said).decode),
        (b'{"tails": [0.001, 0.02], "method": "clahe", "freeze": true}', msgspec.json.Decoder(Change).decode),
    ]
    understood = 0
    for k in range(20_000):
        message, decode = good[k % len(good)]
        spoilt = bytearray(message)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(spoilt)))
            match rng.integers(4):
                case 0:
                    spoilt[at] = int(rng.integers(256))
                case 1:
                    del spoilt[at : at + int(rng.integers(1, 20))]
                case 2:
                    spoilt[at:at] = bytes(rng.integers(0, 256, 3, dtype=np.uint8))
                case 3:
                    spoilt[at:at] = spoilt[:at]
            spoilt = spoilt or bytearray(b" ")
        try:
            decode(bytes(spoilt))
            understood += 1
        except ValueError:
            pass
    feed.close()
    assert 0 < understood < 20_000
    assert feed.malformed > 1000
