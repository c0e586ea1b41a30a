"""Mirrored, turned and cropped pictures of every kind of source."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import write_video

from rtfuse.capture.orientation import Orientation
from rtfuse.config import load_config
from rtfuse.errors import ConfigError
from rtfuse.pipeline.sources import SourceOpener

SIDE = st.integers(1, 12)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["none", "horizontal", "vertical", "both"]),
    st.sampled_from([0, 90, 180, 270]),
    st.none() | st.tuples(st.integers(0, 6), st.integers(0, 6), SIDE, SIDE),
    st.tuples(SIDE, SIDE),
    st.sampled_from([(np.uint8, ()), (np.uint16, ()), (np.uint8, (3,))]),
)
def test_pictures_are_mirrored_then_turned_then_cropped(flip, rotate, crop, shape, kind):
    dtype, channels = kind
    image = np.arange(np.prod(shape + channels), dtype=dtype).reshape(shape + channels)
    wanted = {"none": image, "horizontal": image[:, ::-1], "vertical": image[::-1], "both": image[::-1, ::-1]}[flip]
    wanted = np.rot90(wanted, -rotate // 90)
    orient = Orientation("ir", flip, rotate, crop)
    if crop is not None:
        x, y, w, h = crop
        if x + w > wanted.shape[1] or y + h > wanted.shape[0]:
            size = f"{wanted.shape[1]}x{wanted.shape[0]}"
            with pytest.raises(ConfigError, match=rf"ir\.crop: {x},{y},{w},{h} .* which is {size}"):
                orient(image)
            return
        wanted = wanted[y : y + h, x : x + w]
    made = orient(image)
    assert np.array_equal(made, wanted)
    assert made.flags.c_contiguous
    assert orient.size_wh(shape[::-1]) == wanted.shape[1::-1]
    assert bool(orient) or made is image


def opened(stream, uri, *overrides):
    other = "rgb" if stream == "ir" else "ir"
    config = load_config(None, overrides, {f"{stream}.uri": str(uri), f"{other}.uri": "synthetic:"})
    opener = SourceOpener(config)
    opener.check()
    return opener.open(stream)


@pytest.mark.parametrize("stream", ["ir", "rgb"])
@pytest.mark.parametrize("kind", ["stills", "recording", "synthetic"])
def test_every_source_is_turned_and_says_its_size(tmp_path, stream, kind):
    uri = "synthetic:?size=64x48&duration_s=0.1"
    if kind == "stills":
        uri = tmp_path / "t.png"
        cv2.imwrite(str(uri), np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    elif kind == "recording":
        uri = write_video(tmp_path / "t.mp4", 3, size_wh=(64, 48), gray=stream == "ir")
    plain = next(iter(opened(stream, uri))).image
    source = opened(stream, uri, f"{stream}.rotate=90", f"{stream}.flip=vertical", f"{stream}.crop=[4, 8, 20, 40]")
    frame = next(iter(source))
    assert source.info.size_wh == (20, 40) == (frame.image.shape[1], frame.image.shape[0])
    assert np.array_equal(frame.image, np.rot90(plain[::-1], -1)[8:48, 4:24])
    assert np.array_equal(frame.sent.image, plain)


def test_the_hottest_pixel_is_one_of_the_turned_picture(tmp_path):
    counts = np.full((48, 64), 29315, np.uint16)
    counts[5, 60] = 30000
    cv2.imwrite(str(tmp_path / "t.png"), counts)
    frame = next(iter(opened("ir", tmp_path / "t.png", "ir.flip=horizontal", "thermal.k_per_count=0.01")))
    assert (frame.thermal.hot.x, frame.thermal.hot.y) == (3, 5)
    assert frame.image[5, 3] == 30000


def test_what_cannot_be_is_refused_before_a_frame(tmp_path):
    cv2.imwrite(str(tmp_path / "t.png"), np.zeros((48, 64), np.uint8))
    with pytest.raises(ConfigError, match=r"ir\.crop: 0,0,60,20 .* which is 48x64 after it is turned"):
        opened("ir", tmp_path / "t.png", "ir.rotate=90", "ir.crop=[0, 0, 60, 20]").info  # noqa: B018
    with pytest.raises(ConfigError, match=r"rotate"):
        opened("ir", tmp_path / "t.png", "ir.rotate=45")
    with pytest.raises(ConfigError, match=r"rgb\.palette"):
        opened("rgb", tmp_path / "t.png", "rgb.palette=iron")
    with pytest.raises(ConfigError, match=r"ir\.palette: 'irn'"):
        opened("ir", tmp_path / "t.png", "ir.palette=irn")
