"""Write frames into a pipe, for players and tools that read video from their standard input."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.types import Image, Picture
from rtfuse.wire.images import compress

FORMATS = ("y4m", "raw", "mjpeg")
_CHUNK = select.PIPE_BUF
_POLL_S = 0.1
_JPEG_QUALITY = 95


class Pipe:
    """Write pictures to a file descriptor that another program reads.

    `y4m` (YUV4MPEG2: 4:2:0, or 4:4:4 where a side is odd; BT.601, limited range; `rate_hz` is what its header says),
    `raw` (bytes R, G, B, without a header) or `mjpeg` (JPEG files one after the other). All pictures
    have the size of the first. It waits for a slow reader, but no longer than until `stopped`. Raises ConfigError for
    another format, or if the descriptor is a terminal.
    """

    def __init__(self, form: str, descriptor: int, *, stopped: Callable[[], bool], rate_hz: float = 30.0) -> None:
        if form not in FORMATS:
            raise ConfigError(f"--pipe {form}: want one of {', '.join(FORMATS)}")
        if os.isatty(descriptor):
            raise ConfigError(f"--pipe {form} writes video to standard output: pipe it, for example | ffplay -")
        self.open = True
        self._form, self._descriptor, self._stopped = form, descriptor, stopped
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._rate = Fraction(rate_hz).limit_denominator(1001)
        self._shape_hw: tuple[int, int] | None = None

    def show(self, picture: Picture) -> None:
        """Write a picture; `open` is False once the reader has gone. Raises OutputUnwritable if the disk is full."""
        if self._shape_hw is None:
            self._shape_hw = picture.shape_hw
            if self._form == "y4m":
                self._write(self._header(*picture.shape_hw))
        if picture.shape_hw != self._shape_hw:
            picture = picture.resized(self._shape_hw[::-1])
        self._write(self._encoded(picture))

    def _header(self, h: int, w: int) -> bytes:
        colour = "420jpeg" if h % 2 == w % 2 == 0 else "444"
        rate = f"{self._rate.numerator}:{self._rate.denominator}"
        return f"YUV4MPEG2 W{w} H{h} F{rate} Ip A1:1 C{colour} XCOLORRANGE=LIMITED\n".encode()

    def _encoded(self, picture: Picture) -> bytes | memoryview:
        if self._form == "raw":
            return np.ascontiguousarray(picture.rgb).data.cast("B")
        if self._form == "mjpeg":
            return compress(picture, "jpeg", _JPEG_QUALITY).data.cast("B")
        planes = picture.i420() or (_yuv(picture.rgb),)
        return b"".join([b"FRAME\n", *(np.ascontiguousarray(plane).data for plane in planes)])

    def _write(self, data: bytes | memoryview) -> None:
        """Write all bytes, in pieces that fit into a pipe with any room, so that no write blocks."""
        left = memoryview(data)
        try:
            while left and self.open:
                if not self._is_file and not select.select([], [self._descriptor], [], _POLL_S)[1]:
                    self.open = not self._stopped()
                    continue
                left = left[os.write(self._descriptor, left[:_CHUNK]) :]
        except (BrokenPipeError, ConnectionResetError):
            self.open = False
        except OSError as e:
            raise OutputUnwritable(f"standard output cannot be written: {e.strerror or e}") from e


def _yuv(image: Image) -> Image:
    """Return the planes Y, U and V of an RGB picture, one after the other; BT.601, limited range."""
    from av.video.frame import VideoFrame
    from av.video.reformatter import ColorRange, Colorspace

    h, w = image.shape[:2]
    form = "yuv420p" if h % 2 == w % 2 == 0 else "yuv444p"
    frame = VideoFrame.from_ndarray(image, format="rgb24")
    return frame.reformat(format=form, dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG).to_ndarray()
