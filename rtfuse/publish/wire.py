"""The wire format: one fused frame as one ZeroMQ message part. `docs/wire.md` describes it byte by byte.

    topic (UTF-8) | 0x00 | header length, uint32 little-endian | header, JSON | payload

Encoding and decoding are pure functions. Decoding checks every length before it touches the bytes behind it, and
raises WireError for anything that is not a valid message.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from rtfuse.errors import ConfigError, WireError
from rtfuse.types import Image

VERSION = 1
MAX_TOPIC_BYTES = 255
MAX_HEADER_BYTES = 65_536
MAX_SIDE_PX = 16_384
_MAX_RIG_BYTES = 1024
MAX_MESSAGE_BYTES = 64 << 20
"""Of a whole message, and of the decoded image: a small file may not become a huge image either."""

Buffer = bytes | bytearray | memoryview
Encoding = Literal["raw", "jpeg", "png"]
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
S = TypeVar("S")

_LENGTH = struct.Struct("<I")
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PNG_CHUNKS = b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB sBIT bKGD pHYs tIME tEXt".split()
_JPEG_FRAMES = {0xC0, 0xC1}
_JPEG_SKIPPED = {0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
_MAX_PARTS = 10_000
"""Chunks of a PNG, segments before a JPEG's frame header: a check may not take long either."""


class Spot(msgspec.Struct, frozen=True):
    """A point of the picture, x right and y down in pixels (possibly outside of it), and its temperature in kelvin."""

    x: float
    y: float
    k: float


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What comes with every image. Times are integer nanoseconds on the publisher's monotonic clock.

    `seq` counts this publisher's frames from 0, `session` is a random name that it chose when it started. `mode` is
    what the picture shows: `fused`, one stream alone (`rgb`, `ir`), or an older picture again (`held`); `ir_state` and
    `rgb_state` are what the streams are doing. `ir_t_ns` and `rgb_t_ns` are capture times and `stamp` says what they
    mean, `skew_ns` is thermal minus RGB; of a stream that is not in the picture they are those of its last frame that
    was, 0 before the first. `age_ns` runs from the capture of the RGB frame (in `ir` mode: the thermal frame) to
    `published_ns`. `published_unix_ms` is the wall clock then. `hot`
    and `cold` are the extremes of a radiometric thermal camera. What has a default may be missing in a message.
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
    ir_state: str = "live"
    rgb_state: str = "live"
    hot: Spot | None = None
    cold: Spot | None = None
    age_ns: int
    published_ns: int
    published_unix_ms: int
    width: Side
    height: Side
    pixel_format: Literal["rgb24"] = "rgb24"
    encoding: Encoding


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, now: what it is doing and for how long, its measured rate, the delay from capture to arrival, how
    much faster than the publisher's its clock runs, how often that jumped, and how often the source came back."""

    state: str
    for_s: float
    rate_hz: float | None = None
    latency_ms: float | None = None
    drift_ppm: float | None = None
    clock_steps: NotNegative = 0
    reconnects: NotNegative = 0


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a publisher says of itself once a second, under a topic of its own.

    `age_ms` and `skew_ms` are p50, p95 and p99 of the session (null where nothing was counted). `skew_histogram` lists
    the upper edge of each bin in ms (null: no edge) and its count. `drops` counts by `where.cause`, `modes` frames by
    what they showed. `pair_rate_hz` counts frames of any mode, over the last seconds.
    """

    version: int = VERSION
    kind: Literal["statistics"] = "statistics"
    session: str
    rig: str
    published_ns: int
    published_unix_ms: int
    frames: NotNegative
    pair_rate_hz: float
    reused: NotNegative
    age_ms: list[float | None]
    skew_ms: list[float | None]
    skew_histogram: list[tuple[float | None, int]]
    modes: dict[str, int]
    drops: dict[str, int]
    streams: dict[str, StreamStatistics]


class _Version(msgspec.Struct, frozen=True):
    version: int


_header_decoder = msgspec.json.Decoder(Header)
_statistics_decoder = msgspec.json.Decoder(Statistics)
_version_decoder = msgspec.json.Decoder(_Version)


def check_names(topic: str, encoding: str, rig: str) -> None:
    """Refuse what no message could carry. Raises ConfigError."""
    for what, text, limit in (("topic", topic, MAX_TOPIC_BYTES), ("name of the rig", rig, _MAX_RIG_BYTES)):
        data = text.encode(errors="replace")
        if b"\0" in data or len(data) > limit or data.decode() != text:
            raise ConfigError(
                f"the {what}, {text[:40]!r}, cannot be sent; want UTF-8, at most {limit} bytes, none zero"
            )
    if encoding not in get_args(Encoding):
        raise ConfigError(f"there is no encoding {encoding!r}; choose {', '.join(get_args(Encoding))}")


def encode(topic: str, header: Header, image: Image, *, jpeg_quality: int = 90) -> memoryview:
    """Encode one image, (H, W, 3) uint8 RGB, as a message. Copies raw pixels exactly once.

    Raises ValueError if the image does not fit the header, ConfigError if the topic or the size cannot be sent.
    """
    if image.shape != (header.height, header.width, 3) or image.dtype != np.uint8:
        raise ValueError(f"header says {header.width}x{header.height} rgb24, image is {image.shape} {image.dtype}")
    check_names(topic, header.encoding, header.rig)
    head = framed(topic, msgspec.json.encode(header))
    if max(image.shape) > MAX_SIDE_PX or len(head) + image.size > MAX_MESSAGE_BYTES:
        raise ConfigError(
            f"an image of {header.width}x{header.height} cannot be published; at most {MAX_SIDE_PX} px a side and "
            f"{MAX_MESSAGE_BYTES >> 20} MiB are allowed"
        )
    payload = image if header.encoding == "raw" else _compress(image, header.encoding, jpeg_quality)
    message = np.empty(len(head) + payload.size, np.uint8)
    message[: len(head)] = np.frombuffer(head, np.uint8)
    np.copyto(message[len(head) :].reshape(payload.shape), payload)
    return message.data


def encode_statistics(topic: str, statistics: Statistics) -> bytes:
    """Encode a publisher's statistics as a message without payload."""
    return framed(topic, msgspec.json.encode(statistics))


def framed(topic: str, text: bytes) -> bytes:
    """Return what comes before the payload: topic, a zero byte, the length of the JSON text, and that text."""
    return b"".join((topic.encode(), b"\0", _LENGTH.pack(len(text)), text))


def decode_statistics(message: Buffer) -> tuple[str, Statistics]:
    """Decode a statistics message into topic and content. Raises WireError."""
    topic, text, payload = parts(message, MAX_MESSAGE_BYTES)
    if len(payload):
        raise WireError(f"{len(payload)} bytes follow the statistics")
    return topic, checked(text, _statistics_decoder)


def _compress(image: Image, encoding: str, jpeg_quality: int) -> npt.NDArray[np.uint8]:
    import cv2

    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if encoding == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    ok, data = cv2.imencode("." + encoding, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not ok:
        raise ValueError(f"the image cannot be encoded as {encoding}")
    return data


def decode(message: Buffer, *, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[str, Header, Image]:
    """Decode a message into topic, header and image, (H, W, 3) uint8 RGB, read-only.

    A raw image is a view of the message's bytes, not a copy. Raises WireError, also where the message or the decoded
    image is larger than `max_bytes`.
    """
    topic, header, payload = split(message, max_bytes=max_bytes)
    if header.encoding == "raw":
        image = np.frombuffer(payload, np.uint8).reshape(header.height, header.width, 3)
        image.flags.writeable = False
        return topic, header, image
    return topic, header, _decompress(payload, header)


def split(message: Buffer, *, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[str, Header, memoryview]:
    """Take a message apart into topic, header and payload, all checked, without decoding the image.

    Raises WireError.
    """
    topic, text, payload = parts(message, max_bytes)
    header = checked(text, _header_decoder)
    expected = header.width * header.height * 3
    if expected > max_bytes:
        raise WireError(f"image of {header.width}x{header.height}, {expected} bytes; at most {max_bytes} are allowed")
    if header.encoding == "raw" and len(payload) != expected:
        raise WireError(
            f"payload of {len(payload)} bytes; {header.width}x{header.height} {header.pixel_format} has {expected}"
        )
    return topic, header, payload


def parts(message: Buffer, max_bytes: int) -> tuple[str, bytes, memoryview]:
    """Take a message apart into topic, JSON text and payload. Raises WireError."""
    view = memoryview(message).cast("B")
    if len(view) > max_bytes:
        raise WireError(f"message of {len(view)} bytes; at most {max_bytes} are allowed")
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
    return topic, bytes(view[start : start + length]), view[start + length :]


def checked(text: bytes, decoder: msgspec.json.Decoder[S]) -> S:
    """Decode JSON text of this version of the format. Raises WireError."""
    try:
        version = _version_decoder.decode(text).version
        if version != VERSION:
            raise WireError(f"wire format version {version}; this client reads version {VERSION}")
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"header: {e}") from e


def _decompress(payload: memoryview, header: Header) -> Image:
    """Decode JPEG or PNG whose own size agrees with the header's, so that a small file cannot become a huge image."""
    size = _png_size(payload) if header.encoding == "png" else _jpeg_size(payload)
    if size != (header.width, header.height):
        found = "{}x{}".format(*size) if size else "unreadable"
        raise WireError(f"the {header.encoding} is {found}, the header says {header.width}x{header.height}")
    import cv2

    try:
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as e:
        raise WireError(f"the {header.encoding} cannot be decoded") from e
    if image is None or image.shape != (header.height, header.width, 3):
        raise WireError(f"the {header.encoding} cannot be decoded")
    image.flags.writeable = False
    return image


def _png_size(data: memoryview) -> tuple[int, int] | None:
    """Return the size of a PNG that is complete and consists of known chunks only.

    A decoder allocates what a chunk says it has, 2 GB if need be, before it looks for the bytes.
    """
    if len(data) < 24 or bytes(data[:16]) != _PNG_START:
        return None
    width, height = struct.unpack_from(">II", data, 16)
    at = 8
    for _ in range(_MAX_PARTS):
        if at + 12 > len(data):
            return None
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind not in _PNG_CHUNKS or (kind == b"IHDR") != (at == 8):
            return None
        at += 12 + length
        if kind == b"IEND":
            return (width, height) if at == len(data) else None
    return None


def _jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """Return the size in the frame header of a sequential JPEG (SOF0 or SOF1 segment, ITU T.81 B.2.2).

    Stricter than decoders are: no fill bytes and no markers without a length before the frame header, so that no
    decoder can find another one than this; and not progressive, where a small file can ask for thousands of passes.
    """
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    for _ in range(_MAX_PARTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker not in _JPEG_SKIPPED or length < 2:
            return None
        at += 2 + length
    return None
