"""Read a recording of both streams (`rtfuse.record.format`) as two sources, each frame with its recorded times."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from rtfuse.capture.display import Display
from rtfuse.capture.paths import is_pipe, open_file
from rtfuse.capture.recordings import reason
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.record.format import IR_PIXEL_FORMATS, VIDEO_TITLES, FrameTimes, consecutive_parts, rate_in
from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stream


class Replay:
    """Read one stream of a recording, through all parts; the frames carry their recorded times.

    `info.start_ns`: capture time of the first frame, on the clock of the recording machine.
    `losses`: counts frames that are `corrupt`, in their picture or their line of times, and parts that are `truncated`.
    Raises SourceNotFound, and SourceUnreadable if the file is not such a recording.
    """

    def __init__(self, path: str, stream: Stream, *, clock: Clock = time.monotonic_ns) -> None:
        self._path, self._stream, self._closed = Path(path), stream, False
        self._losses: Counter[str] = Counter()
        self._display = Display(stream)
        container = self._open(self._path)
        try:
            rate_hz, video = rate_in(container.metadata, stream), _track(container, stream)
            first = _first_times(container, stream)
        except (KeyError, ValueError, IndexError) as e:
            raise SourceUnreadable(f"{path} is not a recording of `rtfuse record`; fuse it with --ir and --rgb") from e
        finally:
            container.close()
        deep = video.codec_context.pix_fmt == IR_PIXEL_FORMATS["uint16"]
        self._info = SourceInfo(
            uri=str(path),
            stream=stream,
            size_wh=(video.codec_context.width, video.codec_context.height),
            dtype="uint16" if deep else "uint8",
            live=False,
            rate_hz=rate_hz,
            start_ns=first.t_ns if first else None,
            time_base=video.time_base,
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        for path in consecutive_parts(self._path):
            if self._closed:
                return
            container = self._open(path)
            try:
                yield from self._frames(container)
            finally:
                container.close()

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed = True

    def _open(self, path: Path) -> InputContainer:
        if not path.exists():
            raise SourceNotFound(f"recording not found: {path}")
        if is_pipe(path):
            raise SourceUnreadable(f"recording {path} is a pipe: a replay reads each stream by itself; name a file")
        try:
            return open_file(path)
        except (av.error.FFmpegError, OSError) as e:
            raise SourceUnreadable(f"recording {path} cannot be read ({reason(e)})") from e

    def _frames(self, container: InputContainer) -> Iterator[Frame]:
        """Match every packet with its line of times by number, as either track may be cut off at the end."""
        video = _track(container, self._stream)
        video.thread_type = "SLICE"  # one packet in, one picture out
        times, packets, count = deque[FrameTimes](), deque[tuple[int, Any]](), 0
        try:
            for packet in container.demux(video, container.streams.subtitles[0]):
                if self._closed:
                    return
                if packet.stream.type == "subtitle":
                    times.extend(_times(packet, self._stream))
                elif packet.size:
                    packets.append((count, packet))
                    count += 1
                while times and packets:
                    if times[0].number != packets[0][0]:
                        self._losses["corrupt"] += 1
                        (times if times[0].number < packets[0][0] else packets).popleft()
                        continue
                    yield from self._decoded(packets.popleft()[1], times.popleft())
        except (av.error.InvalidDataError, av.error.EOFError):
            self._losses["truncated"] += 1

    def _decoded(self, packet: Any, times: FrameTimes) -> Iterator[Frame]:
        try:
            pictures = packet.decode()
        except av.error.InvalidDataError:
            pictures = []
        if not pictures:
            self._losses["corrupt"] += 1
            return
        content, t = self._display.content(pictures[-1]), times
        yield Frame(self._stream, content, t.frame_id, t.t_ns, t.stamp, t.arrival_ns, frozen=t.frozen)


def recorded_rates(path: str) -> dict[Stream, float | None] | None:
    """Return the cameras' rates in Hz that a recording of `rtfuse record` names; None for any other file."""
    try:
        with open_file(path) as container:
            return {stream: rate_in(container.metadata, stream) for stream in LABELS}
    except (av.error.FFmpegError, OSError, KeyError, ValueError, TypeError):
        return None


def _track(container: InputContainer, stream: Stream) -> VideoStream:
    """Return the video track of a stream. Raises ValueError without one."""
    for video in container.streams.video:
        if video.metadata.get("title") == VIDEO_TITLES[stream]:
            return video
    raise ValueError(f"track {VIDEO_TITLES[stream]} is missing")


def _times(packet: Any, stream: Stream) -> list[FrameTimes]:
    """Return the times in a packet of the text track, none if it is damaged or of the other stream."""
    try:
        times = FrameTimes.decode(bytes(packet))
    except ValueError:
        return []
    return [times] if times.stream == stream else []


def _first_times(container: InputContainer, stream: Stream) -> FrameTimes | None:
    """Return the times of the stream's first frame, None if it has none."""
    for packet in container.demux(container.streams.subtitles[0]):
        for times in _times(packet, stream):
            return times
    return None
