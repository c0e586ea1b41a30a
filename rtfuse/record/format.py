"""Define the format of a recording of both streams: its parts, tracks, lines of times and metadata.

A recording is one Matroska file or several, its parts. Each part has three tracks: the times (text), thermal and RGB
(video). Matroska counts in milliseconds, so the text track holds one line for every frame:

    ir 17 7123456789012 7123461234567 18 end-of-frame 0

The fields are those of `FrameTimes`, in its order. `rtfuse.record.raw` writes this format, `rtfuse.record.replay`
reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rtfuse.types import LABELS, Frame, SourceInfo, Stamp, Stream

SUFFIX = ".mkv"
CONTAINER = "matroska"
TIMES_CODEC = "subrip"
TIMES_TITLE = "times"
VIDEO_TITLES = LABELS
"""The title of each stream's video track."""
IR_PIXEL_FORMATS = {"uint8": "gray", "uint16": "gray16le"}
"""FFmpeg's pixel format of the thermal track for each dtype of counts."""
_PREFIX = "rtfuse_"
_SOURCES = "RTFUSE_SOURCES"
"""The key of the sources' JSON text; Matroska stores keys in upper case."""


def part_path(path: Path, part: int) -> Path:
    """Return the name of a part, counted from 1: `flight.mkv`, `flight-0002.mkv`, …"""
    return path if part == 1 else path.with_name(f"{path.stem}-{part:04d}{path.suffix}")


def existing_parts(path: Path) -> list[Path]:
    """Return all files that are parts of a recording of this name, also those after a gap in the numbers."""
    later = path.parent.glob(f"{path.stem}-[0-9][0-9][0-9][0-9]{path.suffix}")
    return [part for part in (path, *later) if part.exists()]


def consecutive_parts(path: Path) -> Iterator[Path]:
    """Yield the parts in order, up to the first that does not exist."""
    part = 1
    while (found := part_path(path, part)).exists():
        yield found
        part += 1


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Keep the times of one frame: one line of the text track.

    `number`: the frame's packet in its video track of this part, from 0.
    `t_ns`, `arrival_ns`: capture and arrival in nanoseconds of the local monotonic clock.
    `frame_id`: the frame's number in its stream.
    `stamp`: the meaning of `t_ns`.
    `frozen`: True if the picture repeats an older one.
    """

    stream: Stream
    number: int
    t_ns: int
    arrival_ns: int
    frame_id: int
    stamp: Stamp
    frozen: bool

    @classmethod
    def of(cls, frame: Frame, number: int) -> FrameTimes:
        """Return the times of a frame that is written as packet `number`."""
        return cls(frame.stream, number, frame.t_ns, frame.arrival_ns, frame.frame_id, frame.stamp, frame.frozen)

    def encode(self) -> bytes:
        """Return the line of text."""
        numbers = f"{self.number} {self.t_ns} {self.arrival_ns} {self.frame_id}"
        return f"{self.stream} {numbers} {self.stamp} {int(self.frozen)}".encode()

    @classmethod
    def decode(cls, data: bytes) -> FrameTimes:
        """Return the times in a line of text. Raises ValueError for another text."""
        name, number, t_ns, arrival_ns, frame_id, stamp, frozen = data.decode("ascii", errors="replace").split()
        stream = next((stream for stream in VIDEO_TITLES if stream == name), None)
        if stream is None:
            raise ValueError(f"stream {name!r} is unknown; want ir or rgb")
        return cls(stream, int(number), int(t_ns), int(arrival_ns), int(frame_id), Stamp(stamp), frozen == "1")


def metadata(infos: Mapping[Stream, SourceInfo], start_ns: int, more: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a part that begins at `start_ns` (local monotonic clock); `more` are the caller's own."""
    sources = {stream: _described(info) for stream, info in infos.items()}
    own = {"sources": json.dumps(sources), "start_ns": str(start_ns), **more}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"creation_time": now} | {_PREFIX + key: value for key, value in own.items()}


def rate_in(metadata: Mapping[str, str], stream: Stream) -> float | None:
    """Return a stream's nominal rate in Hz. Raises KeyError or ValueError for metadata of another file."""
    rate_hz: float | None = json.loads(metadata[_SOURCES])[stream]["rate_hz"]
    return rate_hz


def _described(info: SourceInfo) -> dict[str, Any]:
    return {"uri": info.uri, "size": info.size_wh, "dtype": info.dtype, "rate_hz": info.rate_hz, "live": info.live}
