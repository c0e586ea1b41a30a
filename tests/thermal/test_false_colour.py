"""False colours of thermal: recognised, turned back with hot as bright, and left alone where there are none."""

from __future__ import annotations

import logging
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture import open_source
from rtfuse.capture.settings import PictureOptions
from rtfuse.errors import ConfigError
from rtfuse.thermal.false_colour import FalseColour
from rtfuse.thermal.recorded import NAMES, ONLY_BY_NAME, recorded

RECOGNISED = [name for name in NAMES if name not in ONLY_BY_NAME]
STRANGE = {
    "forest": ((5, 20, 10), (20, 90, 60), (150, 160, 40), (230, 120, 90), (250, 240, 230)),
    "loop": ((20, 20, 90), (20, 160, 190), (30, 110, 40), (210, 200, 60), (250, 140, 40), (250, 190, 220)),
    "pastel": ((60, 70, 160), (120, 180, 200), (180, 220, 150), (240, 200, 120), (200, 80, 90)),
}
"""Palettes that nobody has; their hot end is the brighter one, or the redder one."""


def drawn(seed, size_wh=(320, 240)):
    """Return thermal luma (H, W) uint8: a cool ground with a gradient, warm and hot things, noise."""
    rng, (w, h) = np.random.default_rng(seed), size_wh
    luma = cv2.resize(rng.uniform(0, 120, (4, 5)).astype(np.float32), size_wh, interpolation=cv2.INTER_CUBIC)
    for _ in range(12):
        at, reach = (int(rng.integers(w)), int(rng.integers(h))), int(rng.integers(h // 16, h // 4))
        cv2.circle(luma, at, reach, float(rng.uniform(0, 255)), -1, cv2.LINE_AA)
    luma = cv2.GaussianBlur(luma, (0, 0), 1.5) + rng.normal(0, 2, luma.shape)
    return cv2.normalize(luma, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def as_jpeg(picture, quality):
    data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()


def line_of(anchors):
    at = np.linspace(0, 255, len(anchors))
    channels = [np.interp(np.arange(256), at, channel) for channel in np.transpose(anchors)]
    return np.column_stack(channels).round().astype(np.uint8)


def correlation(a, b):
    """Return Spearman's rank correlation of two pictures; equal values share their mean rank."""

    def ranks(values):
        _, where, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - count / 2)[where.ravel()]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(RECOGNISED),
    st.integers(0, 1 << 16),
    st.integers(70, 100),
    st.sampled_from([(160, 120), (320, 240), (640, 512), (333, 201)]),
)
def test_every_palette_is_turned_back_whatever_the_picture(name, seed, quality, size_wh):
    luma = drawn(seed, size_wh)
    found = FalseColour()(as_jpeg(recorded(name)[luma], quality))
    assert found is not None, "not recognised"
    assert correlation(found, luma) > 0.98


@pytest.mark.parametrize("name", NAMES)
def test_a_named_palette_gives_the_luma_back_exactly(name):
    every = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    found = FalseColour(name)(recorded(name)[every])
    assert np.abs(found.astype(int) - every).mean() < 2


@pytest.mark.parametrize("quality", [80, 100])
@pytest.mark.parametrize("name", STRANGE)
def test_an_unknown_palette_is_followed_and_said(name, quality, caplog):
    luma = drawn(3)
    found = FalseColour()(as_jpeg(line_of(STRANGE[name])[luma], quality))
    assert correlation(found, luma) > 0.95
    (said,) = [record.getMessage() for record in caplog.records]
    assert "false colour" in said or "unknown palette" in said
    assert "ir.palette" in said


def natural(seed):
    """Return an RGB picture of many things of many colours."""
    rng = np.random.default_rng(seed)
    picture = cv2.resize(rng.uniform(30, 220, (5, 7, 3)).astype(np.float32), (320, 240), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)


GREYS = {
    "grey": np.repeat(drawn(1)[..., None], 3, 2),
    "grey as JPEG": as_jpeg(np.repeat(drawn(1)[..., None], 3, 2), 70),
    "black": np.zeros((240, 320, 3), np.uint8),
    "grey with a red mark": np.where(
        (np.indices((240, 320)).sum(axis=0) < 40)[..., None], (255, 0, 0), drawn(1)[..., None]
    ),
    "natural": natural(1),
    "one colour": np.full((240, 320, 3), (200, 30, 60)),
}


@pytest.mark.parametrize("case", GREYS)
def test_other_pictures_are_left_alone(case, caplog):
    unmix = FalseColour()
    assert unmix(GREYS[case].astype(np.uint8)) is None
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (case in ("natural", "one colour", "grey with a red mark"))
    assert "brightness alone is used" in "".join(said) or not said
    assert case != "grey with a red mark" or "thermal is grey, but 1.1% of its pixels" in said[0]


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("size_wh", [(160, 120), (320, 240), (640, 512)])
def test_few_pixels_in_a_strong_colour_are_said_and_noise_is_not(size_wh, quality, caplog):
    grey = np.repeat(drawn(7, size_wh)[..., None], 3, 2)
    noisy = np.clip(grey + np.random.default_rng(1).normal(0, 6, grey.shape), 0, 255).astype(np.uint8)
    assert FalseColour()(as_jpeg(noisy, quality)) is None
    assert caplog.records == []
    grey[60:72, 50:60] = (255, 40, 0)
    assert FalseColour()(as_jpeg(grey, quality)) is None
    assert "thermal is grey, but" in caplog.records[0].getMessage()
    assert "ir.palette=NAME" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("anchors", "words"),
    [
        (((255, 255, 230), (255, 200, 40), (245, 120, 10), (210, 45, 80), (145, 0, 155), (32, 0, 140), (0, 0, 0)),
         "white is taken for hot"),
        (((255, 255, 204), (254, 178, 76), (252, 78, 42), (128, 0, 38)), "is taken for hot"),
        (((0, 0, 120), (0, 120, 255), (0, 0, 0), (255, 120, 0), (255, 255, 120)), "which is not sure"),
        (((0, 0, 50), (0, 70, 125), (30, 110, 10), (128, 80, 0), (95, 0, 10)), "which is not sure"),
    ],
)  # fmt: skip
def test_the_end_that_is_taken_for_hot_is_named_with_the_option_for_the_other(anchors, words, caplog):
    FalseColour()(as_jpeg(line_of(anchors)[drawn(6)], 88))
    assert words in caplog.records[0].getMessage()
    assert "thermal.polarity=black-hot" in caplog.records[0].getMessage()


def test_natural_colours_are_never_taken_for_a_palette():
    assert [FalseColour()(as_jpeg(natural(seed), 80 + seed % 20)) for seed in range(8)] == [None] * 8


def test_it_looks_again_when_the_palette_changes_and_says_each_once(caplog):
    unmix, luma = FalseColour(), drawn(5)
    for name in ("iron", "iron", "opencv-jet", "opencv-jet", "iron"):
        assert correlation(unmix(recorded(name)[luma]), luma) > 0.98
    said = [re.search(r"\((.*?)\)", record.getMessage()).group(1) for record in caplog.records]
    assert said == ["iron", "opencv-jet"]


def test_alone_each_picture_is_taken_as_if_it_were_the_only_one(caplog):
    iron, jet = (recorded(name)[drawn(5)] for name in ("iron", "opencv-jet"))
    marked = GREYS["grey with a red mark"].astype(np.uint8)
    together, several = FalseColour(alone=True), [jet, natural(1), iron, natural(2), marked, jet, natural(3)]
    for picture in several:
        made, alone = together(picture), FalseColour(say=lambda _: None)(picture)
        assert (made is None) == (alone is None)
        assert made is None or np.array_equal(made, alone)
    assert len(caplog.records) == 4  # each kind once


def test_scales_and_text_are_said(caplog):
    picture = recorded("iron")[drawn(2)]
    picture[10:40, 20:200] = (0, 255, 0)
    FalseColour()(picture)
    assert "other colours" in caplog.records[0].getMessage()
    assert caplog.records[0].levelno == logging.WARNING


def test_few_hot_parts_in_colour_are_enough():
    luma = np.minimum(drawn(4), 150)
    luma[100:115, 100:140] = np.linspace(151, 255, 40).astype(np.uint8)
    found = FalseColour()(recorded("red-hot")[luma])
    assert correlation(found, luma) > 0.98
    assert found[105, 138] > 240


def test_none_leaves_pictures_alone_and_a_wrong_name_is_refused():
    assert FalseColour("none")(recorded("iron")[drawn(1)]) is None
    with pytest.raises(ConfigError, match=r"ir\.palette: 'irn' is not known; want auto, none, iron"):
        FalseColour("irn")


@pytest.mark.parametrize("name", ["iron", "opencv-jet"])
@pytest.mark.parametrize("codec", ["libx264", "mjpeg", "ffv1"])
def test_recordings_and_stills_are_turned_back(tmp_path, codec, name):
    import av

    luma = [drawn(k) for k in range(3)]
    with av.open(str(tmp_path / "t.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 320, 240
        stream.pix_fmt = {"libx264": "yuv420p", "mjpeg": "yuvj420p", "ffv1": "bgr0"}[codec]
        for image in luma:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(recorded(name)[image], format="rgb24")))
        container.mux(stream.encode(None))
    cv2.imwrite(str(tmp_path / "t.png"), recorded(name)[luma[0]][..., ::-1])
    for file in ("t.mkv", "t.png"):
        options = PictureOptions(uncolour=FalseColour())
        for image, frame in zip(luma, open_source(str(tmp_path / file), "ir", picture=options), strict=False):
            assert correlation(frame.image, image) > 0.97
