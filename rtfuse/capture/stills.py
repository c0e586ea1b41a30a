"""Read still images (a folder, a pattern, or a single file) as a stream of a chosen rate."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rtfuse.capture.images import SUFFIXES, ImageReader, is_image, pages, read_image
from rtfuse.capture.paths import exists, is_pattern, matches
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.tracks import split_track
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stamp, Stream

__all__ = ["Stills", "is_image", "is_stills", "read_image"]

DEFAULT_FPS = 25.0


def is_stills(uri: str) -> bool:
    """Return True if `uri` names a folder, a pattern of files, or one image, not a recording."""
    if split_track(uri)[1] is not None:
        return False
    return Path(uri).is_dir() or is_pattern(uri) or is_image(uri)


class Stills:
    """Read images in natural order of their names (`2.png` before `10.png`), `1 / fps` seconds apart.

    Every page of a TIFF is an image. How pixels are read: see `ImageReader`.
    `losses`: counts images that are `corrupt`, which are skipped (the following ones keep their times).
    Raises SourceNotFound if no image exists, SourceUnreadable if the first cannot be read or a later one has another
    size or depth.
    """

    def __init__(
        self,
        uri: str,
        stream: Stream,
        *,
        fps: float | None = None,
        picture: PictureOptions | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._clock, self._closed = clock, False
        self._name = LABELS[stream]
        self._read = ImageReader(stream, picture)
        self._pages = [(path, page) for path in self._find(uri) for page in range(pages(path))]
        fps = fps or DEFAULT_FPS
        self._period_ns = round(1e9 / fps)
        self._losses: Counter[str] = Counter()
        first = self._read(*self._pages[0])
        if first is None:
            raise SourceUnreadable(f"{self._name} image {self._pages[0][0]} cannot be read as an image")
        self._info = SourceInfo(
            uri=uri,
            stream=stream,
            size_wh=(first.shape[1], first.shape[0]),
            dtype=str(first.dtype),
            live=False,
            rate_hz=fps,
            frames=len(self._pages),
            start_ns=0,
            end_ns=len(self._pages) * self._period_ns,
        )

    def _find(self, uri: str) -> list[str]:
        path = Path(uri)
        if path.is_dir():
            names = [str(p) for p in path.iterdir() if is_image(p) and p.is_file()]
            if not names:
                raise SourceNotFound(f"{self._name} folder {uri} holds no images ({' '.join(sorted(SUFFIXES))})")
        else:
            names = [uri] if exists(path) else matches(uri)
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
        for count, (path, page) in enumerate(self._pages):
            if self._closed:
                return
            image = self._read(path, page)
            if image is None:
                self._losses["corrupt"] += 1
                continue
            if image.shape[:2] != (h, w) or image.dtype != self._info.dtype:
                raise SourceUnreadable(
                    f"{self._name} image {path} is {image.shape[1]}x{image.shape[0]} {image.dtype}, the first of "
                    f"{self._info.uri} is {w}x{h} {self._info.dtype}; a stream needs one size and depth"
                )
            yield Frame(self._info.stream, image, count, count * self._period_ns, Stamp.MEDIA, self._clock())

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True


def _natural(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), p) if p.isdigit() else (0, 0, p) for p in parts]
