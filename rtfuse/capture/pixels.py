"""Choose the pixel format of a V4L2 camera, and decode a buffer's bytes into an image.

A format is named by its fourcc without trailing spaces ("Y16", "YUYV", "MJPG"), with "-BE" appended where the
big-endian bit is set ("Y16-BE").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rtfuse.capture.mjpeg import JpegPlanes
from rtfuse.capture.settings import Uncolour
from rtfuse.picture import Layout, Picture
from rtfuse.types import Image, Stream

_COUNTS = {"Y16": "<u2", "Y16-BE": ">u2", "Y14": "<u2", "Y12": "<u2", "Y10": "<u2", "GREY": "u1"}
_LUMA_BYTE = {"YUYV": 0, "UYVY": 1}  # of every two bytes
_LAYOUTS: dict[str, Layout] = {"YUYV": "yuyv422", "UYVY": "uyvy422"}
_PACKED_TO_RGB = {
    "YUYV": (2, cv2.COLOR_YUV2RGB_YUYV),
    "UYVY": (2, cv2.COLOR_YUV2RGB_UYVY),
    "BGR3": (3, cv2.COLOR_BGR2RGB),
    "GREY": (1, cv2.COLOR_GRAY2RGB),
}
JPEG = ("MJPG", "JPEG")

PREFERENCE: dict[Stream, tuple[str, ...]] = {
    "ir": (*_COUNTS, "YUYV", "UYVY", "NV12", *JPEG),
    "rgb": ("YUYV", "UYVY", "NV12", "RGB3", "BGR3", *JPEG, "GREY"),
}
"""The formats that can be decoded for a stream, best first: raw counts for thermal, uncompressed for RGB."""

DECODABLE = frozenset(name for names in PREFERENCE.values() for name in names)

_PACK_COUNTS = frozenset({(256, 384), (512, 484)})
"""Sizes (w, h) of the TC001, the P2 Pro and the TC002C, which send an 8-bit picture above 16-bit counts."""

_LIMIT_PX: dict[Stream, int] = {"ir": 1280 * 1024, "rgb": 1280 * 720}
"""The limit of the size that is chosen if none is asked for."""

_FLUENT_HZ = 24.0
"""The rate of an RGB format that is preferred if none is asked for (USB 2 carries large YUYV at 5-10 Hz)."""

_ALIASES = {
    "MJPEG": "MJPG",
    "RGB24": "RGB3",
    "BGR24": "BGR3",
    "YUY2": "YUYV",
    "Y8": "GREY",
    "GRAY": "GREY",
    "Y16_BE": "Y16-BE",
    "Y16BE": "Y16-BE",
}
_BIG_ENDIAN = 1 << 31
_FLAT, _COLOUR_SHARE = 8, 0.003
"""A thermal frame has colour if more than this share of its chroma is further from grey than this many levels."""


def fourcc_name(code: int) -> str:
    """Name the V4L2 pixel format `code` (32-bit)."""
    characters = "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24))
    return characters.rstrip() + ("-BE" if code & _BIG_ENDIAN else "")


def fourcc_code(name: str) -> int:
    """Return the 32-bit V4L2 code of the format `name`; ValueError if it is not one to four ASCII characters."""
    characters, big_endian, _ = name.partition("-BE")
    if not (1 <= len(characters) <= 4 and characters.isascii()):
        raise ValueError(f"{name!r} is not a V4L2 pixel format (fourcc)")
    code = int.from_bytes(characters.ljust(4).encode("ascii"), "little")
    return code | _BIG_ENDIAN if big_endian else code


def canonical(name: str) -> str:
    """Return the fourcc for a name in any case, or for a usual name such as `MJPEG` or `RGB24`."""
    upper = name.strip().upper()
    return _ALIASES.get(upper, upper)


@dataclass(frozen=True, slots=True)
class Sizes:
    """List the frame sizes of one format: a single size, or a grid from `min_wh` to `max_wh`, in pixels.

    `rates_hz`: the frame rates at this size, fastest first (of a range: its fastest and slowest); empty if the driver
    does not report them.
    """

    min_wh: tuple[int, int]
    max_wh: tuple[int, int]
    step_wh: tuple[int, int] = (1, 1)
    rates_hz: tuple[float, ...] = ()

    @property
    def rate_hz(self) -> float | None:
        """The highest frame rate; None if the driver does not report it."""
        return max(self.rates_hz, default=None)

    def admits(self, size_wh: tuple[int, int]) -> bool:
        """Return True if `size_wh` is one of these sizes."""
        axes = zip(size_wh, self.min_wh, self.max_wh, self.step_wh, strict=True)
        return all(low <= n <= high and (n - low) % max(step, 1) == 0 for n, low, high, step in axes)

    def largest(self, limit_px: int) -> tuple[int, int]:
        """Return the largest of these sizes; on a grid, one of about `limit_px` pixels with the same proportions."""
        shrink = min(1.0, (limit_px / (self.max_wh[0] * self.max_wh[1])) ** 0.5)
        axes = zip(self.min_wh, self.max_wh, self.step_wh, strict=True)
        w, h = (low + max(int(high * shrink) - low, 0) // max(step, 1) * max(step, 1) for low, high, step in axes)
        return w, h

    def __str__(self) -> str:
        w, h = self.max_wh
        return f"{w}x{h}" if self.min_wh == self.max_wh else f"{self.min_wh[0]}x{self.min_wh[1]}..{w}x{h}"


@dataclass(frozen=True, slots=True)
class CameraFormat:
    """Pixel format of a camera; `sizes` is empty if the driver does not list them."""

    fourcc: str
    sizes: tuple[Sizes, ...] = ()

    def __str__(self) -> str:
        return f"{self.fourcc} {'/'.join(map(str, self.sizes))}".rstrip()


def choose(
    stream: Stream,
    formats: Sequence[CameraFormat],
    *,
    size_wh: tuple[int, int] | None = None,
    rate_hz: float | None = None,
    pixel_format: str | None = None,
) -> tuple[str, tuple[int, int] | None]:
    """Choose pixel format and size (width, height; None: the driver's own) for `stream` from a camera's formats.

    `size_wh` and `pixel_format` are binding. A format that reaches `rate_hz` (for RGB, if None, a fluent rate) is
    preferred; then the order of `PREFERENCE`; then the largest size below the limit.
    Raises ValueError with the wanted and the offered formats.
    """
    wanted = PREFERENCE[stream] if pixel_format is None else (canonical(pixel_format),)
    if wanted[0] not in PREFERENCE[stream]:
        known = ", ".join(PREFERENCE[stream])
        raise ValueError(f"pixel format {pixel_format} cannot be decoded as {stream}; it must be one of {known}")
    at_least_hz = 0.97 * (rate_hz or (_FLUENT_HZ if stream == "rgb" else 0.0))  # 29.97 will do for 30
    by_name = {known.fourcc: known for known in formats}
    candidates = []
    for rank, fourcc in enumerate(wanted):
        if fourcc not in by_name:
            continue
        if not by_name[fourcc].sizes:
            candidates.append(((False, rank, False, 0), fourcc, size_wh))
        for sizes in by_name[fourcc].sizes:
            if size_wh is None or sizes.admits(size_wh):
                size = size_wh or sizes.largest(_LIMIT_PX[stream])
                slow = sizes.rate_hz is not None and sizes.rate_hz < at_least_hz
                candidates.append(((slow, rank, *_by_area(size, _LIMIT_PX[stream])), fourcc, size))
    if not candidates:
        raise ValueError(_no_match(stream, formats, size_wh, pixel_format))
    _, fourcc, chosen = min(candidates, key=lambda candidate: candidate[0])
    return fourcc, chosen


def _by_area(size_wh: tuple[int, int], limit_px: int) -> tuple[bool, int]:
    area = size_wh[0] * size_wh[1]
    return (False, -area) if area <= limit_px else (True, area)


def _no_match(
    stream: Stream, formats: Sequence[CameraFormat], size_wh: tuple[int, int] | None, pixel_format: str | None
) -> str:
    asked = [pixel_format or f"any of {', '.join(PREFERENCE[stream])}"]
    if size_wh is not None:
        asked.append(f"at {size_wh[0]}x{size_wh[1]}")
    known = [o for o in formats if o.fourcc in PREFERENCE[stream]]
    return f"asked for {' '.join(asked)}; it offers {'; '.join(map(str, known or formats)) or 'no format'}"


def is_counts(fourcc: str) -> bool:
    """Return True if a format is made for counts of up to 16 bits."""
    return fourcc in _COUNTS


def packs_counts(fourcc: str, size_wh: tuple[int, int]) -> bool:
    """Return True if a thermal camera with this format and size sends 16-bit counts in half of its picture."""
    return fourcc in _LUMA_BYTE and size_wh in _PACK_COUNTS


def decode(
    buffer: bytes | memoryview,
    fourcc: str,
    size_wh: tuple[int, int],
    stride: int,
    stream: Stream,
    *,
    packed_counts: bool = False,
    uncolour: Uncolour | None = None,
) -> Image:
    """Decode one frame; the image is a copy, so `buffer` may be reused at once.

    `buffer`: the bytes of the frame from the driver.
    `stride`: its bytes per line (0 if the driver does not report it; ignored for JPEG).
    `packed_counts`: decode YUYV or UYVY for `ir` as (H, W) uint16, little-endian. Where the camera sends a
    picture, these hold luma and chroma.
    `uncolour`: turns a picture of `ir` that is in false colours into luma.
    Returns counts or luma (H, W) uint8 or uint16 for `ir`, (H, W, 3) uint8 RGB for `rgb`; YUV is BT.601, limited range.
    Raises ValueError if the bytes are too few, or are a JPEG that cannot be read or has another size; LookupError
    if the format cannot be decoded for this stream.
    """
    dtype_of(fourcc, stream, packed_counts=packed_counts)
    if stream == "ir" and uncolour is not None and not packed_counts and _coloured(buffer, fourcc, size_wh, stride):
        luma = uncolour(decode(buffer, fourcc, size_wh, stride, "rgb"))
        if luma is not None:
            return luma
    if fourcc in JPEG:
        return _jpeg(buffer, size_wh, stream)
    if stream == "ir":
        return _counts(buffer, fourcc, size_wh, stride, packed_counts)
    return _rgb(buffer, fourcc, size_wh, stride)


def decode_picture(
    buffer: bytes | memoryview,
    fourcc: str,
    size_wh: tuple[int, int],
    stride: int,
    planes_of: JpegPlanes | None = None,
) -> Picture:
    """Decode one frame of `rgb`, whose planes are a copy: YUYV, UYVY and NV12 as they came; see `decode`.

    JPEG gives the planes that the camera's decoder `planes_of` finds, or else RGB. Raises what `decode` raises.
    """
    w, h = size_wh
    if fourcc in JPEG and planes_of is not None and (picture := planes_of(bytes(buffer), size_wh)) is not None:
        return picture
    if fourcc in _LUMA_BYTE:
        return Picture(_LAYOUTS[fourcc], (_rows(buffer, h, 2 * w, stride).copy(),))
    if fourcc == "NV12":
        whole = _rows(buffer, h * 3 // 2, w, stride).copy()
        return Picture("nv12", (whole[:h], whole[h:]))
    image = decode(buffer, fourcc, size_wh, stride, "rgb")
    return Picture.of_rgb(image)


def dtype_of(fourcc: str, stream: Stream, *, packed_counts: bool = False) -> str:
    """Return the dtype of the images of `decode`, "uint8" or "uint16". Raises LookupError where it cannot decode."""
    if fourcc not in PREFERENCE[stream] or (packed_counts and (stream == "rgb" or fourcc not in _LUMA_BYTE)):
        raise LookupError(f"{fourcc} cannot be decoded as {'16-bit words of ' * packed_counts}{stream}")
    return "uint16" if packed_counts or (stream == "ir" and _COUNTS.get(fourcc, "u1") != "u1") else "uint8"


def _coloured(buffer: bytes | memoryview, fourcc: str, size_wh: tuple[int, int], stride: int) -> bool:
    """Return True if a frame has more colour than a grey one that was coded with loss, by a part of its chroma."""
    w, h = size_wh
    if fourcc in JPEG:
        data = np.frombuffer(buffer, np.uint8)
        small = cv2.imdecode(data, cv2.IMREAD_REDUCED_COLOR_8) if data.size else None
        return small is not None and float((np.ptp(small, axis=2) > 2 * _FLAT).mean()) > _COLOUR_SHARE
    if fourcc in _LUMA_BYTE:
        chroma = _rows(buffer, h, 2 * w, stride)[::4, 1 - _LUMA_BYTE[fourcc] :: 8]
    elif fourcc == "NV12":
        chroma = _rows(buffer, h * 3 // 2, w, stride)[h::2, ::4]
    else:
        return False
    return float((np.abs(chroma.astype(np.int16) - 128) > _FLAT).mean()) > _COLOUR_SHARE


def _rows(buffer: bytes | memoryview, rows: int, row_bytes: int, stride: int) -> Image:
    """Return a (rows, row_bytes) uint8 view into `buffer`."""
    data = np.frombuffer(buffer, np.uint8)
    stride = max(stride, row_bytes)
    if (need := stride * (rows - 1) + row_bytes) > data.size:
        raise ValueError(f"the frame has {data.size} bytes, {need} are needed")
    return np.lib.stride_tricks.as_strided(data, (rows, row_bytes), (stride, 1))


def _counts(
    buffer: bytes | memoryview, fourcc: str, size_wh: tuple[int, int], stride: int, packed_counts: bool
) -> Image:
    w, h = size_wh
    if fourcc in _LUMA_BYTE and not packed_counts:
        return _rows(buffer, h, 2 * w, stride)[:, _LUMA_BYTE[fourcc] :: 2].copy()
    dtype = np.dtype("<u2" if packed_counts else _COUNTS.get(fourcc, "u1"))  # NV12 begins with its luma plane
    counts: Image = _rows(buffer, h, w * dtype.itemsize, stride).view(dtype)
    return counts.astype(dtype.newbyteorder("="), order="C")


def _rgb(buffer: bytes | memoryview, fourcc: str, size_wh: tuple[int, int], stride: int) -> Image:
    w, h = size_wh
    if fourcc == "RGB3":
        return _rows(buffer, h, 3 * w, stride).reshape(h, w, 3).copy()
    if fourcc == "NV12":
        return cv2.cvtColor(_rows(buffer, h * 3 // 2, w, stride), cv2.COLOR_YUV2RGB_NV12)
    channels, conversion = _PACKED_TO_RGB[fourcc]
    return cv2.cvtColor(_rows(buffer, h, channels * w, stride).reshape(h, w, channels), conversion)


def _jpeg(buffer: bytes | memoryview, size_wh: tuple[int, int], stream: Stream) -> Image:
    data = np.frombuffer(buffer, np.uint8)
    mode = cv2.IMREAD_GRAYSCALE if stream == "ir" else cv2.IMREAD_COLOR
    image = cv2.imdecode(data, mode | cv2.IMREAD_IGNORE_ORIENTATION) if data.size else None
    if image is None:
        raise ValueError(f"the frame's {data.size} bytes are not a JPEG image")
    if image.shape[1::-1] != size_wh:
        raise ValueError(f"the frame is a JPEG of {image.shape[1]}x{image.shape[0]}, not {size_wh[0]}x{size_wh[1]}")
    return image if stream == "ir" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
