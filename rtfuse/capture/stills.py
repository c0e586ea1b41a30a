"""Read still images (a folder, a pattern, a single file, or chosen ones) as a stream of a chosen rate."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtfuse.capture import flir
from rtfuse.capture.images import ImageReader, is_image, pages, read_image
from rtfuse.capture.paths import is_network, is_pattern
from rtfuse.capture.scenes.listing import list_pictures
from rtfuse.capture.scenes.names import in_order
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.tracks import split_track
from rtfuse.errors import SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Clock, Frame, Image, SourceInfo, Stamp, Stream

__all__ = ["Still", "Stills", "is_image", "is_stills", "read_image"]

DEFAULT_FPS = 25.0
_log = logging.getLogger("rtfuse.capture")


def is_stills(uri: str) -> bool:
    """Return True if `uri` names a folder, a pattern of files, or one image, not a recording."""
    if uri.startswith("synthetic:") or is_network(uri) or split_track(uri)[1] is not None:
        return False
    return Path(uri).is_dir() or is_pattern(uri) or is_image(uri)


@dataclass(frozen=True, slots=True)
class Still:
    """Picture: a page of a file, the name for its output, and its time."""

    path: str
    page: int
    name: str
    t_ns: int


class Stills:
    """Read images in natural order of their names (`2.png` before `10.png`), `1 / fps` seconds apart.

    Every page of a TIFF is an image. How pixels are read: see `ImageReader`. `chosen` are the pictures to read in place
    of all that `uri` names; `left_out` counts those that were not chosen. `alike`: True if all must have one size and
    depth.
    `losses`: counts images that are `corrupt`, which are skipped (the following ones keep their times); `damaged` has
    their places; and those with `no_partner`.
    Raises SourceNotFound if no image exists, SourceUnreadable if none can be read, or if a later one has another size
    or depth where all must be alike.
    """

    def __init__(
        self,
        uri: str,
        stream: Stream,
        *,
        fps: float | None = None,
        picture: PictureOptions | None = None,
        chosen: Sequence[Still] | None = None,
        left_out: int = 0,
        alike: bool = True,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._clock, self._closed, self._alike = clock, False, alike
        self._name = LABELS[stream]
        self._read = ImageReader(stream, picture)
        fps = fps or DEFAULT_FPS
        period_ns = round(1e9 / fps)
        self.stills = chosen if chosen is not None else _all_of(uri, stream, period_ns)
        self.damaged: list[int] = []
        self._losses = Counter({"no_partner": left_out}) if left_out else Counter[str]()
        first = self._first()
        self._info = SourceInfo(
            uri=uri,
            stream=stream,
            size_wh=(first.shape[1], first.shape[0]),
            dtype=str(first.dtype),
            live=False,
            rate_hz=fps,
            frames=len(self.stills),
            start_ns=self.stills[0].t_ns,
            end_ns=self.stills[-1].t_ns + period_ns,
        )

    def _first(self) -> Image:
        """Return the first image that can be read."""
        why: SourceUnreadable | None = None
        for still in self.stills:
            try:
                image = self._read(still.path, still.page)
            except SourceUnreadable as e:
                image, why = None, why or e
            if image is not None:
                return image
        raise why or SourceUnreadable(f"{self._name} image {self.stills[0].path} cannot be read as an image")

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        w, h = self._info.size_wh
        for count, still in enumerate(self.stills):
            if self._closed:
                return
            image = self._image(still)
            if image is None:
                self._losses["corrupt"] += 1
                self.damaged.append(count)
                continue
            if self._alike and (image.shape[:2] != (h, w) or image.dtype != self._info.dtype):
                raise SourceUnreadable(
                    f"{self._name} image {still.path} is {image.shape[1]}x{image.shape[0]} {image.dtype}, the first of "
                    f"{self._info.uri} is {w}x{h} {self._info.dtype}; a stream needs one size and depth, "
                    "a folder as output does not"
                )
            thermal = flir.thermal_data(still.path, self._info.stream)
            yield Frame(self._info.stream, image, count, still.t_ns, Stamp.MEDIA, self._clock(), thermal=thermal)

    def _image(self, still: Still) -> Image | None:
        """Return a picture, None if it cannot be read; the reason is logged if there is a particular one."""
        try:
            return self._read(still.path, still.page)
        except SourceUnreadable as e:
            event(_log, logging.WARNING, "corrupt", str(e), stream=self._info.stream)
            return None

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True


def _all_of(uri: str, stream: Stream, period_ns: int) -> list[Still]:
    """Return every page of the files that `uri` names, in natural order, except for links that lead nowhere."""
    found = list_pictures(uri, stream)
    parts = [
        (name, page) for name in in_order(set(found.names) - found.broken) for page in range(pages(found.path(name)))
    ]
    return [Still(found.path(name), page, name, k * period_ns) for k, (name, page) in enumerate(parts)]
