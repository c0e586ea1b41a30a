"""Open frame sources by their address: `open_source(uri, stream)`.

| uri                                              | source                                              |
|--------------------------------------------------|-----------------------------------------------------|
| `/dev/video0`, `/dev/v4l/by-id/…`                | a V4L2 camera                                       |
| `rtsp://…`, `http://…`, `udp://…`                | a network stream                                    |
| `http://…/snapshot.jpg`                          | the pictures of a camera, asked for one by one      |
| `clip.seq`, `clip.csq`                           | FLIR's thermal recordings                           |
| `clip.mp4`, any other file                       | a recording                                         |
| `clip.mkv?track=2`, `clip.mkv#2`                 | one of a recording's video tracks, from 1           |
| `/dev/stdin`, `<(command)`                       | a recording from a pipe, read once                  |
| `clips.ffconcat`                                 | several recordings, as FFmpeg's list names them     |
| `stills/`, `stills/*.png`, `%04d.png`, `one.png` | images: a folder, a pattern, or a single one        |
| `synthetic:`, `synthetic:?seed=3&ir_fps=9`       | the synthetic street scene                          |
"""

from __future__ import annotations

import time
from typing import Literal

from rtfuse.capture.paths import is_device, is_network
from rtfuse.capture.settings import CameraOptions, PictureOptions
from rtfuse.folders import expanded
from rtfuse.types import Clock, Source, Stream


def open_source(
    uri: str,
    stream: Stream,
    *,
    fps: float | None = None,
    camera: CameraOptions | None = None,
    picture: PictureOptions | None = None,
    timeout_s: float = 5.0,
    transport: Literal["tcp", "udp"] = "tcp",
    clock: Clock = time.monotonic_ns,
) -> Source:
    """Open the source that `uri` names, as the thermal (`ir`) or visible (`rgb`) stream.

    `fps`: the rate of stills and of recordings without times, or the rate to ask of a camera.
    `camera`: the mode to ask of a V4L2 camera.
    `picture`: how its pixels are to be read; for a source of images, and for thermal in false colours.
    `timeout_s`: a live source without a frame for so long is lost.
    `transport`: that of RTSP.
    `clock`: returns monotonic nanoseconds.
    Raises SourceNotFound, SourceUnreadable, DeviceUnavailable or ConfigError before any frame is read.
    """
    uri = expanded(uri)
    if uri.startswith("synthetic:"):
        from rtfuse.capture.synthetic import SyntheticScene, SyntheticSource

        return SyntheticSource(SyntheticScene.from_uri(uri), stream, clock=clock)
    if is_device(uri):
        from rtfuse.capture.v4l2 import V4l2Source

        return V4l2Source(
            uri, stream, rate_hz=fps, options=camera, picture=picture, stall_timeout_s=timeout_s, clock=clock
        )
    if is_network(uri):
        from rtfuse.capture.polling import open_network

        return open_network(
            uri, stream, fps=fps, timeout_s=timeout_s, transport=transport, picture=picture, clock=clock
        )
    from rtfuse.capture.stills import Stills, is_stills

    if is_stills(uri):
        return Stills(uri, stream, fps=fps, picture=picture, clock=clock)
    from rtfuse.capture.sequences import FlirSequence, is_sequence

    if is_sequence(uri):
        return FlirSequence(uri, stream, fps=fps, clock=clock)
    from rtfuse.capture.recordings import Recording

    return Recording(uri, stream, fps=fps, picture=picture, clock=clock)


def is_live(uri: str) -> bool:
    """Return True if `uri` names a camera or a network stream, which may be lost and come back."""
    return is_device(uri) or is_network(uri)
