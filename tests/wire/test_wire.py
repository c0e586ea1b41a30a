"""The wire format: round trips, and bytes that are no message in every way that can be thought of."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from messages import header, image, rebuilt

from rtfuse.errors import ConfigError, WireError
from rtfuse.wire import images
from rtfuse.wire.message import (
    MAX_HEADER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_SIDE_PX,
    MAX_TOPIC_BYTES,
    Header,
    decode,
    encode,
    split,
)

DOC = Path(__file__).parents[2] / "docs" / "wire.md"


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
    with pytest.raises(WireError, match="is 64x48, the header says 6x4"):
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


@settings(max_examples=500, deadline=None)
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


def test_oversized_messages_and_images_are_refused():
    data = message((17, 9), "png")
    with pytest.raises(WireError, match=f"message of {len(data)} bytes; at most 100"):
        decode(data, max_bytes=100)
    flat = bytes(encode("t", header((200, 100), "png"), np.zeros((100, 200, 3), np.uint8)))
    with pytest.raises(WireError, match="200x100, 60000 bytes; at most 59999"):
        decode(flat, max_bytes=59_999)
    with pytest.raises(WireError, match="16384x16384"):
        decode(rebuilt(width=16_384, height=16_384, encoding="jpeg"))


JPEG_START = b"\xff\xd8"
JPEG_FRAME = bytes.fromhex("ffc0 0011 08 0004 0006 03 011100 021100 031100")  # 6x4


@pytest.mark.parametrize(
    "before", ["ff", "ffd0", "ff01", "ffd8", "ffdc0004ffff", "ffe00000", "ffe00001", "00", "ffe0ffff", "ffda0002", "fe"]
)
def test_a_jpeg_whose_size_a_decoder_might_read_elsewhere_is_refused(before):
    assert images.jpeg_size(memoryview(JPEG_START + JPEG_FRAME)) == (6, 4)
    assert images.jpeg_size(memoryview(JPEG_START + bytes.fromhex("fffe0003 41") + JPEG_FRAME)) == (6, 4)
    assert images.jpeg_size(memoryview(JPEG_START + bytes.fromhex(before) + JPEG_FRAME)) is None


def test_a_progressive_jpeg_is_refused():
    _, data = cv2.imencode(".jpg", image(), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert images.jpeg_size(memoryview(data.tobytes())) is None


def chunk(kind, data=b"", length=None):
    return struct.pack(">I", len(data) if length is None else length) + kind + data + b"\0\0\0\0"


IHDR = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 8, 2, 0, 0, 0))


@pytest.mark.parametrize(
    ("chunks", "size"),
    [
        (IHDR + chunk(b"IDAT", b"xyz") + chunk(b"IEND"), (6, 4)),
        (IHDR + chunk(b"tEXt", b"a") + chunk(b"IDAT") * 9_000 + chunk(b"IEND"), (6, 4)),
        (IHDR + chunk(b"IDAT", length=2_533_360_095) + chunk(b"IEND"), None),
        (IHDR + chunk(b"IDAT", b"xyz", length=4) + chunk(b"IEND"), None),
        (IHDR + chunk(b"IDAT", b"xyz"), None),
        (IHDR + chunk(b"IEND") + b"x", None),
        (IHDR + IHDR + chunk(b"IEND"), None),
        (IHDR + chunk(b"acTL", bytes(8)) + chunk(b"IEND"), None),
        (IHDR + chunk(b"IDAT") * 10_000 + chunk(b"IEND"), None),
        (chunk(b"IHDR", bytes(12)) + chunk(b"IEND"), None),
        (b"", None),
    ],
)
def test_a_png_that_a_decoder_might_allocate_too_much_for_is_refused(chunks, size):
    assert images.png_size(memoryview(b"\x89PNG\r\n\x1a\n" + chunks)) == size


def test_a_picture_of_another_kind_than_its_header_says_is_refused():
    _, _, payload = split(message(encoding="png"))
    text = msgspec.json.encode(header(encoding="jpeg"))
    with pytest.raises(WireError, match="unreadable"):
        decode(b"fused\0" + struct.pack("<I", len(text)) + text + bytes(payload))


@pytest.mark.parametrize("text", ["1" * 5000, "1e400", "1.0", "NaN", "true", "null", '"1"', "[1]"])
@pytest.mark.parametrize("name", ["version", "seq", "rgb_t_ns", "height"])
def test_numbers_of_every_kind_raise_wire_errors_only(name, text):
    fields = msgspec.json.encode(msgspec.to_builtins(header()) | {name: "HERE"}).replace(b'"HERE"', text.encode())
    with pytest.raises(WireError, match="header: "):
        decode(b"t\0" + struct.pack("<I", len(fields)) + fields + image().tobytes())


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(ValueError, match="6x4"):
        encode("t", header(), image((5, 4)))
    for topic in ("a\0b", "a" * 300, "\ud800"):
        with pytest.raises(ConfigError, match="topic"):
            encode(topic, header(), image())
    with pytest.raises(ConfigError, match="rig"):
        encode("t", header(rig="x" * 70_000), image())
    with pytest.raises(ConfigError, match="bmp"):
        encode("t", header(encoding="bmp"), image())
    for size_wh in ((16_385, 1), (5000, 5000)):
        with pytest.raises(ConfigError, match="cannot be published"):
            encode("t", header(size_wh), np.broadcast_to(np.uint8(0), (*size_wh[::-1], 3)))


def test_an_image_that_is_a_view_into_another_is_sent_as_it_looks():
    wide = image((20, 9))
    _, _, pixels = decode(encode("t", header((10, 9)), wide[:, ::-2]))
    assert np.array_equal(pixels, wide[:, ::-2])


def example():
    """The message that docs/wire.md shows."""
    head = header(
        (2, 1),
        session="9f1c2b7a4d5e6f00",
        seq=41,
        ir_id=41,
        rgb_id=43,
        ir_t_ns=7_204_116_000_000,
        rgb_t_ns=7_204_118_500_000,
        stamp="start-of-exposure",
        skew_ns=-2_500_000,
        age_ns=9_300_000,
        published_ns=7_204_127_800_000,
    )
    return bytes(encode("fused", head, np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)))


def hexdump(data):
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        yield f"{at:04x}  {row.hex(' '):<47}  {text}"


def test_the_documented_example_is_what_the_encoder_writes():
    shown = re.search(r"N is (\d+)\.\n\n```hexdump\n(.*?)\n```", DOC.read_text(), re.DOTALL)
    data = example()
    assert int(shown[1]) == struct.unpack_from("<I", data, 6)[0]
    assert shown[2].splitlines() == list(hexdump(data))


def test_every_field_and_limit_is_documented():
    text = DOC.read_text()
    documented = re.findall(r"^\| `(\w+)` \| (?:integer|string|boolean|object)", text, re.MULTILINE)
    assert documented == [field.name for field in msgspec.structs.fields(Header)]
    limits = (MAX_TOPIC_BYTES, MAX_HEADER_BYTES, MAX_SIDE_PX, MAX_MESSAGE_BYTES)
    assert all(re.search(rf"^\|.*\b{limit:,}\b", text, re.MULTILINE) for limit in limits)


def test_times_survive_a_client_whose_numbers_are_doubles():
    fields = msgspec.to_builtins(header(published_unix_ms=4_102_444_800_000, rgb_t_ns=100 * 86_400 * 10**9))
    assert all(int(float(v)) == v for v in fields.values() if isinstance(v, int))
