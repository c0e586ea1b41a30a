"""Video files have every frame at its time, in its colours, and get their name only when they are whole."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import cv2
import numpy as np
import pytest
from scenes import make_frame, picture, video_times

from rtfuse.capture.recordings import Recording
from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.record.video import PictureWriter, open_writer
from rtfuse.types import Fused, Pair, Stamp


def fused(k, *, t_ns=None, size_wh=(64, 48), stamp=Stamp.MEDIA):
    ir, rgb = (make_frame(s, k, t_ns=t_ns, size_wh=size_wh, stamp=stamp) for s in ("ir", "rgb"))
    return Fused(picture(k, size_wh), ir.image, Pair(ir, rgb), None, "test")


def write(path, items, **options):
    writer = open_writer(path, **options)
    for item in items:
        writer.write(item)
    writer.close()
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "webm"])
@pytest.mark.parametrize(("rate", "base"), [(30.0, Fraction(1, 15360)), (22.0, Fraction(1, 11264)), (29.97, None)])
def test_times_rate_and_count_survive(tmp_path, suffix, rate, base):
    times = [round(k * 1e9 / rate) for k in range(30)]
    path = tmp_path / f"o.{suffix}"
    write(path, [fused(k, t_ns=t) for k, t in enumerate(times)], rate_hz=rate, time_base=base)
    assert [float(t) for t in video_times(path)] == pytest.approx([t / 1e9 for t in times], abs=1e-3)
    assert Recording(str(path), "rgb").info.rate_hz == pytest.approx(rate, rel=2e-3)


def test_uneven_times_are_kept_and_live_streams_begin_at_zero(tmp_path):
    times = [7_000_000_000, 7_033_000_000, 7_200_000_000, 7_233_000_000]
    path = write(tmp_path / "o.mp4", [fused(k, t_ns=t, stamp=Stamp.END) for k, t in enumerate(times)], rate_hz=30)
    assert [float(t) for t in video_times(path)] == pytest.approx([0, 0.033, 0.2, 0.233], abs=1e-4)


def test_repeated_times_still_make_a_valid_monotone_file(tmp_path):
    path = write(tmp_path / "o.mp4", [fused(k, t_ns=0) for k in range(5)], rate_hz=30)
    times = video_times(path)
    assert len(times) == 5
    assert all(b > a for a, b in pairwise(times))


@pytest.mark.parametrize("size_wh", [(64, 48), (65, 49), (64, 49), (17, 33)])
def test_colours_and_size_survive_for_even_and_odd_sizes(tmp_path, size_wh):
    item = fused(3, t_ns=0, size_wh=size_wh)
    (frame,) = Recording(str(write(tmp_path / "o.mp4", [item], rate_hz=30)), "rgb")
    assert frame.image.shape == item.image.shape
    assert np.abs(frame.image.astype(int) - item.image).mean() < 12
    assert np.abs(frame.image.mean((0, 1)) - item.image.mean((0, 1))).max() < 3


def test_side_by_side_is_thermal_rgb_fused(tmp_path):
    item = fused(2, t_ns=0)
    path = write(tmp_path / "o.png", [item], side_by_side=True)
    image = cv2.imread(str(path))[..., ::-1]
    assert image.shape == (48, 192, 3)
    assert np.array_equal(image[:, :64, 0], item.ir)
    assert np.array_equal(image[:, 64:128], item.pair.rgb.image)
    assert np.array_equal(image[:, 128:], item.image)


def test_a_folder_gets_one_picture_per_frame_named_by_it(tmp_path):
    write(tmp_path / "out", [fused(k) for k in (0, 1, 5)])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000005.png"]


def test_the_picture_is_the_frame_asked_for_or_the_last(tmp_path):
    for at, want in [(2, 2), (99, 4)]:
        writer = PictureWriter(tmp_path / "p.png", at=at, force=True)
        for k in range(5):
            writer.write(fused(k))
        writer.close()
        assert np.array_equal(cv2.imread(str(tmp_path / "p.png"))[:, 128:, ::-1], picture(want))


@pytest.mark.parametrize("count", [1, 2, 3, 5, 17, 33, 100])
def test_the_picture_of_an_unknown_length_is_one_near_the_middle(tmp_path, count):
    writer, items = PictureWriter(tmp_path / "p.png", at=None, force=True), [fused(k) for k in range(count)]
    for item in items:
        writer.write(item)
    writer.close()
    found = cv2.imread(str(tmp_path / "p.png"))[:, 128:, ::-1]
    (at,) = (k for k, item in enumerate(items) if np.array_equal(item.image, found))
    assert 0.3 * count <= at + 0.5 <= 0.84 * count


@pytest.mark.parametrize("name", ["o.mp4", "o.png", "folder"])
def test_nothing_is_left_after_abort_or_without_frames(tmp_path, name):
    writer = open_writer(tmp_path / name)
    writer.write(fused(0, t_ns=0))
    assert not (tmp_path / name).exists()
    writer.abort()
    open_writer(tmp_path / name).close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["o.mp4", "o.png", "folder"])
def test_an_existing_output_is_kept_without_force_and_replaced_whole_with_it(tmp_path, name):
    path = write(tmp_path / name, [fused(0, t_ns=0)])
    with pytest.raises(OutputExists, match="--force"):
        open_writer(path)
    writer = open_writer(path, force=True)
    writer.write(fused(1, t_ns=0))
    writer.abort()
    assert path.exists()
    write(path, [fused(1, t_ns=0)], force=True)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path):
    with pytest.raises(OutputUnwritable, match=r"unknown format \.xyz.*\.mp4"):
        open_writer(tmp_path / "o.xyz")
    with pytest.raises(OutputUnwritable, match="No such file or directory"):
        open_writer(tmp_path / "absent" / "o.mp4")
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(OutputUnwritable, match="is a folder"):
        open_writer(tmp_path / "d.mp4", force=True)
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]


def test_one_image_does_not_take_two_frames(tmp_path):
    writer = open_writer(tmp_path / "o.png")
    writer.write(fused(0))
    with pytest.raises(OutputUnwritable, match="several frames"):
        writer.write(fused(1))
    writer.abort()
