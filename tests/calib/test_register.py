"""Registration against ground truth: the synthetic street, known warps of real pictures, and what must be refused."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import pytest

from calib.register.register import CONFIDENT, register
from rtfuse.align.drift import residual_shift
from rtfuse.capture import open_source
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.errors import CalibrationError

STREET = "synthetic:?warp=1&motion=0&baseline_m=0&duration_s=4"


@cache
def street(keys="&seed=1", count=1, every=12):
    """Pairs of the synthetic street, and its true matrix."""
    uri = STREET + keys
    streams = []
    for stream in ("ir", "rgb"):
        source = open_source(uri, stream)
        streams.append([f.image for f, _ in zip(source, range(count * every), strict=False)][::every])
        source.close()
    return list(zip(*streams, strict=True)), SyntheticScene.from_uri(uri).H_rgb_from_ir


def grid(hw, step=1):
    return np.stack(np.meshgrid(np.arange(hw[1])[::step], np.arange(hw[0])[::step]), -1).astype(np.float64)


def error_px(H, truth, ir_hw):
    """Mean distance, in RGB pixels, over the thermal picture."""
    points = grid(ir_hw, 16).reshape(-1, 1, 2)
    return np.linalg.norm(cv2.perspectiveTransform(points, H) - cv2.perspectiveTransform(points, truth), axis=-1).mean()


def motion(dx, dy, degrees=0.0, scale=1.0, hw=(480, 640)):
    m = np.vstack([cv2.getRotationMatrix2D(((hw[1] - 1) / 2, (hw[0] - 1) / 2), degrees, scale), [0, 0, 1]])
    m[:2, 2] += dx, dy
    return m


def warped(ir, rgb_from_ir):
    """The thermal picture whose pixel q shows what `ir` has at `rgb_from_ir` q."""
    return cv2.warpPerspective(ir, np.linalg.inv(rgb_from_ir), ir.shape[::-1])


def pair(footage, folder, k):
    ir = sorted((footage / folder / "ir").iterdir())[k]
    rgb = next((footage / folder / "rgb").glob(f"{ir.stem}.*"))
    return cv2.imread(str(ir), cv2.IMREAD_UNCHANGED), cv2.imread(str(rgb))[..., ::-1].copy()


@pytest.mark.parametrize(
    ("model", "matrix"),
    [
        ("shift", motion(21, -14)),
        ("similarity", motion(15, 8, 3, 0.95)),
        ("affine", motion(-12, 9, -2) @ np.array([[1.03, 0.02, 0], [-0.01, 0.97, 0], [0, 0, 1]])),
        ("homography", motion(10, 10, 2) @ np.array([[1, 0, 0], [0, 1, 0], [4e-5, -3e-5, 1]])),
    ],
)
def test_every_model_finds_its_own_motion(model, matrix):
    pairs, _ = street("&seed=2&warp=0")
    ir, rgb = pairs[0]
    found = register([(warped(ir, matrix), rgb)], model=model)
    assert error_px(found.H_rgb_from_ir, matrix, ir.shape) < 1.0
    assert found.field is None
    assert found.confidence >= CONFIDENT
    assert found.H_rgb_from_ir.dtype == np.float64


@pytest.mark.parametrize("keys", ["&bits=16&ir_size=320x256&size=960x540", "&ir_size=160x120"])
def test_counts_and_sizes(keys):
    pairs, truth = street("&seed=1" + keys)
    found = register(pairs)
    true_px = error_px(found.H_rgb_from_ir, truth, pairs[0][0].shape)
    assert true_px < 1.5
    assert true_px / 4 < found.error_px < max(4 * true_px, 1.2)
    assert found.tiles.at_px.shape == found.tiles.residual_px.shape == (*found.tiles.weight.shape, 2)


def test_a_small_thermal_field_of_view_is_found_from_afar():
    ir, rgb = street("&seed=2&warp=0")[0][0]
    truth = motion(35, -20, 0, 0.6)
    found = register([(warped(ir[:], np.linalg.inv(np.linalg.inv(truth))), rgb)])
    assert error_px(found.H_rgb_from_ir, truth, ir.shape) < 2


def test_a_start_is_searched_about():
    ir, rgb = street("&seed=2&warp=0")[0][0]
    truth = motion(150, -90)
    found = register([(warped(ir, truth), rgb)], start=motion(140, -80), model="shift")
    assert error_px(found.H_rgb_from_ir, truth, ir.shape) < 1


@pytest.mark.footage
@pytest.mark.slow
def test_several_frames_are_better_than_one(footage):
    truth = motion(20, -15, 2, 1.04)
    pairs = [pair(footage, "pairs/msrs", k) for k in (0, 66, 110)]
    pairs = [(warped(ir, truth), rgb) for ir, rgb in pairs]
    alone = []
    for one in pairs:
        try:
            alone.append(error_px(register([one]).H_rgb_from_ir, truth, one[0].shape))
        except CalibrationError:
            alone.append(np.inf)
    assert error_px(register(pairs).H_rgb_from_ir, truth, pairs[0][0].shape) < np.median(alone)


@pytest.mark.parametrize("what", ["black", "constant", "noise", "night"])
def test_pictures_without_a_match_are_refused(what):
    ir, rgb = street()[0][0]
    rng = np.random.default_rng(0)
    pictures = {
        "black": (np.zeros_like(ir), rgb),
        "constant": (ir, np.full_like(rgb, 90)),
        "noise": (rng.integers(0, 255, ir.shape, np.uint8), rgb),
        "night": (ir, rng.integers(0, 12, rgb.shape, np.uint8)),
    }
    with pytest.raises(CalibrationError, match="regist"):
        register([pictures[what]])


@pytest.mark.parametrize("pairs", [[], [(np.zeros((480, 640, 3), np.uint8),) * 2], [(np.zeros((9, 9), np.uint8),) * 2]])
def test_what_is_no_pair_is_refused(pairs):
    with pytest.raises(CalibrationError):
        register(pairs)


@pytest.mark.footage
@pytest.mark.slow
def test_unrelated_pictures_are_refused(footage):
    pairs = [pair(footage, "pairs/msrs", k) for k in (2, 112)]
    for k, (ir, _) in enumerate(pairs):
        with pytest.raises(CalibrationError, match="tiles"):
            register([(ir, pairs[1 - k][1])])


def misaligned(footage, name):
    """A warped pair and where in the warped thermal picture each RGB pixel truly lies; NaN: outside."""
    folder = footage / "misaligned"
    ir = cv2.imread(str(folder / "ir_warped" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
    rgb = cv2.imread(str(folder / "rgb" / f"{name}.png"))[..., ::-1].copy()
    offset = np.load(folder / "offset" / f"{name}.npz")["offset_px"].astype(np.float32)
    at = still = grid(ir.shape).astype(np.float32)
    for _ in range(50):  # q + offset(q) = p
        at = (at + still - cv2.remap(offset, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)) / 2
    outside = (at < 0).any(-1) | (at > np.array(ir.shape[::-1]) - 1).any(-1)
    return ir, rgb, np.where(outside[..., None], np.nan, at)


@pytest.mark.slow
@pytest.mark.footage
@pytest.mark.timeout(120)
def test_a_smooth_field_undoes_the_warps_of_real_pictures(footage):
    true_px, said_px = [], []
    names = sorted(p.stem for p in (footage / "misaligned" / "ir").iterdir())
    for name in names:
        ir, rgb, truth = misaligned(footage, name)
        try:
            found = register([(ir, rgb)], smooth=True)
        except CalibrationError:
            continue
        before, after = (np.nanmean(np.linalg.norm(x - truth, axis=-1)) for x in (grid(ir.shape), found.field))
        assert after <= 0.4 * before, f"{name}: {before:.1f} px before, {after:.1f} px after"
        assert found.field.dtype == np.float32
        true_px.append(after)
        said_px.append(found.error_px)
    assert len(true_px) >= 0.9 * len(names)
    assert np.mean(true_px) < 2.3
    assert 0.7 < np.median(np.divide(said_px, true_px)) < 1.4


def test_a_field_is_added_only_where_it_stands_out():
    pairs, _ = street("&seed=2&warp=0")
    ir, rgb = pairs[0]
    assert register(pairs, smooth=None).field is None
    x, y = grid(ir.shape).astype(np.float32).transpose(2, 0, 1)
    waves = [3 * np.sin(y / 60), 3 * np.sin(x / 60)]
    wavy = cv2.remap(ir, x + waves[0], y + waves[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    found = register([(wavy, rgb)], smooth=None)
    assert found.field is not None
    truth = grid(ir.shape) - np.stack(waves, -1)
    true_px, before_px = (np.linalg.norm(at - truth, axis=-1).mean() for at in (found.field, grid(ir.shape)))
    assert true_px < before_px
    assert true_px / 2 < found.error_px < 2 * true_px


def test_the_field_does_not_fold_and_holds_the_matrix():
    pairs, truth = street("&seed=3")
    found = register(pairs, smooth=True)
    xy = grid(pairs[0][1].shape[:2])
    expected = cv2.perspectiveTransform(xy.reshape(-1, 1, 2), np.linalg.inv(truth)).reshape(xy.shape)
    assert np.linalg.norm(found.field - expected, axis=-1).mean() < 2
    (ax, bx), (ay, by) = (np.gradient(found.field[..., k]) for k in (0, 1))
    assert (bx * ay - ax * by).min() > 0


@pytest.mark.parametrize("shift", [(0, 0), (3.4, -1.7), (-8, 5.25), (7.6, 8)])
def test_drift_is_seen(shift):
    found = []
    for ir, rgb in street("&seed=2&warp=0", count=4)[0]:
        moved, valid = (warped(x, np.linalg.inv(motion(*shift))) for x in (ir, np.full_like(ir, 255)))
        dx, dy, confidence = residual_shift(moved, rgb, valid)
        assert confidence > 0.05
        found.append((dx, dy))
    assert np.abs(np.mean(found, 0) - shift).max() < 0.3


def test_there_is_no_drift_in_noise():
    ir, rgb = street()[0][0]
    noise = np.random.default_rng(1).integers(0, 255, ir.shape, np.uint8)
    assert residual_shift(noise, rgb)[2] < 0.1
    assert residual_shift(np.zeros_like(ir), rgb)[2] == 0
