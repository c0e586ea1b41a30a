"""Define the wire format: one picture as one ZeroMQ message part. `docs/wire.md` describes it byte by byte.

    topic (UTF-8) | 0x00 | header length, uint32 little-endian | header, JSON | payload

Encoding and decoding are pure functions. Decoding checks every length before it touches the bytes behind it, and
raises WireError for anything that is not a valid message.
"""

from __future__ import annotations

import struct
from typing import Annotated, TypeVar, get_args

import msgspec
import numpy as np

from rtfuse.errors import ConfigError, WireError
from rtfuse.picture import Coding, Matrix
from rtfuse.types import Image, Picture, Stamp
from rtfuse.wire import yuv
from rtfuse.wire.images import compress, decompress
from rtfuse.wire.names import Encoding, PixelFormat, YuvFormat

VERSION = 1
MAX_TOPIC_BYTES = 255
MAX_HEADER_BYTES = 65_536
MAX_SIDE_PX = 16_384
_MAX_RIG_BYTES = 1024
MAX_MESSAGE_BYTES = 64 << 20
"""The limit of a whole message, and of the decoded image: a small file may not become a huge image either."""
MAX_H264_PX = 4096 * 2304
"""The most pixels of an H.264 picture: the limit of its level 5.1."""

Buffer = bytes | bytearray | memoryview
Side = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
S = TypeVar("S")

_LENGTH = struct.Struct("<I")
_NO_DEPTH = b',"depth":null}'
_PIXELS: dict[PixelFormat, tuple[str, int]] = {"rgb24": ("u1", 3), "gray8": ("u1", 1), "gray16le": ("<u2", 1)}
"""Type and number of the values of a pixel, of formats that are not YUV."""


class Spot(msgspec.Struct, frozen=True):
    """Locate a point, x right and y down in pixels (possibly outside the picture); `k` is its temperature in kelvin."""

    x: float
    y: float
    k: float


class Depth(msgspec.Struct, frozen=True, omit_defaults=True):
    """Describe the distance at which thermal lies on RGB exactly, in metres along the RGB camera's axis.

    `plane_m`: in this picture. `target_m`: where it moves to; equal at rest. `mode`: `plane`, or `ground` where the
    ground's own distance is taken up to that one, or `source` where a depth camera's is; `known` is then the share of
    the picture whose depth was measured, and otherwise missing.
    """

    mode: str
    plane_m: float
    target_m: float
    known: float | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one image. Times are integer nanoseconds on the publisher's monotonic clock.

    `session`: a random name that the publisher chose when it started.
    `seq`: the number of the frame in the session, from 0; all planes of one frame have the same.
    `rig`, `fuser`: the name of the rig, and the method.
    `mode`: the content: `fused`, one stream alone (`rgb`, `ir`), or an older picture again (`held`).
    `ir_id`, `rgb_id`: the numbers of the two frames.
    `ir_t_ns`, `rgb_t_ns`: their capture times. A stream that is not in the picture has those of its last frame that
    was, 0 before the first.
    `stamp`: the meaning of the capture times.
    `ir_reused`: True if the thermal frame was in an earlier picture.
    `skew_ns`: capture time of thermal minus that of RGB.
    `ir_state`, `rgb_state`: the states of the streams.
    `hot`, `cold`: the hottest and coldest point, of a radiometric thermal camera.
    `age_ns`: time from the capture of the RGB frame (in `ir` mode: the thermal frame) to `published_ns`; of a
    recording, from the time at which the frame was due or decoded.
    `published_unix_ms`: the wall clock at `published_ns`.
    `plane`: the plane of the image (see `rtfuse.wire.names`).
    `matrix`, `full_range`: the meaning of the values of raw `yuv420p` and `nv12`; None for other pixel formats.
    `key_frame`: True if decoding of H.264 can begin with this message.
    `unit`: the number of the access unit in the H.264 stream.
    `depth`: the distance of registration, where it was set; a message without it lacks the field.
    A message may lack the fields that have a default.
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
    pixel_format: PixelFormat = "rgb24"
    encoding: Encoding
    plane: str = "fused"
    key_frame: bool = True
    unit: NotNegative = 0
    matrix: Matrix | None = None
    full_range: bool | None = None
    depth: Depth | None = None

    @property
    def recorded(self) -> bool:
        """True for a frame of a recording, whose `age_ns` is a delay behind the player, not an age."""
        return self.stamp in (Stamp.PLAYBACK, Stamp.MEDIA)

    @property
    def yuv(self) -> YuvFormat | None:
        """The pixel format, if it is YUV."""
        return self.pixel_format if self.pixel_format in ("yuv420p", "nv12") else None

    @property
    def image_bytes(self) -> int:
        """The size of the decoded image; of YUV, that of its planes."""
        if self.yuv is not None:
            return yuv.yuv_bytes(self.width, self.height)
        kind, values = _PIXELS[self.pixel_format]
        return self.width * self.height * values * np.dtype(kind).itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the decoded image: (H, W, 3), or (H, W) where a pixel is one value."""
        return (self.height, self.width) if self.pixel_format in ("gray8", "gray16le") else (self.height, self.width, 3)


class _Version(msgspec.Struct, frozen=True):
    version: int


_header_decoder = msgspec.json.Decoder(Header)
_version_decoder = msgspec.json.Decoder(_Version)


def check_names(topic: str, encoding: str, rig: str) -> None:
    """Raise ConfigError for a topic, encoding or rig's name that a message cannot carry."""
    for what, text, limit in (("topic", topic, MAX_TOPIC_BYTES), ("name of the rig", rig, _MAX_RIG_BYTES)):
        data = text.encode(errors="replace")
        if b"\0" in data or len(data) > limit or data.decode() != text:
            raise ConfigError(
                f"the {what}, {text[:40]!r}, cannot be sent; want UTF-8, at most {limit} bytes, none zero"
            )
    if encoding not in get_args(Encoding):
        raise ConfigError(f"encoding {encoding!r} is unknown; choose {', '.join(get_args(Encoding))}")


def encode(topic: str, header: Header, image: Image | Picture, *, jpeg_quality: int = 90) -> memoryview:
    """Encode one image as a raw, JPEG or PNG message. Copies raw pixels exactly once.

    `image` is as the header's `pixel_format` says: (H, W, 3) uint8 RGB, (H, W) uint8 or (H, W) uint16; a `Picture` for
    raw YUV, whose coding the header then has (see `yuv.coding_of`).
    Raises ValueError if the image does not fit the header, ConfigError if the topic or the size cannot be sent.
    """
    check_image(header, image)
    check_names(topic, header.encoding, header.rig)
    if isinstance(image, Picture):
        return message(topic, header, image)
    if header.encoding != "raw":
        return message(topic, header, compress(image, header.encoding, jpeg_quality))
    return message(topic, header, image.astype("<u2", copy=False) if image.dtype == np.uint16 else image)


def check_image(header: Header, image: Image | Picture) -> None:
    """Raise ValueError if the image does not fit the header, ConfigError if it is too large to be sent."""
    said = f"header says {header.encoding} {header.width}x{header.height} {header.pixel_format}"
    if isinstance(image, Picture):
        if image.shape_hw != header.shape[:2] or header.yuv is None or header.encoding != "raw":
            raise ValueError(f"{said}, the picture is {image.shape_hw} {image.layout}, and is sent as raw YUV only")
    else:
        kind = _PIXELS.get(header.pixel_format, ("V", 0))[0]
        if image.shape != header.shape or image.dtype != np.dtype(kind).newbyteorder("="):
            raise ValueError(f"{said}, image is {image.shape} {image.dtype}")
    check_size(header)


def check_size(header: Header) -> None:
    """Raise ConfigError for an image that is too large to be sent."""
    if max(header.width, header.height) > MAX_SIDE_PX or MAX_HEADER_BYTES + header.image_bytes > MAX_MESSAGE_BYTES:
        raise ConfigError(
            f"an image of {header.width}x{header.height} cannot be published; at most {MAX_SIDE_PX} px a side and "
            f"{MAX_MESSAGE_BYTES >> 20} MiB are allowed"
        )


def message(topic: str, header: Header, payload: Image | Picture) -> memoryview:
    """Return the whole message of an encoded payload, or of a raw YUV picture, each byte written once.

    Raises ConfigError if it is too large.
    """
    if isinstance(payload, Picture):
        coding = yuv.coding_of(payload)
        header = msgspec.structs.replace(header, matrix=coding.matrix, full_range=coding.full)
    size = header.image_bytes if isinstance(payload, Picture) else payload.nbytes
    head = framed(topic, _text(header))
    if len(head) + size > MAX_MESSAGE_BYTES:
        raise ConfigError(f"a message of {len(head) + size} bytes cannot be published")
    data = np.empty(len(head) + size, np.uint8)
    data[: len(head)] = np.frombuffer(head, np.uint8)
    if isinstance(payload, Picture):
        assert header.yuv is not None
        yuv.write(payload, header.yuv, data[len(head) :])
    else:
        np.copyto(data[len(head) :].view(payload.dtype).reshape(payload.shape), payload)
    return data.data


def _text(header: Header) -> bytes:
    """Return a header as JSON; without a distance of registration it has no field for it."""
    text = msgspec.json.encode(header)
    return text if header.depth is not None else text.removesuffix(_NO_DEPTH) + b"}"


def framed(topic: str, text: bytes) -> bytes:
    """Return the part before the payload: topic, a zero byte, the length of the JSON text, and that text."""
    return b"".join((topic.encode(), b"\0", _LENGTH.pack(len(text)), text))


def decode(message: Buffer, *, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[str, Header, Image | Picture]:
    """Decode a raw, JPEG or PNG message into topic, header and image; see `pixels`. Raises WireError.

    Also raises it where the message or the decoded image is larger than `max_bytes`.
    """
    topic, header, payload = split(message, max_bytes=max_bytes)
    return topic, header, pixels(header, payload)


def pixels(header: Header, payload: memoryview) -> Image | Picture:
    """Return the image of a payload that `split` has checked, read-only: (H, W, 3) uint8 RGB, (H, W) uint8 or uint16.

    YUV gives a `Picture`. Raw images and planes are views of the payload, not copies. Raises WireError, also for H.264,
    whose pictures depend on those before them (`rtfuse.wire.h264.H264Decoder`).
    """
    if header.encoding == "h264":
        raise WireError("h264 is decoded by a decoder that has seen the frames before")
    if header.encoding == "raw":
        values = np.frombuffer(payload, "u1" if header.yuv else _PIXELS[header.pixel_format][0])
        values.flags.writeable = False
        if header.yuv is not None:
            return yuv.read(values, header.yuv, (header.height, header.width), _coding(header))
        return values.reshape(header.shape)
    return decompress(payload, header.encoding, header.pixel_format, (header.width, header.height))


def split(message: Buffer, *, max_bytes: int = MAX_MESSAGE_BYTES) -> tuple[str, Header, memoryview]:
    """Split a message into topic, header and payload, all checked, without decoding the image.

    Raises WireError.
    """
    topic, text, payload = parts(message, max_bytes)
    header = checked(text, _header_decoder)
    if header.yuv is not None:
        _coding(header)
    expected = header.image_bytes
    if expected > max_bytes:
        raise WireError(f"image of {header.width}x{header.height}, {expected} bytes; at most {max_bytes} are allowed")
    if header.encoding == "raw" and len(payload) != expected:
        raise WireError(
            f"payload of {len(payload)} bytes; {header.width}x{header.height} {header.pixel_format} has {expected}"
        )
    return topic, header, payload


def _coding(header: Header) -> Coding:
    """Return the meaning of YUV values. Raises WireError where a header does not say it, or is not of raw YUV."""
    if header.encoding != "raw" or header.matrix is None or header.full_range is None:
        raise WireError(f"{header.pixel_format} must be raw, with matrix and full_range")
    return Coding(header.matrix, header.full_range)


def parts(message: Buffer, max_bytes: int) -> tuple[str, bytes, memoryview]:
    """Split a message into topic, JSON text and payload. Raises WireError."""
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


def alone(message: Buffer, decoder: msgspec.json.Decoder[S], what: str) -> tuple[str, S]:
    """Decode a message without payload into topic and content; `what` names the content. Raises WireError."""
    topic, text, payload = parts(message, MAX_MESSAGE_BYTES)
    if len(payload):
        raise WireError(f"{len(payload)} bytes follow the {what}")
    return topic, checked(text, decoder)


def checked(text: bytes, decoder: msgspec.json.Decoder[S]) -> S:
    """Decode JSON text of this version of the format. Raises WireError."""
    try:
        version = _version_decoder.decode(text).version
        if version != VERSION:
            raise WireError(f"wire format version {version}; this client reads version {VERSION}")
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
        raise WireError(f"header: {e}") from e
