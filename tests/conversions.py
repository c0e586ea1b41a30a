"""Every way of a frame from a YUV recording to an output, and the conversions and copies that are made on it."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import contextmanager
from fractions import Fraction

import av
import pytest
from live import wait_until
from scenes import picture

from rtfuse import Subscriber
from rtfuse import picture as module
from rtfuse.config import Config, Fuse, Playback, SourceSettings
from rtfuse.picture import MATRIX_TAGS, Coding, Picture
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.record import video as writing
from rtfuse.record.video import open_writer
from rtfuse.view.camera import _encoded
from rtfuse.view.pipe import Pipe
from rtfuse.view.viewer import Painter
from rtfuse.wire import h264, images
from rtfuse.wire.h264 import H264Encoder
from rtfuse.wire.images import compress

FRAMES, SIZE_WH = 6, (64, 48)


def record(path, coding=Coding()):
    """Write RGB pictures as MPEG-4 in YUV of this coding; return the path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = *SIZE_WH, "yuv420p"
        stream.codec_context.colorspace = MATRIX_TAGS[coding.matrix]
        stream.codec_context.color_range = 1 + coding.full
        for k in range(FRAMES):
            given = av.VideoFrame.from_ndarray(picture(k, SIZE_WH), format="rgb24")
            space = {"bt601": 5, "bt709": 1}[coding.matrix]
            frame = given.reformat(format="yuv420p", dst_colorspace=space, dst_color_range=1 + coding.full)
            frame.pts, frame.time_base = k, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


class Video:
    """A sink that writes a file."""

    def __init__(self, path):
        self._writer = open_writer(path)

    def write(self, fused):
        self._writer.write(fused)

    def close(self):
        self._writer.close()


class Sent:
    """A publisher, and a subscriber, which every frame must reach; `show` gets what it received."""

    def __init__(self, folder, pixel_format="rgb24", encoding="raw", show=lambda _: None):
        self._show = show
        self._publisher = Publisher([Offer(f"ipc://{folder}/s", encoding, pixel_format=pixel_format)])
        self._subscriber = Subscriber(self._publisher.endpoint, latest=False)
        wait_until(lambda: (self._publisher.tick(), any(self._publisher.subscribers().values()))[1])

    def write(self, fused):
        self._publisher.write(fused)
        self._show(Painter(None, spots=True)(self._subscriber.recv(10)))

    def close(self):
        self._publisher.close()
        self._subscriber.close()


class Take:
    """A sink that calls a function with each frame."""

    def __init__(self, take):
        self._take = take

    def write(self, fused):
        self._take(fused)

    def close(self):
        pass


def y4m(folder):
    """A function that writes pictures into a y4m file."""
    return Pipe("y4m", os.open(folder / "y4m", os.O_WRONLY | os.O_CREAT), stopped=lambda: False).show


def sink_of(name, folder):
    encoder = H264Encoder()
    return {
        "video": lambda: Video(folder / "o.mp4"),
        "h264": lambda: Take(lambda fused: encoder(fused.picture, fused.pair.leader.t_ns / 1e9)),
        "jpeg": lambda: Take(lambda fused: compress(fused.picture, "jpeg", 90)),
        "jpeg by opencv": lambda: Take(lambda fused: compress(fused.picture, "jpeg", 90)),
        "h264 to y4m": lambda: Sent(folder, encoding="h264", show=y4m(folder)),
        "raw nv12 to a device": lambda: Sent(folder, "nv12", show=lambda shown: _encoded(shown, "YUYV", 0)),
        "raw yuv420p": lambda: Sent(folder, "yuv420p"),
        "raw nv12": lambda: Sent(folder, "nv12"),
        "raw rgb24": lambda: Sent(folder),
        "two of rgb": lambda: Take(lambda fused: (fused.image, fused.image, fused.picture.rgb)),
    }[name]()


def run(ir, rgb, fuser, sink):
    """Fuse two recordings into a sink."""
    config = Config(
        ir=SourceSettings(uri=ir),
        rgb=SourceSettings(uri=rgb),
        fuse=Fuse(fuser=fuser),
        playback=Playback(speed="max", loop=False),
    )
    Pipeline(open_rig(config), {"sink": sink}).run()
    sink.close()


@contextmanager
def counting():
    """Count the conversions and copies of colour pictures, of all threads, while the block runs."""
    counts = Counter()
    with pytest.MonkeyPatch.context() as patch:

        def count(where, name, key):
            before = getattr(where, name)

            def counted(*args, **kwargs):
                counts[key] += 1
                return before(*args, **kwargs)

            patch.setattr(where, name, counted)

        count(Picture, "_bright", "luma")
        count(Picture, "_converted", "rgb")
        count(module, "relit", "relit")
        count(module, "video_frame", "frame")
        for user in (writing, h264):
            patch.setattr(user, "video_frame", module.video_frame)
        yield counts


def conversions(name, fuser, folder):
    """Return the conversions of one frame on its way to an output, by kind."""
    files = [record(folder / f"{stream}.mp4") for stream in ("ir", "rgb")]
    with counting() as counts, pytest.MonkeyPatch.context() as patch:
        if name == "jpeg by opencv":
            patch.setattr(images, "planar_encoder", lambda: None)
        run(*files, fuser, sink_of(name, folder))
    return {key: counts[key] / FRAMES for key in ("luma", "rgb", "relit", "frame")}
