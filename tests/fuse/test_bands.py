"""Bands: nothing is lost in them, the stronger one wins, and torch computes the same integers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from rtfuse.fuse import bands
from rtfuse.fuse.networks.student import LEVELS, Student


def picture(seed, hw, sigma=1.2):
    return cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, hw, np.uint8), (0, 0), sigma)


def with_bands(rest, split, **controls):
    for band in reversed(split):
        rest = bands.add_stronger(rest, band, band, **controls)
    return rest


@pytest.mark.parametrize("hw", [(480, 640), (37, 53), (16, 16), (99, 100)])
@pytest.mark.parametrize("levels", [1, 3])
def test_bands_and_rest_are_the_picture(hw, levels):
    image = picture(0, hw)
    assert (with_bands(*reversed(bands.split(image, levels))) == image).all()


def test_the_stronger_band_wins_and_a_tie_goes_to_the_other():
    grey = np.full((2, 2), 100, np.uint8)
    empty = np.zeros((4, 4), np.uint8)
    up, down = np.full((4, 4), 9, np.uint8), np.full((4, 4), 8, np.uint8)

    def sum_of(strong):
        return bands.add_stronger(grey, bands.Band(strong, empty, strong), bands.Band(empty.copy(), down.copy(), down))

    assert (sum_of(up) == 109).all()
    assert (sum_of(down) == 92).all()


def test_weights_decide_the_choice_and_gains_the_height():
    grey, empty = np.full((2, 2), 100, np.uint8), np.zeros((4, 4), np.uint8)
    weak, strong = np.full((4, 4), 6, np.uint8), np.full((4, 4), 10, np.uint8)
    one = bands.Band(weak, empty, weak)
    twice = np.full((4, 4), 2 * bands.UNIT_WEIGHT, np.uint8)
    half = np.full((4, 4), bands.UNIT_GAIN // 2, np.uint8)

    def sum_with(*controls):
        return bands.add_stronger(grey, one, bands.Band(empty.copy(), strong.copy(), strong), *controls)

    assert (sum_with() == 90).all()
    assert (sum_with(twice) == 106).all()
    assert (sum_with(twice, half) == 103).all()


def test_sums_are_cut_off_at_black_and_white():
    white, empty = np.full((2, 2), 250, np.uint8), np.zeros((4, 4), np.uint8)
    much = np.full((4, 4), 20, np.uint8)
    less = bands.Band(empty.copy(), empty.copy(), empty)
    assert (bands.add_stronger(white, bands.Band(much, empty, much), less) == 255).all()


@pytest.mark.parametrize("hw", [(480, 640), (16, 16), (88, 120), (360, 640)])
@pytest.mark.parametrize("seed", range(3))
def test_torch_computes_the_same_integers(hw, seed):
    """Bit for bit, with weights and gains that differ everywhere."""
    torch.manual_seed(seed)
    net = Student(8, 1, 8).eval()
    ir, luma = picture(seed, hw), cv2.add(picture(seed + 9, hw, 0.8), 30)

    def guide(planes):
        guided = net.guide(torch.from_numpy(planes)[None].float())
        return guided.round().clamp(0, 255).byte().numpy()[0]

    with torch.no_grad():
        net.guide.head.weight.mul_(8)
        fused = bands.fuse_guided(ir, luma, LEVELS, guide)
        pair = (torch.from_numpy(x)[None, None].float() / 255 for x in (ir, luma))
        same = (net(*pair) * 255).round().byte().numpy()[0, 0]
    assert fused.std() > 5
    assert (fused == same).all()
