"""Hot places of the fused picture are in thermal's order, join their surroundings, and nothing else changes."""

from __future__ import annotations

import logging
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.align.aligner import Aligner
from rtfuse.config import load_config
from rtfuse.errors import ConfigError
from rtfuse.fuse import open_fuser
from rtfuse.fuse.hot import FADE, REACH_PX, KeepHot, hot_level
from rtfuse.pipeline.stages import Stages, hot_of
from rtfuse.thermal.planck import count_at, kelvin_of_counts
from rtfuse.types import Frame, Moment, Pair, Stamp, Thermal, ThermalPicture, Work
from tests.flirs import RADIOMETRY

HW = (93, 125)
"""No multiples of the squares in which distances are measured."""


def scene(seed, noise, spots=4):
    """Thermal of warm spots over a smooth background, and textured luma that has nothing to do with it."""
    rng = np.random.default_rng(seed)
    ir = cv2.GaussianBlur(rng.normal(60, 400, HW).astype(np.float32), (0, 0), 12)
    for _ in range(spots):
        x, y = (int(rng.integers(n)) for n in HW[::-1])
        cv2.circle(ir, (x, y), int(rng.integers(2, 12)), float(rng.integers(120, 260)), -1)
    ir = cv2.GaussianBlur(ir, (0, 0), rng.uniform(0.3, 3)) + rng.normal(0, noise, HW)
    luma = cv2.GaussianBlur(rng.normal(0, 300, HW).astype(np.float32), (0, 0), 3) + rng.integers(40, 220)
    return (np.clip(x, 0, 255).astype(np.uint8) for x in (ir, luma))


def frame(stream, image, t_ns=0, thermal=None):
    return Frame(stream, image, t_ns // 33_000_000, t_ns, Stamp.MEDIA, t_ns, thermal=thermal)


def kept(fused, ir, *, valid=None, stage=None, t_ns=0, **settings):
    """Return the fused luma after the stage."""
    stage = stage or KeepHot(**settings, count_at=count_at)
    pair = Pair(frame("ir", ir, t_ns), frame("rgb", np.repeat(fused[..., None], 3, -1), t_ns))
    work = Work(pair, True, ThermalPicture(ir, None, None, valid, lambda: ir), fused)
    stage(work)
    return work.luma


def in_order(shown, ir):
    """True if hotter is never darker, over all pairs of these pixels."""
    levels = np.unique(ir)
    spans = [(shown[ir == level].min(), shown[ir == level].max()) for level in levels]
    return all(low[1] <= high[0] for low, high in pairwise(spans))


def distance_px(hot):
    """Chessboard distance to the nearest hot pixel, which exists."""
    return cv2.distanceTransform((~hot).astype(np.uint8), cv2.DIST_C, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 4), st.sampled_from([0.005, 0.02, 0.1]), st.booleans())
def test_hotter_is_brighter_and_the_rest_is_untouched(seed, noise, share, seam):
    ir, fused = scene(seed, noise)
    valid = None
    if seam:
        valid = np.repeat(np.clip(np.arange(HW[1]) * 8 - 100, 0, 255).astype(np.uint8)[None], HW[0], 0)
    before, full = fused.copy(), np.ones(HW, bool) if valid is None else valid == 255
    level, median = hot_level(ir, share, None if valid is None else full.astype(np.uint8))
    shown = kept(fused, ir, valid=valid, share=share)
    assert np.array_equal(fused, before)
    hot = (ir >= level) & full
    if not hot.any():
        assert shown is fused
        return
    assert in_order(shown[hot], ir[hot])
    assert shown[hot][ir[hot] == ir[hot].max()].min() == shown[hot].max()
    far = (cv2.blur(ir, (3, 3)).astype(int) <= max(level - FADE, median)) | (distance_px(hot) > REACH_PX)
    far |= np.zeros(HW, bool) if valid is None else valid == 0
    assert np.array_equal(shown[far & ~hot], fused[far & ~hot])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 3))
def test_a_hot_place_begins_at_the_brightness_of_its_edge_and_rises_by_thermals_steps(seed, noise):
    ir, luma = scene(seed, noise)
    fused = cv2.addWeighted(ir, 0.5, luma, 0.25, 0)
    level, _ = hot_level(ir, 0.02)
    hot, edge = ir >= level, (ir >= level) & (ir < level + 16)
    if level > 255 or not edge.any():
        return
    shown = kept(fused, ir, share=0.02).astype(float)
    if np.ptp(ir[hot]) >= 20:
        assert 0.45 < np.ptp(shown[hot]) / np.ptp(ir[hot]) < 1.05
    if fused[edge].mean() + np.ptp(ir[hot]) < 250 and fused[edge].mean() > 16:
        assert abs(shown[edge].mean() - fused[edge].mean()) < 1


@pytest.mark.parametrize("luma", [0, 60, 200, 255])
def test_a_gentle_slope_of_thermal_makes_no_step_and_no_halo(luma):
    y, x = np.mgrid[:240, :320]
    ir = (60 + 150 * np.exp(-((x - 160) ** 2 + (y - 120) ** 2) / (2 * 40**2))).astype(np.uint8)
    fused = np.full(ir.shape, luma, np.uint8)
    shown = kept(fused, ir, share=0.02).astype(int)
    hot = ir >= hot_level(ir, 0.02)[0]
    assert hot.any()
    steps = max(np.abs(np.diff(shown, axis=k)).max() for k in (0, 1))
    assert steps <= 4  # thermal's own are 3
    if luma < 200:  # there is room above: nothing is darker than the surroundings
        assert shown.min() >= max(luma - 8, 0)


@pytest.mark.parametrize("kind", ["one value", "noise", "mostly white", "black"])
def test_thermal_without_hot_places_changes_nothing(kind):
    rng = np.random.default_rng(3)
    ir = np.full(HW, 0 if kind == "black" else 120, np.uint8)
    if kind == "noise":
        ir = np.clip(rng.normal(120, 2.5, HW), 0, 255).astype(np.uint8)
    if kind == "mostly white":
        ir[:40] = 255
    fused = rng.integers(0, 256, HW, np.uint8)
    assert kept(fused, ir, share=0.02) is fused


def test_clipped_targets_are_hot_though_they_are_larger_than_the_share():
    ir, fused = np.full(HW, 40, np.uint8), np.full(HW, 90, np.uint8)
    fused[:, ::2] = 20
    ir[:20, :60] = 255
    shown = kept(fused, ir, share=0.02)
    assert hot_level(ir, 0.02) == (255, 40)
    assert len(np.unique(shown[:20, :60])) == 1


def test_a_stream_is_steadier_than_single_pictures_and_a_cut_is_followed_at_once():
    ir, fused = scene(11, 0)
    rng, held = np.random.default_rng(0), KeepHot(0.02, count_at=count_at)
    changes = {"held": [], "single": []}
    last = {}
    hot = ir >= hot_level(ir, 0.02)[0] + 10
    for k in range(20):
        noisy = np.clip(ir + rng.normal(0, 2, HW), 0, 255).astype(np.uint8)
        for name, stage in (("held", held), ("single", KeepHot(0.02, count_at=count_at, hold=False))):
            now = kept(fused, noisy, stage=stage, t_ns=(k + 1) * 33_000_000).astype(int) - noisy
            if name in last:
                changes[name].append(abs(np.mean((now - last[name])[hot])))
            last[name] = now
    assert np.mean(changes["held"]) < 0.5 * np.mean(changes["single"])
    ir, fused = scene(5, 0)
    alone = kept(fused, ir, share=0.02)
    assert np.array_equal(kept(fused, ir, stage=held, t_ns=2_000_000_000), alone)


def stages(fuser, *overrides):
    return Stages(Aligner(HW, HW), fuser, load_config(None, ["fuse.steady=false", *overrides]), scenes=True)


def test_it_is_a_stage_only_where_it_is_wanted():
    ir, luma = scene(2, 1)
    pair = Pair(frame("ir", ir), frame("rgb", np.repeat(luma[..., None], 3, -1)))
    fuser, ended = open_fuser("pyramid"), []
    on = load_config(None, ["fuse.keep_hot=0.02", "fuse.thermal_weight=0"])
    shown = Stages(Aligner(HW, HW), fuser, on, done=ended.append).process(pair).picture.luma
    assert ended == ["thermal", "align", "fuse", "hot", "deflicker"]
    hot = ir >= hot_level(ir, 0.02)[0]
    assert hot.any()
    assert in_order(shown[hot], ir[hot])
    far = distance_px(hot) > REACH_PX
    assert far.any()
    assert np.array_equal(shown[far], luma[far])
    assert hot_of(load_config()) is None


def test_one_stream_alone_is_shown_as_it_is():
    ir, luma = scene(2, 1)
    chain = stages(open_fuser("pyramid"), "fuse.keep_hot=0.02")
    assert np.array_equal(chain.process(Moment.alone(frame("ir", ir))).picture.luma, ir)
    assert np.array_equal(
        chain.process(Moment.alone(frame("rgb", np.repeat(luma[..., None], 3, -1)))).image[..., 0], luma
    )


@pytest.mark.parametrize("kind", ["linear", "planck"])
def test_a_temperature_marks_what_is_as_hot_and_nothing_else(kind):
    ir, luma = scene(4, 1)
    kelvin = 290 + ir / 255 * 60.0
    if kind == "linear":
        counts, said = np.rint(kelvin / 0.01).astype(np.uint16), Thermal(k_per_count=0.01)
    else:
        table = kelvin_of_counts(RADIOMETRY)
        known = np.flatnonzero(np.isfinite(table))
        counts = known[np.searchsorted(table[known], kelvin)].astype(np.uint16)
        said = Thermal(radiometry=RADIOMETRY)
    pair = Pair(frame("ir", counts, thermal=said), frame("rgb", np.repeat(luma[..., None], 3, -1)))
    fuser = open_fuser("pyramid")
    chain = stages(fuser, "fuse.keep_hot_c=55", "thermal.agc.tails=[0,0]")
    fused = chain.process(pair)
    shown, hot = fused.picture.luma, kelvin >= 55 + 273.15 + 0.05
    assert 0.001 < hot.mean() < 0.3
    assert in_order(shown[hot], fused.ir[hot])
    plain = stages(fuser, "thermal.agc.tails=[0,0]").process(pair).picture.luma
    far = distance_px(kelvin >= 55 + 273.15 - 0.5) > REACH_PX
    assert np.array_equal(shown[far], plain[far])
    cold = stages(fuser, "fuse.keep_hot_c=300", "thermal.agc.tails=[0,0]").process(pair).picture.luma
    assert np.array_equal(cold, plain)
    assert count_at(said, 1e6) == 65536


def test_a_camera_without_temperatures_is_told_once(caplog):
    ir, luma = scene(4, 1)
    chain = stages(open_fuser("pyramid"), "fuse.keep_hot_c=55")
    pair = Pair(frame("ir", ir), frame("rgb", np.repeat(luma[..., None], 3, -1)))
    plain = stages(open_fuser("pyramid")).process(pair).picture.luma
    with caplog.at_level(logging.WARNING):
        assert all(np.array_equal(chain.process(pair).picture.luma, plain) for _ in range(3))
    assert [r.message for r in caplog.records] == [
        "fuse.keep_hot_c=55 has no effect: thermal has no temperatures: set thermal.camera or thermal.k_per_count, "
        "or fuse.keep_hot for a share"
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["fuse.keep_hot=0.02", "fuse.keep_hot_c=60"], "give one of the two"),
        (["fuse.keep_hot=0.02", "thermal.agc.method=clahe"], "found clahe"),
        (["fuse.keep_hot_c=60", "thermal.polarity=black-hot"], "black-hot"),
        (["fuse.keep_hot=0.5"], "fuse.keep_hot"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        hot_of(load_config(None, overrides))


@pytest.mark.footage
@pytest.mark.parametrize("name", ["pyramid", "student"])
def test_real_pairs_are_in_order_in_every_hot_place(footage, name):
    fuser, seen = open_fuser(name), 0
    for path in sorted((footage / "pairs" / "msrs" / "ir").iterdir())[::9]:
        ir = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        rgb = cv2.imread(str(next((footage / "pairs" / "msrs" / "rgb").glob(path.stem + ".*"))))[..., ::-1].copy()
        pair, aligner = Pair(frame("ir", ir), frame("rgb", rgb)), Aligner(ir.shape, ir.shape)
        plain = Stages(aligner, fuser, scenes=True).process(pair).picture.luma
        config = load_config(None, ["fuse.keep_hot=0.02"])
        shown = Stages(aligner, fuser, config, scenes=True).process(pair).picture.luma
        hot = ir >= hot_level(ir, 0.02)[0]
        far = distance_px(hot) > REACH_PX
        assert in_order(shown[hot], ir[hot]), path.name
        assert shown[hot].max() == shown[hot][ir[hot] == ir[hot].max()].min(), path.name
        assert np.array_equal(shown[far], plain[far]), path.name
        seen += not in_order(plain[hot], ir[hot])
    assert seen >= 10  # without it the order is lost
