"""Measures against values that follow from their definitions by hand, or from another way of computing them."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import metrics
from trainer.metrics import Flicker, measure, stretched


def noise(seed=0, shape=(64, 80)):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def smooth(seed=0, shape=(96, 120)):
    import cv2

    return cv2.GaussianBlur(noise(seed, shape), (0, 0), 3)


def test_entropy_of_known_histograms():
    flat = np.arange(256, dtype=np.uint8).repeat(4).reshape(32, 32)
    assert metrics.entropy(flat) == pytest.approx(8, abs=1e-12)
    assert metrics.entropy(np.full((9, 9), 7, np.uint8)) == 0
    quarters = np.repeat([0, 0, 1, 2], 16).astype(np.uint8).reshape(8, 8)
    assert metrics.entropy(quarters) == pytest.approx(1.5, abs=1e-12)


def test_spatial_frequency_and_gradient_of_stripes_and_ramps():
    stripes = np.tile([0, 100], (10, 20)).astype(np.uint8)
    assert metrics.spatial_frequency(stripes) == pytest.approx(100, abs=1e-9)
    ramp = np.tile(np.arange(0, 60, 3), (10, 1)).astype(np.uint8)
    assert metrics.spatial_frequency(ramp) == pytest.approx(3, abs=1e-9)
    assert metrics.average_gradient(ramp) == pytest.approx(3 / np.sqrt(2), abs=1e-9)
    both = (np.arange(20)[:, None] * 4 + np.arange(20) * 3).astype(np.uint8)
    assert metrics.average_gradient(both) == pytest.approx(5 / np.sqrt(2), abs=1e-9)


def test_scd_of_a_sum_is_two():
    ir, luma = noise(0) // 2, noise(1) // 2
    assert metrics.scd(ir + luma, ir, luma) == pytest.approx(2, abs=1e-9)
    assert metrics.scd(ir, ir, luma) == pytest.approx(
        np.corrcoef(ir.ravel() - luma.astype(float).ravel(), ir.ravel())[0, 1]
    )


def test_mutual_information_with_itself_is_its_entropy_in_nats():
    x = noise()
    assert metrics.mutual_information(x, x) == pytest.approx(metrics.entropy(x) * np.log(2), abs=1e-9)
    independent = np.repeat(np.arange(16, dtype=np.uint8), 16).reshape(16, 16)
    assert metrics.mutual_information(independent, independent.T.copy()) == pytest.approx(0, abs=1e-9)


def slow_window(x, weights):
    side = len(weights)
    rows, columns = x.shape[0] - side + 1, x.shape[1] - side + 1
    return sum(weights[r, c] * x[r : r + rows, c : c + columns] for r in range(side) for c in range(side))


def gaussian(side, sigma):
    at = np.arange(side) - side // 2
    w = np.exp(-(at[:, None] ** 2 + at**2) / (2 * sigma**2))
    return w / w.sum()


def test_ssim_is_its_definition():
    a, b = smooth(0, (30, 40)).astype(float), noise(1, (30, 40)).astype(float)
    w = gaussian(11, 1.5)
    ma, mb = slow_window(a, w), slow_window(b, w)
    va, vb, cov = slow_window(a * a, w) - ma**2, slow_window(b * b, w) - mb**2, slow_window(a * b, w) - ma * mb
    want = ((2 * ma * mb + 6.5025) * (2 * cov + 58.5225) / ((ma**2 + mb**2 + 6.5025) * (va + vb + 58.5225))).mean()
    assert metrics.ssim_gauss(a.astype(np.uint8), b.astype(np.uint8)) == pytest.approx(want, abs=1e-9)
    assert metrics.ssim_gauss(noise(), noise()) == pytest.approx(1, abs=1e-12)


def test_vif_is_its_definition():
    a, b = smooth(0), (smooth(0) * 0.7 + 20 + noise(1, (96, 120)) * 0.05).astype(np.uint8)
    x, y, top, bottom = a.astype(float), b.astype(float), 0.0, 0.0
    for scale, side in enumerate((17, 9, 5, 3)):
        w = gaussian(side, side / 5)
        if scale:
            x, y = slow_window(x, w)[::2, ::2], slow_window(y, w)[::2, ::2]
        mx, my = slow_window(x, w), slow_window(y, w)
        vx, vy, cov = slow_window(x * x, w) - mx**2, slow_window(y * y, w) - my**2, slow_window(x * y, w) - mx * my
        gain = np.maximum(cov / (vx + 1e-10), 0)
        rest = np.maximum(vy - gain * cov, 1e-10)
        top += np.log10(1 + gain**2 * vx / (rest + 2)).sum()
        bottom += np.log10(1 + vx / 2).sum()
    assert metrics.vif(a, b) == pytest.approx(top / bottom, abs=1e-4)
    assert metrics.vif(a, a) == pytest.approx(1, abs=1e-4)
    assert metrics.vif(a, np.full_like(a, 90)) == pytest.approx(0, abs=1e-6)


def test_qabf_rewards_edges_that_are_kept():
    a, b, flat = smooth(0), smooth(1), np.full((96, 120), 128, np.uint8)
    kept = 0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4))
    assert metrics.qabf(a, a, a, mirror=True) == pytest.approx(kept, abs=1e-6)
    assert metrics.qabf(a, a, b, mirror=True) > metrics.qabf(flat, a, b, mirror=True)
    assert metrics.qabf(flat, a, b, mirror=True) < 0.01
    assert metrics.qabf(flat, a, b) > 0.05  # the border alone, as in the papers' evaluator


def test_measure_gives_sums_over_both_sources_and_refuses_other_images():
    a, b = smooth(0), smooth(1)
    scores = measure(a, a, b)
    assert pytest.approx(1 + metrics.vif(b, a), abs=1e-4) == scores.VIF
    assert pytest.approx(a.std()) == scores.SD
    with pytest.raises(ValueError, match="one size"):
        measure(a, a, b[:-1])
    with pytest.raises(ValueError, match="uint8"):
        measure(a.astype(float), a, b)


def test_stretching_uses_the_whole_range_and_leaves_constants():
    x = np.array([[50, 90, 150]], np.uint8)
    assert stretched(x).tolist() == [[0, 102, 255]]
    assert stretched(np.full((2, 2), 9, np.uint8)).tolist() == [[9, 9], [9, 9]]


def flicker(frames):
    meter = Flicker()
    for frame in frames:
        meter.add(*frame)
    return meter.value


def test_flicker_is_change_that_the_sources_do_not_have():
    ir, luma = smooth(0), smooth(1)
    still = [(ir, ir, luma)] * 10
    assert flicker(still) == 0
    changing = [ir if k % 2 else np.clip(ir.astype(int) + 6, 0, 255).astype(np.uint8) for k in range(10)]
    assert flicker([(x, ir, luma) for x in changing]) == pytest.approx(6, abs=0.2)
    grainy = [ir - np.random.default_rng(k).integers(0, 2, ir.shape, np.uint8) for k in range(10)]
    assert flicker([(x, x, luma) for x in grainy]) == pytest.approx(0, abs=0.05)
