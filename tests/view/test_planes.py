"""Pipes and devices of `rtfuse view` get the planes that were received, and no way through RGB."""

from __future__ import annotations

import os
from itertools import pairwise

import cv2
import numpy as np
import pytest
from messages import header
from planes import difference, exact, smooth, source

from rtfuse.client.subscriber import Received
from rtfuse.picture import Coding, Picture
from rtfuse.view.camera import _encoded
from rtfuse.view.pipe import Pipe, _yuv
from rtfuse.view.viewer import Painter
from rtfuse.wire import images
from rtfuse.wire.message import Spot

LAYOUTS = ("yuv420p", "nv12", "yuv422p", "yuyv422", "gray")
W, H = 64, 48


@pytest.fixture
def no_rgb(monkeypatch):
    """Fail where RGB is asked for; returns a function that ends this."""
    monkeypatch.setattr(Picture, "rgb", property(lambda _: pytest.fail("RGB was computed")))
    return monkeypatch.undo


@pytest.fixture
def piped(tmp_path):
    """Write pictures as one format; returns the bytes."""

    def write(form, *shown):
        descriptor = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
        try:
            pipe = Pipe(form, descriptor, stopped=lambda: False)
            for picture in shown:
                pipe.show(picture)
        finally:
            os.close(descriptor)
        return (tmp_path / "out").read_bytes()

    return write


def fused(layout, coding=Coding(), size_wh=(W, H)):
    return source(layout, coding, size_wh).with_luma(smooth(3, size_wh[::-1]))


def frames(data, size_wh=(W, H)):
    """The frames of a y4m file of 4:2:0, as I420 in one row."""
    size, starts = size_wh[0] * size_wh[1] * 3 // 2, []
    at = data.index(b"FRAME\n")
    while at < len(data):
        assert data[at : at + 6] == b"FRAME\n"
        starts.append(at + 6)
        at += 6 + size
    assert at == len(data)
    return [np.frombuffer(data[start : start + size], np.uint8) for start in starts]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_y4m_has_the_planes(piped, no_rgb, layout, full):
    picture = fused(layout, Coding(full=full))
    (got,) = frames(piped("y4m", picture))
    assert np.array_equal(got, np.concatenate([plane.ravel() for plane in picture.i420()]))
    no_rgb()
    assert difference(got, _yuv(exact(picture)).ravel()) <= 1


def test_y4m_of_another_matrix_is_by_rgb(piped):
    picture = fused("yuv420p", Coding("bt709"))
    (got,) = frames(piped("y4m", picture))
    assert np.array_equal(got, _yuv(picture.rgb).ravel())


@pytest.mark.usefixtures("no_rgb")
def test_a_later_picture_of_another_size_is_scaled(piped):
    shown = [fused("yuv420p"), fused("nv12", size_wh=(2 * W, 2 * H)), fused("yuv420p")]
    for one, other in pairwise(frames(piped("y4m", *shown))):
        assert abs(float(one.mean()) - float(other.mean())) < 30


@pytest.mark.skipif(images.planar_encoder() is None, reason="needs simplejpeg")
@pytest.mark.usefixtures("no_rgb")
def test_mjpeg_is_made_of_planes(piped):
    picture = fused("yuv420p")
    got = cv2.imdecode(np.frombuffer(piped("mjpeg", picture), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert np.abs(got.astype(int) - picture.luma).mean() < 1


@pytest.mark.parametrize(("form", "bytesperline"), [("YUYV", 128), ("YUYV", 160), ("YU12", 64), ("YU12", 80)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_device_gets_the_planes(no_rgb, layout, form, bytesperline):
    picture = fused(layout)
    planar = np.frombuffer(_encoded(picture, form, bytesperline), np.uint8)
    no_rgb()
    by_rgb = np.frombuffer(_encoded(Picture.of_rgb(exact(picture)), form, bytesperline), np.uint8)
    assert planar.size == by_rgb.size
    off = np.abs(planar.astype(int) - by_rgb)
    assert off.max() <= (1 if form == "YU12" else 2)  # chroma of a YUYV device is that of two lines
    assert off.mean() < 0.5


def received(content, **changes):
    h, w = content.shape_hw if isinstance(content, Picture) else content.shape[:2]
    return Received(content, header((w, h), **changes), 0)


@pytest.mark.usefixtures("no_rgb")
def test_where_nothing_is_painted_the_planes_stay():
    picture, grey = fused("nv12"), smooth(0, (H, W))
    assert Painter(None, spots=True)(received(picture)) is picture
    assert Painter("iron", spots=False)(received(picture)) is picture
    assert Painter(None, spots=False)(received(grey, plane="ir")).planes[0] is grey


def test_painted_pictures_are_rgb():
    picture, spot = fused("nv12"), Spot(20, 20, 300.0)
    painted = Painter(None, spots=True)(received(picture, hot=spot, cold=spot))
    assert painted.layout == "rgb24"
    assert difference(painted.rgb, picture.rgb) > 50
    coloured = Painter("iron", spots=False)(received(picture, mode="ir"))
    assert np.array_equal(coloured.rgb, Painter("iron", spots=False)(received(picture.luma, plane="ir")).rgb)
