"""Hold a colour picture in the layout of its source: RGB and luma are computed when first asked for, once.

Cameras and codecs send luma (Y) as a plane of its own, and fusion changes luma alone. A fused picture therefore keeps
the chroma planes of its source as they came, and encoders get them without a conversion.

Importing it loads neither OpenCV nor FFmpeg.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Image = npt.NDArray[Any]
Matrix = Literal["bt601", "bt709", "bt2020"]
Layout = Literal["rgb24", "gray", "yuv420p", "yuv422p", "yuv444p", "nv12", "yuyv422", "uyvy422"]
"""FFmpeg's names. `gray` has luma alone."""
Planes = tuple[Image, Image, Image]
"""Y, U and V of 4:2:0: (H, W), (H / 2, W / 2) twice, uint8."""

MATRIX_TAGS: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}
"""The number of each colour matrix in ITU-T H.273."""
_GREY = 128
_BLACK, _WHITE, _CHROMA = 16, 235, 112
"""Limited range: Y of black and of white, and the largest distance of chroma from grey (BT.601, 2.5.3)."""
_PLANAR: dict[Layout, tuple[int, int]] = {"yuv420p": (2, 2), "nv12": (2, 2), "yuv422p": (1, 2), "yuv444p": (1, 1)}
"""Rows and columns of the picture for each value of chroma."""
_LUMA_AT: dict[Layout, int] = {"yuyv422": 0, "uyvy422": 1}
"""Place of Y in each two bytes of a packed layout."""


class Coding(NamedTuple):
    """Say how YUV values are meant: the colour matrix, and True if they have the full range from 0 to 255."""

    matrix: Matrix = "bt601"
    full: bool = False


class Picture:
    """Colour picture as its source gave it; do not change its arrays.

    - `layout`, `planes`: uint8 arrays. `rgb24` has one (H, W, 3), `gray` one (H, W), planar YUV three, `nv12` two, the
      second (H / 2, W), `yuyv422` and `uyvy422` one (H, 2 W). Rows may be padded; odd sides round chroma up.
    - `coding`: the meaning of YUV values, and of `gray`.

    Any thread may ask for `rgb` and `luma`. Raises ValueError for planes that do not fit the layout.
    """

    __slots__ = ("_chroma", "_lock", "_luma", "_rgb", "_source", "coding", "layout", "planes", "shape_hw")

    def __init__(self, layout: Layout, planes: Sequence[Image], coding: Coding = Coding()) -> None:
        self.layout, self.planes, self.coding = layout, tuple(planes), coding
        self.shape_hw = _shape(layout, self.planes)
        self._lock = threading.RLock()
        self._rgb: Image | None = planes[0] if layout == "rgb24" else None
        self._luma: Image | None = planes[0] if layout == "gray" and coding.full else None
        self._chroma: dict[bool, tuple[Image, Image]] = {}
        self._source: Picture | None = None

    @classmethod
    def of_rgb(cls, image: Image) -> Picture:
        """Return the picture of an (H, W, 3) uint8 RGB array. Raises ValueError for another array."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"an RGB picture must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
        return cls("rgb24", (image,))

    @classmethod
    def of_luma(cls, luma: Image) -> Picture:
        """Return the picture without colour of an (H, W) uint8 luma of full range."""
        return cls("gray", (luma,), Coding(full=True))

    @property
    def rgb(self) -> Image:
        """The picture as (H, W, 3) uint8 in R, G, B order, computed once."""
        if self._rgb is None:
            with self._lock:
                if self._rgb is None:
                    source = self._source
                    self._rgb = self._converted() if source is None else relit(source.rgb, source.luma, self.luma)
        return self._rgb

    @property
    def luma(self) -> Image:
        """The luma as (H, W) uint8 of full range, in the picture's own matrix, computed once."""
        if self._luma is None:
            with self._lock:
                if self._luma is None:
                    self._luma = self._bright()
        return self._luma

    def with_luma(self, luma: Image) -> Picture:
        """Return this picture with another luma, (H, W) uint8 of full range, and its own chroma, not copied.

        `planes` stay those of the source; its RGB is that of the source plus the change of luma, see `relit`. Raises
        ValueError for a luma of another size.
        """
        if luma.shape != self.shape_hw:
            raise ValueError(f"the luma is {luma.shape}, the picture {self.shape_hw}")
        made = Picture.__new__(Picture)
        made.layout, made.planes, made.coding, made.shape_hw = self.layout, self.planes, self.coding, self.shape_hw
        made._lock, made._rgb, made._luma, made._chroma = threading.RLock(), None, luma, self._chroma
        made._source = self if self._source is None else self._source
        return made

    def resized(self, size_wh: tuple[int, int]) -> Picture:
        """Return the picture in another size, each value the mean of those that it covers.

        Planes become 4:2:0 of full range; it takes RGB where `i420` does, and for an odd side.
        """
        import cv2

        w, h = size_wh
        coding = Coding(self.coding.matrix, full=True)
        planes = None if w % 2 or h % 2 else self.i420(coding)
        if planes is None:
            return Picture.of_rgb(cv2.resize(self.rgb, size_wh, interpolation=cv2.INTER_AREA))
        sizes = (size_wh, (w // 2, h // 2), (w // 2, h // 2))
        made = [cv2.resize(x, wh, interpolation=cv2.INTER_AREA) for x, wh in zip(planes, sizes, strict=True)]
        return Picture("yuv420p", made, coding)

    def i420(self, coding: Coding = Coding(), y: Image | None = None) -> Planes | None:
        """Return Y, U and V of 4:2:0 in this coding; None if that takes a way through RGB: see `rgb`.

        Planes that have this coding already are views. It takes RGB for the layout `rgb24`, another matrix, and odd
        sides. Y that must be computed is written into `y`, if given.
        """
        h, w = self.shape_hw
        if self.layout == "rgb24" or h % 2 or w % 2:
            return None
        if self.layout == "gray":
            grey = _no_chroma(h // 2, w // 2)
            return self._y(coding.full, y), grey, grey
        if coding.matrix != self.coding.matrix:
            return None
        return self._y(coding.full, y), *self._uv(coding.full)

    def _y(self, full: bool, into: Image | None = None) -> Image:
        """Return Y in this range, computed into `into`, if given."""
        if self._source is None and self.coding.full == full and self.layout not in _LUMA_AT:
            return self.planes[0]
        return self.luma if full else _limited_luma(self.luma, into)

    def _uv(self, full: bool) -> tuple[Image, Image]:
        """Return U and V of 4:2:0 in this range, computed once for all pictures with this chroma."""
        if full not in self._chroma:
            u, v = _quartered(self.layout, self.planes)
            if full != self.coding.full:
                u, v = (_ranged_chroma(x, full) for x in (u, v))
            self._chroma[full] = u, v
        return self._chroma[full]

    def _bright(self) -> Image:
        import cv2

        if self.layout == "rgb24":
            return cv2.cvtColor(self.rgb, cv2.COLOR_RGB2GRAY)
        y = self.planes[0]
        if self.layout in _LUMA_AT:
            y = cv2.extractChannel(_pairs(y), _LUMA_AT[self.layout])
        return y if self.coding.full else _full_luma(y)

    def _converted(self) -> Image:
        """Convert YUV to RGB as FFmpeg does; packed YUV and NV12 of BT.601, limited range, as OpenCV does."""
        import cv2

        layout, planes = self.layout, self.planes
        if layout == "gray":
            return cv2.cvtColor(self.luma, cv2.COLOR_GRAY2RGB)
        if self.coding == Coding():
            if layout in _LUMA_AT:
                how = cv2.COLOR_YUV2RGB_YUYV if layout == "yuyv422" else cv2.COLOR_YUV2RGB_UYVY
                return cv2.cvtColor(_pairs(planes[0]), how)
            if layout == "nv12" and self.shape_hw[0] % 2 == self.shape_hw[1] % 2 == 0:
                uv = np.ascontiguousarray(planes[1]).reshape(planes[1].shape[0], -1, 2)
                return cv2.cvtColorTwoPlane(np.ascontiguousarray(planes[0]), uv, cv2.COLOR_YUV2RGB_NV12)
        return _reformatter().reformat(video_frame(layout, planes, self.coding), format="rgb24", threads=1).to_ndarray()


def relit(rgb: Image, old: Image, new: Image) -> Image:
    """Return `rgb` with its luma `old` exchanged for `new` and its chroma kept; (H, W, 3) uint8.

    In BT.601, R = Y + 1.402 Cr, B = Y + 1.772 Cb and G is the same sum with other factors: with chroma kept, a
    change of Y is the same change of R, G and B, in every matrix. Adding the difference therefore equals the way
    through YCbCr, without its rounding: where the luma is unchanged the pixel is unchanged, bit for bit.
    """
    import cv2

    brighter = cv2.cvtColor(cv2.subtract(new, old), cv2.COLOR_GRAY2RGB)
    darker = cv2.cvtColor(cv2.subtract(old, new), cv2.COLOR_GRAY2RGB)
    cv2.add(rgb, brighter, dst=brighter)
    return cv2.subtract(brighter, darker, dst=darker)


def luma_of(rgb: Image) -> Image:
    """Return the luma Y (BT.601, full range) of (H, W, 3) uint8 RGB as (H, W) uint8."""
    return Picture("rgb24", (rgb,)).luma


def plane_views(frame: VideoFrame) -> list[Image]:
    """Return the planes of an 8-bit frame of FFmpeg as (rows, bytes) uint8 views, which keep the frame alive."""
    width_of = {"nv12": 2}.get(frame.format.name, 1)
    return [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[  # type: ignore[call-overload]
            :, : plane.width * (width_of if k else 1)
        ]
        for k, plane in enumerate(frame.planes)
    ]


def video_frame(layout: Layout, planes: Sequence[Image], coding: Coding = Coding()) -> VideoFrame:
    """Return FFmpeg's frame of these planes, copied once, with the tags of their coding."""
    from av.video.frame import VideoFrame

    h, w = _shape(layout, planes)
    made = VideoFrame(w, h, layout)
    for there, plane in zip(made.planes, planes, strict=True):
        rows = np.frombuffer(there, np.uint8).reshape(there.height, -1)  # type: ignore[call-overload]
        np.copyto(rows[:, : plane.shape[1]], plane)
    made.colorspace, made.color_range = MATRIX_TAGS[coding.matrix], 2 if coding.full else 1
    return made


class _Local(threading.local):
    reformatter: Any = None


_local = _Local()


def _reformatter() -> Any:
    """Return FFmpeg's converter of this thread: many times faster than a new one for each picture."""
    if _local.reformatter is None:
        from av.video.reformatter import VideoReformatter

        _local.reformatter = VideoReformatter()
    return _local.reformatter


def _shape(layout: Layout, planes: Sequence[Image]) -> tuple[int, int]:
    """Return height and width. Raises ValueError for planes that do not fit the layout."""
    h, w = planes[0].shape[:2]
    w = w // 2 if layout in _LUMA_AT else w
    wanted: list[tuple[int, ...]] = [planes[0].shape]
    if layout in _PLANAR:
        rows, columns = _PLANAR[layout]
        chroma = -(-h // rows), -(-w // columns)
        wanted += [(chroma[0], 2 * chroma[1])] if layout == "nv12" else [chroma, chroma]
    found = [plane.shape for plane in planes]
    if found != wanted or any(plane.dtype != np.uint8 for plane in planes):
        raise ValueError(f"a {layout} picture of {w}x{h} has planes {wanted} uint8, got {found}")
    return h, w


def _pairs(packed: Image) -> Image:
    """Return packed YUV, (H, 2 W), as (H, W, 2)."""
    return packed.reshape(packed.shape[0], -1, 2)


def _quartered(layout: Layout, planes: Sequence[Image]) -> tuple[Image, Image]:
    """Return U and V of 4:2:0: views where the layout has them, the mean of two rows or four pixels elsewhere."""
    import cv2

    if layout == "yuv420p":
        return planes[1], planes[2]
    if layout == "nv12":
        return planes[1][:, 0::2], planes[1][:, 1::2]
    if layout == "yuv422p":
        return _row_means(planes[1]), _row_means(planes[2])
    if layout in _LUMA_AT:
        four, first = _row_means(planes[0]).reshape(planes[0].shape[0] // 2, -1, 4), 1 - _LUMA_AT[layout]
        return cv2.extractChannel(four, first), cv2.extractChannel(four, first + 2)
    h, w = planes[1].shape
    u, v = (cv2.resize(x, (w // 2, h // 2), interpolation=cv2.INTER_AREA) for x in planes[1:])
    return u, v


def _full_luma(y: Image) -> Image:
    """Return luma of full range by the Y of limited range; faster than a table of OpenCV's, and equal."""
    import cv2

    scale = 255 / (_WHITE - _BLACK)  # `max`: `subtract` takes 4 x 1 values beside a number for a scalar
    return cv2.convertScaleAbs(cv2.max(y, _BLACK), alpha=scale, beta=-_BLACK * scale)


def _limited_luma(luma: Image, into: Image | None) -> Image:
    """Return the Y of limited range by luma of full range."""
    import cv2

    return cv2.convertScaleAbs(luma, into, (_WHITE - _BLACK) / 255, _BLACK)


def _ranged_chroma(chroma: Image, full: bool) -> Image:
    """Return chroma of full range by that of limited range, or the reverse."""
    import cv2

    factor = 127.5 / _CHROMA if full else _CHROMA / 127.5
    return cv2.addWeighted(chroma, factor, chroma, 0, _GREY * (1 - factor))


def _row_means(values: Image) -> Image:
    """Return the mean of each two rows; many times faster than OpenCV's `resize`, and equal."""
    import cv2

    return cv2.addWeighted(values[0::2], 0.5, values[1::2], 0.5, 0)


@cache
def _no_chroma(h: int, w: int) -> Image:
    return np.full((h, w), _GREY, np.uint8)
