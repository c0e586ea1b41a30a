"""Stills as a stream: order, depth, gaps, and what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.capture import open_source
from rtfuse.errors import SourceNotFound, SourceUnreadable

COUNTS = (np.arange(48 * 64, dtype=np.uint16) * 20).reshape(48, 64)


def test_natural_order_times_and_ids(tmp_path):
    for k in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((8, 8), k, np.uint8))
    source = open_source(str(tmp_path), "ir", fps=10)
    frames = list(source)
    assert [f.image[0, 0] for f in frames] == [1, 2, 10]
    assert [f.t_ns for f in frames] == [0, 100_000_000, 200_000_000]
    assert [f.frame_id for f in frames] == [0, 1, 2]
    assert source.info.frames == 3
    assert source.info.end_ns == 300_000_000


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bit_thermal_keeps_its_counts(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    cv2.imwrite(str(path), COUNTS)
    (frame,) = open_source(str(path), "ir")
    assert frame.image.dtype == np.uint16
    assert np.array_equal(frame.image, COUNTS)


def test_every_page_is_an_image(tmp_path):
    images = [COUNTS, COUNTS // 2, COUNTS // 3]
    for name in ("1.tif", "2.tif"):
        cv2.imwritemulti(str(tmp_path / name), images)
    source = open_source(str(tmp_path), "ir")
    frames = [frame.image for frame in source]
    assert all(np.array_equal(a, b) for a, b in zip(frames, images * 2, strict=True))
    assert (source.info.frames, dict(source.losses)) == (6, {})


def test_hidden_files_and_links_to_nowhere_are_not_pictures(tmp_path):
    for name in ("a.png", "._a.png", "Thumbs.db", ".DS_Store"):
        cv2.imwrite(str(tmp_path / "x.png"), np.zeros((8, 8), np.uint8))
        (tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "b.png").symlink_to(tmp_path / "nowhere.png")
    assert open_source(str(tmp_path), "ir").info.frames == 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_rgb_is_rgb(tmp_path, suffix):
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    path = tmp_path / f"red.{suffix}"
    cv2.imwrite(str(path), image[..., ::-1])
    (frame,) = open_source(str(path), "rgb")
    assert frame.image[8, 8] == pytest.approx([200, 0, 0], abs=8)


def test_colour_thermal_becomes_gray_and_gray_rgb_becomes_three_channels(tmp_path):
    cv2.imwrite(str(tmp_path / "c.png"), np.full((8, 8, 3), 50, np.uint8))
    cv2.imwrite(str(tmp_path / "g.png"), np.full((8, 8), 50, np.uint8))
    assert next(iter(open_source(str(tmp_path / "c.png"), "ir"))).image.shape == (8, 8)
    assert next(iter(open_source(str(tmp_path / "g.png"), "rgb"))).image.shape == (8, 8, 3)


def test_a_pattern_takes_what_matches(tmp_path):
    for name in ("a1.png", "a2.png", "b1.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 8), np.uint8))
    assert open_source(str(tmp_path / "a*.png"), "ir").info.frames == 2


def test_an_unreadable_image_in_between_is_counted_and_its_time_passes(tmp_path):
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "1.png").write_bytes(b"not a picture")
    source = open_source(str(tmp_path), "ir", fps=10)
    assert [f.frame_id for f in source] == [0, 2]
    assert source.losses == {"corrupt": 1}


def test_what_cannot_be_used_is_refused_by_name(tmp_path):
    with pytest.raises(SourceNotFound, match="holds no images"):
        open_source(str(tmp_path), "ir")
    with pytest.raises(SourceNotFound, match=r"nowhere\.png"):
        open_source(str(tmp_path / "nowhere.png"), "rgb")
    with pytest.raises(SourceNotFound, match=r"x\*\.png"):
        open_source(str(tmp_path / "x*.png"), "rgb")
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(SourceUnreadable, match=r"bad\.png"):
        open_source(str(tmp_path / "bad.png"), "rgb")
    cv2.imwrite(str(tmp_path / "bad.png"), np.zeros((8, 8), np.uint8))
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((8, 9), np.uint8))
    with pytest.raises(SourceUnreadable, match=r"9x8 uint8.*8x8 uint8"):
        list(open_source(str(tmp_path), "ir"))
