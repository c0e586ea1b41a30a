"""Encode and decode H.264 with low latency: one access unit in each message.

A client that joins, or loses a message, begins at the next key frame.

Colours are BT.601 of limited range, 4:2:0; a gray plane is Y of full range beside chroma of 128. A width or height that
is odd is coded one pixel larger, the last one repeated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame

from rtfuse.errors import ConfigError, WireError
from rtfuse.picture import plane_views, video_frame
from rtfuse.types import Image, Picture
from rtfuse.wire.message import MAX_H264_PX, Header
from rtfuse.wire.yuv import even, padded_i420

_KEY_S = 1.0
"""The longest time between two key frames,"""
_KEY_PAUSE_S = 0.2
"""and the shortest, however many subscribers join."""
_MICROS = Fraction(1, 1_000_000)
_IDR, _SPS, _PPS = 5, 7, 8
_MAX_NALS = 1000


class H264Encoder:
    """Encode the pictures of one plane; each call returns one access unit.

    They are colour pictures, (H, W, 3) uint8 RGB arrays, or (H, W) uint8.

    `kbps` bounds the rate over a fifth of a second; None keeps the quality constant instead (CRF 23).
    """

    def __init__(self, kbps: int | None = None) -> None:
        self._kbps = kbps
        self._context: Any = None
        self._shape: tuple[int, ...] = ()
        self._key_s, self._asked = -math.inf, True
        self._pts = -1

    def want_key(self) -> None:
        """Ask for a key frame, for a new subscriber; from any thread."""
        self._asked = True

    def __call__(self, content: Picture | Image, now_s: float) -> tuple[bytes, bool]:
        """Return the access unit (Annex B), and True if it is a key frame. YUV of BT.601 is not converted.

        Raises ConfigError for a picture that is too large.
        """
        shape = (*content.shape_hw, 3) if isinstance(content, Picture) else content.shape
        if shape != self._shape:
            self._open(shape)
        since_s = now_s - self._key_s
        key = not 0 <= since_s < _KEY_S or (self._asked and since_s >= _KEY_PAUSE_S)
        frame = _frame(content)
        frame.pict_type = PictureType.I if key else PictureType.NONE
        frame.pts = self._pts = max(self._pts + 1, round(now_s * 1_000_000))
        frame.time_base = _MICROS
        if key:
            self._key_s, self._asked = now_s, False
        (packet,) = self._context.encode(frame)
        return bytes(packet), bool(packet.is_keyframe)

    def _open(self, shape: tuple[int, ...]) -> None:
        h, w = shape[0] + shape[0] % 2, shape[1] + shape[1] % 2
        if h * w > MAX_H264_PX or min(shape[:2]) < 2:
            raise ConfigError(f"a picture of {shape[1]}x{shape[0]} cannot be sent as h264; choose another encoding")
        context = av.CodecContext.create("libx264", "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = w, h, "yuv420p"
        context.time_base, context.framerate = _MICROS, Fraction(30)
        context.color_range = 1 if len(shape) == 3 else 2
        context.thread_count = 1
        options = {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1", "g": "100000", "crf": "23"}
        if self._kbps is not None:
            del options["crf"]
            options |= {"b": f"{self._kbps}k", "maxrate": f"{self._kbps}k", "bufsize": f"{max(1, self._kbps // 5)}k"}
        context.options = options
        self._context, self._shape, self._key_s = context, shape, -math.inf


class H264Decoder:
    """Decode the units of one `H264Encoder`; after a missing unit, skip all until a key frame."""

    def __init__(self) -> None:
        self._context: Any = None
        self._kind: tuple[object, ...] = ()
        self._next: tuple[str, int] | None = None

    def __call__(self, header: Header, payload: memoryview) -> Picture | Image | None:
        """Return the picture, read-only; None before the first key frame.

        It is a `Picture` of planes, an array of (H, W, 3) uint8 RGB where a side is odd, or (H, W) uint8 of gray.
        Raises WireError for another payload; decoding then begins again with a key frame.
        """
        follows, self._next = self._next == (header.session, header.unit), None
        if not (header.key_frame or follows):
            return None
        _check(header, payload)
        kind = header.session, header.width, header.height, header.pixel_format
        if self._context is None or kind != self._kind or not follows:
            self._open(header)
            self._kind = kind
        try:
            frames = self._context.decode(av.Packet(bytes(payload)))
        except (FFmpegError, ValueError) as e:
            raise WireError("the h264 cannot be decoded") from e
        if len(frames) != 1:
            raise WireError(f"the h264 holds {len(frames)} pictures, not one")
        content = _content(frames[0], header)
        self._next = header.session, header.unit + 1
        return content

    def _open(self, header: Header) -> None:
        """Open a new decoder, which refuses pictures larger than the header's size."""
        context = av.CodecContext.create("h264", "r")
        largest = (header.width + 128) * (header.height + 64)  # it allocates more than it shows, for its alignment
        context.options = {"max_pixels": str(largest), "flags": "low_delay"}
        context.thread_count = 1
        self._context = context


def _frame(content: Picture | Image) -> VideoFrame:
    """Return the picture as FFmpeg's frame, of even size."""
    planes = content.i420() if isinstance(content, Picture) else None
    if planes is not None:
        return video_frame("yuv420p", planes)
    image = content.rgb if isinstance(content, Picture) else content
    return VideoFrame.from_ndarray(padded_i420(image) if image.ndim == 3 else _grey_i420(image), format="yuv420p")


def _grey_i420(image: Image) -> Image:
    """Return a (H, W) picture as I420, (3/2 H, W), of even size."""
    image = even(image)
    h, w = image.shape
    planar = np.full((h * 3 // 2, w), 128, np.uint8)
    planar[:h] = image
    return planar


def _content(frame: VideoFrame, header: Header) -> Picture | Image:
    w, h = header.width + header.width % 2, header.height + header.height % 2
    if (frame.width, frame.height) != (w, h) or frame.format.name not in ("yuv420p", "yuvj420p"):
        raise WireError(
            f"the h264 is {frame.width}x{frame.height} {frame.format.name}, "
            f"the header says {header.width}x{header.height}"
        )
    if header.pixel_format == "rgb24" and (w, h) == (header.width, header.height):
        y, u, v = plane_views(frame)
        uv = cv2.merge((u, v)).reshape(h // 2, w)
        y.flags.writeable = uv.flags.writeable = False
        return Picture("nv12", (y, uv))  # its RGB is that of I420 by OpenCV, exactly
    planar = frame.to_ndarray()
    whole = planar[:h] if header.pixel_format == "gray8" else cv2.cvtColor(planar, cv2.COLOR_YUV2RGB_I420)
    image = whole[: header.height, : header.width]
    image.flags.writeable = False
    return image


def _check(header: Header, payload: memoryview) -> None:
    """Raise WireError for a unit that `H264Encoder` never sends, before a decoder reads it."""
    if header.pixel_format not in ("rgb24", "gray8"):
        raise WireError(f"h264 has no {header.pixel_format}")
    if header.width * header.height > MAX_H264_PX:
        raise WireError(f"h264 of {header.width}x{header.height}; at most {MAX_H264_PX} pixels are allowed")
    kinds = set(_nal_types(bytes(payload)))
    if header.key_frame and not kinds >= {_IDR, _SPS, _PPS}:
        raise WireError("a key frame of h264 without its parameter sets")
    if not header.key_frame and kinds & {_IDR, _SPS, _PPS}:
        raise WireError("parameter sets in an h264 unit that is not a key frame")


def _nal_types(data: bytes) -> Iterator[int]:
    """Yield the types of the NAL units of an Annex B byte stream (ITU-T H.264, 7.3.1)."""
    if not data.startswith((b"\0\0\1", b"\0\0\0\1")):
        raise WireError("the h264 does not begin with a start code")
    at = data.find(b"\0\0\1")
    for _ in range(_MAX_NALS):
        if at < 0 or at + 3 >= len(data):
            return
        yield data[at + 3] & 31
        at = data.find(b"\0\0\1", at + 3)
    raise WireError("the h264 has too many parts")
