"""Publisher and subscriber over real sockets: nothing waits, nothing is counted wrongly."""

from __future__ import annotations

import re
import socket
import threading
import time
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import zmq
from live import fused
from scenes import picture

import rtfuse
from rtfuse.client.subscriber import Subscriber
from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Depth
from rtfuse.wire.message import Depth as WireDepth
from rtfuse.wire.message import Header, encode


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/s"


def connect(publisher, *subscribers):
    """Publish until every subscriber has received something; then none of it is left over."""
    deadline = time.monotonic() + 10
    for subscriber in subscribers:
        while subscriber.recv(0.01) is None:
            publisher.write(fused())
            assert time.monotonic() < deadline
    for subscriber in subscribers:
        while subscriber.recv(0.1) is not None:
            pass


@pytest.mark.parametrize("where", ["ipc", "tcp"])
@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_what_is_published_is_received(open_, endpoint, where, encoding):
    endpoint = endpoint if where == "ipc" else "tcp://127.0.0.1:*"
    publisher = open_(Publisher, [Offer(endpoint, encoding)], rig="truck", clock=lambda: 50_000_000)
    subscriber = open_(Subscriber, publisher.endpoint, latest=False)
    connect(publisher, subscriber)
    publisher.write(fused(1))
    received = subscriber.recv(5)
    h = received.header
    assert np.abs(received.image.astype(int) - picture(1)).mean() < (4 if encoding == "jpeg" else 1e-9)
    assert (h.rig, h.fuser, h.mode, h.encoding, h.width, h.height) == ("truck", "test", "fused", encoding, 64, 48)
    assert (h.ir_id, h.rgb_id, h.rgb_t_ns, h.skew_ns, h.stamp) == (1, 1, 33_000_000, 5, "arrival")
    assert h.age_ns == 50_000_000 - 33_000_000
    assert h.seq == publisher.sent - 1
    assert h.published_ns == 50_000_000
    assert abs(h.published_unix_ms - time.time() * 1000) < 10_000


def test_what_was_sent_is_counted(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    for _ in range(3):
        publisher.write(fused())
    assert (publisher.sent, publisher.sent_bytes) == (3, 0)  # nobody listens
    connect(publisher, open_(Subscriber, endpoint, latest=False))
    sent, before = publisher.sent, publisher.sent_bytes
    for _ in range(3):
        publisher.write(fused())
    assert publisher.sent == sent + 3
    assert 3 * 64 * 48 * 3 < publisher.sent_bytes - before < 3 * (64 * 48 * 3 + 1000)


class Bench:
    """A publisher and subscribers inside one process and one context, where nothing is on its way: a message is in
    the subscriber's queue when `send` returns, or it was dropped.
    """

    def __init__(self, waiting):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUB)
        self.socket.setsockopt(zmq.SNDHWM, waiting)
        self.socket.bind("inproc://bench")
        self.seq = 0

    def send(self, session="a", skip=0):
        self.seq += skip
        header = fake_header(session, self.seq)
        self.socket.getsockopt(zmq.EVENTS)  # the socket learns what was read
        self.socket.send(encode("fused", header, np.full((2, 2, 3), self.seq % 256, np.uint8)))
        self.seq += 1

    def subscriber(self, **options):
        subscriber = Subscriber("inproc://bench", context=self.context, **options)
        deadline = time.monotonic() + 10
        while subscriber.recv(0) is None:  # until the publisher knows of the subscription
            self.send()
            assert time.monotonic() < deadline
        while subscriber.recv(0) is not None:
            pass
        return subscriber


def fake_header(session, seq):
    values = dict.fromkeys(("ir_id", "rgb_id", "ir_t_ns", "rgb_t_ns", "skew_ns", "age_ns", "published_ns"), 0)
    values |= dict.fromkeys(("rig", "mode", "fuser", "stamp"), "x") | {"published_unix_ms": 0, "encoding": "raw"}
    return Header(session=session, seq=seq, width=2, height=2, **values)


@pytest.fixture
def bench():
    bench = Bench(waiting=2)
    yield bench
    bench.context.destroy(0)


def test_a_slow_subscriber_of_the_latest_sees_only_the_newest(bench):
    with bench.subscriber(latest=True) as slow:
        for _ in range(50):
            bench.send()
        received = slow.recv(0)
        assert (received.header.seq, received.gap, slow.lost) == (bench.seq - 1, 49, 49)
        assert received.image[0, 0, 0] == (bench.seq - 1) % 256
        assert slow.recv(0) is None


def test_a_slow_subscriber_of_every_frame_sees_all_up_to_its_queue(bench):
    with bench.subscriber(latest=False, queue=8) as slow:
        first = bench.seq
        for _ in range(50):
            bench.send()
        seen = []
        while received := slow.recv(0):
            seen.append(received.header.seq)
        assert seen == list(range(first, first + len(seen)))
        assert 5 <= len(seen) <= 10  # 8 in its queue and 2 in the publisher's, less what ZeroMQ has yet to acknowledge
        assert slow.lost == 0
        for _ in range(5):
            bench.send()
        received = slow.recv(5)
        assert received.gap == slow.lost == received.header.seq - seen[-1] - 1
        assert received.gap >= 40


def test_gaps_and_restarts_are_counted_exactly(bench):
    with bench.subscriber(latest=False) as subscriber:
        subscriber.received = subscriber.lost = 0
        seen = []
        for session, skip in [("a", 0), ("a", 3), ("a", 0), ("b", 5), ("b", 0), ("b", 1), ("a", 9)]:
            bench.send(session, skip)
            seen.append((subscriber.recv(5).gap, subscriber.lost, subscriber.restarts))
        assert seen == [(0, 0, 0), (3, 3, 0), (0, 3, 0), (0, 3, 1), (0, 3, 1), (1, 4, 1), (0, 4, 2)]
        assert subscriber.received == 7


def test_a_flood_of_malformed_messages_does_not_outlast_the_timeout(bench):
    with bench.subscriber(latest=False, queue=0) as subscriber:
        for _ in range(1000):
            bench.socket.send(b"fused\0garbage")
        assert subscriber.recv(0) is None
        assert subscriber.malformed == 1
        assert subscriber.recv(-1) is None


def test_images_beyond_what_the_subscriber_takes_are_refused(bench):
    with bench.subscriber(latest=False, max_bytes=2000) as subscriber:
        header = msgspec.structs.replace(fake_header("a", 0), width=1000, height=1000, encoding="png")
        bench.socket.send(encode("fused", header, np.zeros((1000, 1000, 3), np.uint8)))
        assert subscriber.recv(1) is None
        assert subscriber.malformed == 1


def test_a_shared_context_outlives_its_subscribers(bench):
    bench.subscriber().close()
    assert not bench.context.closed
    bench.subscriber().close()


def test_a_subscriber_that_never_reads_delays_nothing_and_fills_nothing(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    stuck, reader = open_(Subscriber, endpoint, latest=False, queue=1), open_(Subscriber, endpoint, latest=False)
    connect(publisher, stuck, reader)
    big, lost = fused(size_wh=(640, 480)), reader.lost
    read = 0
    for _ in range(200):
        publisher.write(big)
        read += reader.recv(5) is not None
    assert read == 200
    assert reader.lost == lost
    waiting = 0
    while stuck.recv(0.2) is not None:
        waiting += 1
    assert waiting < 20


def test_a_restarted_publisher_is_found_again_and_is_no_gap(open_, endpoint):
    subscriber = open_(Subscriber, endpoint, latest=False)
    for restarts in range(2):
        publisher = Publisher(endpoint)
        connect(publisher, subscriber)
        assert subscriber.restarts == restarts
        publisher.close()
    assert subscriber.lost < 20


def test_malformed_messages_are_counted_and_skipped(open_, endpoint):
    context = zmq.Context()
    rogue = context.socket(zmq.PUB)
    rogue.bind(endpoint)
    subscriber = open_(Subscriber, endpoint, latest=False)
    deadline = time.monotonic() + 10
    while subscriber.malformed < 3:
        rogue.send(b"fused\0\xff\xff\xff\xffgarbage")
        assert subscriber.recv(0.01) is None
        assert time.monotonic() < deadline
    rogue.close(0)
    context.term()


def test_topics_do_not_mix(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    wrong, right = open_(Subscriber, endpoint, topic="fus", latest=False), open_(Subscriber, endpoint, latest=False)
    connect(publisher, right)
    assert wrong.recv(0.1) is None


def test_nobody_there_is_a_timeout(open_, endpoint):
    subscriber = open_(Subscriber, endpoint)
    start = time.monotonic()
    assert subscriber.recv(0.1) is None
    assert 0.05 < time.monotonic() - start < 2


def test_iteration_ends_with_the_context(endpoint):
    publisher = Publisher(endpoint)
    over = threading.Event()

    def publish():
        while not over.wait(0.005):
            publisher.write(fused())

    thread = threading.Thread(target=publish)
    thread.start()
    with rtfuse.Subscriber(endpoint) as stream:
        for received in stream:
            assert received.image.shape == (48, 64, 3)
            if stream.received == 5:
                break
    over.set()
    thread.join()
    publisher.close()
    stream.close()


def test_a_port_in_use_names_it(open_):
    first = open_(Publisher, "tcp://127.0.0.1:*")
    with pytest.raises(EndpointUnavailable, match=rf"{first.endpoint}.*in use.*--publish"):
        Publisher(first.endpoint)


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:99999", "nonsense", "pigeon://x", "udp://127.0.0.1:5", ""]
)
def test_endpoints_that_make_no_sense_are_refused(endpoint):
    with pytest.raises(ConfigError):
        Publisher(endpoint)
    with pytest.raises(ConfigError):
        Subscriber(endpoint)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EndpointUnavailable, match=r"No such file.*--publish"):
        Publisher(f"ipc://{tmp_path}/absent/s")


def test_a_file_is_not_deleted_for_a_socket(tmp_path):
    (tmp_path / "video.mp4").write_bytes(b"precious")
    with pytest.raises(EndpointUnavailable, match=r"video\.mp4: it exists and is not a socket"):
        Publisher(f"ipc://{tmp_path}/video.mp4")
    assert (tmp_path / "video.mp4").read_bytes() == b"precious"


def test_a_path_in_use_is_not_taken_from_its_publisher(open_, endpoint):
    first = open_(Publisher, endpoint)
    with pytest.raises(EndpointUnavailable, match="in use"):
        Publisher(endpoint)
    connect(first, open_(Subscriber, endpoint))


def test_the_socket_of_a_dead_publisher_is_free_to_take(open_, endpoint):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(endpoint.removeprefix("ipc://"))
        dead.listen()
    connect(open_(Publisher, endpoint), open_(Subscriber, endpoint))


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://127.0.0.1:*", "tcp://localhost:*"])
def test_a_free_port_is_found_and_named(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    assert re.fullmatch(r"tcp://127\.0\.0\.1:[1-9]\d*", publisher.endpoint)


@pytest.mark.parametrize(
    ("offer", "rig"), [({"topic": "a\0b"}, "rig"), ({"encoding": "bmp"}, "rig"), ({}, "x" * 2000), ({}, "\udcff")]
)
def test_what_no_message_could_carry_is_refused_before_the_bind(offer, rig):
    with pytest.raises(ConfigError):
        Publisher([Offer("tcp://127.0.0.1:*", **offer)], rig=rig)


@pytest.mark.parametrize("endpoint", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://192.0.2.1:5555", "tcp://[::]:0"])
def test_beyond_this_machine_needs_a_word(endpoint):
    with pytest.raises(ConfigError, match="--insecure"):
        Publisher(endpoint)


def test_beyond_this_machine_with_the_word(open_):
    publisher = open_(Publisher, "tcp://0.0.0.0:*", allow_remote=True)
    assert publisher.endpoint.startswith("tcp://0.0.0.0:")


def test_a_header_has_the_distance_of_registration_only_where_one_was_set(open_, endpoint):
    publisher = open_(Publisher, endpoint, clock=lambda: 50_000_000)
    subscriber = open_(Subscriber, publisher.endpoint, latest=False)
    connect(publisher, subscriber)
    publisher.write(replace(fused(1), depth=Depth(9.87654, 12.0)))
    depth = subscriber.recv(5).header.depth
    assert (depth.mode, depth.plane_m, depth.target_m) == ("plane", 9.877, 12.0)
    publisher.write(fused(2))
    assert subscriber.recv(5).header.depth is None
    headers = fake_header("s", 1), msgspec.structs.replace(fake_header("s", 1), depth=WireDepth("plane", 3, 3))
    plain, told = (bytes(encode("fused", header, picture(0, (2, 2)))) for header in headers)
    assert b"depth" not in plain
    assert plain.count(b'full_range":null}') == 1
    assert b'"depth":{"mode":"plane","plane_m":3,"target_m":3}}' in told
