"""Recordings of numbered frames with any times, in any container; the numbers are read back from the fused pictures."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame

SIZE_WH = (128, 64)
_BITS, _CELL = 12, 8
BASE = Fraction(1, 90_000)


def numbered(k, *, gray=False, size_wh=SIZE_WH, deep=False):
    """A picture that carries its number in a strip: a bright and a dark cell, then twelve bits."""
    w, h = size_wh
    y, x = np.mgrid[0:h, 0:w]
    grey = (90 + 40 * np.sin(x / 9) + 30 * np.cos(y / 7)).astype(np.uint8)
    image = grey if gray else np.stack([grey, 255 - grey, grey // 2], -1)
    for cell, on in enumerate([True, False, *(k >> bit & 1 for bit in range(_BITS))]):
        image[8 : 8 + 2 * _CELL, 8 + _CELL * cell : 8 + _CELL * (cell + 1)] = 220 if on else 30
    return image.astype(np.uint16) * 16 + 7000 if deep else image


def number_in(image):
    """The number in the strip of a picture, (h, w) or (h, w, 3), of `SIZE_WH`."""
    grey = image if image.ndim == 2 else image.mean(axis=2)
    cells = [grey[10 : 6 + 2 * _CELL, 10 + _CELL * cell : 6 + _CELL * (cell + 1)].mean() for cell in range(2 + _BITS)]
    limit = (cells[0] + cells[1]) / 2
    return sum((value > limit) << bit for bit, value in enumerate(cells[2:]))


def pairs_in(path):
    """The (thermal, RGB) numbers of each frame of a side-by-side output, and the frames' times in seconds."""
    pairs, times = [], []
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        for frame in container.decode(video):
            image = frame.to_ndarray(format="rgb24")
            w = image.shape[1] // 3
            pairs.append((number_in(image[:, :w]), number_in(image[:, w : 2 * w])))
            times.append(float(frame.pts * video.time_base))
    return pairs, times


def write(
    path,
    numbers,
    times,
    *,
    gray=False,
    deep=False,
    codec="libx264",
    pix_fmt="yuv420p",
    rate=30,
    b_frames=0,
    start_s=0.0,
    last_s=None,
    titles=(),
    more=(),
    metadata=None,
    form=None,
    mux=None,
    muxed=None,
    base=None,
    options=None,
):
    """Write frames with these numbers at these times (s) as a video; returns its path.

    `last_s`: duration of the last frame. `titles`: of the tracks; `more`: options (`gray`) of further ones. `metadata`:
    of the file. `form`, `mux`: FFmpeg's format and its options. `muxed`: changes every packet before it is written.
    `base`: the unit of the times in s. `options`: of the encoder.
    """
    tracks, given = [{"gray": gray}, *more], options or {}
    with av.open(str(path), "w", format=form, options=mux or {}) as container:
        container.metadata.update(metadata or {})
        streams = []
        for k, track in enumerate(tracks):
            options = {"preset": "ultrafast", "crf": "12", "bf": str(b_frames)} if codec == "libx264" else {}
            if codec == "mpeg4" and b_frames:
                options = {"bf": str(b_frames)}
            options |= given
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height = track.get("size_wh", SIZE_WH)
            stream.pix_fmt = pix_fmt
            stream.time_base = stream.codec_context.time_base = base or (
                1 / Fraction(rate) if codec.startswith("mpeg") else BASE
            )
            if codec in ("mpeg4", "mpeg2video"):
                stream.bit_rate = 4_000_000
            if titles:
                stream.metadata["title"] = titles[k]
            streams.append(stream)
        for n, t in zip(numbers, times, strict=True):
            for stream, track in zip(streams, tracks, strict=True):
                image = numbered(n, gray=track.get("gray", False), deep=deep, size_wh=track.get("size_wh", SIZE_WH))
                form_of = "rgb24" if image.ndim == 3 else "gray16le" if deep else "gray"
                frame, base = VideoFrame.from_ndarray(image, format=form_of), stream.codec_context.time_base
                frame.pts, frame.time_base = round((t + start_s) / base), base
                _put(container, stream.encode(frame), muxed)
        for stream in streams:
            packets = stream.encode(None)
            if last_s is not None and packets:
                packets[-1].duration = round(last_s / packets[-1].time_base)
            _put(container, packets, muxed)
    return Path(path)


def _put(container, packets, muxed):
    for packet in packets:
        if muxed is not None:
            muxed(packet)
        container.mux(packet)


def steady(count, *, rate=30, start_s=0.0):
    """Times of `count` frames, in seconds."""
    return [start_s + k / rate for k in range(count)]
