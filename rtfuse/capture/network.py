"""Read live network streams (RTSP, HTTP, UDP, …) with PyAV (FFmpeg)."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from rtfuse.capture.clocks import ClockMap, ClockState
from rtfuse.capture.ffmpeg_errors import in_words, unavailable
from rtfuse.capture.recordings import Decoder, first_frame
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.timing import to_ns
from rtfuse.errors import DeviceUnavailable, RtfuseError, SourceLost, redact
from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stamp, Stream

_MS = 1_000_000
_LOW_LATENCY = {
    "fflags": "nobuffer+discardcorrupt",
    "flags": "low_delay",
    "analyzeduration": "500000",
    "max_delay": "100000",  # µs to wait for the packets of a UDP stream to come in order
}
_RTSP = {"analyzeduration": "200000"}  # its session description says the rest
_HTTP = {"fflags": "discardcorrupt", "fpsprobesize": "0", "format_probesize": "16384"}
"""Of a camera with one picture a second, FFmpeg would wait for twenty. The only picture of a snapshot must be kept."""
_ENDS = (errno.EIO, errno.ECONNRESET)
"""Errors by which FFmpeg tells that a camera has ended its answer without a word."""
_NO_TIMES = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe")
"""Formats without times, besides single pictures (`jpeg_pipe`); FFmpeg invents them from a nominal rate."""
_REHEARSAL_NS, _REHEARSED = 1_000 * _MS, 16
"""The longest time, and the most frames, that measuring the rate of such a stream takes."""
_STALE_NS = 200 * _MS
"""A frame of a backlog that is older than this is decoded, but not returned."""
_START_NS, _UNSURE_NS = 2_000 * _MS, 5 * _MS
"""For the first seconds a backlog has an unknown age: frames that lower the envelope by more than this are stale."""
_RATES_HZ = (0.1, 1000.0)


class NetworkStream:
    """Read a live network stream; `t_ns` is its own time on the local clock (`Stamp.STREAM`), or that of arrival.

    `open_timeout_s`, `read_timeout_s`: the limits of every wait.
    `transport`: that of RTSP.
    `form`: FFmpeg's name of the format, found out if it is None.
    `losses`: counts frames that are `corrupt`, or `stale`: they piled up during a pause of the network or this process,
    or came while the stream was opened, and are decoded but not returned.
    `single`: True if its sender has ended it after one picture.
    Raises DeviceUnavailable if it cannot be opened, SourceLost when it ends or stalls. The errors contain no user and
    no password.
    """

    def __init__(
        self,
        uri: str,
        stream: Stream,
        *,
        open_timeout_s: float = 5.0,
        read_timeout_s: float = 5.0,
        transport: Literal["tcp", "udp"] = "tcp",
        picture: PictureOptions | None = None,
        form: str | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._clock, self._closed, self._read_timeout_s = clock, False, read_timeout_s
        self._name = f"{LABELS[stream]} stream {redact(uri)}"
        opening = _Opening(self._name, uri, stream, transport, (open_timeout_s, read_timeout_s), picture)
        self._decoder = opening(form)
        formats = self._decoder.container.format.name.split(",")
        self.form = formats[0] if formats == ["mjpeg"] or formats[0].endswith("_pipe") else None
        timed = not set(formats) & set(_NO_TIMES) and not formats[0].endswith("_pipe")
        self._arrivals, self._frames = _Arrivals(clock, timed=timed), iter(self._decoder)
        self._over: VideoFrame | None = None
        self._info = self._decoder.info(uri, live=True)
        self._count = 0
        self._read()  # from before the stream was analysed
        rate_hz = self._info.rate_hz if timed else self._rehearsed()
        self.single = not timed and self._count == 1
        self.losses["stale"] += self._count - (self._over is not None)
        fits = rate_hz is not None and _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]
        self._info = replace(self._info, rate_hz=rate_hz if fits else None)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._decoder.losses

    @property
    def clock(self) -> ClockState:
        """The state of the stream's clock."""
        return self._arrivals.map.state

    def _read(self) -> VideoFrame | None:
        """Decode and date the next frame; None at the end of the stream."""
        video = next(self._frames, None)
        if video is not None:
            self._count += 1
            self._place = self._arrivals.place(video, self._info.time_base)
        return video

    def _rehearsed(self) -> float | None:
        """Read the first frames of a stream without times; return their rate in Hz, None after a single frame.

        If the stream ends meanwhile, `_over` keeps its last frame.
        """
        came, last, end_ns = [self._clock()], self._decoder.first, self._clock() + _REHEARSAL_NS
        while len(came) < _REHEARSED and came[-1] < end_ns:
            try:
                with self._reading():
                    video = self._read()
            except SourceLost as e:
                if getattr(e.__cause__, "errno", None) not in _ENDS:
                    self._decoder.container.close()
                    raise
                video = None
            if video is None:
                self._over = last
                break
            last = video
            now = self._clock()
            waited = len(came) > 1 or now - came[0] > _UNSURE_NS
            came = [*came, now] if waited else [now]  # frames that had piled up tell nothing
        return (len(came) - 1) * 1e9 / (came[-1] - came[0]) if len(came) > 1 else None

    def __iter__(self) -> Iterator[Frame]:
        try:
            if self._over is not None:
                yield from self._checked(self._over)
            with self._reading():
                while self._over is None and (video := self._read()) is not None:
                    if self._closed:
                        return
                    yield from self._checked(video)
        finally:
            self._decoder.container.close()
        if not self._closed:
            raise SourceLost(f"{self._name} was ended by its sender after {self._count} frames")

    def _checked(self, video: VideoFrame) -> Iterator[Frame]:
        """Yield the frame that was read last, unless it is corrupt or stale, which is counted."""
        if video.is_corrupt:
            self.losses["corrupt"] += 1
        elif self._place[2]:
            self.losses["stale"] += 1
        else:
            yield self._frame(video)

    def _frame(self, video: VideoFrame) -> Frame:
        """Return the frame that was read last."""
        t_ns, arrival_ns, _ = self._place
        stamp = Stamp.STREAM if t_ns is not None else Stamp.ARRIVAL
        content, stream = self._decoder.content(video), self._info.stream
        return Frame(stream, content, self._count - 1, arrival_ns if t_ns is None else t_ns, stamp, self._clock())

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn FFmpeg's errors while the block reads into SourceLost."""
        try:
            yield
        except RtfuseError:  # some of them are an OSError, too
            raise
        except (av.error.FFmpegError, OSError) as e:
            if not self._closed:
                why = "its sender has ended the connection" if e.errno in _ENDS else in_words(e, self._info.uri)
                if isinstance(e, av.error.ExitError):
                    why = f"no data for {self._read_timeout_s:g} s"
                raise SourceLost(f"{self._name} stopped after {self._count} frames: {why}") from e

    def close(self) -> None:
        """End the iteration at the next frame, or when the read times out."""
        self._closed = True


@dataclass(frozen=True, slots=True)
class _Opening:
    """Open a stream and decode its first frame."""

    name: str
    uri: str
    stream: Stream
    transport: str
    limits_s: tuple[float, float]
    picture: PictureOptions | None

    def __call__(self, form: str | None) -> Decoder:
        """Return the decoder of the stream, as FFmpeg's format `form`. Raises DeviceUnavailable."""
        began_s = time.monotonic()
        try:
            container = av.open(self.uri, options=self._options(), timeout=self.limits_s, format=form)
        except (av.error.FFmpegError, OSError, ValueError) as e:
            raise self._error("cannot be opened", e, began_s, self.limits_s[0]) from e
        if container.format.name == "image2":  # by the suffix of the address: a file whose size is known, at 25 Hz
            container.close()
            suffix = PurePosixPath(urlsplit(self.uri).path).suffix.lower()
            return self(f"{suffix[1:]}_pipe" if suffix in (".png", ".bmp", ".webp") else "mjpeg")
        multipart = container.format.name == "mpjpeg"
        try:
            return self._first(container)
        except DeviceUnavailable:
            if not multipart:
                raise
        return self("mjpeg")  # some cameras forget the boundary behind a picture: look for the pictures themselves

    def _first(self, container: InputContainer) -> Decoder:
        began_s, nothing = time.monotonic(), DeviceUnavailable(f"{self.name} carries no readable video")
        try:
            return first_frame(container, self.stream, nothing, live=True, picture=self.picture)
        except RtfuseError:  # some of them are an OSError, too
            raise
        except (av.error.FFmpegError, OSError) as e:
            container.close()
            raise self._error("was opened, but gives no picture", e, began_s, self.limits_s[1]) from e

    def _error(self, what: str, e: Exception, began_s: float, limit_s: float) -> DeviceUnavailable:
        return unavailable(f"{self.name} {what}", self.uri, e, took_s=time.monotonic() - began_s, limit_s=limit_s)

    def _options(self) -> dict[str, str]:
        scheme = self.uri.partition(":")[0].lower()
        if scheme.startswith("rtsp"):
            return _LOW_LATENCY | _RTSP | {"rtsp_transport": self.transport}
        return _LOW_LATENCY | (_HTTP if scheme.startswith("http") else {})


class _Arrivals:
    """Date frames on the local clock as they are decoded, and detect those of a backlog."""

    def __init__(self, clock: Clock, *, timed: bool) -> None:
        self.map, self._clock, self._timed = ClockMap(), clock, timed
        self._last: tuple[int, int] | None = None
        self._start_ns = clock()

    def place(self, video: VideoFrame, base: Fraction | None) -> tuple[int | None, int, bool]:
        """Return the frame's capture time (None: unknown), its arrival, and True if it is stale."""
        arrival_ns = self._clock()
        if not self._timed or video.pts is None or base is None:
            return None, arrival_ns, False
        source_ns = to_ns(video.pts, base)
        t_ns = self.map(source_ns, arrival_ns)
        if not self.map.believed:
            return None, arrival_ns, False
        last, self._last = self._last, (source_ns, arrival_ns)
        catching_up = last is not None and 2 * (arrival_ns - last[1]) < source_ns - last[0]
        unsure = self.map.lowered_ns > _UNSURE_NS and arrival_ns - self._start_ns < _START_NS
        return t_ns, arrival_ns, catching_up and (unsure or arrival_ns - t_ns > _STALE_NS)
