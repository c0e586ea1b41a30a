"""Show decoded frames as a player does: upright, with square pixels, without interlacing, in the right colours."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cache

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Image, Stream

_PLAIN_GRAY = ("gray10le", "gray12le", "gray14le", "gray16le")
"""Counts as recorded."""
_UNTAGGED, _RGB_MATRIX = 2, 0
_HD_LINES, _HD_WIDTH = 720, 1280
_PQ, _HLG = 16, 18
"""Transfer characteristics of ITU-T H.273: SMPTE ST 2084 and ARIB STD-B67."""
_BT2020 = (9, 10)
_log = logging.getLogger("rtfuse.capture")


class Display:
    """Turn the decoded frames of one stream into images; say once, in a line, what it does to them.

    `video`: the stream that they are of; without it, or with `own`, nothing is guessed from the size of an untagged
    stream.
    """

    def __init__(self, stream: Stream, video: VideoStream | None = None) -> None:
        self._stream = stream
        self._aspect = _aspect(video)
        self._guess_matrix = video is not None and video.codec_context.name != "mjpeg"  # JPEG has BT.601
        self._reformatter = VideoReformatter()
        self._told: set[str] = set()

    def size_wh(self, frame: VideoFrame) -> tuple[int, int]:
        """Return width and height of the image of a frame, in pixels."""
        w, h = _square((frame.width, frame.height), self._aspect)
        return (h, w) if _orientation(frame)[0] else (w, h)

    def image(self, frame: VideoFrame) -> Image:
        """Return (H, W) uint8 or uint16 for thermal, (H, W, 3) uint8 RGB otherwise, as a player shows it."""
        image = self._colours(frame) if self._stream == "rgb" else self._luma(frame)
        if (size := _square((frame.width, frame.height), self._aspect)) != (frame.width, frame.height):
            self._say(f"has pixels of {self._aspect}: it is scaled to {size[0]}x{size[1]} square ones")
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return self._upright(image, frame)
