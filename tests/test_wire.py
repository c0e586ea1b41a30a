"""The wire format: round trips, and bytes that are no message in every way that can be thought of."""

from __future__ import annotations

import struct

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rtfuse.errors import WireError
from rtfuse.publish import wire
from rtfuse.publish.wire import Header, decode, encode, split


def header(size_wh=(6, 4), encoding="raw", **changes):
    values = {
        "session": "0011223344556677",
        "seq": 7,
        "rig": "truck",
        "mode": "fused",
        "fuser": "pyramid",
        "ir_id": 3,
        "rgb_id": 9,
        "ir_t_ns": 1_000_000,
        "rgb_t_ns": 1_500_000,
        "stamp": "end-of-frame",
        "skew_ns": -500_000,
        "age_ns": 12_000_000,
        "published_unix_ms": 1_790_000_000_000,
        "width": size_wh[0],
        "height": size_wh[1],
        "encoding": encoding,
    }
    return Header(**(values | changes))


def image(size_wh=(6, 4), seed=0):
    return np.random.default_rng(seed).integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)


def message(size_wh=(6, 4), encoding="raw", topic="fused", **changes):
    return bytes(encode(topic, header(size_wh, encoding, **changes), image(size_wh)))


@given(
    size_wh=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    encoding=st.sampled_from(["raw", "png"]),
    topic=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    seq=st.integers(0, 2**60),
    t=st.integers(-(2**62), 2**62),
)
def test_what_is_encoded_is_decoded(size_wh, encoding, topic, seq, t):
    head = header(size_wh, encoding, seq=seq, rgb_t_ns=t, rig="räder")
    name, got, pixels = decode(encode(topic, head, image(size_wh)))
    assert (name, got) == (topic, head)
    assert np.array_equal(pixels, image(size_wh))
    assert not pixels.flags.writeable


def test_jpeg_is_close_and_its_colours_are_in_order():
    flat = np.zeros((32, 48, 3), np.uint8)
    flat[:] = (200, 40, 90)
    _, _, pixels = decode(encode("x", header((48, 32), "jpeg"), flat, jpeg_quality=95))
    assert np.abs(pixels.astype(int) - flat).max() < 6


def test_a_raw_image_is_a_view_of_the_message():
    data = bytearray(message())
    _, _, pixels = decode(data)
    data[-1] ^= 0xFF
    assert pixels[-1, -1, -1] == data[-1]


def test_the_layout_is_the_documented_one():
    """Taken apart by hand, with nothing of the decoder."""
    data = message(topic="fused")
    assert data[:6] == b"fused\0"
    (length,) = struct.unpack("<I", data[6:10])
    fields = msgspec.json.decode(data[10 : 10 + length])
    assert fields["version"] == 1
    assert (fields["width"], fields["height"], fields["encoding"], fields["pixel_format"]) == (6, 4, "raw", "rgb24")
    assert data[10 + length :] == image().tobytes()


def test_unknown_fields_are_ignored_so_that_minor_versions_can_add_some():
    data = message()
    (length,) = struct.unpack("<I", data[6:10])
    fields = msgspec.json.decode(data[10 : 10 + length]) | {"hot_spot_k": 310.2}
    text = msgspec.json.encode(fields)
    _, got, _ = decode(data[:6] + struct.pack("<I", len(text)) + text + data[10 + length :])
    assert got == header()


def rebuilt(**changes):
    """A message whose JSON header was changed by hand."""
    fields = msgspec.to_builtins(header()) | changes
    text = msgspec.json.encode({k: v for k, v in fields.items() if v is not ...})
    return b"fused\0" + struct.pack("<I", len(text)) + text + image().tobytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no topic"),
        (b"x" * 1000, "no topic"),
        (b"\xff\xfe\0", "not UTF-8"),
        (b"fused\0\x01\x00", "inside the header's length"),
        (b"fused\0\xff\xff\xff\xff", "at most 65536"),
        (b"fused\0\x10\x00\x00\x00{}", "only 2 follow"),
        (b"fused\0\x02\x00\x00\x00{}", "header: "),
        (b"fused\0\x02\x00\x00\x00\xff\xff", "header: "),
        (rebuilt(version=2), "version 2; this client reads version 1"),
        (rebuilt(version=...), "version"),
        (rebuilt(width=7), "7x4 rgb24 has 84"),
        (rebuilt(width=0), "width"),
        (rebuilt(width=10**9, height=10**9), "width"),
        (rebuilt(width=-6, height=-4), "width"),
        (rebuilt(width="6"), "width"),
        (rebuilt(seq=...), "seq"),
        (rebuilt(encoding="pickle"), "encoding"),
        (rebuilt(pixel_format="bgr24"), "pixel_format"),
        (rebuilt(encoding="jpeg"), "unreadable"),
        (rebuilt(encoding="png"), "unreadable"),
        (message() + b"\0", "payload of 73 bytes"),
        (message()[:-1], "payload of 71 bytes"),
    ],
)
def test_each_fault_is_named(data, words):
    with pytest.raises(WireError, match=words):
        decode(data)


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_an_image_larger_than_the_header_says_is_refused_before_it_is_decoded(encoding, monkeypatch):
    _, _, payload = split(message((64, 48), encoding))
    text = msgspec.json.encode(header((6, 4), encoding))
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the bomb was decoded"))
    with pytest.raises(WireError, match=r"\(64, 48\), the header says 6x4"):
        decode(b"fused\0" + struct.pack("<I", len(text)) + text + bytes(payload))


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_every_truncation_is_refused(encoding):
    data = message((17, 9), encoding)
    for end in range(len(data) - 1):
        try:
            decode(data[:end])
        except WireError:
            continue
        assert encoding == "jpeg", end  # a JPEG that lacks its last bytes may still be a picture


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
@example(b"\0" * 400)
def test_random_bytes_raise_wire_errors_only(data):
    with pytest.raises(WireError):
        decode(data)


@settings(max_examples=1000, deadline=None)
@given(
    encoding=st.sampled_from(["raw", "jpeg", "png"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), min_size=1, max_size=5),
)
def test_mutated_messages_decode_or_raise_wire_errors(encoding, edits):
    data = bytearray(message((17, 9), encoding))
    for place, new in edits:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    try:
        _, head, pixels = decode(data)
    except WireError:
        return
    assert pixels.shape == (head.height, head.width, 3)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_random_headers_raise_wire_errors_only(text):
    with pytest.raises(WireError):
        decode(b"t\0" + struct.pack("<I", len(text)) + text)


def test_deeply_nested_json_is_refused():
    text = b"[" * 60_000
    with pytest.raises(WireError):
        decode(b"t\0" + struct.pack("<I", len(text)) + text)


def test_oversized_messages_are_refused(monkeypatch):
    monkeypatch.setattr(wire, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(WireError, match="at most 100"):
        decode(message())


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="6x4"):
        encode("t", header(), image((5, 4)))
    with pytest.raises(ValueError, match="topic"):
        encode("a\0b", header(), image())
    with pytest.raises(ValueError, match="topic"):
        encode("a" * 300, header(), image())
