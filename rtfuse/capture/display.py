"""Show decoded frames as a player does: upright, with square pixels, without interlacing, in the right colours."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from rtfuse.capture.chroma import coloured
from rtfuse.capture.hdr import HDR, to_sdr
from rtfuse.capture.settings import Uncolour
from rtfuse.observe.logs import event
from rtfuse.picture import Coding, Layout, Matrix, Picture, plane_views
from rtfuse.types import LABELS, Image, Stream

_UNTAGGED = 2
_PLANAR: dict[str, tuple[Layout, bool]] = {
    "yuv420p": ("yuv420p", False), "yuv422p": ("yuv422p", False), "yuv444p": ("yuv444p", False),
    "yuvj420p": ("yuv420p", True), "yuvj422p": ("yuv422p", True), "yuvj444p": ("yuv444p", True),
    "nv12": ("nv12", False),
}  # fmt: skip
"""Pixel formats of 8 bits whose planes are kept: the layout, and True if the name says that the range is full."""
_MATRICES: dict[int, Matrix] = {_UNTAGGED: "bt601", 1: "bt709", 5: "bt601", 6: "bt601", 9: "bt2020", 10: "bt2020"}
"""Colour matrices by their number in ITU-T H.273."""
_GUESSED: dict[Colorspace, Matrix] = {Colorspace.ITU709: "bt709", Colorspace.BT2020: "bt2020"}
_FULL = 2
_COUNTS = ("gray10le", "gray12le", "gray14le", "gray16le")
"""Pixel formats of counts, which stay as recorded."""
_HD_WH = (1280, 720)
"""An untagged stream of at least this width or height has BT.709, as players take it; a smaller one BT.601."""
_FLIPS = {(True, False): 1, (False, True): 0, (True, True): -1}
_EXIF = {
    2: (False, True, False), 3: (False, True, True), 4: (False, False, True), 5: (True, False, False),
    6: (True, True, False), 7: (True, True, True), 8: (True, False, True),
}  # fmt: skip
"""EXIF's orientations: whether a picture is transposed, and then mirrored, and put upside down; PyAV tells angles."""
_log = logging.getLogger("rtfuse.capture")
Say = Callable[[str], None]


class Display:
    """Turn the decoded frames of one stream into images; each correction is logged once.

    `video`: the stream that the frames are of. Without it, nothing is guessed of a stream without tags, and its pixels
    are square: a recording of our own. `uncolour`: turns thermal in false colours back into luma.
    `exif`: the orientation that the EXIF of a JPEG tells, from 1.
    """

    def __init__(self, stream: Stream, video: VideoStream | None = None, uncolour: Uncolour | None = None) -> None:
        self._stream, self._video, self._uncolour = stream, video, uncolour
        self._by_size = video is not None and video.codec_context.name != "mjpeg"  # JPEG has BT.601
        self._reformatter = VideoReformatter()
        self.exif = 1
        self._said: set[str] = set()

    def size_wh(self, frame: VideoFrame) -> tuple[int, int]:
        """Return width and height of the image of a frame, in pixels."""
        w, h = self._square(frame)
        return (h, w) if self._orientation(frame)[0] else (w, h)

    def content(self, frame: VideoFrame) -> Image | Picture:
        """Return (H, W) uint8 or uint16 for thermal; for RGB a picture, with the decoder's planes where it can be."""
        if self._stream == "ir":
            return self.image(frame)
        kept = self._kept(frame)
        return Picture.of_rgb(self.image(frame)) if kept is None else kept

    def _kept(self, frame: VideoFrame) -> Picture | None:
        """Return the frame's own planes, not copied; None where they are not as a player shows them."""
        known = _PLANAR.get(frame.format.name)
        if known is None or frame.color_trc in HDR or self._square(frame) != (frame.width, frame.height):
            return None
        guessed = self._matrix(frame)
        matrix = _MATRICES.get(frame.colorspace) if guessed is None else _GUESSED[guessed]
        if matrix is None or any(self._orientation(frame)):
            return None
        return Picture(known[0], plane_views(frame), Coding(matrix, known[1] or frame.color_range == _FULL))

    def image(self, frame: VideoFrame) -> Image:
        """Return (H, W) uint8 or uint16 for thermal, (H, W, 3) uint8 RGB otherwise."""
        image = self._colours(frame) if self._stream == "rgb" else self._luma(frame)
        w, h = self._square(frame)
        if (w, h) != (frame.width, frame.height):
            self._say(f"has pixels of {self._aspect}, it is scaled to square ones: {w}x{h}")
            image = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        return self._upright(image, *self._orientation(frame))

    def progressive(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield the frames; those flagged as interlaced are deinterlaced, one frame later."""
        return deinterlaced(frames, self._say)

    @cached_property
    def _aspect(self) -> Fraction:
        """The aspect of a pixel: the container's, or else the codec's, which is known once a frame is decoded."""
        video = self._video
        return (video and (video.sample_aspect_ratio or video.codec_context.sample_aspect_ratio)) or Fraction(1)

    def _square(self, frame: VideoFrame) -> tuple[int, int]:
        """Return the size with square pixels: the longer side of a pixel gives the scale, so that no detail is lost."""
        aspect, w, h = self._aspect, frame.width, frame.height
        if aspect == 1 or not Fraction(1, 8) <= aspect <= 8 or abs(aspect - 1) < Fraction(1, 200):
            return w, h
        return (round(w * aspect), h) if aspect > 1 else (w, round(h / aspect))

    def _luma(self, frame: VideoFrame) -> Image:
        if self._uncolour is not None and coloured(frame):
            luma = self._uncolour(self._colours(frame))
            if luma is not None:
                return luma.astype(np.uint16) * 257 if is_deep(frame) else luma
        if not is_deep(frame):
            return self._converted(frame, "gray")
        if frame.format.name in _COUNTS:
            return frame.to_ndarray()
        return self._converted(frame, "gray16le")

    def _colours(self, frame: VideoFrame) -> Image:
        matrix = self._matrix(frame)
        if frame.color_trc not in HDR:
            return self._converted(frame, "rgb24", matrix)
        self._say(f"is HDR ({HDR[frame.color_trc]}): a simple curve maps it to SDR, all above 1000 cd/m² is white")
        return to_sdr(self._converted(frame, "rgb48le", matrix), frame.color_trc)

    def _matrix(self, frame: VideoFrame) -> Colorspace | None:
        """Return the colour matrix of a YUV frame without a tag, where it is not FFmpeg's default, BT.601."""
        layout = frame.format
        if frame.colorspace != _UNTAGGED or layout.is_rgb or len(layout.components) < 3:
            return None
        if frame.color_trc in HDR:
            return Colorspace.BT2020
        if not self._by_size or (frame.width < _HD_WH[0] and frame.height < _HD_WH[1]):
            return None
        self._say(f"does not name its colour matrix: BT.709 is taken, as players do at {frame.width}x{frame.height}")
        return Colorspace.ITU709

    def _converted(self, frame: VideoFrame, layout: str, matrix: Colorspace | None = None) -> Image:
        """Convert in this thread, with one converter for all frames: many times faster than a new one for each.

        With several threads, FFmpeg 8 gives wrong lines of `gray16le` now and then.
        """
        return self._reformatter.reformat(frame, format=layout, src_colorspace=matrix, threads=1).to_ndarray()

    def _upright(self, image: Image, transposed: bool, mirrored: bool, upside_down: bool) -> Image:
        if transposed:
            image = cv2.transpose(image)
        if mirrored or upside_down:
            image = cv2.flip(image, _FLIPS[mirrored, upside_down])
        if transposed or mirrored or upside_down:
            self._say("is turned or mirrored as its display matrix or its EXIF says")
        return image

    def _orientation(self, frame: VideoFrame) -> tuple[bool, bool, bool]:
        """Return how a frame becomes upright: whether it is transposed, and then mirrored, and put upside down."""
        return _EXIF.get(self.exif) or _orientation(frame)

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            event(_log, logging.INFO, "display", f"{LABELS[self._stream]} {what}", stream=self._stream)


def is_deep(frame: VideoFrame) -> bool:
    """Return True if the frame has more than 8 bits per component."""
    return max(c.bits for c in frame.format.components) > 8


def _orientation(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Return how a frame becomes upright: whether it is transposed, and then mirrored, and put upside down.

    FFmpeg's display matrix maps a stored point (x, y) to (a x + c y, b x + d y); any other angle than a right one is
    rounded to the nearest.
    """
    try:
        found: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know the type of other data, such as EXIF, and gives none: the angle is left
        angle = math.radians(frame.rotation)
        a, b, c, d = math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle)
    else:
        if found is None:
            return False, False, False
        a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def deinterlaced(frames: Iterable[VideoFrame], say: Say) -> Iterator[VideoFrame]:
    """Yield frames without interlacing, in order, each with its own times; one behind from the first interlaced one."""
    graph, kind, waiting = None, None, deque[VideoFrame]()
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if (now := (frame.width, frame.height, frame.format.name)) != kind:
            yield from _pulled(graph, waiting, None)
            graph, kind = _graph(frame), now
            say("is interlaced: it is deinterlaced by FFmpeg's bwdif, frame by frame")
        waiting.append(frame)
        yield from _pulled(graph, waiting, frame)
    yield from _pulled(graph, waiting, None)


def _graph(frame: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    graph.link_nodes(
        source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink")
    ).configure()
    return graph


def _pulled(graph: Graph | None, waiting: deque[VideoFrame], frame: VideoFrame | None) -> Iterator[VideoFrame]:
    """Push a frame, or None at the end, and yield what is ready, with the times of the frames that wait."""
    if graph is None:
        return
    graph.vpush(frame)
    while waiting:
        try:
            made = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        given = waiting.popleft()
        made.pts, made.dts, made.time_base, made.duration = given.pts, given.dts, given.time_base, given.duration
        yield made
