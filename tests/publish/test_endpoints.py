"""Several endpoints, planes and encoders: each gets what it asked for, and nobody waits for anybody."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zmq
from scenes import make_frame, picture

from rtfuse import Subscriber, describe
from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.picture import Coding, Picture
from rtfuse.publish import encoders
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import About, Publisher
from rtfuse.types import Frame, Fused, Moment, Pair, Stamp
from rtfuse.wire.description import CameraAbout, decode_state
from rtfuse.wire.images import compress
from rtfuse.wire.planes import plane_of

ALL = ("fused", "ir", "rgb", "counts", "mask")
FORMATS = ("rgb24", "yuv420p", "nv12")
CAMERA = CameraAbout(uri="/dev/video1", width=64, height=48, dtype="uint16", live=True, rate_hz=9.0)


def fused(k=0, size_wh=(64, 48), **changes):
    ir, rgb = make_frame("ir", k, size_wh=(40, 30)), make_frame("rgb", k, size_wh=size_wh)
    counts = np.random.default_rng(k).integers(0, 65_536, (30, 40), np.uint16)
    ir = replace(ir, content=counts)
    aligned = picture(k + 50, size_wh)[..., 0].copy()
    valid = picture(k + 90, size_wh)[..., 1].copy()
    return replace(Fused(picture(k, size_wh), aligned, Pair(ir, rgb), valid, "test"), **changes)


@pytest.fixture
def ipc(tmp_path):
    return [f"ipc://{tmp_path}/{name}" for name in "abc"]


def until(condition, step, timeout_s=20):
    """Repeat `step` until `condition` holds; returns what it gave."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        step()
        assert time.monotonic() < deadline
    return found


def joined(publisher, *wanted):
    """Wait until the publisher knows of so many subscribers of each (endpoint, topic)."""
    until(
        lambda: all(publisher.subscribers()[key] == n for key, n in wanted),
        lambda: (publisher.tick(), time.sleep(0.005)),
    )


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg", "h264"])
def test_each_plane_arrives_as_it_is_under_its_topic(open_, ipc, encoding):
    publisher = open_(Publisher, [Offer(ipc[0], encoding, ALL)], rig="truck")
    readers = {plane: open_(Subscriber, ipc[0], topic=plane, latest=False) for plane in ALL}
    joined(publisher, *(((ipc[0], plane), 1) for plane in ALL))
    publisher.write(shown := fused(3))
    seen = {plane: reader.recv(10) for plane, reader in readers.items()}
    exact = {"fused": shown.image, "ir": shown.ir, "rgb": shown.pair.rgb.image, "counts": shown.pair.ir.image}
    for plane, image in (exact | {"mask": shown.valid}).items():
        got, head = seen[plane].image, seen[plane].header
        how = "png" if plane in ("counts", "mask") and encoding in ("jpeg", "h264") else encoding
        assert (head.plane, head.encoding, head.seq, head.ir_id, head.rgb_id) == (plane, how, 0, 3, 3)
        assert (got.shape, got.dtype) == (image.shape, image.dtype)
        assert np.array_equal(got, image) or how in ("jpeg", "h264")
        assert np.abs(got.astype(int) - image).mean() < 12 or how not in ("jpeg", "h264")
        assert head.age_ns >= 0


def yuv_frame():
    """A frame whose RGB frame came as YUV, and which is fused."""
    y, u, v = (np.full(hw, 90 + 20 * k, np.uint8) for k, hw in enumerate([(48, 64), (24, 32), (24, 32)]))
    rgb = Frame("rgb", Picture("yuv420p", (y, u, v), Coding("bt709")), 3, 99_000_000, Stamp.ARRIVAL, 99_000_000)
    ir = make_frame("ir", 3, size_wh=(64, 48))
    return fused(pair=Pair(ir, rgb), picture=rgb.picture.with_luma(picture(3)[..., 1]))


def test_raw_pictures_are_sent_in_the_pixel_format_of_each_endpoint(open_, ipc):
    planes = ("fused", "rgb", "mask")
    offers = [Offer(endpoint, planes=planes, pixel_format=name) for endpoint, name in zip(ipc, FORMATS, strict=True)]
    publisher = open_(Publisher, offers)
    assert publisher.lines()[1] == f"fused (yuv420p), rgb (yuv420p), mask on {ipc[1]}"
    readers = {(at, plane): open_(Subscriber, at, topic=plane, latest=False) for at in ipc for plane in planes}
    joined(publisher, *((key, 1) for key in readers))
    publisher.write(shown := yuv_frame())
    seen = {key: reader.recv(10) for key, reader in readers.items()}
    for at, name in zip(ipc, FORMATS, strict=True):
        for plane, given in (("fused", shown.picture), ("rgb", shown.pair.rgb.picture)):
            got = seen[at, plane]
            assert (got.header.pixel_format, got.picture.layout, got.image.shape) == (name, name, (48, 64, 3))
            assert (got.header.matrix, got.header.full_range) == ((None, None) if name == "rgb24" else ("bt709", False))
            assert np.abs(got.image.astype(int) - given.rgb).max() <= (0 if name == "rgb24" else 2)
            assert not got.image.flags.writeable
        assert np.array_equal(seen[at, "mask"].image, shown.valid)
        with pytest.raises(TypeError, match="mask has one value"):
            _ = seen[at, "mask"].picture
    assert np.array_equal(seen[ipc[1], "rgb"].picture.planes[1], shown.pair.rgb.picture.planes[1])


def test_planes_are_missing_where_their_stream_is(open_, ipc):
    ir, rgb = make_frame("ir", 4, size_wh=(64, 48)), make_frame("rgb", 4, size_wh=(64, 48))
    alone = {"rgb": fused(pair=Moment.alone(rgb), mode="rgb"), "ir": fused(pair=Moment.alone(ir), mode="ir")}
    has = {mode: {plane for plane in ALL if plane_of(f, plane) is not None} for mode, f in alone.items()}
    assert has == {"rgb": {"fused", "rgb", "mask"}, "ir": {"fused", "ir", "mask"}}  # 8 bits are no counts
    everywhere = plane_of(fused(valid=None), "mask")
    assert everywhere.shape == (48, 64)
    assert (everywhere == 255).all()


def test_endpoints_have_encodings_of_their_own_and_the_same_kind_is_encoded_once(open_, ipc, monkeypatch):
    compressed = []
    monkeypatch.setattr(encoders, "compress", lambda *args: compressed.append(args[1:]) or compress(*args))
    offers = [
        Offer("tcp://127.0.0.1:*"),
        Offer(ipc[0], "jpeg", jpeg_quality=80),
        Offer(ipc[1], "jpeg", topic="other", jpeg_quality=80),
        Offer(ipc[2], "jpeg", jpeg_quality=30),
    ]
    publisher = open_(Publisher, offers)
    topics = ["fused", "fused", "other", "fused"]
    readers = [open_(Subscriber, e, topic=t, latest=False) for e, t in zip(publisher.endpoints, topics, strict=True)]
    joined(publisher, *(((e, t), 1) for e, t in zip(publisher.endpoints, topics, strict=True)))
    publisher.write(fused(1))
    got = [reader.recv(10) for reader in readers]
    assert [g.header.encoding for g in got] == ["raw", "jpeg", "jpeg", "jpeg"]
    assert {g.header.seq for g in got} == {0}
    assert np.array_equal(got[1].image, got[2].image)
    assert not np.array_equal(got[1].image, got[3].image)
    assert sorted(compressed) == [("jpeg", 30), ("jpeg", 80)]
    readers[3].close()
    joined(publisher, ((ipc[2], "fused"), 0))
    compressed.clear()
    publisher.write(fused(2))
    assert readers[1].recv(10).header.seq == 1
    assert compressed == [("jpeg", 80)]  # nobody listens to the other kind


def test_a_thermal_picture_that_is_repeated_is_compressed_once(open_, ipc, monkeypatch):
    compressed = []
    monkeypatch.setattr(encoders, "compress", lambda *args: compressed.append(args[1:]) or compress(*args))
    publisher = open_(Publisher, [Offer(ipc[0], "png", ("fused", "counts"))])
    reader = open_(Subscriber, ipc[0], topic="counts", latest=False)
    joined(publisher, ((ipc[0], "counts"), 1))
    same = fused(1)
    for seq in range(3):
        publisher.write(same)
        received = reader.recv(10)
        assert received.header.seq == seq
        assert np.array_equal(received.image, same.pair.ir.image)
    assert compressed == [("png", 0)]


def test_a_slow_encoder_delays_nobody_and_what_it_misses_is_counted(open_, ipc):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1600, 3), np.uint8)
    shown = fused(picture=noise, valid=None)
    publisher = open_(Publisher, [Offer(ipc[0]), Offer(ipc[1], "png")])
    raw, png = (open_(Subscriber, e, latest=False) for e in ipc[:2])
    joined(publisher, ((ipc[0], "fused"), 1), ((ipc[1], "fused"), 1))
    for seq in range(20):
        publisher.write(shown)
        assert raw.recv(10).header.seq == seq  # while the PNG, hundreds of milliseconds long, is being made
    taken = until(lambda: (r := png.recv(10)) and r.header.seq == 19 and png.received, lambda: None)
    assert raw.lost == 0
    assert publisher.drops == {(f"{ipc[1]} fused", "encoder"): 20 - taken}
    assert 0 < taken < 15


def test_what_an_encoder_fails_with_reaches_the_writer(open_, ipc):
    publisher = open_(Publisher, [Offer(ipc[0], "h264", ("fused",))])
    open_(Subscriber, ipc[0])
    joined(publisher, ((ipc[0], "fused"), 1))
    tiny = fused(picture=np.zeros((1, 64, 3), np.uint8))
    with pytest.raises(ConfigError, match="64x1 cannot be sent as h264"):
        until(lambda: False, lambda: (publisher.write(tiny), time.sleep(0.01)))


def test_the_last_pictures_leave_before_it_closes(open_, ipc):
    publisher = Publisher([Offer(ipc[0], "png")])
    reader = open_(Subscriber, ipc[0], latest=False)
    joined(publisher, ((ipc[0], "fused"), 1))
    publisher.write(fused(size_wh=(640, 480)))
    publisher.close()
    assert reader.recv(10).header.seq == 0


def test_subscribers_are_counted_by_endpoint_and_topic(open_, ipc):
    publisher = open_(Publisher, [Offer(ipc[0], planes=ALL), Offer("tcp://127.0.0.1:*")])
    tcp = publisher.endpoints[1]
    assert set(publisher.subscribers()) == {(ipc[0], t) for t in (*ALL, "stats", "state", "about")} | {
        (tcp, t) for t in ("fused", "stats", "state", "about")
    }
    first, second = open_(Subscriber, ipc[0]), open_(Subscriber, ipc[0])
    mask, remote = open_(Subscriber, ipc[0], topic="mask"), open_(Subscriber, tcp)
    joined(publisher, ((ipc[0], "fused"), 2), ((ipc[0], "mask"), 1), ((tcp, "fused"), 1), ((ipc[0], "ir"), 0))
    first.close()
    mask.close()
    joined(publisher, ((ipc[0], "fused"), 1), ((ipc[0], "mask"), 0), ((tcp, "fused"), 1))
    second.close()
    remote.close()
    joined(publisher, *((key, 0) for key in publisher.subscribers()))


def test_whoever_takes_everything_counts_everywhere(open_, ipc):
    publisher = open_(Publisher, [Offer(ipc[0], planes=("fused", "ir"))])
    with zmq.Context() as context, context.socket(zmq.SUB) as everything:
        everything.setsockopt(zmq.SUBSCRIBE, b"")
        everything.setsockopt(zmq.SUBSCRIBE, b"fus")
        everything.setsockopt(zmq.SUBSCRIBE, b"ir\0\x99")
        everything.setsockopt(zmq.SUBSCRIBE, b"nothing of ours")
        everything.connect(ipc[0])
        joined(publisher, ((ipc[0], "fused"), 1), ((ipc[0], "ir"), 1), ((ipc[0], "state"), 1))
        everything.setsockopt(zmq.UNSUBSCRIBE, b"")
        joined(publisher, ((ipc[0], "fused"), 1), ((ipc[0], "ir"), 1), ((ipc[0], "state"), 0))
        everything.setsockopt(zmq.UNSUBSCRIBE, b"fus")
        joined(publisher, ((ipc[0], "fused"), 0), ((ipc[0], "ir"), 1))
    joined(publisher, *((key, 0) for key in publisher.subscribers()))


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\0" + bytes(31)
READY = b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB"


def test_nobody_ends_the_subscription_of_another(open_):
    publisher = open_(Publisher, [Offer("tcp://127.0.0.1:*")])
    endpoint = publisher.endpoint
    reader = open_(Subscriber, endpoint, latest=False)
    joined(publisher, ((endpoint, "fused"), 1))
    with socket.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])), timeout=10) as liar:
        liar.sendall(GREETING)
        while len(liar.recv(64, socket.MSG_PEEK)) < 64:
            time.sleep(0.005)
        liar.sendall(READY + b"\0\x07\0fused\0" * 5 + b"\0\x07\1state\0")
        joined(publisher, ((endpoint, "state"), 1))  # all that it said has been read
        assert publisher.subscribers()[endpoint, "fused"] == 1
        publisher.write(fused(1))
        assert reader.recv(10) is not None


def test_nor_does_a_peer_of_an_old_protocol(open_):
    publisher = open_(Publisher, [Offer("tcp://127.0.0.1:*")])
    endpoint = publisher.endpoint
    reader = open_(Subscriber, endpoint, latest=False)
    joined(publisher, ((endpoint, "fused"), 1))
    with socket.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])), timeout=10) as liar:
        liar.sendall(b"\xff" + bytes(8) + b"\x7f")
        liar.recv(11, socket.MSG_PEEK)
        liar.sendall(b"\x01\x02")  # ZMTP 2.0, SUB
        liar.sendall(b"\0\0" + b"\0\x07\0fused\0" * 5 + b"\0\x07\1state\0")
        joined(publisher, ((endpoint, "state"), 1))
        publisher.write(fused(1))
        assert reader.recv(10) is not None


def test_a_late_joiner_of_h264_begins_with_a_key_frame_and_sees_the_newest(open_, ipc):
    publisher = open_(Publisher, [Offer(ipc[0], "h264")])
    first = open_(Subscriber, ipc[0], latest=False)
    joined(publisher, ((ipc[0], "fused"), 1))
    for k in range(5):
        publisher.write(fused(k))
        assert first.recv(10).header.unit == k
    late, newest = open_(Subscriber, ipc[0], latest=False), open_(Subscriber, ipc[0], latest=True)
    joined(publisher, ((ipc[0], "fused"), 3))
    begun = until(lambda: late.recv(0.05), lambda: publisher.write(fused(7)))
    assert begun.header.key_frame
    assert np.abs(begun.image.astype(int) - picture(7)).mean() < 20
    seen = until(lambda: newest.recv(0.05), lambda: publisher.write(fused(8)))
    assert seen.image.shape == (48, 64, 3)
    while first.recv(0.1) is not None:
        pass
    assert (first.lost, first.malformed, late.malformed, newest.malformed) == (0, 0, 0, 0)


def test_a_late_joiner_gets_the_description_of_its_endpoint_at_once(open_, ipc):
    offers = [Offer(ipc[0], planes=("fused", "counts")), Offer(ipc[1], "jpeg")]
    about = About("1.2.3", "pyramid", {"ir": CAMERA, "rgb": CAMERA}, "plane_m: 5.0\n")
    publisher = open_(Publisher, offers, rig="truck", about=lambda: about)
    with pytest.raises(EndpointUnavailable, match=r"has not described itself within 0\.05 s"):
        describe(ipc[0], 0.05)
    answers = {}
    for endpoint in ipc[:2]:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(describe, endpoint, 20)
            until(asked.done, lambda: (publisher.tick(), time.sleep(0.005)))
            answers[endpoint] = asked.result()
    first, second = (answers[endpoint] for endpoint in ipc[:2])
    assert (first.about.rig, first.about.software, first.about.fuser) == ("truck", "1.2.3", "pyramid")
    assert first.about.streams == {"ir": CAMERA, "rgb": CAMERA}
    assert first.calibration == "plane_m: 5.0\n"
    planes = [(p.topic, p.pixel_format, p.encoding, p.jpeg_quality) for p in first.about.planes]
    assert planes == [("fused", "rgb24", "raw", None), ("counts", "gray16le", "raw", None)]
    assert [(p.topic, p.encoding, p.jpeg_quality) for p in second.about.planes] == [("fused", "jpeg", 90)]


@pytest.fixture
def listen():
    """Subscribe to a topic with a bare socket."""
    with zmq.Context() as context:

        def one(endpoint, topic):
            made = context.socket(zmq.SUB)
            made.setsockopt(zmq.RCVTIMEO, 10_000)
            made.setsockopt(zmq.SUBSCRIBE, topic + b"\0")
            made.connect(endpoint)
            return made

        yield one
        context.destroy(0)


def test_a_changed_description_is_sent_again(open_, ipc, listen):
    now = [0]
    about = [About("1", "pyramid", {"ir": CAMERA}, "")]
    publisher = open_(Publisher, [Offer(ipc[0])], about=lambda: about[-1], clock=lambda: now[0])
    reader = listen(ipc[0], b"about")
    joined(publisher, ((ipc[0], "about"), 1))
    assert b'"pyramid"' in reader.recv()
    now[0] += 2_000_000_000
    publisher.tick()
    about.append(About("1", "ufuser", {"ir": CAMERA}, ""))
    now[0] += 2_000_000_000
    publisher.tick()
    while b'"pyramid"' in (told := reader.recv()):
        pass  # told to all, and again to who had just come
    assert b'"ufuser"' in told


def test_a_state_is_told_when_it_changes_and_to_whoever_joins(open_, ipc, listen):
    states = {"ir": ("starting", None), "rgb": ("live", None)}
    publisher = open_(Publisher, [Offer(ipc[0])], rig="truck", states=lambda: states)
    publisher.tick()
    reader = listen(ipc[0], b"state")
    joined(publisher, ((ipc[0], "state"), 1))
    _, present = decode_state(reader.recv())
    assert (present.stream, present.before, present.streams["ir"].state) == (None, None, "starting")
    for state, why in [("live", None), ("lost", "unplugged"), ("live", None)]:
        before, states["ir"] = states["ir"][0], (state, why)
        for _ in range(3):
            publisher.tick()
        _, change = decode_state(reader.recv())
        assert (change.rig, change.stream, change.before) == ("truck", "ir", before)
        assert (change.streams["ir"].state, change.streams["ir"].why) == (state, why)
        assert change.streams["rgb"].state == "live"
    assert reader.poll(50) == 0


@pytest.mark.parametrize(
    ("offer", "words"),
    [
        (lambda: Offer("ipc:///x", "bmp"), "bmp"),
        (lambda: Offer("ipc:///x", planes=("depth",)), "depth.*fused, ir, rgb, counts, mask"),
        (lambda: Offer("ipc:///x", planes=()), "no planes"),
        (lambda: Offer("ipc:///x", pixel_format="bgr24"), "bgr24.*yuv420p, nv12, rgb24"),
        (lambda: Offer("ipc:///x", "jpeg", pixel_format="nv12"), "sends jpeg, which has no pixel format nv12"),
        (lambda: Offer("ipc:///x", planes=("fused", "ir"), topic="ir"), "two kinds of messages"),
        (lambda: Offer("ipc:///x", topic="stats"), "two kinds of messages"),
        (lambda: Offer("ipc:///x", topic="about"), "two kinds of messages"),
    ],
)
def test_offers_that_make_no_sense_are_refused(offer, words):
    with pytest.raises(ConfigError, match=words):
        offer()


def test_where_one_endpoint_cannot_be_bound_none_is(open_, ipc, tmp_path):
    with pytest.raises(EndpointUnavailable):
        Publisher([Offer(ipc[0]), Offer(f"ipc://{tmp_path}/absent/s")])
    open_(Publisher, [Offer(ipc[0])])
    with pytest.raises(EndpointUnavailable, match="in use"):
        Publisher([Offer(ipc[1]), Offer(ipc[0])])
