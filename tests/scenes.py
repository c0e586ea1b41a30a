"""Footage made on the spot: small videos and images whose every pixel and time is known."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

from rtfuse.types import Frame, SourceInfo, Stamp


def picture(k, size_wh=(64, 48), channels=3):
    """A smooth picture that moves with `k` and encodes it in the mean of its top left corner."""
    w, h = size_wh
    x, y = np.meshgrid(np.arange(w), np.arange(h))
    image = (96 + 60 * np.sin((x + 2 * k) / 9) + 60 * np.cos(y / 7)).clip(0, 255).astype(np.uint8)
    return image if channels == 1 else np.stack([image, np.roll(image, 5, 1), 255 - image], -1)


def write_video(path, count, *, fps=30, size_wh=(64, 48), codec="mpeg4", pix_fmt="yuv420p", start_s=0.0, gray=False):
    """Write `count` frames of `picture`, one every 1/fps s from `start_s`, as a video file; returns its path."""
    rate = Fraction(fps).limit_denominator(1001)
    base = 1 / rate / 100 if codec == "libx264" else 1 / rate
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = base
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        for k in range(count):
            image = picture(k, size_wh, 1 if gray else 3)
            frame = VideoFrame.from_ndarray(image, format="gray" if gray else "rgb24")
            frame.pts = round((start_s * rate + k) / rate / base)
            frame.time_base = base
            frame.duration = round(1 / rate / base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return Path(path)


def video_times(path):
    """The time of every frame of a video, in exact seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * stream.time_base for frame in container.decode(stream)]


def make_frame(stream, k=0, *, t_ns=None, size_wh=(64, 48), stamp=Stamp.ARRIVAL):
    t_ns = k * 33_000_000 if t_ns is None else t_ns
    return Frame(stream, picture(k, size_wh, 1 if stream == "ir" else 3), k, t_ns, stamp, t_ns)


class ListSource:
    """A source that gives the frames it was given; `fail` is raised after them."""

    def __init__(self, stream, frames, *, live=False, rate_hz=30.0, fail=None):
        self.frames, self.fail, self.closed, self.losses = frames, fail, False, {}
        h, w = frames[0].shape_hw if frames else (48, 64)
        times = [f.t_ns for f in frames] or [0]
        period = round(1e9 / rate_hz)
        self.info = SourceInfo(
            uri=f"list:{stream}",
            stream=stream,
            size_wh=(w, h),
            dtype="uint8",
            live=live,
            rate_hz=rate_hz,
            frames=len(frames),
            start_ns=None if live else min(times),
            end_ns=None if live else max(times) + period,
        )

    def __iter__(self):
        for frame in self.frames:
            if self.closed:
                return
            yield frame
        if self.fail:
            raise self.fail

    def close(self):
        self.closed = True


def list_source(stream, count, *, period_ms=100 / 3, start_ms=0.0, stamp=Stamp.MEDIA, **kwargs):
    times = [round((start_ms + k * period_ms) * 1e6) for k in range(count)]
    frames = [make_frame(stream, k, t_ns=t, stamp=stamp) for k, t in enumerate(times)]
    return ListSource(stream, frames, rate_hz=1000 / period_ms, **kwargs)


class Memory:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.fused, self.closed = [], False

    def write(self, fused):
        self.fused.append(fused)

    def close(self):
        self.closed = True
