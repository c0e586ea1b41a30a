"""Lay out colour pictures as raw YUV 4:2:0, `yuv420p` or `nv12`, and read them as planes without a copy.

Sides may be odd: chroma is then rounded up. Importing it loads neither OpenCV nor FFmpeg.
"""

from __future__ import annotations

import numpy as np

from rtfuse.picture import Coding, Picture
from rtfuse.types import Image
from rtfuse.wire.names import YuvFormat


def yuv_bytes(width: int, height: int) -> int:
    """Return the size of a 4:2:0 picture in bytes."""
    return width * height + 2 * _half(width) * _half(height)


def coding_of(picture: Picture) -> Coding:
    """Return the coding in which a picture is sent: its own, or BT.601 of limited range where RGB is converted."""
    h, w = picture.shape_hw
    return Coding() if picture.layout == "rgb24" or h % 2 or w % 2 else picture.coding


def write(picture: Picture, pixel_format: YuvFormat, into: Image) -> None:
    """Write a picture, in the coding of `coding_of`, into a flat uint8 array of `yuv_bytes`, each byte once.

    Chroma of 4:2:0 is copied as it came; 4:2:2 and 4:4:4 become 4:2:0 by their mean, and RGB is converted.
    """
    y, *chroma = planes_in(into, pixel_format, picture.shape_hw)
    planes = picture.i420(coding_of(picture), y)
    own = picture.planes[1] if planes is not None and picture.layout == "nv12" else None
    made_y, *made = planes or _of_rgb(picture.rgb)
    if made_y is not y:
        np.copyto(y, made_y)
    _write_chroma(made, own, chroma)


def read(data: Image, pixel_format: YuvFormat, shape_hw: tuple[int, int], coding: Coding) -> Picture:
    """Return the picture of a flat uint8 array of `yuv_bytes`: its planes are views."""
    return Picture(pixel_format, planes_in(data, pixel_format, shape_hw), coding)


def planes_in(data: Image, pixel_format: YuvFormat, shape_hw: tuple[int, int]) -> list[Image]:
    """Return views of a flat uint8 array: Y (H, W), then U and V, (H / 2, W / 2) each, or both as (H / 2, W)."""
    h, w = shape_hw
    rows, columns = _half(h), _half(w)
    y, chroma = data[: h * w].reshape(h, w), data[h * w :]
    if pixel_format == "nv12":
        return [y, chroma.reshape(rows, 2 * columns)]
    return [y, *chroma.reshape(2, rows, columns)]


def padded_i420(rgb: Image) -> Image:
    """Return (H, W, 3) uint8 RGB as I420, (3/2 H, W) uint8, BT.601 of limited range; see `even`."""
    import cv2

    return cv2.cvtColor(even(rgb), cv2.COLOR_RGB2YUV_I420)


def even(image: Image) -> Image:
    """Return the image with even sides: an odd one becomes one pixel larger, its last line repeated."""
    import cv2

    h, w = image.shape[:2]
    return cv2.copyMakeBorder(image, 0, h % 2, 0, w % 2, cv2.BORDER_REPLICATE) if h % 2 or w % 2 else image


def _of_rgb(rgb: Image) -> tuple[Image, Image, Image]:
    """Return Y, U and V of an RGB picture, of odd sides too."""
    h, w = rgb.shape[:2]
    planar = padded_i420(rgb)
    y, u, v = planes_in(planar.ravel(), "yuv420p", (planar.shape[0] * 2 // 3, planar.shape[1]))
    return y[:h, :w], u, v


def _write_chroma(uv: list[Image], nv12: Image | None, into: list[Image]) -> None:
    """Copy U and V, given as `uv` and perhaps also in turn as `nv12`, into two planes, or into one of both in turn.

    OpenCV interleaves and separates many times faster than NumPy.
    """
    import cv2

    if len(into) == 1 and nv12 is not None:
        np.copyto(into[0], nv12)
    elif len(into) == 1:
        cv2.merge(uv, _pairs(into[0]))
    elif nv12 is not None:
        cv2.split(_pairs(nv12), into)
    else:
        for there, plane in zip(into, uv, strict=True):
            np.copyto(there, plane)


def _pairs(both: Image) -> Image:
    """Return rows of U and V in turn as (H, W, 2)."""
    return both.reshape(both.shape[0], -1, 2)


def _half(side: int) -> int:
    return -(-side // 2)
