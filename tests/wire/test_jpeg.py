"""JPEG from planes: the same picture as by way of RGB, without RGB."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from planes import difference, exact, smooth, source

from rtfuse.picture import Coding, Picture
from rtfuse.wire import images

W, H = 64, 48
YUV = ("yuv420p", "nv12", "yuv422p", "yuv444p", "yuyv422", "uyvy422", "gray")
planar = pytest.mark.skipif(images.planar_encoder() is None, reason="needs simplejpeg")


@pytest.fixture
def absent(monkeypatch):
    """Without simplejpeg."""
    monkeypatch.setattr(images, "planar_encoder", lambda: None)


def shown(layout, coding=Coding(), size_wh=(W, H)):
    """A picture whose luma was exchanged."""
    return source(layout, coding, size_wh).with_luma(smooth(3, size_wh[::-1]))


def decoded(data):
    return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)


@planar
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", YUV)
def test_planes_become_the_jpeg_of_their_rgb(layout, full, monkeypatch):
    picture = shown(layout, Coding(full=full))
    monkeypatch.setattr(Picture, "rgb", property(lambda _: pytest.fail("RGB was computed")))
    data = images.compress(picture, "jpeg", 100)
    monkeypatch.undo()
    assert images.jpeg_size(memoryview(data.tobytes())) == (W, H)
    by_rgb = images.compress(exact(picture), "jpeg", 100)
    assert np.abs(decoded(data).astype(int) - decoded(by_rgb)).mean() < 0.6
    assert difference(decoded(data), decoded(by_rgb)) <= 3


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", ["yuv420p", "nv12"])
def test_planes_are_within_one_level_of_those_that_rgb_gives(layout, full):
    picture = shown(layout, Coding(full=full))
    rgb = exact(picture)
    y, cr, cb = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    planes = picture.i420(Coding(full=True))
    halved = (cv2.resize(x, (W // 2, H // 2), interpolation=cv2.INTER_AREA) for x in (cb, cr))
    for plane, way in zip(planes, (y, *halved), strict=True):
        assert difference(plane, way) <= 1


@pytest.mark.parametrize(
    "picture",
    [shown("rgb24"), shown("yuv420p", Coding("bt709")), shown("yuv420p", size_wh=(63, 47))],
    ids=["rgb24", "bt709", "odd"],
)
def test_pictures_that_need_rgb_take_it(picture):
    assert np.array_equal(images.compress(picture, "jpeg", 90), images.compress(picture.rgb, "jpeg", 90))


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("layout", YUV)
def test_without_simplejpeg_rgb_is_encoded(layout):
    picture = shown(layout)
    assert np.array_equal(images.compress(picture, "jpeg", 90), images.compress(picture.rgb, "jpeg", 90))


def test_png_has_the_rgb_of_a_picture():
    picture = shown("yuv420p")
    assert np.array_equal(decoded(images.compress(picture, "png", 0)), picture.rgb)
