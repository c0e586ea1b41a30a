"""Read a recording's packets, some of them ahead, and find each frame's recorded time and the usual step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rtfuse.capture.times import period_of

_NS = 1_000_000_000
_AHEAD, _AHEAD_BYTES = 256, 32_000_000
"""The most packets that are read ahead, and the most bytes of them."""
_NO_TIMES = 0x0080
"""FFmpeg's flag of a format without times (AVFMT_NOTIMESTAMPS)."""
_TS_BASE, _TS_BITS = Fraction(1, 90_000), 33
"""Ticks and bits of the clock of MPEG's streams, which overflows after 26.5 hours."""
_CHUNK = 8
"""Bytes of the name and the size before an AVI file's packet."""
_DEFAULT_HZ = 25.0
_AGREE = 0.02
"""Relative difference up to which the container's nominal rate is that of the times."""


def to_ns(ticks: int, base: Fraction) -> int:
    """Return a time in ticks of `base` seconds in nanoseconds."""
    return ticks * base.numerator * _NS // base.denominator


class Packets:
    """Iterate over the packets of one track; the first of them are read at once (`ahead`) unless the source is live.

    `cut_short`: True once reading has ended with an error.
    """

    def __init__(self, container: InputContainer, video: VideoStream, *, live: bool) -> None:
        self.cut_short = False
        self._demux = partial(container.demux, video)
        self._source, self._live = self._demux(), live
        self.ahead: list[Packet[Any]] = []
        self._failed: av.error.FFmpegError | None = None
        try:
            self._read_ahead(live=live)
        except av.error.FFmpegError as e:  # of a later file in a list: raised behind the packets before it
            self._failed = e

    def _read_ahead(self, *, live: bool) -> None:
        size = 0
        for packet in () if live else self._rest():
            self.ahead.append(packet)
            size += packet.size
            if len(self.ahead) == _AHEAD or size > _AHEAD_BYTES:
                break

    def __iter__(self) -> Iterator[Packet[Any] | None]:
        """Yield the packets; None last if reading failed, which makes a decoder give its last pictures."""
        ahead, self.ahead = self.ahead, []
        ahead.reverse()
        while ahead:
            yield ahead.pop()
        if self._failed is not None:
            raise self._failed
        yield from self._rest()
        if self.cut_short:
            yield None

    def _rest(self) -> Iterator[Packet[Any]]:
        while True:
            try:
                packet = next(self._source, None)
            except av.error.BlockingIOError:  # no packet in the next 64 kB of a transport stream
                if self._live:
                    raise
                self._source = self._demux()
                continue
            except (av.error.InvalidDataError, av.error.EOFError):
                self.cut_short = True
                return
            if packet is None:
                return
            yield packet


class MediaTimes:
    """Tell the recorded time of each frame, in the order of decoding.

    `period_ns`, `rate_hz`: the usual step and rate, from the times of the first packets and the file's index.
    `untimed`: the format stores no times; frame k is at k / `rate_hz`: `fps`, or the rate that the codec names, or 25.
    `wrap_ns`: the time after which the clock overflows; None: never.
    """

    def __init__(
        self, container: InputContainer, video: VideoStream, ahead: Sequence[Packet[Any]], fps: float | None = None
    ) -> None:
        self._base = video.time_base or Fraction(1, 1000)
        packets = [packet for packet in ahead if packet.size]
        without = all(packet.pts is None and packet.dts is None for packet in packets)
        self.untimed = without or bool(int(container.format.flags) & _NO_TIMES)
        # AVI stores the order of packets alone, so its frames are shown in the order of the packets' places.
        avi = container.format.name == "avi"
        self._places = Places(video, indexed=avi) if avi or all(packet.pts is None for packet in packets) else None
        self._count = -1
        named = video.guessed_rate or video.average_rate
        if self.untimed:
            self.rate_hz = float(fps or named or _DEFAULT_HZ)
        else:
            self.rate_hz = _rate(video, packets, self._base) or _DEFAULT_HZ
        self.assumed = self.untimed and fps is None
        self.period_ns = round(_NS / self.rate_hz)
        if self._places is not None:
            self._places.step = round(Fraction(self.period_ns, _NS) / self._base)
        self.wrap_ns = to_ns(1 << _TS_BITS, self._base) if self._base == _TS_BASE else None

    def sent(self, packet: Packet[Any]) -> None:
        """Note a packet that is decoded now."""
        if self._places is not None:
            self._places.sent(packet)

    def of(self, frame: VideoFrame) -> int | None:
        """Return the recorded time of the next frame in nanoseconds; None if it has none."""
        self._count += 1
        if self.untimed:
            return round(self._count * _NS / self.rate_hz)
        ticks = frame.pts if self._places is None else self._places.of(frame)
        return None if ticks is None else to_ns(ticks, self._base)

    @property
    def lost(self) -> int:
        """The number of packets that the file's index names and that reading did not find."""
        return 0 if self._places is None else self._places.lost


class Places:
    """Tell the time of each frame of a file whose packets have places in its order, and no times of showing: AVI.

    Places may be empty. An encoder that reorders gives its packets the times of the frames in the order of showing,
    later by its delay, so a frame has the place of the packet with which it leaves the decoder, less the delay.
    `indexed`: the file's index names the packets' places, which stay right where damage hides packets.
    `step`: the usual step in ticks.
    """

    def __init__(self, video: VideoStream, *, indexed: bool) -> None:
        self._video = video
        self._index = {entry.pos + _CHUNK: entry.timestamp for entry in video.index_entries} if indexed else {}
        self.step, self._found, self._ended = 1, 0, False
        self._first: int | None = None
        self._delay: int | None = None
        self._last: int | None = None

    def sent(self, packet: Packet[Any]) -> None:
        """Give a packet its place, before it is decoded."""
        self._ended = not packet.size
        place = self._index.get(packet.pos or 0)
        if packet.size and place is not None:
            packet.dts = place
            self._found += 1
        if self._first is None:
            self._first = packet.dts

    def of(self, frame: VideoFrame) -> int | None:
        """Return the time of the next frame, in ticks; None without one."""
        place = frame.dts
        if place is None:  # the last frames come when there are no packets any more
            self._last = self._last + self.step if self._ended and self._last is not None else None
            return self._last
        if self._delay is None:
            delayed = self._first is not None and self._video.codec_context.has_b_frames
            self._delay = place - (self._first or 0) if delayed else 0
        self._last = place - self._delay
        return self._last

    @property
    def lost(self) -> int:
        """The number of packets in the index that were not found."""
        return len(self._index) - self._found


def _rate(video: VideoStream, packets: Sequence[Packet[Any]], base: Fraction) -> float | None:
    """Return the rate of the times in Hz: the container's own number where it agrees with them; None if unknown."""
    nominal = video.average_rate or video.guessed_rate
    ticks = [packet.pts if packet.dts is None else packet.dts for packet in packets]
    runs = _rising([t for t in ticks if t is not None])
    index = video.index_entries
    if len(index) > 2 * len(packets):  # look at the rest of the file, too, where it costs nothing
        for part in range(1, 4):
            at = len(index) * part // 4
            runs += _rising([index[k].timestamp for k in range(at, min(at + _AHEAD, len(index)))])
    step = period_of(runs)
    if not step:
        return float(nominal) if nominal else None
    rate = float(1 / (step * base))
    return float(nominal) if nominal and abs(float(nominal) - rate) <= _AGREE * rate else rate


def _rising(ticks: Sequence[int]) -> list[list[int]]:
    """Split times, in the order of decoding, wherever they do not rise."""
    runs: list[list[int]] = []
    for t in ticks:
        if runs and t > runs[-1][-1]:
            runs[-1].append(t)
        else:
            runs.append([t])
    return runs
