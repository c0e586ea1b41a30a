"""A subscriber counts losses, waits for frames while other tasks run, and shares memory with its messages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import zmq
from live import fused, publishing
from scenes import picture

from rtfuse import DetectionsSubscriber, Subscriber
from rtfuse.client.arrivals import Arrivals, Percentiles
from rtfuse.errors import ConfigError
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Stamp
from rtfuse.wire.detections import DETECTIONS_TOPIC, Box, Detections, encode_detections

FOUND = Detections(
    session="s",
    seq=0,
    rig="rig",
    detector="test",
    frame_session="f",
    frame_seq=7,
    frame_width=64,
    frame_height=48,
    rgb_t_ns=1,
    published_ns=2,
    spent_ms=3.0,
    boxes=[Box(x=1, y=2, width=3, height=4, label="person", score=0.5)],
)


@pytest.fixture
def publisher(tmp_path):
    publisher = Publisher(f"ipc://{tmp_path}/s")
    yield publisher
    publisher.close()


@pytest.fixture
def playing(publisher):
    """A publisher that publishes all the time."""
    with publishing(publisher, fused()):
        yield publisher


def flowing(publisher, subscriber, image):
    """Publish until it arrives; then nothing is left over."""
    deadline = time.monotonic() + 20
    while subscriber.recv(0.01) is None:
        publisher.write(image)
        assert time.monotonic() < deadline
    while subscriber.recv(0.1) is not None:
        pass


def test_tasks_receive_frames_while_others_go_on(playing):
    async def both():
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        beside = asyncio.create_task(turn())
        seqs = []
        with Subscriber(playing.endpoint, latest=False) as stream:
            async for received in stream:
                seqs.append(received.header.seq)
                if len(seqs) == 10:
                    break
        beside.cancel()
        return seqs, turns

    seqs, turns = asyncio.run(asyncio.wait_for(both(), 30))
    assert seqs == sorted(set(seqs))
    assert len(seqs) == 10
    assert turns > 10


def test_waiting_in_a_task_ends_in_time_and_loses_nothing_when_cancelled(publisher):
    async def main():
        with Subscriber(publisher.endpoint, latest=False) as stream:
            flowing(publisher, stream, fused())
            assert await stream.recv_async(0) is None
            assert await stream.recv_async(0.05) is None
            waiting = asyncio.create_task(stream.recv_async())
            await asyncio.sleep(0.01)
            publisher.write(fused())
            first = await asyncio.wait_for(waiting, 20)
            waiting = asyncio.create_task(stream.recv_async())
            await asyncio.sleep(0.01)
            waiting.cancel()
            publisher.write(fused())
            second = await stream.recv_async(20)
            assert (second.gap, second.header.seq) == (0, first.header.seq + 1)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_flood_of_malformed_messages_does_not_shut_other_tasks_out():
    context = zmq.Context()
    try:
        with context.socket(zmq.PUB) as socket, Subscriber("inproc://flood", context=context, latest=False) as stream:
            socket.bind("inproc://flood")

            async def main():
                waiting = asyncio.create_task(stream.recv_async(20))
                while stream.malformed < 50:
                    socket.send(b"fused\0nonsense")
                    await asyncio.sleep(0)
                waiting.cancel()

            asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        context.destroy(0)


@pytest.mark.parametrize("latest", [True, False])
def test_a_restarted_publisher_is_found_again_and_counted(tmp_path, latest):
    endpoint = f"ipc://{tmp_path}/again"
    with Subscriber(endpoint, latest=latest) as stream:
        for session in range(2):
            publisher = Publisher(endpoint)
            flowing(publisher, stream, fused())
            publisher.close()
            assert stream.reception().restarts == session
    assert stream.lost == 0


def test_reception_says_rate_delay_and_age(publisher):
    with Subscriber(publisher.endpoint, latest=False) as stream:
        empty = stream.reception()
        assert (empty.received, empty.rate_hz, empty.transport_ms, empty.age_ms) == (0, 0.0, None, None)
        flowing(publisher, stream, fused())
        before = stream.reception()
        for _ in range(3):
            publisher.write(fused())
            assert stream.recv(20).gap == 0
        after = stream.reception()
    assert after.received - before.received == 3
    assert after.rate_hz > 0
    assert 0 < after.transport_ms.p50 <= after.transport_ms.p95 <= after.transport_ms.p99 < 20_000
    assert after.age_ms.p50 > after.transport_ms.p50


def test_rates_and_delays_are_those_of_the_newest_frames():
    now = [0]
    arrivals = Arrivals(clock=lambda: now[0], wall_ns=lambda: now[0] + 10**18)
    for k in range(1000):
        now[0] = k * 10_000_000 if k < 500 else 500 * 10_000_000 + (k - 500) * 20_000_000
        arrivals.add(now[0] - (9 if k < 400 else 2) * 1_000_000, (now[0] + 10**18) // 1_000_000, 5_000_000)
    assert arrivals.rate_hz() == pytest.approx(50)
    assert arrivals.transport_ms() == Percentiles(2, 2, 2)
    assert arrivals.age_ms() == Percentiles(7, 7, 7)
    now[0] += 60_000_000_000
    assert arrivals.rate_hz() < 1.1


def test_a_recording_has_a_delay_but_no_age(publisher):
    live = fused()
    played = replace(live, pair=replace(live.pair, rgb=replace(live.pair.rgb, stamp=Stamp.PLAYBACK)))
    with Subscriber(publisher.endpoint, latest=False) as stream:
        flowing(publisher, stream, live)
        assert stream.reception().age_ms is not None
        publisher.write(played)
        while not stream.recv(20).header.recorded:
            pass
        reception = stream.reception()
    assert reception.transport_ms is not None
    assert reception.age_ms is None


def test_the_clock_of_another_machine_is_not_mistaken_for_ours():
    arrivals = Arrivals(clock=lambda: 5 * 10**9, wall_ns=lambda: 10**18)
    arrivals.add(4 * 10**9, 10**12 - 1000, 0)
    assert arrivals.transport_ms() == Percentiles(1000, 1000, 1000)
    arrivals.add(9 * 10**9, 10**12 - 1000, 0)  # booted five seconds later
    assert arrivals.transport_ms() is None
    assert arrivals.age_ms() is None


def test_a_raw_picture_is_the_message_itself_and_outlives_the_next(publisher):
    big = fused(1, (640, 480))
    with Subscriber(publisher.endpoint, latest=False) as stream:
        flowing(publisher, stream, big)
        publisher.write(big)
        tracemalloc.start()
        try:
            first = stream.recv(20)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < first.image.nbytes / 4
        for k in range(2, 6):
            publisher.write(fused(k, (640, 480)))
            assert np.array_equal(stream.recv(20).image, picture(k, (640, 480)))
    assert not first.image.flags.owndata
    assert not first.image.flags.writeable
    assert np.array_equal(first.image, picture(1, (640, 480)))


@pytest.fixture
def detector(tmp_path):
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.bind(f"ipc://{tmp_path}/boxes")
    yield socket
    context.destroy(0)


def test_boxes_arrive_in_turn_and_what_is_none_is_counted(detector):
    with DetectionsSubscriber(detector.getsockopt_string(zmq.LAST_ENDPOINT)) as boxes:
        deadline = time.monotonic() + 20
        while boxes.recv(0.01) is None:
            detector.send(encode_detections(DETECTIONS_TOPIC, FOUND))
            assert time.monotonic() < deadline
        while boxes.recv(0.1) is not None:
            pass
        for message in (b"boxes\0", encode_detections("boxes", FOUND) + b"x", encode_detections("other", FOUND)):
            detector.send(message)
        for seq in range(1, 4):
            detector.send(encode_detections(DETECTIONS_TOPIC, msgspec.structs.replace(FOUND, seq=seq)))
        said = [boxes.recv(20) for _ in range(3)]
        assert [each.seq for each in said] == [1, 2, 3]
        assert said[0].boxes == FOUND.boxes
        assert boxes.malformed == 2

        async def one():
            detector.send(encode_detections(DETECTIONS_TOPIC, FOUND))
            async for each in boxes:
                return each

        assert asyncio.run(asyncio.wait_for(one(), 20)) == FOUND


def test_boxes_off_an_endpoint_that_makes_no_sense_are_refused():
    with pytest.raises(ConfigError):
        DetectionsSubscriber("tcp://127.0.0.1:65536")


def test_importing_the_subscriber_does_not_load_asyncio():
    code = "import sys, rtfuse.client.subscriber; print('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
