"""Conversions and copies of one frame on its way from a YUV recording to an output: a new one fails here."""

from __future__ import annotations

import os
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
from live import wait_until
from scenes import picture

from rtfuse import Subscriber
from rtfuse import picture as module
from rtfuse.config import Config, Fuse, Playback, SourceSettings
from rtfuse.picture import MATRIX_TAGS, Coding, Picture, plane_views, video_frame
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.record import video as writing
from rtfuse.record.video import open_writer
from rtfuse.view.camera import _encoded
from rtfuse.view.pipe import Pipe
from rtfuse.view.viewer import Painter
from rtfuse.wire import images
from rtfuse.wire.h264 import H264Encoder
from rtfuse.wire.images import compress

FRAMES, SIZE_WH = 6, (64, 48)
BUDGET = {
    # of one frame: luma from Y, RGB from YUV, luma put into RGB, planes copied for an encoder
    "video": {"luma": 1, "rgb": 0, "relit": 0, "frame": 1},
    "h264": {"luma": 1, "rgb": 0, "relit": 0, "frame": 1},
    "jpeg": {"luma": 1, "rgb": 0, "relit": 0, "frame": 0},
    "jpeg by opencv": {"luma": 1, "rgb": 1, "relit": 1, "frame": 1},  # FFmpeg converts a copy of the planes
    "h264 to y4m": {"luma": 1, "rgb": 0, "relit": 0, "frame": 1},  # encoded, received, piped
    "raw nv12 to a device": {"luma": 1, "rgb": 0, "relit": 0, "frame": 0},
    "raw yuv420p": {"luma": 1, "rgb": 0, "relit": 0, "frame": 0},
    "raw nv12": {"luma": 1, "rgb": 0, "relit": 0, "frame": 0},
    "raw rgb24": {"luma": 1, "rgb": 1, "relit": 1, "frame": 1},
    "two of rgb": {"luma": 1, "rgb": 1, "relit": 1, "frame": 1},
}


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
    def __init__(self, path):
        self._writer = open_writer(path)

    def write(self, fused):
        self._writer.write(fused)

    def close(self):
        self._writer.close()


class Sent:
    """A publisher, and a subscriber, which every frame must reach; `show` gets what it received."""

    def __init__(self, tmp_path, pixel_format="rgb24", encoding="raw", show=lambda _: None):
        self._show = show
        self._publisher = Publisher([Offer(f"ipc://{tmp_path}/s", encoding, pixel_format=pixel_format)])
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


def y4m(tmp_path):
    """A function that writes pictures into a y4m file."""
    return Pipe("y4m", os.open(tmp_path / "y4m", os.O_WRONLY | os.O_CREAT), stopped=lambda: False).show


def sink_of(name, tmp_path):
    encoder = H264Encoder()
    return {
        "video": lambda: Video(tmp_path / "o.mp4"),
        "h264": lambda: Take(lambda fused: encoder(fused.picture, fused.pair.leader.t_ns / 1e9)),
        "jpeg": lambda: Take(lambda fused: compress(fused.picture, "jpeg", 90)),
        "jpeg by opencv": lambda: Take(lambda fused: compress(fused.picture, "jpeg", 90)),
        "h264 to y4m": lambda: Sent(tmp_path, encoding="h264", show=y4m(tmp_path)),
        "raw nv12 to a device": lambda: Sent(tmp_path, "nv12", show=lambda shown: _encoded(shown, "YUYV", 0)),
        "raw yuv420p": lambda: Sent(tmp_path, "yuv420p"),
        "raw nv12": lambda: Sent(tmp_path, "nv12"),
        "raw rgb24": lambda: Sent(tmp_path),
        "two of rgb": lambda: Take(lambda fused: (fused.image, fused.image, fused.picture.rgb)),
    }[name]()


def run(ir, rgb, fuser, sink):
    config = Config(
        ir=SourceSettings(uri=ir),
        rgb=SourceSettings(uri=rgb),
        fuse=Fuse(fuser=fuser),
        playback=Playback(speed="max", loop=False),
    )
    Pipeline(open_rig(config), {"sink": sink}).run()
    sink.close()


@pytest.fixture
def counted(monkeypatch):
    """Count what is computed of colour pictures, of all threads."""
    counts = Counter()

    def count(where, name, key):
        before = getattr(where, name)

        def counting(*args, **kwargs):
            counts[key] += 1
            return before(*args, **kwargs)

        monkeypatch.setattr(where, name, counting)

    count(Picture, "_bright", "luma")
    count(Picture, "_converted", "rgb")
    count(module, "relit", "relit")
    count(module, "video_frame", "frame")
    for user in (writing, __import__("rtfuse.wire.h264", fromlist=["video_frame"])):
        monkeypatch.setattr(user, "video_frame", module.video_frame)
    return counts


@pytest.mark.parametrize("name", BUDGET)
@pytest.mark.parametrize("fuser", ["student", "pyramid"])
def test_a_frame_costs_no_more_conversions_than_it_needs(counted, monkeypatch, tmp_path, fuser, name):
    if name == "jpeg" and images.planar_encoder() is None:
        pytest.skip("needs simplejpeg")
    if name == "jpeg by opencv":
        monkeypatch.setattr(images, "planar_encoder", lambda: None)
    files = [record(tmp_path / f"{stream}.mp4") for stream in ("ir", "rgb")]
    run(*files, fuser, sink_of(name, tmp_path))
    assert {key: counted[key] / FRAMES for key in BUDGET[name]} == BUDGET[name]


@pytest.mark.parametrize("coding", [Coding(), Coding("bt709"), Coding(full=True)])
def test_a_fused_file_has_the_chroma_and_the_tags_of_its_source(tmp_path, coding):
    ir, rgb = record(tmp_path / "ir.mp4"), record(tmp_path / "rgb.mp4", coding)
    run(ir, rgb, "pyramid", Video(tmp_path / "o.mp4"))
    with av.open(rgb) as source, av.open(str(tmp_path / "o.mp4")) as made:
        pairs = list(zip(source.decode(video=0), made.decode(video=0), strict=True))
    assert len(pairs) == FRAMES
    for before, after in pairs:
        assert after.colorspace == MATRIX_TAGS[coding.matrix]
        assert after.color_range == 1 + coding.full
        for a, b in zip(plane_views(before)[1:], plane_views(after)[1:], strict=True):
            assert np.abs(a.astype(int) - b).mean() < 3


def test_encoders_get_views_of_the_decoders_planes():
    planes = [np.full(hw, 90 + k, np.uint8) for k, hw in enumerate([(48, 64), (24, 32), (24, 32)])]
    source = Picture("yuv420p", planes)
    _, u, v = source.with_luma(source.luma).i420()
    assert u is planes[1]
    assert v is planes[2]
    for copied, plane in zip(plane_views(video_frame("yuv420p", planes)), planes, strict=True):
        assert np.array_equal(copied, plane)
