"""Read recordings with PyAV (FFmpeg); network streams share the decoding."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

from rtfuse.capture import jpeg
from rtfuse.capture.completeness import is_cut, stop_at_errors
from rtfuse.capture.damage import Damage
from rtfuse.capture.display import Display, is_deep
from rtfuse.capture.lists import Inpoints
from rtfuse.capture.origins import is_exact, timecode_ns, utc_ns
from rtfuse.capture.paths import exists, is_disguised_script, is_pipe, open_file
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.times import Repairs, repaired
from rtfuse.capture.timing import MediaTimes, Packets, to_ns
from rtfuse.capture.tracks import choose, described, split_track, video_tracks
from rtfuse.errors import RtfuseError, SourceNotFound, SourceUnreadable
from rtfuse.observe.logs import event
from rtfuse.types import LABELS, Clock, Frame, Image, Picture, SourceInfo, Stamp, Stream

_log = logging.getLogger("rtfuse.capture")
T = TypeVar("T")


class Decoder:
    """Decode one video track of a container; `rtfuse.capture.tracks` has the choice among several.

    The first frame is decoded at once, to know size and depth. `losses` counts packets that gave no picture (`corrupt`)
    and, of recordings, pictures with errors (`damaged`).
    `track`, `reopen`: see `choose`. `fps`: the rate of a format without times. `picture`: how its pixels are read.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: Stream,
        *,
        live: bool,
        track: int | None = None,
        reopen: Callable[[], InputContainer] | None = None,
        fps: float | None = None,
        picture: PictureOptions | None = None,
    ) -> None:
        self.container, self.stream = container, stream
        picture = picture or PictureOptions()
        choice = choose(container, stream, track, reopen, picture.false_colours)
        assert choice is not None
        self.video = choice.video
        if choice.reason is not None:
            tracks = described(video_tracks(container))
            text = f"{LABELS[stream]} is track {choice.number} of ({tracks}), {choice.reason}"
            event(_log, logging.INFO if choice.sure else logging.WARNING, "streams", text, stream=stream)
        # Decoding several frames at once is fastest, but delays each until the next ones have come.
        # With a thread for each picture, FFmpeg may show one of a file that reorders before its errors are known.
        self.video.thread_type = "SLICE" if live or self.video.codec_context.has_b_frames else "AUTO"
        self.losses: Counter[str] = Counter()
        self.packets = Packets(container, self.video, live=live)
        self.times = None if live else MediaTimes(container, self.video, self.packets.ahead, fps)
        if not live and self.packets.ahead:
            stop_at_errors(self.video, self.packets.ahead[0])
        self.damage = (
            None if self.times is None else Damage(container, self.video, self.packets.ahead, self.times.rate_hz)
        )
        self._inpoints = Inpoints() if not live and container.format.name == "concat" else None
        self._display = Display(stream, self.video, picture.uncolour)
        self._display.exif = 0 if self.video.codec_context.name == "mjpeg" else 1
        self._frames = self._display.progressive(self._decode())
        self.first = next(self._frames, None)

    def __iter__(self) -> Iterator[VideoFrame]:
        if self.first is not None:
            yield self.first
            yield from self._frames

    def _decode(self) -> Iterator[VideoFrame]:
        for frame in self._sound():
            if self._inpoints is None or not self._inpoints.leaves_out(frame):
                yield frame
        if self.damage is not None:
            self.losses += self.damage.losses

    def _sound(self) -> Iterator[VideoFrame]:
        """Decode the packets; yield the pictures that are not known to be wrong."""
        for packet in self.packets:
            if packet is not None and not self._takes(packet):
                continue
            if packet is not None and packet.size and self._display.exif == 0:
                self._display.exif = jpeg.orientation(bytes(packet))
            try:
                frames = self.video.decode(packet)
            except av.error.InvalidDataError:
                if self.damage is not None:
                    self.damage.failed()
                else:
                    self.losses["corrupt"] += 1
                continue
            for frame in frames:
                yield from [frame] if self.damage is None else self.damage.came(frame)
        if self.damage is not None:
            yield from self.damage.rest()

    def _takes(self, packet: Packet[Any]) -> bool:
        """Note a packet of a recording before it is decoded; return False if it must not be."""
        if self.times is None or self.damage is None:
            return True
        self.times.sent(packet)
        if self._inpoints is not None:
            self._inpoints.sent(packet)
        return self.damage.sent(packet)

    def content(self, frame: VideoFrame) -> Image | Picture:
        """Return (H, W) uint8 or uint16 for thermal, a picture otherwise, as a player shows it."""
        return self._display.content(frame)

    def info(self, uri: str, *, live: bool) -> SourceInfo:
        """Describe the stream; needs `first`."""
        assert self.first is not None
        video, base = self.video, self.video.time_base or Fraction(1, 1000)
        times, rate = self.times, video.average_rate or video.guessed_rate
        rate_hz = times.rate_hz if times is not None else float(rate) if rate else None
        return SourceInfo(
            uri=uri,
            stream=self.stream,
            size_wh=self._display.size_wh(self.first),
            dtype="uint16" if self.stream == "ir" and is_deep(self.first) else "uint8",
            live=live,
            rate_hz=rate_hz,
            frames=self._header_frames(),
            start_ns=None if live else to_ns(video.start_time or 0, base),
            end_ns=None if live else self._header_end_ns(base),
            time_base=None if times is not None and times.untimed else base,
            utc_ns=None if live else utc_ns(self.container),
            utc_exact=not live and is_exact(self.container),
            timecode_ns=None if live else timecode_ns(self.container, rate_hz),
            coding=video.codec_context.name,
        )

    def _header_frames(self) -> int | None:
        """Return the number of frames by the container's header; None if it is unknown."""
        # AVI's header counts places for frames, of which some are empty; its index has the others.
        return (len(self.video.index_entries) if self.container.format.name == "avi" else self.video.frames) or None

    def _header_end_ns(self, base: Fraction) -> int | None:
        """Return the end of the last frame by the container's header; None if it is unknown."""
        video, container = self.video, self.container
        if video.duration:
            return to_ns((video.start_time or 0) + video.duration, base)
        if not container.duration or len(container.streams) != 1:
            return None
        # The duration of Matroska and FLV counts from time 0, the others' from their first frame; both in µs.
        from_zero = container.format.name == "flv" or "matroska" in container.format.name
        return (container.duration + (0 if from_zero else container.start_time or 0)) * 1000


class Recording:
    """Read one track of a video file, completely and in order; `t_ns` is the recording's own time (`Stamp.MEDIA`).

    Times that are missing or do not rise are repaired (`rtfuse.capture.times`), which is logged once at the end.
    `fps`: the rate of a format without times.
    `losses`: counts pictures that could not be decoded (`corrupt`) or were decoded with errors (`damaged`), and, if the
    file was cut off, the missing ones as `truncated`.
    Raises SourceNotFound, SourceUnreadable, or ConfigError for a track that the file does not have.
    """

    def __init__(
        self,
        path: str,
        stream: Stream,
        *,
        fps: float | None = None,
        picture: PictureOptions | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._clock, self._closed, self._reading, self._lock = clock, False, False, threading.Lock()
        self._path, track = split_track(path)
        self._decoder = _open_file(self._path, stream, track, fps, picture)
        assert self._decoder.times is not None
        self._times, self._repairs = self._decoder.times, Repairs()
        times = self._times
        timed = repaired(self._decoder, times.of, times.period_ns, self._repairs, times.wrap_ns)
        self._timed = _to_the_end(timed, f"{LABELS[stream]} recording {path}")
        self._first = next(self._timed)
        self._info = replace(self._decoder.info(path, live=False), start_ns=self._first[1])

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
        decoder, stream, rate_hz = self._decoder, self._info.stream, self._times.rate_hz
        frame_id, t_ns = -1, 0
        for frame_id, (frame, t_ns) in enumerate(chain([self._first], self._timed)):
            if self._closed:
                break
            if frame_id == 1 and self._times.assumed:
                self._warn("untimed", f"has no times: {rate_hz:g} Hz is assumed; {stream}.fps= sets another")
            yield Frame(stream, decoder.content(frame), frame_id, t_ns, Stamp.MEDIA, self._clock())
        else:
            self._count_missing(t_ns + self._times.period_ns, frame_id + 1)
        for line in decoder.damage.said() if decoder.damage is not None else ():
            self._warn("damage", line)
        if said := str(self._repairs):
            self._warn("times", f"of {frame_id + 1} frames: {said}; their times were repaired")

    def _count_missing(self, end_ns: int, count: int) -> None:
        """Count the frames after `end_ns` that the header of a truncated file announces, at least one."""
        info, losses = self._info, self._decoder.losses
        # Where two transport streams were joined, FFmpeg suspects the last picture of the first.
        losses -= Counter(damaged=self._repairs.restarts)
        by_time = round(((info.end_ns or end_ns) - end_ns) / self._times.period_ns)
        # FLV has no durations of frames, so that of the file is the last frame's time.
        ends_early = self._decoder.container.format.name == "flv" and by_time > 1
        if not (self._decoder.packets.cut_short or ends_early or is_cut(self._path)):
            losses += Counter(corrupt=self._times.lost)
            return
        missing = info.frames - count if info.frames is not None else by_time
        losses["truncated"] += max(1, missing - losses["corrupt"])

    def _warn(self, name: str, text: str) -> None:
        stream = self._info.stream
        event(_log, logging.WARNING, name, f"{LABELS[stream]} recording {self._info.uri} {text}", stream=stream)

    def close(self) -> None:
        """End the iteration after the frame in progress; close the file at once if none has begun."""
        with self._lock:
            self._closed = True
            if not self._reading:
                self._decoder.container.close()


def _to_the_end(items: Iterable[T], name: str) -> Iterator[T]:
    """Yield the items. Raises SourceUnreadable where FFmpeg fails: a file of a list is missing, a disk is gone."""
    try:
        yield from items
    except av.error.FFmpegError as e:
        raise SourceUnreadable(f"{name} cannot be read to its end: {reason(e)}") from e


_REMEDIES = {
    False: "check it with a player",
    True: "through a pipe, send Matroska or MPEG-TS: MP4 has its index at the end",
}
"""Advice for a file that cannot be read, and for a pipe."""


def _open_file(
    path: str, stream: Stream, track: int | None, fps: float | None, picture: PictureOptions | None
) -> Decoder:
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
    reopen = partial(open_file, path) if file.is_file() else None
    return first_frame(container, stream, nothing, live=False, track=track, reopen=reopen, fps=fps, picture=picture)


def first_frame(
    container: InputContainer,
    stream: Stream,
    otherwise: RtfuseError,
    *,
    live: bool,
    track: int | None = None,
    reopen: Callable[[], InputContainer] | None = None,
    fps: float | None = None,
    picture: PictureOptions | None = None,
) -> Decoder:
    """Return a decoder that has its first frame. Without a frame it closes the container and raises `otherwise`."""
    if not video_tracks(container):
        container.close()
        raise otherwise
    try:
        decoder = Decoder(container, stream, live=live, track=track, reopen=reopen, fps=fps, picture=picture)
    except RtfuseError:
        container.close()
        raise
    if decoder.first is None:
        container.close()
        raise otherwise
    return decoder


def reason(e: Exception) -> str:
    """Return FFmpeg's reason in words, without the address."""
    return getattr(e, "strerror", None) or type(e).__name__
