"""Artefacts, where the right value is known; noise lifts SF and AG, and worsens each of them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.fuse.pyramid import fuse_pyramid
from trainer.measures.artefacts import colour_cast, halo, look, noise_gain, saturated
from trainer.metrics import average_gradient, ms_ssim, spatial_frequency, ssim_gauss


def grey(value, shape=(80, 120)):
    return np.full(shape, value, np.uint8)


def noisy(image, sigma, seed=0):
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def test_a_halo_beside_a_step_has_the_height_that_it_was_given():
    ir, luma = grey(100), grey(100)
    ir[:, 60:] = 200
    assert halo(ir, ir, luma) == 0
    fused = ir.copy()
    fused[:, 52:59] = 90  # ten levels below both sources; edge at columns 59 and 60: the band is 52 to 67
    assert halo(fused, ir, luma) == pytest.approx(10 * 7 / 16)
    fused[:, 20:30] = 0  # not beside the edge
    assert halo(fused, ir, luma) == pytest.approx(10 * 7 / 16)
    assert halo(grey(0), grey(90), grey(100)) == 0  # no edge


def test_noise_gain_is_the_ratio_of_the_deviations():
    ir, luma = noisy(grey(100), 2, 1), noisy(grey(120), 4, 2)
    assert noise_gain(luma, ir, luma) == pytest.approx(1, abs=0.01)
    assert noise_gain(ir, ir, luma) == pytest.approx(0.5, abs=0.03)
    louder = noisy(grey(120), 8, 3)
    assert noise_gain(louder, ir, luma) == pytest.approx(2, abs=0.06)
    assert noise_gain(grey(110), ir, luma) == 0
    ramp = np.tile(np.arange(120, dtype=np.uint8) * 2, (80, 1))  # two grey levels a pixel: nowhere flat
    assert np.isnan(noise_gain(ramp, ramp, luma))


def test_saturation_counts_where_no_source_is_saturated():
    ir, luma = grey(100, (10, 10)), grey(100, (10, 10))
    fused = ir.copy()
    fused[0] = 255
    fused[1] = 0
    assert saturated(fused, ir, luma) == pytest.approx(20)
    luma[0] = 255
    assert saturated(fused, ir, luma) == pytest.approx(10)


def test_a_colour_cast_is_the_shift_of_the_mean_chroma():
    rgb = np.random.default_rng(0).integers(60, 190, (40, 40, 3), np.uint8)
    ycrcb = cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb)
    ycrcb[..., 1] += 6
    ycrcb[..., 2] -= 8
    assert colour_cast(cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB), rgb) == pytest.approx(10, abs=0.3)
    assert colour_cast(rgb, rgb) == 0


def test_noise_lifts_sf_and_ag_and_worsens_every_artefact():
    ir, luma = noisy(grey(60), 1, 1), noisy(grey(80), 1, 2)
    ir[20:60, 40:80] = 250
    luma[:20] = 5
    clean = fuse_pyramid(ir, luma)
    rough = noisy(clean, 12, 3)
    assert spatial_frequency(rough) > spatial_frequency(clean)
    assert average_gradient(rough) > average_gradient(clean)
    before, after = look(clean, ir, luma), look(rough, ir, luma)
    assert after.halo > before.halo + 1
    assert after.noise_gain > 4 * before.noise_gain
    assert after.saturated > before.saturated
    assert np.isnan(before.cast)  # a grey picture has none


def test_ms_ssim_falls_with_noise_and_is_ssim_where_one_scale_fits():
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 240), np.uint8), (0, 0), 3)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    assert ms_ssim(picture, picture) == pytest.approx(1)
    values = [ms_ssim(picture, noisy(picture, sigma)) for sigma in (5, 15, 40)]
    assert 1 > values[0] > values[1] > values[2] > 0
    assert ms_ssim(picture, noisy(picture, 15)) > ssim_gauss(
        picture, noisy(picture, 15)
    )  # coarse scales see less noise
    small = picture[:20, :20]
    assert ms_ssim(small, noisy(small, 9)) == pytest.approx(ssim_gauss(small, noisy(small, 9)))
    assert ms_ssim(picture, 255 - picture) == 0
