"""The mathematics of the trainer: exact transforms, losses as in their equations, gradients where they belong."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.fuse.networks.ufuser import UFuser
from trainer import transforms
from trainer.losses import Nets, distance, fusion_loss, sobel
from trainer.sensing_net import SensingNet


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(*shape, seed=0):
    return torch.rand(*shape, generator=rng(seed), dtype=torch.float64)


exact = st.one_of(
    st.builds(transforms.Shift, st.integers(-40, 40), st.integers(-40, 40)),
    st.builds(transforms.QuarterTurns, st.integers(0, 3)),
    st.builds(transforms.Reflection, st.booleans(), st.booleans()),
)


@given(exact)
def test_exact_transforms_only_move_pixels(transform):
    x = images(2, 3, 16, 16)
    y = transform(x)
    assert y.shape == x.shape
    assert torch.equal(y.flatten(1).sort().values, x.flatten(1).sort().values)
    assert transform.valid(x) is None


@given(st.integers(-30, 30), st.integers(-30, 30), st.integers(0, 3), st.booleans(), st.booleans())
def test_exact_transforms_have_inverses(down, right, turns, horizontal, vertical):
    x = images(1, 1, 12, 12)
    assert torch.equal(transforms.Shift(-down, -right)(transforms.Shift(down, right)(x)), x)
    assert torch.equal(transforms.QuarterTurns(4 - turns)(transforms.QuarterTurns(turns)(x)), x)
    mirror = transforms.Reflection(horizontal, vertical)
    assert torch.equal(mirror(mirror(x)), x)


@settings(deadline=None)
@given(exact)
def test_a_pointwise_fusion_is_exactly_equivariant(transform):
    """F(T i, T v) = T F(i, v) for a fusion of single pixels: the property that EMMA requires."""
    i, v = images(1, 1, 16, 16), images(1, 1, 16, 16, seed=1)

    def fuse(a, b):
        return torch.maximum(a, 0.6 * b)

    assert torch.equal(fuse(transform(i), transform(v)), transform(fuse(i, v)))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_rotation_by_a_quarter_is_the_quarter_turn(turns):
    x = images(1, 1, 32, 32)
    rotation = transforms.Rotation(90.0 * turns)
    inside = rotation.valid(x).bool()
    assert inside.float().mean() > 0.85
    assert torch.allclose(rotation(x)[inside], transforms.QuarterTurns(turns)(x)[inside], atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (24, 48)])
def test_a_rotation_agrees_with_opencv_and_masks_what_left_the_frame(size):
    h, w = size
    x = images(1, 1, h, w)
    smooth = torch.from_numpy(cv2.GaussianBlur(x[0, 0].numpy(), (0, 0), 2))[None, None]
    rotation = transforms.Rotation(27.0)
    M = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), 27.0, 1.0)
    want = cv2.warpAffine(smooth[0, 0].numpy(), M, (w, h), flags=cv2.INTER_LINEAR)
    inside = rotation.valid(smooth)[0, 0].bool().numpy()
    assert 0.3 < inside.mean() < 0.95
    assert np.abs(rotation(smooth)[0, 0].numpy() - want)[inside].max() < 5e-3
    assert not rotation.valid(smooth)[0, 0, 0, 0]


def test_draws_repeat_with_their_seed_and_cover_every_kind():
    first, again = (transforms.draw_set((16, 16), rng(5), per_kind=3) for _ in range(2))
    assert first == again
    assert [type(t).__name__ for t in first] == ["Shift"] * 3 + ["QuarterTurns"] * 3 + ["Reflection"] * 3
    other = [transforms.draw("rotation", (16, 16), rng(k), any_angle=True) for k in range(5)]
    assert len({t.degrees for t in other}) == 5
    with pytest.raises(ValueError, match="shift, rotation, reflection"):
        transforms.draw("shear", (16, 16), rng())


def test_sobel_is_opencvs():
    x = images(1, 1, 20, 30)
    a = x[0, 0].numpy()
    want = sum(
        np.abs(cv2.Sobel(a, cv2.CV_64F, *d, ksize=3, borderType=cv2.BORDER_REFLECT_101)) for d in ((1, 0), (0, 1))
    )
    assert np.allclose(sobel(x)[0, 0].numpy(), want, atol=1e-12)


def test_distance_is_its_equation():
    x, y = images(2, 1, 9, 9), images(2, 1, 9, 9, seed=1)
    want = (x - y).abs().mean() + (sobel(x) - sobel(y)).abs().mean()
    assert distance(x, y) == pytest.approx(float(want))
    assert distance(x, x) == 0
    mask = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    mask[..., 2:5, 3:7] = 1
    part = ((x - y).abs() + (sobel(x) - sobel(y)).abs())[..., 2:5, 3:7]
    assert distance(x, y, mask) == pytest.approx(float(part.mean()))


def nets():
    torch.manual_seed(0)
    return UFuser(), SensingNet(4).frozen(), SensingNet(4).frozen()


def test_the_loss_is_the_sum_of_its_terms():
    fusion, a, b = nets()
    ir, luma = images(2, 1, 32, 32).float(), images(2, 1, 32, 32, seed=1).float()
    with torch.no_grad():
        terms = fusion_loss(Nets(fusion, a, b), ir, luma, [transforms.Shift(3, 5)], alpha1=0.7, alpha2=0.3)
        f = fusion(ir, luma)
        moved = f.roll((3, 5), (-2, -1))
        assert terms.thermal == pytest.approx(float(distance(a(f), ir)), rel=1e-5)
        assert terms.visible == pytest.approx(float(distance(b(f), luma)), rel=1e-5)
        assert terms.equivariance == pytest.approx(float(distance(moved, fusion(a(moved), b(moved)))), rel=1e-5)
        total = terms.thermal + 0.7 * terms.visible + 0.3 * terms.equivariance
        assert terms.total == pytest.approx(float(total))
        assert fusion_loss(Nets(fusion, a, b), ir, luma, []).equivariance == 0


def test_direct_losses_compare_with_the_sources_and_leave_equivariance_to_the_sensing_nets():
    fusion, a, b = nets()
    ir, luma = images(2, 1, 32, 32).float(), images(2, 1, 32, 32, seed=1).float()
    with torch.no_grad():
        terms = fusion_loss(Nets(fusion, a, b), ir, luma, [transforms.Shift(3, 5)], direct=True)
        f = fusion(ir, luma)
        assert terms.thermal == pytest.approx(float(distance(f, ir)), rel=1e-5)
        assert terms.visible == pytest.approx(float(distance(f, luma)), rel=1e-5)
        sensed = fusion_loss(Nets(fusion, a, b), ir, luma, [transforms.Shift(3, 5)])
        assert terms.equivariance == pytest.approx(float(sensed.equivariance), rel=1e-5)


def test_gradients_flow_to_the_fusion_net_alone_and_batch_norm_stays():
    fusion, a, b = nets()
    before = {k: v.clone() for k, v in a.state_dict().items()}
    ir, luma = images(2, 1, 32, 32).float(), images(2, 1, 32, 32, seed=1).float()
    fusion_loss(Nets(fusion, a, b), ir, luma, transforms.draw_set((32, 32), rng(), per_kind=1)).total.backward()
    assert all(p.grad is None for net in (a, b) for p in net.parameters())
    assert sum(p.grad is not None and bool(p.grad.abs().max() > 0) for p in fusion.parameters()) > 300
    assert all(torch.equal(v, before[k]) for k, v in a.state_dict().items())
    assert not a.training


def test_the_sensing_net_is_the_published_one_at_width_64():
    with torch.device("meta"):
        net = SensingNet()
        assert sum(p.numel() for p in net.parameters()) == pytest.approx(39.4e6, rel=1e-3)
        assert net(torch.empty(1, 1, 128, 128)).shape == (1, 1, 128, 128)
    out = SensingNet(2)(torch.rand(2, 1, 48, 32))
    assert out.shape == (2, 1, 48, 32)
    assert 0 <= out.min() <= out.max() <= 1


def test_through_optics_no_checkerboard_is_seen_and_every_look_has_noise():
    """The low pass removes a pattern of one pixel, and little of a pattern of four pixels."""
    torch.manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(1, 1, 32, 32)
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board, wide = ((-1.0) ** (rows // k + columns // k) for k in (1, 8))
    plain, through = SensingNet(4).frozen(), SensingNet(4, optics=True).frozen()
    through.load_state_dict(plain.state_dict())
    seen = {net: [(net(x + 0.2 * p) - net(x)).abs().mean() for p in (board, wide)] for net in (plain, through)}
    assert seen[plain][0] > 1e-4
    assert seen[through][0] < 1e-6
    assert seen[through][1] > 0.2 * seen[plain][1]
    noisy = SensingNet(4, noise=0.1).frozen()
    assert not torch.equal(noisy(x), noisy(x))


def test_in_half_precision_pictures_stay_in_float32():
    """A picture of 256 levels at most would hide the small differences that the fusion net learns from."""
    torch.manual_seed(0)
    exact, half = SensingNet(8).frozen(), SensingNet(8, autocast=True).frozen()
    half.load_state_dict(exact.state_dict())
    x = torch.linspace(0.2, 0.8, 64 * 64).reshape(1, 1, 64, 64).requires_grad_()
    seen = half(x)
    assert seen.dtype == torch.float32
    assert 0 < (seen - exact(x)).abs().max() < 0.02
    assert len(seen.unique()) > 2000
    (gradient,) = torch.autograd.grad(seen.square().sum(), x)
    assert gradient.dtype == torch.float32
    assert gradient.isfinite().all()
