"""Read still images (a folder, a pattern, or a single file) as a stream of a chosen rate."""

from __future__ import annotations

import glob
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from rtfuse.capture import flir
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Clock, Frame, Image, SourceInfo, Stamp, Stream

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".pnm", ".jp2"]
)
_PAGED = (".tif", ".tiff")
DEFAULT_FPS = 25.0
_log = logging.getLogger("rtfuse.capture")


def is_image(path: str | Path) -> bool:
    """Return True if the file name is that of a still image."""
    return Path(path).suffix.lower() in SUFFIXES


def is_stills(uri: str) -> bool:
    """Return True if `uri` names a folder, a pattern of files, or one image, not a recording."""
    return Path(uri).is_dir() or (any(c in uri for c in "*?[") and not Path(uri).exists()) or is_image(uri)


class Stills:
    """Read images in natural order of their names (`2.png` before `10.png`), `1 / fps` seconds apart.

    16-bit thermal PNG and TIFF keep their counts.
    `losses`: counts images that are `corrupt`, which are skipped (the following ones keep their times), and the `pages`
    of TIFF files after the first, which are not read.
    Raises SourceNotFound if no image exists, SourceUnreadable if the first cannot be read or a later one has another
    size or depth.
    """

    def __init__(self, uri: str, stream: Stream, *, fps: float | None = None, clock: Clock = time.monotonic_ns) -> None:
        self._clock, self._closed = clock, False
        self._name = LABELS[stream]
        self._paths = self._find(uri)
        fps = fps or DEFAULT_FPS
        self._period_ns = round(1e9 / fps)
        self._losses: Counter[str] = Counter()
        first = self._first(stream)
        self._info = SourceInfo(
            uri=uri,
            stream=stream,
            size_wh=(first.shape[1], first.shape[0]),
            dtype=str(first.dtype),
            live=False,
            rate_hz=fps,
            frames=len(self._paths),
            start_ns=0,
            end_ns=len(self._paths) * self._period_ns,
        )

    def _first(self, stream: Stream) -> Image:
        """Return the first image, or that of the first radiometric file that has one."""
        reason: SourceUnreadable | None = None
        for path in self._paths:
            try:
                image = read_image(path, stream)
            except SourceUnreadable as e:
                reason = reason or e
                continue
            if image is None:
                break
            return image
        raise reason or SourceUnreadable(f"{self._name} image {self._paths[0]} cannot be read as an image")

    def _find(self, uri: str) -> list[str]:
        path = Path(uri)
        if path.is_dir():
            names = [str(p) for p in path.iterdir() if is_image(p) and p.is_file()]
            if not names:
                raise SourceNotFound(f"{self._name} folder {uri} holds no images ({' '.join(sorted(SUFFIXES))})")
        else:
            names = [uri] if path.exists() else glob.glob(uri)
            if not names:
                raise SourceNotFound(f"{self._name} image not found: {uri}")
        return sorted(names, key=_natural)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        w, h = self._info.size_wh
        for count, path in enumerate(self._paths):
            if self._closed:
                return
            try:
                image = read_image(path, self._info.stream)
                thermal = flir.thermal_data(path, self._info.stream)
            except SourceUnreadable as e:
                event(_log, logging.WARNING, "corrupt", str(e), stream=self._info.stream)
                image, thermal = None, None
            if image is None:
                self._losses["corrupt"] += 1
                continue
            self._count_pages(path)
            if image.shape[:2] != (h, w) or image.dtype != self._info.dtype:
                raise SourceUnreadable(
                    f"{self._name} image {path} is {image.shape[1]}x{image.shape[0]} {image.dtype}, the first of "
                    f"{self._info.uri} is {w}x{h} {self._info.dtype}; a stream needs one size and depth"
                )
            t_ns = count * self._period_ns
            yield Frame(self._info.stream, image, count, t_ns, Stamp.MEDIA, self._clock(), thermal=thermal)

    def _count_pages(self, path: str) -> None:
        """Count the pages of a TIFF file that are not read, and warn about the first such file."""
        more = cv2.imcount(path) - 1 if Path(path).suffix.lower() in _PAGED else 0
        if more > 0:
            if not self._losses["pages"]:
                text = f"{self._name} image {path} has {more + 1} pages, only the first is read; split it into files"
                event(_log, logging.WARNING, "pages", text, stream=self._info.stream)
            self._losses["pages"] += more

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True


def read_image(path: str, stream: Stream) -> Image | None:
    """Read one image: thermal as (H, W) uint8 or uint16, RGB as (H, W, 3) uint8; None if it cannot be read.

    A radiometric JPEG of FLIR gives its counts or its photo; raises SourceUnreadable if it is damaged or has no photo.
    """
    if (held := flir.picture(path, stream)) is not None:
        return held
    # imdecode, not imread: it does not print to the terminal and takes any path that Python takes.
    try:
        data = np.fromfile(path, np.uint8)
        flags = cv2.IMREAD_COLOR if stream == "rgb" else cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        image = cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    if stream == "rgb":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image if image.dtype in (np.uint8, np.uint16) else None


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdigit() else (0, 0, p) for p in parts]
