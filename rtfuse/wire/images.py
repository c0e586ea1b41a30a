"""Compress images as JPEG or PNG, and decode them after a check of the file's own size."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from rtfuse.errors import WireError
from rtfuse.picture import Coding
from rtfuse.types import Image, Picture
from rtfuse.wire.names import Encoding, PixelFormat

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR"
_PNG_CHUNKS = b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB sBIT bKGD pHYs tIME tEXt".split()
_PNG_GRAY = {"gray8": (8, 0), "gray16le": (16, 0)}
"""Bit depth and colour type in IHDR."""
_JPEG_CODING = Coding("bt601", full=True)
"""JFIF 1.02, page 3."""
_JPEG_FRAMES = {0xC0, 0xC1}
_JPEG_SKIPPED = {0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}
_MAX_PARTS = 10_000
"""The most chunks of a PNG, or segments before a JPEG's frame header: this bounds the time of the check."""


def compress(content: Image | Picture, encoding: Encoding, jpeg_quality: int) -> npt.NDArray[np.uint8]:
    """Return a picture, or an array of RGB or gray, as a JPEG file (4:2:0) or a PNG file.

    A picture of BT.601 becomes JPEG by its planes, without RGB: in half the time, and with the same size. (Where
    simplejpeg cannot be imported, OpenCV encodes RGB.)
    """
    import cv2

    if isinstance(content, Picture):
        data = _jpeg_of_planes(content, jpeg_quality) if encoding == "jpeg" else None
        if data is not None:
            return data
    image = content.rgb if isinstance(content, Picture) else content
    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]
    if encoding == "png":  # one filter and runs of bytes: twice as fast as level 1 by itself, and smaller for pictures
        parameters = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
        parameters += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP]
    source = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else np.ascontiguousarray(image)
    ok, data = cv2.imencode("." + encoding, source, parameters)
    if not ok:
        raise ValueError(f"the image cannot be encoded as {encoding}")
    return data


def _jpeg_of_planes(picture: Picture, quality: int) -> npt.NDArray[np.uint8] | None:
    """Return a JPEG file of the planes, in JPEG's own coding; None if that takes RGB, or without simplejpeg."""
    encode = planar_encoder()
    planes = None if encode is None else picture.i420(_JPEG_CODING)
    if encode is None or planes is None:
        return None
    return np.frombuffer(encode(*map(np.ascontiguousarray, planes), quality=quality), np.uint8)


@cache
def planar_encoder() -> Callable[..., bytes] | None:
    """Return the function of simplejpeg that makes JPEG of Y, U and V; None if it is not installed."""
    try:
        from simplejpeg import encode_jpeg_yuv_planes
    except ImportError:
        return None
    return encode_jpeg_yuv_planes


def decompress(payload: memoryview, encoding: Encoding, pixels: PixelFormat, size_wh: tuple[int, int]) -> Image:
    """Decode JPEG or PNG whose own size agrees with the header's, so that a small file cannot become a huge image.

    Raises WireError.
    """
    found = png_size(payload) if encoding == "png" else jpeg_size(payload)
    if found != size_wh:
        said = "{}x{}".format(*found) if found else "unreadable"
        raise WireError(f"the {encoding} is {said}, the header says {size_wh[0]}x{size_wh[1]}")
    if encoding == "png" and pixels in _PNG_GRAY and (payload[24], payload[25]) != _PNG_GRAY[pixels]:
        raise WireError(f"the png is not {pixels}")
    import cv2

    kinds = {"rgb24": cv2.IMREAD_COLOR_RGB, "gray8": cv2.IMREAD_GRAYSCALE, "gray16le": cv2.IMREAD_ANYDEPTH}
    how = kinds.get(pixels)
    if how is None:
        raise WireError(f"the {encoding} cannot hold {pixels}")
    try:
        image = cv2.imdecode(np.frombuffer(payload, np.uint8), how | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as e:
        raise WireError(f"the {encoding} cannot be decoded") from e
    shape = (size_wh[1], size_wh[0], 3)[: 3 if pixels == "rgb24" else 2]
    if image is None or image.shape != shape or image.dtype != (np.uint16 if pixels == "gray16le" else np.uint8):
        raise WireError(f"the {encoding} cannot be decoded")
    image.flags.writeable = False
    return image


def png_size(data: memoryview) -> tuple[int, int] | None:
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


def jpeg_size(data: memoryview) -> tuple[int, int] | None:
    """Return the size in the frame header of a sequential JPEG (SOF0 or SOF1 segment, ITU T.81 B.2.2).

    Stricter than decoders are: no fill bytes and no markers without a length before the frame header, so that
    every decoder finds this one; and not progressive, where a small file can ask for thousands of passes.
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
