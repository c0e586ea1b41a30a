"""The error that a registration claims: what it grows with, what it covers, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from calib.register.calibration import calibration_of
from calib.register.judge import error_terms, estimated_px, judged
from calib.register.register import register
from calib.register.search import starts
from calib.register.view import whole_view
from rtfuse.align.calibration import ir_pixels_of_rgb
from rtfuse.capture import open_source
from rtfuse.errors import CalibrationError
from tools.register_cases import bent, grid, projected, read, scenes


@cache
def street(seed=2):
    """One pair of the synthetic street, thermal exactly on RGB."""
    uri = f"synthetic:?warp=0&motion=0&baseline_m=0&duration_s=1&seed={seed}"
    frames = []
    for stream in ("ir", "rgb"):
        source = open_source(uri, stream)
        frames.append(next(iter(source)).image)
        source.close()
    return tuple(frames)


def verdict_of(ir, rgb, model="homography", moved=(0, 0)):
    """The verdict on thermal laid on RGB as it is, or beside it by some pixels."""
    view = whole_view([(ir, rgb)])
    matrix = np.array([[1, 0, moved[0]], [0, 1, moved[1]], [0, 0, 1.0]])
    return judged(view, matrix @ starts(view, ir.shape, None)[0], model, 0.0)


def without(x, rows, noise=2.0):
    """The picture with nothing but noise in some rows."""
    x = x.copy()
    part = x[rows]
    x[rows] = np.clip(np.random.default_rng(1).normal(60, noise, part.shape), 0, 255)
    return x


def bend(mean_px=0.5):
    return SimpleNamespace(mean_px=mean_px, doubt_px=1.0)


@pytest.mark.parametrize(
    ("cause", "worse"),
    [
        ("parallax", {"residual": np.full((1200, 2), 3.0)}),
        ("parts without common edges", {"corner_px": 7.0}),
        ("another place that fits nearly as well", {"confidence": 0.6, "rival": 0.95}),
    ],
)
def test_each_cause_raises_the_claimed_error(cause, worse):
    verdict = verdict_of(*street())
    worse = {k: v[: len(verdict.residual)] if k == "residual" else v for k, v in worse.items()}
    before, after = (error_terms(v, bend()) for v in (verdict, replace(verdict, **worse)))
    assert after[cause] > before[cause] + 0.5
    assert all(after[other] == before[other] for other in before if other != cause)
    assert estimated_px(replace(verdict, **worse), bend()) > estimated_px(verdict, bend())


def test_bends_raise_the_claimed_error():
    verdict = verdict_of(*street())
    assert estimated_px(verdict, bend(2.0)) > estimated_px(verdict, bend(0.5)) + 1


@pytest.mark.parametrize("rows", [np.s_[200:], np.s_[:280]])
def test_a_part_without_edges_leaves_the_corners_open(rows):
    ir, rgb = street()
    whole, part = (verdict_of(*x) for x in ((ir, rgb), (without(ir, rows), without(rgb, rows))))
    assert part.corner_px > whole.corner_px + 1
    # A shift has no corners to swing.
    assert verdict_of(without(ir, rows), without(rgb, rows), "shift").corner_px < part.corner_px / 2


def test_a_repeated_pattern_is_its_own_rival():
    rng = np.random.default_rng(3)
    tile = rng.normal(120, 80, (12, 12))  # within reach of the comparison: 16 px
    ir = np.clip(cv2.GaussianBlur(np.tile(tile, (40, 54)), (0, 0), 1.5), 0, 255)[:480, :640].astype(np.uint8)
    repeated = verdict_of(ir, cv2.cvtColor(255 - ir, cv2.COLOR_GRAY2RGB))
    assert repeated.rival > 0.9
    assert verdict_of(*street()).rival < 0.85
    assert verdict_of(*street(), moved=(40, 25)).rival > 1


def true_px(c, truth):
    """The mean error of a calibration, in RGB pixels."""
    xy = grid(truth.shape).astype(float)
    return np.nanmean(np.linalg.norm(ir_pixels_of_rgb(xy.reshape(-1, 2), c).reshape(xy.shape) - truth, axis=-1))


@pytest.mark.parametrize("seed", [10, 11, 12, 13])
def test_a_claim_on_the_street_covers_the_truth(seed):
    pairs, truth = projected(*street(seed), seed)
    c = calibration_of(pairs, smooth=None)
    assert true_px(c, truth) < 2 * c.quality.pair_error_px < 12


def test_the_refusal_names_the_largest_cause():
    ir, rgb = street()
    knots = 5 * np.random.default_rng(0).normal(size=(2, 6, 8))[1].astype(np.float32)
    waves = cv2.resize(knots, (640, 480), interpolation=cv2.INTER_CUBIC)
    x, y = grid(ir.shape).transpose(2, 0, 1)
    wild = cv2.remap(ir, x + waves, y + waves, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    with pytest.raises(CalibrationError, match="largest cause is another place that fits nearly as well"):
        register([(wild, rgb)])


WARPS = {
    "as it is": lambda ir, rgb: ([(ir, rgb)], grid(ir.shape)),
    "a homography, and bends": lambda ir, rgb: projected(ir, rgb, 6),
    "edges cut off": lambda ir, rgb: projected(ir, rgb, 7),
    "a similarity": lambda ir, rgb: bent([(ir, rgb)], np.random.default_rng(2)),
}


@pytest.mark.footage
@pytest.mark.parametrize("how", WARPS)
@pytest.mark.parametrize(("folder", "name"), [("pairs/msrs", "00718N"), ("pairs/roadscene", "FLIR_08932")])
def test_pairs_with_edges_in_one_part_are_refused_or_covered(footage, folder, name, how):
    pairs, truth = WARPS[how](*read(footage, folder, name))
    try:
        c = calibration_of(pairs, smooth=None)
    except CalibrationError:
        return
    assert true_px(c, truth) < 2 * c.quality.pair_error_px


@pytest.mark.footage
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_few_claims_on_unseen_scenes_are_off_by_more_than_twice_the_estimate(footage):
    off, count = [], 0
    for case, _ in zip(scenes(footage), range(40), strict=False):
        count += 1
        try:
            c = calibration_of(case.pairs, smooth=None)
        except CalibrationError:
            continue
        off.append(true_px(c, case.truth) / c.quality.pair_error_px)
    assert len(off) >= 0.75 * count
    assert np.mean(np.array(off) > 2) <= 0.07
    assert max(off) < 3.5
    assert 0.6 < np.median(off) < 1.4
