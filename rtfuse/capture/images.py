"""Read image files as the frames of a stream: `pages(path)`, `read_image(path, stream, page)`, `ImageReader`."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from rtfuse.capture import animation, flir, png, pnm, tiff
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.values import Bytes, Counts, without_nodata
from rtfuse.errors import SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Image, Stream

_SUFFIXES = "png jpg jpeg jpe jfif tif tiff btf tf8 bmp dib webp pbm pgm ppm pnm pfm jp2 j2k avif"
SUFFIXES = frozenset(f".{name}" for name in _SUFFIXES.split())
_ANY = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
_LUMA = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
_ALPHA_TYPES = (4, 6)
_SWAPPED = 8
"""The ratio of the ranges of values as they are and with their bytes swapped that makes them look swapped."""
_log = logging.getLogger("rtfuse.capture")


def is_image(path: str | Path) -> bool:
    """Return True if the file name is that of a still image."""
    return Path(path).suffix.lower() in SUFFIXES


def pages(path: str | Path) -> int:
    """Return the number of pictures in an image file: pages of a TIFF, pictures of an animated WebP, PNG or AVIF.

    It is 1 otherwise, also if the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            if found := len(tiff.find_pages(file)):
                return found
            file.seek(0)
            return animation.count(file)
    except OSError:
        return 1


def read_image(path: str | Path, stream: Stream, page: int = 0) -> Image | None:
    """Read one image: thermal as (H, W) uint8 or uint16, RGB as (H, W, 3) uint8; None if it cannot be read.

    Raises SourceUnreadable where the unit of thermal values is in doubt.
    """
    return ImageReader(stream)(path, page)


class ImageReader:
    """Read the images of one stream, all in the same way; what is guessed, changed or left out is said once.

    EXIF orientation is applied. Thermal: counts of 8 and 16 bits stay as they are, other types see `values.Counts`;
    false colours are turned back by `options.uncolour`; of other colours the luma is taken. RGB: 8 bits, see
    `values.Bytes`; grey becomes three channels. An alpha channel that holds a picture beside colours is thermal.
    A radiometric JPEG of FLIR gives its counts or its photo. With `quiet` nothing is said: the images are read again
    by another reader that says it.
    """

    def __init__(self, stream: Stream, options: PictureOptions | None = None, *, quiet: bool = False) -> None:
        self._stream, self._options, self._quiet = stream, options or PictureOptions(), quiet
        self._said = set[str]()
        self._forget()

    def _forget(self) -> None:
        self._counts, self._bytes = Counts(self._options.unit, self._say), Bytes(self._say)

    def __call__(self, path: str | Path, page: int = 0) -> Image | None:
        """Read one page: thermal as (H, W) uint8 or uint16, RGB as (H, W, 3) uint8; None if it cannot be read.

        Raises SourceUnreadable where the unit of thermal values is in doubt, where OpenCV misreads a TIFF, and for
        radiometric JPEG that is damaged or has no photo.
        """
        if self._options.alone:
            self._forget()
        if (held := flir.picture(path, self._stream)) is not None:
            return held
        (data, sheet), name = _load(path, page), str(path)
        if data is None or (image := _decoded(data, _ANY)) is None:
            return None
        if sheet is not None:
            image = self._checked(image, sheet, name)
        image = self._scaled(self._ordered(image, name), data, name)
        alpha = _alpha(data, image)
        if self._stream == "rgb":
            if alpha is not None:
                self._say("alpha", f"RGB image {name} has a picture as its alpha channel, which is not used here")
            return self._colour(image, name)
        if alpha is not None:
            self._say("alpha", f"thermal is taken from the alpha channel of {name}, which holds a picture")
            return self._counts(alpha, name)
        luma = image if image.ndim == 2 else self._luma(data, image)
        return self._counts(without_nodata(luma, sheet.nodata if sheet else None, name, self._say), name)

    def _checked(self, image: Image, sheet: tiff.Page, path: str) -> Image:
        """Return the image of a page of a TIFF as it is meant. Raises SourceUnreadable where OpenCV misreads it."""
        eight = image.dtype == np.uint8
        if (sheet.planar and not eight) or (sheet.deep and eight):  # it mixes channels up; it drops the lower bits
            raise SourceUnreadable(
                f"{LABELS[self._stream]} image {path} is a TIFF of more than 8 bits with two channels, or with "
                "channels in planes, which cannot be read: save it with one channel, or interleaved (tiffcp -p contig)"
            )
        if sheet.inverted and image.dtype == np.uint16:  # of 8 bits it is done already
            self._say("inverted", f"in TIFF {path} 0 is white; its values are inverted, as other programs show them")
            return cv2.bitwise_not(image)
        return image

    def _ordered(self, image: Image, path: str) -> Image:
        """Return the image with the bytes of its 16-bit values as asked; say where they seem to be swapped."""
        if image.dtype != np.uint16:
            return image
        if self._options.swapped:
            return image.byteswap()
        if "swapped" not in self._said and _seem_swapped(image):
            text = f"the bytes of {LABELS[self._stream]} image {path} seem to be swapped"
            self._say("swapped", f"{text}: try {self._stream}.byteorder=swapped")
        return image

    def _scaled(self, image: Image, data: Image, path: str) -> Image:
        """Return the image of a PNM in 8 bits by its own white; thermal of 16 bits is counts, and stays."""
        white = pnm.white(data.data)
        if white is None or white in (255, 65535) or (self._stream == "ir" and white > 255):
            return image
        self._say("white", f"{LABELS[self._stream]} image {path} has {white} as white; its values are scaled by that")
        return np.rint(np.minimum(image, white) * (255 / white)).astype(np.uint8)

    def _colour(self, image: Image, path: str) -> Image:
        """Return (H, W, 3) uint8 RGB."""
        return cv2.cvtColor(self._bytes(image, path), cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)

    def _luma(self, data: Image, image: Image) -> Image:
        """Return one channel of a thermal picture with three, (H, W, 3) B, G, R."""
        if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]):
            return np.ascontiguousarray(image[..., 0])
        if self._options.uncolour is not None and image.dtype in (np.uint8, np.uint16):
            bytes_ = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
            luma = self._options.uncolour(cv2.cvtColor(bytes_, cv2.COLOR_BGR2RGB))
            if luma is not None:
                return luma
        if image.dtype in (np.uint8, np.uint16):
            luma = _decoded(data, _LUMA)  # a JPEG's own plane
            if luma is not None:
                return luma
        return image.mean(axis=2).astype(image.dtype)

    def _say(self, name: str, text: str) -> None:
        """Warn once of a kind of oddity."""
        if name not in self._said and not self._quiet:
            self._said.add(name)
            event(_log, logging.WARNING, f"image-{name}", text, stream=self._stream)


def _load(path: str | Path, page: int) -> tuple[Image | None, tiff.Page | None]:
    """Return a file's bytes, (n,) uint8, with the wanted page first, and what is known of that page of a TIFF.

    The bytes are None for a missing page and for an unreadable file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None, None
    if tiff.is_tiff(data[:4]):
        found = tiff.find_pages(io.BytesIO(data))
        if page >= len(found):
            return None, None
        return np.frombuffer(tiff.turned_to(data, found[page]), np.uint8), found[page]
    many = animation.count(io.BytesIO(data))
    if page >= many or not data or (data.startswith(png.SIGNATURE) and not png.is_whole(data)):
        return None, None
    if many > 1:
        return _shown(data, page), None
    return np.frombuffer(data, np.uint8), None


def _shown(data: bytes, number: int) -> Image | None:
    try:
        with _quiet():
            return animation.turned_to(data, number)
    except cv2.error:
        return None


def _decoded(data: Image, flags: int) -> Image | None:
    # imdecode, not imread: it takes any path that Python takes.
    try:
        with _quiet():
            return cv2.imdecode(data, flags)
    except cv2.error:
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from writing to the terminal what the caller says in its own words."""
    log = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)


def _alpha(data: Image, image: Image) -> Image | None:
    """Return the alpha channel of a picture in colour, if that is a picture itself and no mask."""
    is_png = data[:8].tobytes() == png.SIGNATURE and data.size > 25 and int(data[25]) in _ALPHA_TYPES
    if image.ndim != 3 or not (is_png or tiff.is_tiff(data[:4].tobytes())):
        return None
    whole = _decoded(data, cv2.IMREAD_UNCHANGED)
    if whole is None or whole.ndim != 3 or whole.shape[2] != 4 or whole.shape[:2] != image.shape[:2]:
        return None
    alpha, grey = whole[..., 3], np.array_equal(image[..., 0], image[..., 1])
    ends = (alpha == 0) | (alpha == alpha.max())
    return None if grey or float(ends.mean()) > 0.9 else np.ascontiguousarray(alpha)


def _seem_swapped(image: Image) -> bool:
    """Return True if 16-bit values would fill a far smaller range swapped; False if only their upper bytes are used."""
    seen = image[::4, ::4]
    whole, swapped = (float(np.subtract(*np.percentile(v, (99, 1)))) for v in (seen, seen.byteswap()))
    return whole > _SWAPPED * max(swapped, 1.0) and bool(np.any(seen & 255))
