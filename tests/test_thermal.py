"""The gain control: monotone, steady, blind to outliers."""

from __future__ import annotations

import numpy as np

from rtfuse.thermal import Agc
from rtfuse.types import Frame, Stamp


def frame(image, k=0):
    return Frame("ir", image, k, k * 33_000_000, Stamp.ARRIVAL, 0)


def scene(rng, level=8000, noise=200):
    return rng.normal(level, noise, (60, 80)).clip(0, 65535).astype(np.uint16)


def test_eight_bits_pass_untouched():
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert Agc()(frame(image)) is image


def test_more_counts_are_never_darker_and_the_range_is_used():
    counts = scene(np.random.default_rng(0))
    out = Agc()(frame(counts))
    order = np.argsort(counts, axis=None)
    assert np.all(np.diff(out.ravel()[order].astype(int)) >= 0)
    assert out.dtype == np.uint8
    assert out.min() == 0
    assert out.max() == 255


def test_a_lamp_or_dead_pixels_do_not_darken_the_scene():
    rng = np.random.default_rng(0)
    counts = scene(rng)
    plain = Agc()(frame(counts)).astype(int)
    spoilt = counts.copy()
    spoilt[0, :10] = 65535
    spoilt[1, :10] = 0
    assert np.abs(Agc()(frame(spoilt)).astype(int) - plain)[2:].mean() < 6


def test_the_mapping_follows_a_step_slowly():
    rng = np.random.default_rng(0)
    agc, first = Agc(tau_s=1.0), scene(rng)
    still = agc(frame(first, 0)).astype(int)
    warmer = (first + 300).astype(np.uint16)
    step = agc(frame(warmer, 1)).astype(int)
    for k in range(2, 300):
        settled = agc(frame(warmer, k)).astype(int)
    assert (step - still).mean() > 30  # the scene did get warmer, and shows it
    assert abs(settled.mean() - still.mean()) < 2


def test_a_uniform_scene_is_not_stretched_into_noise():
    counts = np.full((60, 80), 8000, np.uint16)
    counts[::2, ::2] += 2
    assert np.ptp(Agc()(frame(counts)).astype(int)) < 12
