"""Publisher and subscriber over real sockets: nothing waits, nothing is counted wrongly."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import zmq
from scenes import make_frame, picture

import rtfuse
from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish.zmq import Publisher
from rtfuse.subscribe import Subscriber
from rtfuse.types import Fused, Pair


def fused(k=0, size_wh=(64, 48)):
    ir, rgb = make_frame("ir", k, size_wh=size_wh), make_frame("rgb", k, size_wh=size_wh)
    return Fused(picture(k, size_wh), ir.image, Pair(ir, rgb, skew_ns=5), None, "test")


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/s"


@pytest.fixture
def open_():
    """Open publishers and subscribers that are closed at the end."""
    opened = []

    def open_one(kind, *args, **kwargs):
        opened.append(kind(*args, **kwargs))
        return opened[-1]

    yield open_one
    for one in reversed(opened):
        one.close()


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
    publisher = open_(Publisher, endpoint, encoding=encoding, rig="truck", clock=lambda: 50_000_000)
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
    assert abs(h.published_unix_ms - time.time() * 1000) < 10_000


def test_gaps_are_counted_exactly(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    subscriber = open_(Subscriber, endpoint, latest=False)
    connect(publisher, subscriber)
    lost = subscriber.lost
    publisher.write(fused())
    assert subscriber.recv(5).gap == 0
    publisher.sent += 4  # four frames that never reached the socket
    publisher.write(fused())
    assert subscriber.recv(5).gap == 4
    assert subscriber.lost - lost == 4


def test_latest_gives_the_newest_and_every_frame_gives_each_in_order(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    latest, every = open_(Subscriber, endpoint), open_(Subscriber, endpoint, latest=False)
    connect(publisher, latest, every)
    received = []
    for _ in range(20):
        publisher.write(fused())
        received.append(every.recv(0.5))  # None where the burst was too fast for ZeroMQ
    seqs = [r.header.seq for r in received if r]
    assert len(seqs) > 15
    assert seqs == sorted(set(seqs))
    deadline = time.monotonic() + 10
    while (received := latest.recv(0.1)) is None or received.header.seq != publisher.sent - 1:
        publisher.write(fused())
        assert time.monotonic() < deadline
    assert latest.recv(0.05) is None
    assert latest.lost > 0


def test_a_subscriber_that_never_reads_delays_nothing_and_fills_nothing(open_, endpoint):
    publisher = open_(Publisher, endpoint)
    stuck, reader = open_(Subscriber, endpoint, latest=False, queue=1), open_(Subscriber, endpoint, latest=False)
    connect(publisher, stuck, reader)
    big = fused(size_wh=(640, 480))
    read = 0
    for _ in range(200):
        publisher.write(big)
        read += reader.recv(0.2) is not None
    assert read > 180
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
    publisher = open_(Publisher, endpoint, topic="fused")
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


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1", "tcp://127.0.0.1:99999", "nonsense", "pigeon://x", ""])
def test_endpoints_that_make_no_sense_are_refused(endpoint):
    with pytest.raises(ConfigError):
        Publisher(endpoint)
    with pytest.raises(ConfigError):
        Subscriber(endpoint)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(EndpointUnavailable, match="No such file"):
        Publisher(f"ipc://{tmp_path}/absent/s")


@pytest.mark.parametrize("endpoint", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://192.0.2.1:5555", "tcp://[::]:0"])
def test_beyond_this_machine_needs_a_word(endpoint):
    with pytest.raises(ConfigError, match="--insecure"):
        Publisher(endpoint)


def test_beyond_this_machine_with_the_word(open_):
    publisher = open_(Publisher, "tcp://0.0.0.0:*", allow_remote=True)
    assert publisher.endpoint.startswith("tcp://0.0.0.0:")
