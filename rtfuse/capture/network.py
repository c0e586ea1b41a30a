"""Read live network streams (RTSP, HTTP, UDP, …) with PyAV (FFmpeg)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import av
from av.video.frame import VideoFrame

from rtfuse.capture.clocks import ClockMap, ClockState
from rtfuse.capture.recordings import first_frame, reason
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.timing import to_ns
from rtfuse.errors import DeviceUnavailable, SourceLost, redact
from rtfuse.types import LABELS, Clock, Frame, SourceInfo, Stamp, Stream

_MS = 1_000_000
_LOW_LATENCY = {
    "fflags": "nobuffer+discardcorrupt",
    "flags": "low_delay",
    "analyzeduration": "500000",
    "max_delay": "100000",  # µs to wait for the packets of a UDP stream to come in order
}
_RTSP = {"analyzeduration": "200000"}  # its session description says the rest
_NO_TIMES = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe", "jpeg_pipe")
"""Formats without times; FFmpeg invents them from a nominal rate."""
_STALE_NS = 200 * _MS
"""A frame of a backlog that is older than this is decoded, but not returned."""
_START_NS, _UNSURE_NS = 2_000 * _MS, 5 * _MS
"""For the first seconds a backlog has an unknown age: frames that lower the envelope by more than this are stale."""
_RATES_HZ = (0.1, 1000.0)


class NetworkStream:
    """Read a live network stream; `t_ns` is its own time on the local clock (`Stamp.STREAM`), or that of arrival.

    `open_timeout_s`, `read_timeout_s`: the limits of every wait.
    `transport`: that of RTSP.
    `losses`: counts frames that are `corrupt`, or `stale`: they piled up during a pause of the network or this process,
    and are decoded but not returned.
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
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._clock, self._closed, self._read_timeout_s = clock, False, read_timeout_s
        self._name = f"{LABELS[stream]} stream {redact(uri)}"
        options = _LOW_LATENCY | (_RTSP | {"rtsp_transport": transport} if uri.lower().startswith("rtsp") else {})
        try:
            container = av.open(uri, options=options, timeout=(open_timeout_s, read_timeout_s))
        except (av.error.FFmpegError, OSError, ValueError) as e:
            raise DeviceUnavailable(f"{self._name} cannot be opened within {open_timeout_s:g} s: {reason(e)}") from e
        nothing = DeviceUnavailable(f"{self._name} carries no readable video")
        try:
            self._decoder = first_frame(
                container, stream, nothing, live=True, uncolour=picture.uncolour if picture else None
            )
        except (av.error.FFmpegError, OSError) as e:
            container.close()
            raise DeviceUnavailable(f"{self._name} was opened, but gives no picture: {reason(e)}") from e
        self._arrivals = _Arrivals(clock, timed=not set(container.format.name.split(",")) & set(_NO_TIMES))
        self._info = self._decoder.info(uri, live=True)
        if self._info.rate_hz is not None and not _RATES_HZ[0] <= self._info.rate_hz <= _RATES_HZ[1]:
            self._info = replace(self._info, rate_hz=None)
        assert self._decoder.first is not None
        self._arrivals.place(self._decoder.first, self._info.time_base)

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

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        try:
            for count, video in enumerate(self._decoder):
                if self._closed:
                    return
                if video is self._decoder.first:  # from before the stream was analysed
                    self.losses["stale"] += 1
                    continue
                t_ns, arrival_ns, stale = self._arrivals.place(video, self._info.time_base)
                if video.is_corrupt:
                    self.losses["corrupt"] += 1
                elif stale:
                    self.losses["stale"] += 1
                else:
                    image = self._decoder.image(video)
                    stamp = Stamp.STREAM if t_ns is not None else Stamp.ARRIVAL
                    yield Frame(
                        self._info.stream, image, count, arrival_ns if t_ns is None else t_ns, stamp, self._clock()
                    )
        except (av.error.FFmpegError, OSError) as e:
            if not self._closed:
                raise SourceLost(
                    f"{self._name} stopped after {count + 1} frames (no data for {self._read_timeout_s:g} s, "
                    f"or: {reason(e)})"
                ) from e
        finally:
            self._decoder.container.close()
        if not self._closed:
            raise SourceLost(f"{self._name} was ended by its sender after {count + 1} frames")

    def close(self) -> None:
        """End the iteration at the next frame, or when the read times out."""
        self._closed = True


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
