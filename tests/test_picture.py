"""Colour pictures: the RGB, luma and planes of each layout, and luma exchanged without touching chroma."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from rtfuse.picture import MATRIX_TAGS, Coding, Picture, luma_of, plane_views, relit, video_frame

H, W = 48, 64
LAYOUTS = ("yuv420p", "yuv422p", "yuv444p", "nv12")
CODINGS = [Coding(), Coding(full=True), Coding("bt709"), Coding("bt2020")]


def scene():
    """A smooth picture with soft colours, none out of gamut when its luma is changed a little."""
    y, x = np.mgrid[0:H, 0:W]
    channels = 90 + 0.8 * x, 100 + 0.5 * y, 150 - 0.4 * x + 0.3 * y
    return np.stack(channels, -1).round().astype(np.uint8)


def decoded(layout, coding=Coding()):
    """A frame as a decoder gives it: of this layout, with the tags of its coding."""
    how = {"dst_colorspace": {"bt601": 5, "bt709": 1, "bt2020": 9}[coding.matrix], "dst_color_range": 1 + coding.full}
    frame = VideoFrame.from_ndarray(scene(), format="rgb24").reformat(format=layout, **how)
    frame.colorspace, frame.color_range = MATRIX_TAGS[coding.matrix], 1 + coding.full
    return frame


def picture(layout, coding=Coding()):
    if layout in ("yuyv422", "uyvy422"):
        frame = decoded("yuv422p", coding)
        y, u, v = plane_views(frame)
        packed, at = np.empty((H, 2 * W), np.uint8), int(layout == "uyvy422")
        packed[:, at::2], packed[:, 1 - at :: 4], packed[:, 3 - at :: 4] = y, u, v
        return Picture(layout, (packed,), coding)
    return Picture(layout, plane_views(decoded(layout, coding)), coding)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_rgb_is_that_of_ffmpeg(layout, coding):
    frame = decoded(layout, coding)
    want = VideoReformatter().reformat(frame, format="rgb24", threads=1).to_ndarray()
    got = Picture(layout, plane_views(frame), coding).rgb
    if layout == "nv12" and coding == Coding():  # a camera's, which OpenCV reads
        want = cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_NV12)
    assert np.abs(got.astype(int) - want).max() <= 1
    assert np.abs(got.astype(int) - scene()).max() <= 6


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", [*LAYOUTS, "yuyv422", "uyvy422"])
def test_luma_is_the_plane_in_full_range_and_nothing_is_computed_twice(layout, coding):
    made, weights = picture(layout, coding), {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
    kr, kb = weights.get(coding.matrix, (0.2627, 0.0593))
    want = scene() @ np.array([kr, 1 - kr - kb, kb])
    assert np.abs(made.luma - want).max() <= 2
    assert made.luma is made.luma
    assert made.rgb is made.rgb


@pytest.mark.parametrize("layout", ["yuyv422", "uyvy422"])
def test_packed_pictures_are_as_opencv_reads_them(layout):
    made = picture(layout)
    how = cv2.COLOR_YUV2RGB_YUYV if layout == "yuyv422" else cv2.COLOR_YUV2RGB_UYVY
    assert np.array_equal(made.rgb, cv2.cvtColor(made.planes[0].reshape(H, W, 2), how))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", [*LAYOUTS, "yuyv422", "uyvy422"])
def test_another_luma_leaves_chroma_as_it_came(layout, coding):
    source = picture(layout, coding)
    new = cv2.add(source.luma, 20)
    made = source.with_luma(new)
    assert np.array_equal(made.rgb, relit(source.rgb, source.luma, new))
    y, u, v = made.i420(coding)
    _, u0, v0 = source.i420(coding)
    assert u is u0
    assert v is v0
    direct = Picture("yuv420p", (y, u, v), coding)
    assert np.abs(direct.luma.astype(int) - new).max() <= 1
    if layout == "yuv420p":  # placed back into the planes it is the same picture as by RGB
        assert np.abs(direct.rgb.astype(int) - made.rgb).max() <= 2
        assert np.shares_memory(u, source.planes[1])


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("layout", [*LAYOUTS, "yuyv422"])
def test_planes_of_the_other_range_show_the_same_picture(layout, full):
    source = picture(layout, Coding(full=not full))
    planes = source.i420(Coding(full=full))
    assert np.abs(Picture("yuv420p", planes, Coding(full=full)).rgb.astype(int) - source.rgb).max() <= 5


def test_an_rgb_picture_keeps_its_array_and_its_luma_is_bt601():
    rgb = scene()
    made = Picture.of_rgb(rgb)
    assert made.rgb is rgb
    assert np.array_equal(made.luma, luma_of(rgb))
    assert made.i420() is None
    assert np.array_equal(made.with_luma(made.luma).rgb, rgb)


@pytest.mark.parametrize("full", [False, True])
def test_a_picture_without_colour_is_grey(full):
    luma = np.arange(H * W, dtype=np.uint32).reshape(H, W).astype(np.uint8)
    made = Picture.of_luma(luma)
    assert np.array_equal(made.rgb, np.repeat(luma[..., None], 3, -1))
    y, u, v = made.i420(Coding(full=full))
    assert (u == 128).all()
    assert (v == 128).all()
    assert (y.min(), y.max()) == ((0, 255) if full else (16, 235))


def test_another_matrix_and_odd_sides_need_rgb():
    assert picture("yuv420p", Coding("bt709")).i420() is None
    odd = Picture("yuv420p", [np.zeros(hw, np.uint8) for hw in ((5, 7), (3, 4), (3, 4))])
    assert odd.i420() is None
    assert odd.rgb.shape == (5, 7, 3)


def test_planes_that_do_not_fit_are_refused():
    y = np.zeros((H, W), np.uint8)
    with pytest.raises(ValueError, match="a yuv420p picture of 64x48 has planes"):
        Picture("yuv420p", (y, y, y))
    with pytest.raises(ValueError, match="an RGB picture must be"):
        Picture.of_rgb(y)
    with pytest.raises(ValueError, match="the luma is"):
        Picture.of_luma(y).with_luma(y[1:])


def test_padded_rows_are_read_right():
    wide = np.arange(H * (W + 32), dtype=np.uint32).reshape(H, -1).astype(np.uint8)
    y, grey = wide[:, :W], np.full((H // 2, W // 2), 128, np.uint8)
    padded, tight = Picture("yuv420p", (y, grey, grey)), Picture("yuv420p", (y.copy(), grey, grey))
    assert np.array_equal(padded.luma, tight.luma)
    assert np.array_equal(padded.rgb, tight.rgb)
    frame = video_frame("yuv420p", padded.planes)
    assert np.array_equal(plane_views(frame)[0], y)


@pytest.mark.parametrize("coding", [Coding(), Coding(full=True), Coding("bt709")])
@pytest.mark.parametrize("layout", [*LAYOUTS, "yuyv422"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_smaller_picture_is_the_smaller_rgb(layout, coding, fused):
    source = picture(layout, coding)
    made = source.with_luma(source.luma // 2 + 60) if fused else source
    small = made.resized((32, 24))
    assert small.coding == Coding(coding.matrix, full=True)
    assert np.abs(small.luma - cv2.resize(made.luma, (32, 24), interpolation=cv2.INTER_AREA).astype(int)).max() <= 1
    want = cv2.resize(made.rgb, (32, 24), interpolation=cv2.INTER_AREA)
    assert np.abs(small.rgb.astype(int) - want).max() <= 5  # FFmpeg rounds YUV to RGB by up to 3
    assert np.abs(small.rgb.astype(int) - want).mean() < 2


@pytest.mark.parametrize("size_wh", [(32, 24), (33, 25)])
def test_rgb_and_odd_sizes_become_smaller_as_rgb(size_wh):
    for made in (Picture.of_rgb(scene()), picture("yuv420p").resized((33, 25))):
        want = cv2.resize(made.rgb, size_wh, interpolation=cv2.INTER_AREA)
        assert made.layout == "rgb24"
        assert np.array_equal(made.resized(size_wh).rgb, want)


def test_every_value_changes_its_range_by_the_formula():
    """ITU-R BT.601, 2.5.3: Y from 16 to 235, chroma from 16 to 240."""
    all_ = np.tile(np.arange(256, dtype=np.uint8), (2, 1))
    values, chroma = all_.astype(float), all_[:1, :128]
    wide = (values - 16) * 255 / 219, values * 219 / 255 + 16
    for full, want in zip((False, True), wide, strict=True):
        made = Picture("yuv420p", (all_, chroma, chroma), Coding(full=full))
        got = made.with_luma(all_).i420(Coding(full=False))[0] if full else made.luma
        assert np.array_equal(got, want.round().clip(0, 255))
        for part in (all_[:1, :128], all_[:1, 128:]):
            u = Picture("yuv420p", (all_, part, part), Coding(full=full)).i420(Coding(full=not full))[1]
            factor = 112 / 127.5 if full else 127.5 / 112
            assert np.array_equal(u, ((part - 128.0) * factor + 128).round().clip(0, 255))


@pytest.mark.parametrize("layout", ["yuv422p", "yuv444p", "yuyv422", "uyvy422"])
def test_chroma_of_4_2_0_is_the_mean_of_its_pixels(layout):
    rng = np.random.default_rng(0)
    u, v = (rng.integers(0, 256, (H, W if layout == "yuv444p" else W // 2), np.uint8) for _ in "uv")
    y = rng.integers(0, 256, (H, W), np.uint8)
    if layout in ("yuyv422", "uyvy422"):
        values = (y[:, 0::2], u, y[:, 1::2], v) if layout == "yuyv422" else (u, y[:, 0::2], v, y[:, 1::2])
        made = Picture(layout, (np.dstack(values).reshape(H, 2 * W),))
    else:
        made = Picture(layout, (y, u, v))
    for got, given in zip(made.i420()[1:], (u, v), strict=True):
        want = given.reshape(H // 2, 2, W // 2, -1).mean(axis=(1, 3))
        assert np.abs(got - want).max() <= 0.5
