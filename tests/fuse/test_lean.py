"""Where thermal has no scene RGB is shown alone; pictures of scenes are fused as before, bit for bit."""

from __future__ import annotations

import logging
from itertools import islice

import cv2
import numpy as np
import pytest

from rtfuse.align.aligner import Aligner
from rtfuse.capture import open_source
from rtfuse.config import load_config
from rtfuse.fuse import open_fuser
from rtfuse.fuse.lean import Lean, empty_cells
from rtfuse.pipeline.stages import Stages
from rtfuse.types import Frame, Pair, Stamp, ThermalPicture

HW = (240, 320)
PERIOD_NS = 33_000_000


def scene(seed, level=110, deviation=30, hw=HW):
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.normal(0, 1, hw).astype(np.float32), (0, 0), 6)
    return np.clip(level + deviation * smooth / smooth.std() + rng.normal(0, 1, hw), 0, 255).astype(np.uint8)


def noise(level, deviation, hw=HW):
    return np.clip(np.rint(level + np.random.default_rng(1).normal(0, deviation, hw)), 0, 255).astype(np.uint8)


def process(ir, luma, fuser="pyramid", *overrides, stages=None, k=0):
    stages = stages or Stages(
        Aligner(ir.shape, luma.shape), open_fuser(fuser), load_config(None, ["fuse.steady=false", *overrides])
    )
    rgb = np.repeat(luma[..., None], 3, -1)
    t_ns = k * PERIOD_NS
    return stages.process(Pair(Frame("ir", ir, k, t_ns, Stamp.MEDIA, 0), Frame("rgb", rgb, k, t_ns, Stamp.MEDIA, 0)))


@pytest.mark.parametrize("deviation", [0, 1, 3, 7, 12])
@pytest.mark.parametrize("level", [10, 40, 128, 250])
@pytest.mark.parametrize("hw", [(120, 160), HW, (512, 640)])
def test_noise_and_one_value_are_empty_at_every_size(hw, level, deviation):
    empty = empty_cells(noise(level, deviation, hw))
    assert empty is not None
    assert empty.min() == 1


@pytest.mark.parametrize("level", [40, 110, 200])
@pytest.mark.parametrize("deviation", [6, 15, 40])
def test_a_scene_is_not_empty_however_faint(level, deviation):
    for seed in range(10):
        assert empty_cells(scene(seed, level, deviation)) is None


@pytest.mark.parametrize("fuser", ["pyramid", "student"])
@pytest.mark.parametrize("deviation", [0, 6])
def test_rgb_alone_is_shown_where_thermal_has_no_scene_and_both_elsewhere(fuser, deviation):
    luma, ir = scene(1, 50), scene(2)
    assert np.array_equal(process(noise(128, deviation), luma, fuser).picture.luma, luma)
    half = ir.copy()
    half[:, :160] = noise(128, deviation)[:, :160]
    shown = process(half, luma, fuser).picture.luma
    veiled = process(half, luma, fuser, "fuse.lean=false").picture.luma
    assert np.array_equal(shown[:, :110], luma[:, :110])
    assert np.abs(veiled[:, :110].astype(int) - luma[:, :110]).mean() > 3
    whole = process(ir, luma, fuser).picture.luma[:, 230:].astype(float)
    assert np.corrcoef(shown[:, 230:].ravel(), whole.ravel())[0, 1] > 0.98
    if fuser == "pyramid":  # the student sees the mean of the whole picture
        assert np.abs(shown[:, 230:] - whole).mean() < 1


@pytest.mark.parametrize("size", [HW, (120, 160)])
def test_programs_that_take_thermal_raw_lean_too(size):
    pytest.importorskip("torch")
    luma = scene(1, 50)
    stages = Stages(Aligner(size, HW), open_fuser("student", engine="eager"), load_config(None, ["fuse.steady=false"]))
    assert np.array_equal(process(noise(128, 3, size), luma, stages=stages).picture.luma, luma)


@pytest.mark.parametrize("kind", ["white target", "warm door", "two flat halves", "dark sky", "small"])
def test_hot_targets_skies_and_small_parts_stay_fused(kind):
    ir, luma = scene(2), scene(1, 50)
    ir[:, :160] = {"white target": 255, "warm door": 200, "dark sky": 12}.get(kind, 128)
    if kind == "two flat halves":
        ir[:, 160:] = 70
    if kind == "small":
        ir[25:] = scene(2)[25:]
    plain = process(ir, luma, "pyramid", "fuse.lean=false").picture.luma
    assert np.array_equal(process(ir, luma).picture.luma, plain)


def test_counts_are_judged_as_they_are_shown():
    luma = scene(1, 50)
    empty = np.random.default_rng(0).normal(30_000, 3, HW).round().astype(np.uint16)
    assert np.array_equal(process(empty, luma).picture.luma, luma)
    counts = scene(2).astype(np.uint16) * 4 + 30_000
    plain = process(counts, luma, "pyramid", "fuse.lean=false")
    assert np.array_equal(process(counts, luma).picture.luma, plain.picture.luma)


def test_the_map_follows_thermal_onto_the_rgb_grid_and_the_result_says_where_thermal_reaches():
    luma, small = scene(1, 50), noise(128, 3, (120, 160))
    fused = process(small, luma)
    assert np.array_equal(fused.picture.luma, luma)
    assert fused.valid is None
    seam = np.full(HW, 255, np.uint8)
    seam[:, :20] = 0
    half = noise(128, 3)
    half[:, 160:] = scene(2)[:, 160:]
    picture = ThermalPicture(half, None, None, seam, lambda: half)
    valid = Lean()(picture, 0, lambda image: image).valid
    assert (valid <= seam).all()
    assert (valid[:, 20:100] == 0).all()
    assert (valid[:, 240:] == 255).all()


def test_a_stream_fades_and_the_log_says_begin_and_end_once(caplog):
    luma, ir, empty = scene(1, 50), scene(2), noise(128, 3)
    stages = Stages(Aligner(HW, HW), open_fuser("pyramid"), load_config(None, ["fuse.steady=false"]))
    with caplog.at_level(logging.INFO):
        shown = [process(empty if 3 <= k < 60 else ir, luma, stages=stages, k=k).picture.luma for k in range(120)]
    away = [np.abs(x.astype(int) - luma).mean() for x in shown]
    assert away[59] < 0.1 < away[3]
    steps = np.abs(np.diff(away[3:60]))
    assert steps.max() < 0.25 * max(away[3:60])
    assert np.array_equal(shown[-1], shown[0])
    assert [r.message.split(" in ")[0] for r in caplog.records] == [
        "thermal shows nothing",
        "thermal shows a scene again",
    ]


@pytest.mark.footage
def test_no_ordinary_picture_is_empty_anywhere(footage):
    paths = [p for name in ("msrs", "roadscene") for p in sorted((footage / "pairs" / name / "ir").iterdir())]
    pictures = [cv2.imread(str(p), cv2.IMREAD_GRAYSCALE) for p in paths]
    for clip in ("0113_1714", "0117_1605", "1230_1202"):
        frames = open_source(str(footage / "clips" / clip / "ir.mp4"), "ir")
        pictures += [frame.image for frame in islice(frames, 0, 200, 20)]
    assert len(pictures) > 300
    assert [k for k, x in enumerate(pictures) if empty_cells(x) is not None] == []


def lowest(lean, image, k):
    valid = lean(ThermalPicture(image, None, None, None, lambda: image), k * PERIOD_NS, lambda x: x).valid
    return 255 if valid is None else int(valid.min())


@pytest.mark.parametrize("first", [3, 4, 5, 6])
def test_a_stream_of_scenes_is_looked_at_every_90_ms_and_what_is_empty_fades_in_by_single_frames(first):
    lean = Lean()
    levels = [lowest(lean, noise(128, 3) if k >= first else scene(2), k) for k in range(20)]
    begin = next(k for k, level in enumerate(levels) if level < 255)
    assert first <= begin <= first + 2
    steps = -np.diff(levels[begin - 1 :])
    assert (steps > 0).all()
    assert steps.max() <= 255 * PERIOD_NS / 300e6


def test_pictures_of_different_scenes_are_all_looked_at():
    lean = Lean(hold=False)
    assert [lowest(lean, noise(128, 3) if k % 2 else scene(2), k) for k in range(6)] == [255, 0] * 3
