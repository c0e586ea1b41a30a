"""The losses of a refinement agree with the measures that they stand for, and prefer the pictures that they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rtfuse.capture.synthetic import SyntheticScene, SyntheticSource
from trainer.classical import fuse_additive
from trainer.fidelity import edges_kept, gradients, means_differ, noise_added, outside, vif, wanted_gradients
from trainer.metrics import qabf
from trainer.metrics import vif as measured_vif

SIZE_WH = (160, 128)


def planes(*images):
    return torch.from_numpy(np.stack(images).astype(np.float32) / 255)[None]


@pytest.fixture(scope="module")
def street():
    rng = np.random.default_rng(3)
    scene = SyntheticScene(size=SIZE_WH, noise=0, seed=3)
    ir, rgb = (next(iter(SyntheticSource(scene, stream))).image for stream in ("ir", "rgb"))
    return ir, np.clip(rgb.mean(2) + rng.normal(0, 2, rgb.shape[:2]), 0, 255).astype(np.uint8)


def test_vif_is_the_measure(street):
    ir, luma = street
    fused = fuse_additive(ir, luma)
    want = measured_vif(ir, fused) + measured_vif(luma, fused)
    assert float(vif(planes(ir, luma), planes(fused))) == pytest.approx(want, abs=0.02)


def test_edges_follow_the_measure(street):
    ir, luma = street
    pictures = [fuse_additive(ir, luma), ir, luma, ((ir.astype(int) + luma) // 2).astype(np.uint8)]
    soft = [float(edges_kept(planes(ir, luma), planes(x))) for x in pictures]
    measured = [qabf(x, ir, luma, mirror=True) for x in pictures]
    assert soft == pytest.approx(measured, abs=0.08)
    assert np.argmax(soft) == np.argmax(measured)


def test_the_stronger_gradient_counts_with_its_sign_and_noise_is_averaged():
    ir, luma = torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)
    ir[..., 4:] = 0.5  # a strong step to the right
    luma[..., 4:] = -0.2  # a weak one of the other sign
    wanted = wanted_gradients(torch.cat((ir, luma), 1), 0.0)
    assert torch.allclose(wanted[:, 0], gradients(ir)[:, 0], atol=1e-7)
    quiet = 0.002 * torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))
    both, spared = gradients(quiet).abs().mean(), wanted_gradients(quiet, 2 / 255).abs().mean()
    assert float(spared) < 0.8 * float(both) < float(wanted_gradients(quiet, 0.0).abs().mean())


def test_means_and_range():
    x = torch.full((1, 1, 16, 16), 0.5)
    assert float(means_differ(x, x + 0.1, 9)) == pytest.approx(0.1, rel=1e-4)
    checker = x + 0.2 * (torch.arange(16) % 2 - 0.5)
    assert float(means_differ(x, checker, 8)) == pytest.approx(0, abs=1e-6)
    assert float(outside(x)) == 0
    assert float(outside(x + 0.75)) == pytest.approx(0.25)


def test_gradients_are_finite_where_everything_is_flat():
    fused = torch.full((1, 1, 64, 64), 0.5, requires_grad=True)
    sources = torch.full((1, 2, 64, 64), 0.5)
    (vif(sources, fused) + edges_kept(sources, fused)).backward()
    assert torch.isfinite(fused.grad).all()


def test_noise_counts_where_both_sources_are_flat_and_only_if_it_is_added():
    rng = torch.Generator().manual_seed(0)
    grain = torch.randn((1, 1, 48, 48), generator=rng) / 255
    flat = torch.full((1, 2, 48, 48), 0.4)
    textured = flat + 0.1 * torch.randn((1, 2, 48, 48), generator=rng)
    noisy = flat[:, :1] + 4 * grain
    assert noise_added(flat, flat[:, :1]) < 1e-6
    assert noise_added(flat, noisy) > 1
    assert noise_added(torch.cat((noisy, flat[:, :1]), 1), noisy) < 1e-6
    assert noise_added(textured, textured[:, :1] + 4 * grain) < 0.01
