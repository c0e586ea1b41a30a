"""The wire format: one fused frame as one ZeroMQ message part. `docs/wire.md` describes it byte by byte.

    topic (UTF-8) | 0x00 | header length, uint32 little-endian | header, JSON | payload

Encoding and decoding are pure functions. Decoding checks every length before it touches the bytes behind it, and
raises WireError for anything that is not a valid message.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

import msgspec
import numpy as np

from rtfuse.errors import WireError
from rtfuse.types import Image

VERSION = 1
MAX_TOPIC_BYTES = 255
MAX_HEADER_BYTES = 65_536
MAX_SIDE_PX = 16_384
MAX_MESSAGE_BYTES = 1 << 28

Encoding = Literal["raw", "jpeg", "png"]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]

_LENGTH = struct.Struct("<I")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with every image. Times are integer nanoseconds on the publisher's monotonic clock.

    `seq` counts this publisher's frames from 0, `session` is a random name that it chose when it started.
    `ir_t_ns` and `rgb_t_ns` are capture times and `stamp` says what they mean, `skew_ns` is thermal minus RGB,
    `age_ns` runs from the capture of the RGB frame to the moment of publishing.
    """

    version: int = VERSION
    session: str
    seq: NotNegative
    rig: str
    mode: str
    fuser: str
    ir_id: NotNegative
    rgb_id: NotNegative
    ir_t_ns: int
    rgb_t_ns: int
    stamp: str
    ir_reused: bool = False
    skew_ns: int
    age_ns: int
    published_unix_ms: int
    width: Side
    height: Side
    pixel_format: Literal["rgb24"] = "rgb24"
    encoding: Encoding


class _Version(msgspec.Struct, frozen=True):
    version: int


_header_decoder = msgspec.json.Decoder(Header)
_version_decoder = msgspec.json.Decoder(_Version)


def encode(topic: str, header: Header, image: Image, *, jpeg_quality: int = 90) -> bytearray | bytes:
    """Encode one image, (H, W, 3) uint8 RGB, as a message. Copies raw pixels exactly once.

    Raises ValueError if the image does not fit the header or the topic cannot be sent.
    """
    if image.shape != (header.height, header.width, 3) or image.dtype != np.uint8:
        raise ValueError(f"header says {header.width}x{header.height} rgb24, image is {image.shape} {image.dtype}")
    name = topic.encode()
    if b"\0" in name or len(name) > MAX_TOPIC_BYTES:
        raise ValueError(f"topic {topic!r} must be at most {MAX_TOPIC_BYTES} bytes without a zero byte")
    text = msgspec.json.encode(header)
    head = b"".join((name, b"\0", _LENGTH.pack(len(text)), text))
    if header.encoding != "raw":
        return head + _compress(image, header.encoding, jpeg_quality)
    message = bytearray(len(head) + image.size)
    message[: len(head)] = head
    pixels = np.frombuffer(message, np.uint8, image.size, len(head)).reshape(image.shape)
    np.copyto(pixels, image)
    return message


def _compress(image: Image, encoding: str, jpeg_quality: int) -> bytes:
    import cv2

    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if encoding == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    ok, data = cv2.imencode("." + encoding, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not ok:
        raise ValueError(f"the image cannot be encoded as {encoding}")
    return data.tobytes()


def decode(message: bytes | bytearray | memoryview) -> tuple[str, Header, Image]:
    """Decode a message into topic, header and image, (H, W, 3) uint8 RGB, read-only.

    A raw image is a view of the message's bytes, not a copy. Raises WireError.
    """
    topic, header, payload = split(message)
    if header.encoding == "raw":
        image = np.frombuffer(payload, np.uint8).reshape(header.height, header.width, 3)
        image.flags.writeable = False
        return topic, header, image
    return topic, header, _decompress(payload, header)


def split(message: bytes | bytearray | memoryview) -> tuple[str, Header, memoryview]:
    """Take a message apart into topic, header and payload, all checked, without decoding the image.

    Raises WireError.
    """
    view = memoryview(message).cast("B")
    if len(view) > MAX_MESSAGE_BYTES:
        raise WireError(f"message of {len(view)} bytes; at most {MAX_MESSAGE_BYTES} are allowed")
    end = bytes(view[: MAX_TOPIC_BYTES + 1]).find(b"\0")
    if end < 0:
        raise WireError(f"no topic: no zero byte in the first {MAX_TOPIC_BYTES + 1} bytes")
    try:
        topic = str(view[:end], "utf-8")
    except UnicodeDecodeError as e:
        raise WireError("the topic is not UTF-8") from e
    start = end + 1 + _LENGTH.size
    if len(view) < start:
        raise WireError(f"message ends after {len(view)} bytes, inside the header's length")
    (length,) = _LENGTH.unpack_from(view, end + 1)
    if length > MAX_HEADER_BYTES:
        raise WireError(f"header of {length} bytes; at most {MAX_HEADER_BYTES} are allowed")
    if len(view) < start + length:
        raise WireError(f"header of {length} bytes, but only {len(view) - start} follow")
    header = _header(bytes(view[start : start + length]))
    payload = view[start + length :]
    expected = header.width * header.height * 3
    if header.encoding == "raw" and len(payload) != expected:
        raise WireError(
            f"payload of {len(payload)} bytes; {header.width}x{header.height} {header.pixel_format} has {expected}"
        )
    return topic, header, payload


def _header(text: bytes) -> Header:
    try:
        version = _version_decoder.decode(text).version
        if version != VERSION:
            raise WireError(f"wire format version {version}; this client reads version {VERSION}")
        return _header_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"header: {e}") from e


def _decompress(payload: memoryview, header: Header) -> Image:
    """Decode JPEG or PNG whose own size agrees with the header's, so that a small file cannot become a huge image."""
    size = _png_size(payload) if header.encoding == "png" else _jpeg_size(payload)
    if size != (header.width, header.height):
        raise WireError(
            f"the {header.encoding} is {size or 'unreadable'}, the header says {header.width}x{header.height}"
        )
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as e:
        raise WireError(f"the {header.encoding} cannot be decoded") from e
    if image is None or image.shape != (header.height, header.width, 3):
        raise WireError(f"the {header.encoding} cannot be decoded")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    image.flags.writeable = False
    return image


def _png_size(data: memoryview) -> tuple[int, int] | None:
    if len(data) < 24 or bytes(data[:8]) != _PNG_MAGIC or bytes(data[12:16]) != b"IHDR":
        return None
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """Return the size in a JPEG's frame header (SOF segment, ITU T.81 B.2.2)."""
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    return None
