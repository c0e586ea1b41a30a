"""Raw YUV 4:2:0 on the wire: planes as they came, or as RGB gives them, whatever the layout and the size."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
from messages import header, rebuilt
from planes import difference, smooth, source
from scenes import picture

from rtfuse.errors import WireError
from rtfuse.picture import Coding, Picture
from rtfuse.wire.h264 import H264Decoder
from rtfuse.wire.message import decode, encode, split

W, H = 64, 48
FORMATS = ("yuv420p", "nv12")
CODINGS = [Coding(), Coding(full=True), Coding("bt709"), Coding("bt2020", full=True)]


def sent(shown, pixel_format):
    """Return the picture as a receiver gets it."""
    h, w = shown.shape_hw
    _, head, got = decode(encode("fused", header((w, h), pixel_format=pixel_format), shown))
    assert isinstance(got, Picture)
    assert (head.width, head.height, got.layout, got.shape_hw) == (w, h, pixel_format, (h, w))
    assert (head.matrix, head.full_range) == got.coding
    return got


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", ["yuv420p", "nv12", "yuv422p", "yuv444p", "yuyv422", "uyvy422", "gray"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_picture_arrives_in_its_own_coding(layout, coding, pixel_format, fused):
    given = source(layout, coding)
    shown = given.with_luma(smooth(3, (H, W))) if fused else given
    got = sent(shown, pixel_format)
    assert got.coding == given.coding
    assert difference(got.luma, shown.luma) <= 1
    for there, plane in zip(got.i420(coding), shown.i420(coding), strict=True):
        assert np.array_equal(there, plane)
    if layout == pixel_format and not fused:
        assert difference(got.rgb, shown.rgb) == 0
    # FFmpeg's own ways from yuv420p and from nv12 to RGB differ by 3; chroma of 4:2:2 and 4:4:4 is halved.
    assert difference(got.rgb, shown.rgb) <= (3 if layout in FORMATS else 6)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("size_wh", [(W, H), (W - 1, H), (W, H - 1), (W - 1, H - 1), (1, 1), (1, 2), (2, 1), (3, 5)])
@pytest.mark.parametrize("layout", ["rgb24", "yuv420p", "nv12", "gray"])
def test_every_size_arrives(layout, size_wh, pixel_format):
    given = source(layout, Coding(full=layout == "gray"), size_wh)
    got = sent(given, pixel_format)
    assert difference(got.luma, given.luma) <= 3
    assert got.rgb.shape == given.rgb.shape
    assert np.abs(got.rgb.astype(int) - given.rgb).mean() < 4


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_rgb_is_sent_as_bt601_of_limited_range(pixel_format):
    given = Picture.of_rgb(picture(3, (W, H)))
    got = sent(given, pixel_format)
    assert got.coding == Coding()
    y, u, v = got.i420()
    assert np.array_equal(np.concatenate([plane.ravel() for plane in (y, u, v)]), i420(given.rgb))


def i420(rgb):
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).ravel()


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_planes_are_read_only_views_of_the_message(pixel_format):
    data = bytearray(encode("fused", header((W, H), pixel_format=pixel_format), source("yuv420p")))
    got = decode(data)[2]
    data[-1] ^= 0xFF
    assert got.planes[-1][-1, -1] == data[-1]
    assert not any(plane.flags.writeable for plane in got.planes)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("layout", FORMATS)
def test_the_message_is_the_only_array_that_is_made(layout, pixel_format):
    given = source(layout, size_wh=(320, 240))
    shown = given.with_luma(smooth(3, (240, 320)))
    head = header((320, 240), pixel_format=pixel_format)
    encode("fused", head, shown)  # the tables are computed once
    tracemalloc.start()
    data = encode("fused", head, shown)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) < peak < len(data) + 8_000


def test_the_bytes_are_the_documented_ones():
    """Taken apart by hand, with nothing of the decoder."""
    given = source("yuv420p", size_wh=(6, 4))
    y, u, v = (plane.ravel().tolist() for plane in given.planes)
    planar, both = (bytes(encode("t", header((6, 4), pixel_format=name), given))[-36:] for name in FORMATS)
    assert list(planar) == [*y, *u, *v]
    assert (list(both[:24]), list(both[24::2]), list(both[25::2])) == (y, u, v)
    odd = sent(Picture.of_rgb(picture(0, (5, 3))), "yuv420p")
    assert [plane.shape for plane in odd.planes] == [(3, 5), (2, 3), (2, 3)]
    assert len(split(encode("t", header((5, 3), pixel_format="nv12"), odd))[2]) == 15 + 2 * 6


YUV = {"pixel_format": "yuv420p", "matrix": "bt601", "full_range": False}
"""Fields of a header whose payload is 72 bytes: 8 x 6 pixels."""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"matrix": None}, "yuv420p must be raw, with matrix and full_range"),
        ({"full_range": None}, "yuv420p must be raw, with matrix and full_range"),
        ({"matrix": "bt470"}, "matrix"),
        ({"full_range": 1}, "full_range"),
        ({"encoding": "jpeg"}, "yuv420p must be raw"),
        ({"encoding": "h264", "pixel_format": "nv12"}, "nv12 must be raw"),
        ({"width": 10}, "payload of 72 bytes; 10x6 yuv420p has 90"),
        ({"width": 7}, "payload of 72 bytes; 7x6 yuv420p has 66"),
        ({"width": 16384, "height": 16384}, "at most"),
    ],
)
def test_headers_that_lie_about_yuv_are_refused(changes, words):
    assert decode(rebuilt(width=8, height=6, **YUV))[2].shape_hw == (6, 8)
    with pytest.raises(WireError, match=words):
        decode(rebuilt(**({"width": 8, "height": 6} | YUV | changes)))


def test_an_h264_decoder_refuses_yuv_as_pixel_format():
    with pytest.raises(WireError, match="h264 has no nv12"):
        H264Decoder()(header(encoding="h264", pixel_format="nv12"), memoryview(b"\0\0\1\x65"))


@pytest.mark.parametrize(
    ("head", "image"),
    [
        (header((W, H)), source("nv12")),
        (header((W, H), "jpeg", pixel_format="nv12"), source("nv12")),
        (header((W, H + 2), pixel_format="nv12"), source("nv12")),
        (header((W, H), pixel_format="nv12"), picture(0, (W, H))),
    ],
)
def test_a_picture_that_does_not_fit_its_header_is_refused(head, image):
    with pytest.raises(ValueError, match="header says"):
        encode("t", head, image)
