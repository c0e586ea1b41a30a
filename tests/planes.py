"""Colour pictures of every layout, smooth and in gamut, so that conversions can be compared."""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.picture import Coding, Picture

CHROMA = {"yuv420p": (2, 2), "nv12": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}


def smooth(kind, shape_hw):
    """A plane without details: luma (0), chroma (1, 2), another luma (3). No colour of them is out of gamut."""
    start, right, down = {0: (90, 0.8, 0.4), 1: (122, 0.3, -0.2), 2: (134, -0.2, 0.3), 3: (150, -0.6, 0.5)}[kind]
    y, x = np.mgrid[0 : shape_hw[0], 0 : shape_hw[1]]
    return (start + right * x + down * y).round().astype(np.uint8)


def source(layout, coding=Coding(), size_wh=(64, 48)):
    """A smooth picture, in rows that are padded."""
    w, h = size_wh
    if layout == "rgb24":
        return Picture.of_rgb(np.dstack([smooth(k, (h, w)) for k in range(3)]))
    y = smooth(0, (h, w))
    if layout == "gray":
        return Picture("gray", (y,), coding)
    if layout in ("yuyv422", "uyvy422"):
        u, v = (smooth(k, (h, w // 2)) for k in (1, 2))
        values = (y[:, 0::2], u, y[:, 1::2], v) if layout == "yuyv422" else (u, y[:, 0::2], v, y[:, 1::2])
        return Picture(layout, (np.dstack(values).reshape(h, 2 * w),), coding)
    rows, columns = CHROMA[layout]
    chroma = [smooth(k, (-(-h // rows), -(-w // columns))) for k in (1, 2)]
    if layout == "nv12":
        chroma = [np.dstack(chroma).reshape(chroma[0].shape[0], -1)]
    padded = [np.pad(plane, ((0, 0), (0, 9)))[:, :-9] for plane in (y, *chroma)]
    return Picture(layout, padded, coding)


def difference(a, b):
    return int(np.abs(a.astype(int) - b).max())


def exact(picture):
    """RGB by BT.601 in floating point, of planes in full range, without the rounding of FFmpeg's conversion."""
    y, u, v = (plane.astype(float) for plane in picture.i420(Coding(full=True)))
    u, v = (cv2.resize(x - 128, y.shape[::-1], interpolation=cv2.INTER_NEAREST) for x in (u, v))
    return np.dstack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u]).round().clip(0, 255).astype("u1")
