"""Fusers: exactness where the answer is known, independence of frames, any size, and what thermal must add."""

from __future__ import annotations

import hashlib
import json
import re

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rtfuse.capture import open_source
from rtfuse.errors import UnknownFuser, WeightsMissing
from rtfuse.fuse import FUSERS, STUDENT_WEIGHTS, UFUSER_WEIGHTS, open_fuser
from rtfuse.fuse.luma_fuser import Blend, luma, with_luma
from rtfuse.fuse.pyramid import fuse_pyramid

shapes = st.tuples(st.integers(1, 70), st.integers(1, 70))


def grays(shape):
    return hnp.arrays(np.uint8, shape)


@given(st.data(), shapes)
def test_unchanged_luma_leaves_every_pixel_unchanged(data, shape):
    rgb = data.draw(grays((*shape, 3)))
    y = luma(rgb)
    assert np.array_equal(with_luma(rgb, y, y), rgb)


@given(st.data(), shapes)
def test_with_luma_adds_the_difference_to_each_channel(data, shape):
    rgb, new = data.draw(grays((*shape, 3))), data.draw(grays(shape))
    old = luma(rgb)
    want = (rgb.astype(int) + (new.astype(int) - old)[..., None]).clip(0, 255)
    assert np.array_equal(with_luma(rgb, old, new), want)


def test_chroma_is_that_of_the_rgb_image():
    """Where nothing saturates, Cr and Cb agree with OpenCV's to its rounding."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(90, 160, (40, 50, 3), np.uint8)
    new = rng.integers(100, 150, (40, 50), np.uint8)
    before = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb).astype(int)
    after = cv2.cvtColor(with_luma(rgb, luma(rgb), new), cv2.COLOR_RGB2YCrCb).astype(int)
    assert np.abs(after[..., 1:] - before[..., 1:]).max() <= 1
    assert np.abs(after[..., 0] - new).max() <= 1


@given(st.data(), shapes)
def test_blend_is_exact_at_both_ends_and_between_elsewhere(data, shape):
    a, b, valid = (data.draw(grays(shape)) for _ in range(3))
    mixed = Blend(valid)(a, b)
    assert np.array_equal(mixed[valid == 255], a[valid == 255])
    assert np.array_equal(mixed[valid == 0], b[valid == 0])
    want = b + (a.astype(float) - b) * valid / 255
    assert np.abs(mixed - want).max() <= 1


@settings(deadline=None)
@given(st.data(), shapes)
def test_an_image_fused_with_itself_is_itself(data, shape):
    image = data.draw(grays(shape))
    assert np.array_equal(fuse_pyramid(image, image), image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (7, 5), (11, 640), (480, 640), (301, 520), (513, 641)])
def test_any_size_gives_that_size(shape):
    rng = np.random.default_rng(0)
    ir, rgb = rng.integers(0, 255, shape, np.uint8), rng.integers(0, 255, (*shape, 3), np.uint8)
    fused = open_fuser("pyramid")(ir, rgb)
    assert fused.shape == (*shape, 3)
    assert fused.dtype == np.uint8


@pytest.mark.parametrize(("ir", "visible"), [(0, 0), (255, 255), (0, 255), (255, 0), (93, 93)])
def test_constant_frames_stay_constant_and_between_the_sources(ir, visible):
    fused = fuse_pyramid(np.full((50, 60), ir, np.uint8), np.full((50, 60), visible, np.uint8))
    assert len(np.unique(fused)) == 1
    assert min(ir, visible) <= fused[0, 0] <= max(ir, visible)


def test_a_warm_target_in_the_dark_is_carried_into_the_picture_and_lit_texture_is_kept():
    rng = np.random.default_rng(0)
    rgb = np.full((240, 320, 3), 12, np.uint8)
    rgb[:, 200:] = rng.integers(60, 200, (240, 120, 1), np.uint8)
    ir = np.full((240, 320), 40, np.uint8)
    ir[90:150, 60:90] = 220
    fused = luma(open_fuser("pyramid")(ir, rgb))
    assert fused[100:140, 65:85].mean() > 150
    assert fused[20:60, 20:150].mean() < 60
    texture = luma(rgb)[:, 220:].astype(float)
    assert np.corrcoef(texture.ravel(), fused[:, 220:].astype(float).ravel())[0, 1] > 0.95


def test_where_thermal_does_not_reach_the_output_is_the_rgb_image():
    rng = np.random.default_rng(0)
    ir, rgb = rng.integers(0, 255, (120, 160), np.uint8), rng.integers(0, 255, (120, 160, 3), np.uint8)
    valid = np.zeros((120, 160), np.uint8)
    valid[30:90, 40:120] = 255
    fused = open_fuser("pyramid")(ir, rgb, valid)
    assert np.array_equal(fused[valid == 0], rgb[valid == 0])
    assert not np.array_equal(fused[valid == 255], rgb[valid == 255])


def test_the_unreached_part_of_thermal_has_no_influence():
    rng = np.random.default_rng(0)
    a, rgb = rng.integers(0, 255, (120, 160), np.uint8), rng.integers(0, 255, (120, 160, 3), np.uint8)
    valid = np.zeros((120, 160), np.uint8)
    valid[30:90, 40:120] = 255
    b = np.where(valid == 255, a, 0).astype(np.uint8)
    fuser = open_fuser("pyramid")
    assert np.array_equal(fuser(a, rgb, valid), fuser(b, rgb, valid))


def test_a_frame_does_not_depend_on_the_frames_before_it():
    rng = np.random.default_rng(0)
    ir, rgb = rng.integers(0, 255, (60, 80), np.uint8), rng.integers(0, 255, (60, 80, 3), np.uint8)
    fuser = open_fuser("pyramid")
    first = fuser(ir, rgb)
    fuser(np.full_like(ir, 255), np.zeros_like(rgb))
    assert np.array_equal(fuser(ir, rgb), first)


def test_an_unknown_fuser_lists_the_known():
    with pytest.raises(UnknownFuser, match=r"'piramid'.*ufuser, student, pyramid.*did you mean 'pyramid'"):
        open_fuser("piramid")
    assert set(FUSERS) == {"auto", "ufuser", "student", "pyramid"}


@pytest.mark.parametrize("weights", [UFUSER_WEIGHTS, STUDENT_WEIGHTS])
def test_the_shipped_weights_are_those_of_their_manifest(weights):
    blob = weights.read_bytes()
    assert len(blob) < 6.2e6
    manifest = json.loads(weights.with_suffix(".json").read_text())
    assert manifest["sha256"] == hashlib.sha256(blob).hexdigest()
    assert {"recipe", "data", "steps", "rtfuse_version"} <= manifest.keys()
    assert {"msrs/VIF", "roadscene/SCD"} <= manifest["metrics"].keys()
    assert not re.search(r"/(home|root|tmp|work)/", json.dumps(manifest))


def test_the_shipped_network_shows_what_either_camera_sees():
    """The synthetic street at night: details of both pictures are in the fused one, warm bodies stand out."""
    ir, rgb = (next(iter(open_source("synthetic:?seed=3&size=320x240", s))).image for s in ("ir", "rgb"))
    fused, y = luma(open_fuser()(ir, rgb)), luma(rgb)
    details = [cv2.Laplacian(cv2.GaussianBlur(x, (0, 0), 1), cv2.CV_32F) for x in (fused, ir, y)]
    for source, other in ((1, 2), (2, 1)):
        there = np.abs(details[source]) > 4 * np.abs(details[other]) + 8
        assert there.sum() > 100
        assert np.corrcoef(details[0][there], details[source][there])[0, 1] > 0.8
    warm = ir > np.percentile(ir, 99)
    assert fused[warm].mean() > fused[~warm].mean() + 30


@pytest.mark.parametrize("level", [0, 255])
def test_the_shipped_network_gives_a_sane_picture_of_nothing(level):
    ir, rgb = np.full((64, 64), level, np.uint8), np.full((64, 64, 3), 90, np.uint8)
    fused = luma(open_fuser()(ir, rgb))
    assert int(fused.max()) - int(fused.min()) < 40  # a covered or saturated thermal camera paints no pattern


@pytest.mark.slow
def test_ufuser_with_weights_fuses_any_size(tmp_path):
    from safetensors.torch import save_file

    from rtfuse.fuse.networks.ufuser import UFuser

    path = tmp_path / "w.safetensors"
    save_file(UFuser().state_dict(), path)
    fuser = open_fuser("ufuser", weights=path)
    rng = np.random.default_rng(0)
    for shape in [(37, 45), (1, 90), (8, 8)]:
        ir, rgb = rng.integers(0, 255, shape, np.uint8), rng.integers(0, 255, (*shape, 3), np.uint8)
        assert fuser(ir, rgb).shape == (*shape, 3)
    with pytest.raises(WeightsMissing, match=r"nowhere\.safetensors"):
        open_fuser("ufuser", weights=tmp_path / "nowhere.safetensors")
