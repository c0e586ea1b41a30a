"""Read FLIR's thermal recordings (.seq, .csq, .fff): one FFF after another, each a frame with counts and constants."""

from __future__ import annotations

import mmap
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from rtfuse.capture import fff
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.types import Clock, Frame, SourceInfo, Stamp, Stream, Thermal

SUFFIXES = (".seq", ".csq", ".fff")
_DEFAULT_HZ = 30.0
_BLOCK = 1 << 20


def is_sequence(uri: str) -> bool:
    """Return True if the file is a FLIR recording, by its name and its first bytes."""
    path = Path(uri)
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in fff.MAGICS


class FlirSequence:
    """Read a FLIR recording completely, in order; its counts come as (H, W) uint16.

    `t_ns` is the camera's time since the first frame, or `1 / fps` apart where the frames' times do not rise.
    `losses`: counts `corrupt` frames, which are skipped. Raises SourceUnreadable for a file without a frame, or as RGB.
    """

    def __init__(self, uri: str, stream: Stream, *, fps: float | None = None, clock: Clock = time.monotonic_ns) -> None:
        if stream == "rgb":
            raise SourceUnreadable(f"RGB recording {uri} is FLIR's, which holds thermal alone; give it as thermal")
        path = Path(uri)
        if not path.exists():
            raise SourceNotFound(f"thermal recording not found: {uri}")
        self._uri, self._clock, self._closed = uri, clock, False
        self._losses: Counter[str] = Counter()
        with path.open("rb") as file:
            self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        found = list(self._find())
        if not found:
            raise SourceUnreadable(f"thermal recording {uri} holds no frame that can be read; copy it again")
        self._places = [place for place, _ in found]
        first = self._parsed(self._places[0])
        self._times_ns, rate_hz = _times([at for _, at in found], fps or first.rate_hz or _DEFAULT_HZ)
        self._info = SourceInfo(
            uri=uri,
            stream=stream,
            size_wh=first.size_wh,
            dtype="uint16",
            live=False,
            rate_hz=rate_hz,
            frames=len(self._places),
            start_ns=0,
            end_ns=self._times_ns[-1] + round(1e9 / rate_hz),
            coding="fff",
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        for number, (place, t_ns) in enumerate(zip(self._places, self._times_ns, strict=True)):
            if self._closed:
                return
            try:
                found = self._parsed(place)
                image = found.counts()
                if found.size_wh != self._info.size_wh:
                    raise SourceUnreadable(f"{self._uri}: its frames differ in size")
            except SourceUnreadable:
                self._losses["corrupt"] += 1
                continue
            thermal = Thermal(radiometry=found.radiometry)
            yield Frame("ir", image, number, t_ns, Stamp.MEDIA, self._clock(), thermal=thermal)

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True

    def _find(self) -> Iterator[tuple[int, datetime | None]]:
        """Yield the first byte and the time of each frame; count damaged places, and go on behind them."""
        at = 0
        while at < len(self._data):
            try:
                found, length = fff.parse(self._data[at:], self._uri)
                if not found.has_pixels:
                    raise SourceUnreadable(f"{self._uri}: a frame without pixels")
                yield at, found.taken
                at += length
                if bytes(self._data[at : at + 4]) in fff.MAGICS:
                    continue
                begins = _next_frame(self._data, at)
            except SourceUnreadable:
                begins = _next_frame(self._data, at + 4)
                self._losses["corrupt" if begins is not None else "truncated"] += 1
            at = len(self._data) if begins is None else begins

    def _parsed(self, place: int) -> fff.Radiometric:
        return fff.parse(self._data[place:], self._uri)[0]


def _next_frame(data: memoryview, at: int) -> int | None:
    """Return the first byte of the next frame that begins at or after a place; None without one."""
    while at < len(data):
        block = bytes(data[at : at + _BLOCK])
        found = [place for magic in fff.MAGICS if (place := block.find(magic)) >= 0]
        if found:
            return at + min(found)
        at += max(len(block) - 3, 1)
    return None


def _times(taken: list[datetime | None], rate_hz: float) -> tuple[list[int], float]:
    """Return nanoseconds since the first frame, and the rate in Hz, by the frames' own times if all of them rise."""
    known = [at for at in taken if at is not None]
    steps = [(b - a).total_seconds() for a, b in pairwise(known)]
    if len(known) < len(taken) or not steps or min(steps) <= 0:
        return [round(number * 1e9 / rate_hz) for number in range(len(taken))], rate_hz
    since = [at - known[0] for at in known]
    return [round(s.total_seconds() * 1e3) * 1_000_000 for s in since], 1 / statistics.median(steps)
