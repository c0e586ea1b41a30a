"""What `rtfuse record` wrote (`rtfuse.record.raw`), as sources: the frames with the very times that they had."""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from rtfuse.capture.recordings import Decoder, reason
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.types import Clock, Frame, SourceInfo, Stamp, Stream

_TITLES = {"ir": "thermal", "rgb": "RGB"}


@dataclass(frozen=True, slots=True)
class _Facts:
    """One line of the track of times."""

    number: int
    t_ns: int
    arrival_ns: int
    frame_id: int
    stamp: Stamp
    frozen: bool

    @classmethod
    def read(cls, words: list[str]) -> _Facts:
        number, t_ns, arrival_ns, frame_id, stamp, frozen = words
        return cls(int(number), int(t_ns), int(arrival_ns), int(frame_id), Stamp(stamp), frozen == "1")


class Replay:
    """One stream of a recording of both, all its parts; its frames carry the times of the recording.

    `info.start_ns` is the capture time of its first frame, on the clock of then. `losses` counts `corrupt` packets.
    Raises SourceNotFound, and SourceUnreadable if the file is not such a recording.
    """

    def __init__(self, path: str, stream: Stream, *, clock: Clock = time.monotonic_ns) -> None:
        self._path, self._stream, self._closed = Path(path), stream, False
        self._losses: Counter[str] = Counter()
        container = self._open(self._path)
        try:
            said = json.loads(container.metadata["RTFUSE_SOURCES"])[stream]
            video = next(v for v in container.streams.video if v.metadata.get("title") == _TITLES[stream])
            facts = _first_facts(container, stream)
        except (KeyError, ValueError, StopIteration) as e:
            raise SourceUnreadable(f"{path} is not a recording of `rtfuse record`; fuse it with --ir and --rgb") from e
        finally:
            container.close()
        deep = video.codec_context.pix_fmt == "gray16le"
        self._info = SourceInfo(
            uri=str(path),
            stream=stream,
            size_wh=(video.codec_context.width, video.codec_context.height),
            dtype="uint16" if deep else "uint8",
            live=False,
            rate_hz=said["rate_hz"],
            start_ns=facts.t_ns if facts else None,
            time_base=video.time_base,
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        part = 1
        path = self._path
        while path.exists() and not self._closed:
            container = self._open(path)
            try:
                yield from self._frames(container)
            finally:
                container.close()
            part += 1
            path = self._path.with_name(f"{self._path.stem}-{part:04d}{self._path.suffix}")

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True

    def _open(self, path: Path) -> InputContainer:
        if not path.exists():
            raise SourceNotFound(f"recording not found: {path}")
        try:
            return av.open(str(path))
        except (av.error.FFmpegError, OSError) as e:
            raise SourceUnreadable(f"recording {path} cannot be read ({reason(e)})") from e

    def _frames(self, container: InputContainer) -> Iterator[Frame]:
        """Match every packet with its line of facts; both are numbered, as either may be cut off at the end."""
        video = next(v for v in container.streams.video if v.metadata.get("title") == _TITLES[self._stream])
        video.thread_type = "SLICE"  # one packet in, one picture out
        facts, packets, count = deque[_Facts](), deque[tuple[int, Any]](), 0
        try:
            for packet in container.demux(video, container.streams.subtitles[0]):
                if self._closed:
                    return
                if packet.stream.type == "subtitle":
                    if (line := _line(packet)) and line[0] == self._stream:
                        facts.append(_Facts.read(line[1:]))
                elif packet.size:
                    packets.append((count, packet))
                    count += 1
                while facts and packets:
                    if facts[0].number != packets[0][0]:
                        (facts if facts[0].number < packets[0][0] else packets).popleft()
                        continue
                    yield from self._decoded(packets.popleft()[1], facts.popleft())
        except (av.error.InvalidDataError, av.error.EOFError):
            self._losses["truncated"] += 1

    def _decoded(self, packet: Any, facts: _Facts) -> Iterator[Frame]:
        try:
            pictures = packet.decode()
        except av.error.InvalidDataError:
            pictures = []
        if not pictures:
            self._losses["corrupt"] += 1
            return
        image = Decoder.image_of(pictures[-1], self._stream)
        yield Frame(self._stream, image, facts.frame_id, facts.t_ns, facts.stamp, facts.arrival_ns, frozen=facts.frozen)


def _line(packet: Any) -> list[str]:
    return bytes(packet).decode("ascii", errors="replace").split() if packet.size else []


def _first_facts(container: InputContainer, stream: Stream) -> _Facts | None:
    """Return the facts of the stream's first frame, None if it has none."""
    for packet in container.demux(container.streams.subtitles[0]):
        if (line := _line(packet)) and line[0] == stream:
            return _Facts.read(line[1:])
    return None
