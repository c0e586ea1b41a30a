"""Encode and send pictures over one connection to a server or player, by FFmpeg's muxers."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from rtfuse.errors import ConfigError
from rtfuse.picture import MATRIX_TAGS, Coding, Picture, video_frame
from rtfuse.stream.settings import TIMEOUT_S, Streaming, format_of
from rtfuse.stream.stamps import klv, stamped

_BASE = Fraction(1, 90_000)
_HARDWARE = ("h264_nvenc", "h264_v4l2m2m")
_OPTIONS = {
    "libx264": {"preset": "superfast", "tune": "zerolatency", "forced-idr": "1"},
    "h264_nvenc": {"preset": "p1", "tune": "ull", "zerolatency": "1", "delay": "0", "forced-idr": "1"},
    "h264_v4l2m2m": {},
}
_MICROS = f"{TIMEOUT_S * 1e6:.0f}"
_MUXER = {
    # Without the limit, FFmpeg waits for a packet of every stream before it writes one.
    "mpegts": {"flush_packets": "1", "max_interleave_delta": "1"},
    "rtsp": {"rtsp_transport": "tcp", "timeout": _MICROS},
}


@cache
def works(encoder: str) -> bool:
    """Return True if this build of FFmpeg has the encoder, and the device of this machine encodes a picture."""
    try:
        context = av.CodecContext.create(encoder, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = 640, 480, "yuv420p"
        context.time_base, context.framerate = _BASE, Fraction(30)
        grey = np.full((720, 640), 128, np.uint8)
        return bool(context.encode(VideoFrame.from_ndarray(grey, format="yuv420p")) + context.encode(None))
    except (FFmpegError, ValueError, OSError):
        return False


def encoder_of(asked: str) -> str:
    """Return the encoder to use. Raises ConfigError for one that was named and does not work here."""
    if asked == "auto":
        return next((name for name in _HARDWARE if works(name)), "libx264")
    if not works(asked):
        raise ConfigError(f"stream.encoder: {asked} does not work on this machine; libx264 needs no hardware")
    return asked


def _with_options(uri: str) -> str:
    """Return an address with the options of its protocol, which PyAV passes on in no other way.

    They are the limit of TCP's waits, and for UDP seven packets of MPEG-TS in each datagram.
    """
    option = {"tcp": f"timeout={_MICROS}", "udp": "pkt_size=1316"}.get(uri.partition(":")[0])
    return uri if option is None else f"{uri}{'&' if '?' in uri else '?'}{option}"


class Session:
    """Send pictures until the connection breaks; the first picture opens it, and gives it its size and colours.

    Every unit of H.264 carries its capture time (`rtfuse.stream.stamps.stamped`), MPEG-TS also as KLV. RTSP's sender
    reports map the times of packets to capture times. Raises FFmpegError, OSError or ValueError.
    """

    def __init__(self, uri: str, settings: Streaming, encoder: str, rate_hz: float) -> None:
        self._uri, self._settings, self._encoder = uri, settings, encoder
        self._rate = Fraction(rate_hz).limit_denominator(1001)
        self._container: Any = None
        self._stream: Any = None
        self._data: Any = None
        self._coding = Coding()
        self._start_us, self._last, self._key = 0, -1, -1 << 60
        self._times: dict[int, int] = {}

    def send(self, picture: Picture, utc_us: int) -> None:
        """Encode a picture and send it at once."""
        if self._stream is None:
            self._open(picture, utc_us)
        size_wh = self._stream.width, self._stream.height
        if picture.shape_hw != size_wh[::-1]:
            picture = picture.resized(size_wh)
        frame, pts = self._frame(picture), max(self._last + 1, round((utc_us - self._start_us) * 0.09))
        frame.pts, frame.time_base, self._last = pts, _BASE, pts
        if key := pts - self._key >= self._settings.key_s * 90_000:
            self._key = pts
        frame.pict_type = PictureType.I if key else PictureType.NONE
        self._times[pts] = utc_us
        for packet in self._stream.encode(frame):  # of an earlier picture, if the encoder holds some
            self._mux(packet, self._times.pop(packet.pts))

    def _mux(self, packet: Any, utc_us: int) -> None:
        pts = packet.pts
        timed = self._packet(stamped(bytes(packet), utc_us), self._stream, pts)
        timed.is_keyframe = packet.is_keyframe
        if self._data is not None:
            self._container.mux(self._packet(klv(utc_us), self._data, pts))
        self._container.mux(timed)
        if self._data is not None:  # an empty packet, of which nothing is written, makes the muxer send those before
            self._container.mux(self._packet(b"", self._data, pts + 1))

    def _packet(self, content: bytes, stream: Any, pts: int) -> Packet[Any]:
        packet: Packet[Any] = Packet(content)
        packet.stream, packet.time_base, packet.pts, packet.dts = stream, _BASE, pts, pts
        return packet

    def _frame(self, picture: Picture) -> VideoFrame:
        """Return FFmpeg's frame: the picture's own planes where it has the coding of the stream, else by RGB."""
        planes = picture.i420(self._coding)
        if planes is not None:
            return video_frame("yuv420p", planes, self._coding)
        rgb = VideoFrame.from_ndarray(np.ascontiguousarray(picture.rgb), format="rgb24")
        spaces = {"bt601": Colorspace.ITU601, "bt709": Colorspace.ITU709, "bt2020": Colorspace.BT2020}
        scale = ColorRange.JPEG if self._coding.full else ColorRange.MPEG
        return rgb.reformat(format="yuv420p", dst_colorspace=spaces[self._coding.matrix], dst_color_range=scale)

    def _open(self, picture: Picture, utc_us: int) -> None:
        form, kbps = format_of(self._uri), self._settings.kbps
        options = dict(_MUXER[form])
        if form == "rtsp":  # so that the sender reports name capture times
            options["start_time_realtime"] = str(utc_us)
        if picture.layout not in ("rgb24", "gray"):
            self._coding = picture.coding
        self._container = av.open(
            _with_options(self._uri), "w", format=form, container_options=options, timeout=TIMEOUT_S
        )
        rates = {"b": f"{kbps}k", "maxrate": f"{kbps}k", "bufsize": f"{max(1, kbps // 5)}k", "g": "100000"}
        stream = self._container.add_stream(
            self._encoder, rate=self._rate, options=_OPTIONS[self._encoder] | rates | {"bf": "0"}
        )
        h, w = picture.shape_hw
        stream.width, stream.height, stream.pix_fmt = w - w % 2, h - h % 2, "yuv420p"
        stream.time_base = stream.codec_context.time_base = _BASE
        stream.codec_context.colorspace = MATRIX_TAGS[self._coding.matrix]
        stream.codec_context.color_range = ColorRange.JPEG if self._coding.full else ColorRange.MPEG
        stream.codec_context.thread_count = 1
        if form == "mpegts":
            self._data = self._container.add_data_stream("klv")
            self._data.time_base = _BASE
        self._container.start_encoding()
        self._stream, self._start_us = stream, utc_us

    def close(self) -> None:
        """End the connection. Raises what `send` raises."""
        if self._container is not None:
            self._container.close()
