"""Read recordings with PyAV (FFmpeg); network streams share the decoding."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from rtfuse.capture.display import Display, is_deep
from rtfuse.capture.paths import exists, is_disguised_script, is_pipe, open_file
from rtfuse.errors import RtfuseError, SourceNotFound, SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Clock, Frame, Image, SourceInfo, Stamp, Stream

_NS = 1_000_000_000
_log = logging.getLogger("rtfuse.capture")


class Decoder:
    """Decode a container's video: of several streams the one titled with the wanted stream's label, or the first one.

    Recordings of `rtfuse record` hold both streams. The first frame is decoded at once, to know size and depth.
    """

    def __init__(self, container: InputContainer, stream: Stream, *, live: bool) -> None:
        self.container, self.stream = container, stream
        videos = container.streams.video
        titled = [video for video in videos if video.metadata.get("title") == LABELS[stream]]
        self.video = (titled or videos)[0]
        if len(videos) > 1 and not titled:
            text = f"{LABELS[stream]} source has {len(videos)} video streams, the first one is taken"
            event(_log, logging.WARNING, "streams", text, stream=stream)
        # Decoding several frames at once is fastest, but delays each until the next ones have come.
        self.video.thread_type = "SLICE" if live else "AUTO"
        self.losses: Counter[str] = Counter()
        self.cut_short = False
        self._display = Display(stream, self.video)
        self._frames = self._display.progressive(self._decode())
        self.first = next(self._frames, None)

    def __iter__(self) -> Iterator[VideoFrame]:
        if self.first is not None:
            yield self.first
            yield from self._frames

    def _decode(self) -> Iterator[VideoFrame]:
        try:
            for packet in self.container.demux(self.video):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    self.losses["corrupt"] += 1
        except (av.error.InvalidDataError, av.error.EOFError):
            self.cut_short = True

    def image(self, frame: VideoFrame) -> Image:
        """Return (H, W) uint8 or uint16 for thermal, (H, W, 3) uint8 RGB otherwise, as a player shows it."""
        return self._display.image(frame)

    def info(self, uri: str, *, live: bool) -> SourceInfo:
        """Describe the stream; needs `first`."""
        assert self.first is not None
        video, base = self.video, self.video.time_base or Fraction(1, 1000)
        rate = video.average_rate or video.guessed_rate
        start = video.start_time if video.start_time is not None else (self.first.pts or 0)
        start_ns = to_ns(start, base)
        end_ns = None
        if video.duration:
            end_ns = start_ns + to_ns(video.duration, base)
        elif self.container.duration and len(self.container.streams) == 1:
            # Matroska's duration counts from time 0, the others' from their first frame; both in µs.
            from_zero = "matroska" in self.container.format.name
            end_ns = (self.container.duration + (0 if from_zero else self.container.start_time or 0)) * 1000
        return SourceInfo(
            uri=uri,
            stream=self.stream,
            size_wh=self._display.size_wh(self.first),
            dtype="uint16" if self.stream == "ir" and is_deep(self.first) else "uint8",
            live=live,
            rate_hz=float(rate) if rate else None,
            frames=video.frames or None,
            start_ns=None if live else start_ns,
            end_ns=None if live else end_ns,
            time_base=base,
            coding=video.codec_context.name,
        )


def to_ns(ticks: int, base: Fraction) -> int:
    """Return a time in ticks of `base` seconds in nanoseconds."""
    return ticks * base.numerator * _NS // base.denominator


class Recording:
    """Read a video file, completely and in order; `t_ns` is the recording's own time (`Stamp.MEDIA`).

    `losses`: counts `corrupt` packets and, if the file ends before the time in its header, the missing frames as
    `truncated`. Raises SourceNotFound or SourceUnreadable.
    """

    def __init__(self, path: str, stream: Stream, *, clock: Clock = time.monotonic_ns) -> None:
        self._clock, self._closed, self._reading, self._lock = clock, False, False, threading.Lock()
        self._decoder = _open_file(path, stream)
        self._info = self._decoder.info(path, live=False)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._decoder.losses

    def __iter__(self) -> Iterator[Frame]:
        with self._lock:
            if self._closed:
                return
            self._reading = True
        try:
            yield from self._frames()
        finally:
            self._decoder.container.close()

    def _frames(self) -> Iterator[Frame]:
        decoder, base = self._decoder, self._info.time_base or Fraction(1, 1000)
        period_ns = round(_NS / (self._info.rate_hz or 25))
        t_ns, frame_id = (self._info.start_ns or 0) - period_ns, -1
        for frame_id, frame in enumerate(decoder):
            if self._closed:
                break
            t_ns = t_ns + period_ns if frame.pts is None else to_ns(frame.pts, base)
            yield Frame(self._info.stream, decoder.image(frame), frame_id, t_ns, Stamp.MEDIA, self._clock())
        else:
            self._report_truncation(t_ns + period_ns, period_ns, frame_id + 1)

    def _report_truncation(self, end_ns: int, period_ns: int, count: int) -> None:
        info, losses = self._info, self._decoder.losses
        missing = round(((info.end_ns or end_ns) - end_ns) / period_ns)
        if missing > 1 or self._decoder.cut_short:
            missing = max(missing, (info.frames or 0) - count - losses["corrupt"])
            losses["truncated"] += max(missing, 1)

    def close(self) -> None:
        """End the iteration after the frame in progress; close the file at once if none has begun."""
        with self._lock:
            self._closed = True
            if not self._reading:
                self._decoder.container.close()


_REMEDIES = {
    False: "check it with a player",
    True: "through a pipe, send Matroska or MPEG-TS: MP4 has its index at the end",
}
"""Advice for a file that cannot be read, and for a pipe."""


def _open_file(path: str, stream: Stream) -> Decoder:
    name = LABELS[stream]
    file = Path(path)
    if not exists(file):
        raise SourceNotFound(f"{name} recording not found: {path}")
    if file.is_file() and file.stat().st_size == 0:
        raise SourceUnreadable(f"{name} recording {path} is empty (0 bytes)")
    if is_disguised_script(file):
        raise SourceUnreadable(f"{name} recording {path} is a list of files for FFmpeg; give it the suffix .ffconcat")
    try:
        container = open_file(path)
    except PermissionError as e:
        raise SourceUnreadable(f"{name} recording {path}: permission denied") from e
    except (av.error.FFmpegError, OSError) as e:
        raise SourceUnreadable(
            f"{name} recording {path} is not a video that can be read, or was cut off before its index "
            f"({reason(e)}); {_REMEDIES[is_pipe(path)]}"
        ) from e
    nothing = SourceUnreadable(f"{name} recording {path} holds no readable video frame; {_REMEDIES[is_pipe(path)]}")
    return first_frame(container, stream, nothing, live=False)


def first_frame(container: InputContainer, stream: Stream, otherwise: RtfuseError, *, live: bool) -> Decoder:
    """Return a decoder that has its first frame. Raises `otherwise`, the container closed, if there is none."""
    if not container.streams.video:
        container.close()
        raise otherwise
    decoder = Decoder(container, stream, live=live)
    if decoder.first is None:
        container.close()
        raise otherwise
    return decoder


def reason(e: Exception) -> str:
    """Return FFmpeg's reason in words, without the address."""
    return getattr(e, "strerror", None) or type(e).__name__
