"""Decode the pictures inside FLIR's records; sizes are checked before anything is allocated."""

from __future__ import annotations

import av
import cv2
import numpy as np

from rtfuse.capture import jpeg, png
from rtfuse.errors import SourceUnreadable
from rtfuse.types import Image

MOST_PIXELS = 1 << 26
_JPEG, _JPEG_LS = b"\xff\xd8\xff", b"\xff\xd8\xff\xf7"
_LONGEST_PREFIX = 1024


def decoded_counts(data: bytes, size_wh: tuple[int, int], order: str, name: str) -> Image:
    """Return counts (H, W) uint16 from PNG, JPEG-LS, or 16-bit pixels in the byte order `<` or `>`.

    Raises SourceUnreadable if they are cut, damaged or of another size.
    """
    w, h = size_wh
    if len(data) < 2 * w * h and (begin := data.find(_JPEG_LS, 0, _LONGEST_PREFIX)) > 0:
        data = data[begin:]  # some recordings have a few bytes before it
    found_w, found_h = _checked_size(data, size_wh, name, "counts")
    if (found_w, found_h) != (w, h):
        raise SourceUnreadable(f"{name}: counts of {found_w}x{found_h}, where its record says {w}x{h}; it is damaged")
    if not data.startswith((png.SIGNATURE, _JPEG)):
        if len(data) < 2 * w * h:
            raise SourceUnreadable(f"{name}: {len(data)} bytes of counts, {w}x{h} need {2 * w * h}; it is cut")
        return np.frombuffer(data, f"{order}u2", w * h).reshape(h, w).astype(np.uint16)
    is_png = data.startswith(png.SIGNATURE)
    if not is_png and jpeg.header(data)[2] != 16:  # the decoder would stretch them to 16 bits
        raise SourceUnreadable(f"{name}: counts as JPEG of {jpeg.header(data)[2]} bits; 16 are read")
    image = _from_png(data, name) if is_png else _by_ffmpeg(data, "jpegls", "gray16le", name)
    if image.shape != (h, w) or image.dtype != np.uint16:
        raise SourceUnreadable(f"{name}: counts of shape {image.shape} {image.dtype}, not {w}x{h} of 16 bits")
    return _smoother(image.byteswap(), image) if is_png else image


def decoded_photo(data: bytes, size_wh: tuple[int, int], name: str) -> Image:
    """Return the photo, (H, W, 3) uint8 RGB, from JPEG, from PNG in Y Cb Cr, or from interleaved Y Cb Cr bytes.

    Raises SourceUnreadable if it is cut or damaged.
    """
    w, h = _checked_size(data, size_wh, name, "photo")
    if data.startswith(_JPEG):
        # Not by OpenCV: it turns the picture as its EXIF says, fills damaged parts with grey, and prints about them.
        return _by_ffmpeg(data, "mjpeg", "rgb24", name)
    if not data.startswith(png.SIGNATURE):
        if len(data) < 3 * w * h:
            raise SourceUnreadable(f"{name}: its photo of {w}x{h} is in a format that is not known")
        ycc = np.frombuffer(data, np.uint8, 3 * w * h).reshape(h, w, 3)
    else:
        ycc = _from_png(data, name)
        if ycc.ndim != 3 or ycc.dtype != np.uint8:
            raise SourceUnreadable(f"{name}: its photo has no colours")
        ycc = ycc[..., 2::-1]  # OpenCV turns the three round
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(ycc[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))


def size_of(data: bytes, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Return width and height as the header of PNG or JPEG tells; `size_wh` for other data."""
    if data.startswith(png.SIGNATURE):
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return jpeg.header(data)[:2] if data.startswith(_JPEG) else size_wh


def _checked_size(data: bytes, size_wh: tuple[int, int], name: str, what: str) -> tuple[int, int]:
    """Return the picture's size. Raises SourceUnreadable for one that is too large to be true."""
    w, h = size_of(data, size_wh)
    if not 0 < w * h <= MOST_PIXELS:
        raise SourceUnreadable(f"{name}: {what} of {w}x{h} pixels; the file is damaged")
    return w, h


def _from_png(data: bytes, name: str) -> Image:
    """Decode a PNG whose check sums are right: a decoder reads on over wrong ones, and prints about them."""
    if not png.is_whole(data):
        raise SourceUnreadable(f"{name}: the PNG inside is cut or damaged; copy the file again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise SourceUnreadable(f"{name}: the PNG inside cannot be decoded")
    return np.asarray(image)


def _by_ffmpeg(data: bytes, codec: str, pixel_format: str, name: str) -> Image:
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.options = {"err_detect": "explode"}
    try:
        frames = decoder.decode(av.Packet(data)) or decoder.decode(None)
        return np.asarray(frames[0].to_ndarray(format=pixel_format))
    except (av.error.FFmpegError, IndexError, ValueError) as e:
        raise SourceUnreadable(f"{name}: the {codec} picture inside is cut or damaged; copy the file again") from e


def _smoother(first: Image, second: Image) -> Image:
    """Return the one whose neighbours differ less: in the wrong byte order every step of one count is one of 256."""

    def roughness(image: Image) -> float:
        return float(np.abs(np.diff(image.astype(np.int32), axis=1)).mean()) if image.shape[1] > 1 else 0.0

    return np.asarray(first if roughness(first) <= roughness(second) else second)
