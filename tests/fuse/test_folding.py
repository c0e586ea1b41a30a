"""Folding changes what a frame costs and nothing else."""

from __future__ import annotations

import pytest
import torch

from rtfuse.fuse import UFUSER_WEIGHTS
from rtfuse.fuse.engines.program import Program, tensors
from rtfuse.fuse.inputs import sample
from rtfuse.fuse.networks.folding import FoldedAttention, flops, fold
from rtfuse.fuse.networks.loading import for_gpu
from rtfuse.fuse.networks.scaling import _largest, scaled
from rtfuse.fuse.networks.ufuser import ChannelAttention, Transformer, UFuser, load_weights
from rtfuse.fuse.networks.ufuser_processor import ProcessorUFuser


def shaken(dtype=torch.float32, seed=0):
    """A network whose norms, biases and temperatures are not those that it was born with."""
    torch.manual_seed(seed)
    net = UFuser().to(dtype).eval()
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "temperature" in name:
                p.uniform_(0.5, 8)
            elif "norm" in name or "bias" in name:
                p.add_(0.3 * torch.randn_like(p))
    return net


def images(n, h, w, dtype=torch.float32):
    rng = torch.Generator().manual_seed(1)
    return [torch.rand(n, 1, h, w, generator=rng, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 40, 24), (1, 72, 104)])
def test_folded_equals_unfolded_borders_and_all(size):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net, (ir, luma) = shaken(dtype), images(*size, dtype=dtype)
        with torch.no_grad():
            assert (fold(net)(ir, luma) - net(ir, luma)).abs().max() < tolerance


def test_the_arithmetic_of_a_frame_before_and_after():
    net = UFuser()
    before, after = flops(net, 480, 640), flops(fold(net), 480, 640)
    assert before == pytest.approx(80.85e9, rel=1e-3)
    assert after == pytest.approx(55.53e9, rel=1e-3)


def test_the_source_is_untouched_and_every_attention_folded():
    net = shaken()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    folded = fold(net)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not any(isinstance(m, ChannelAttention) for m in folded.modules())
    kinds = [type(m.attention) for m in folded.modules() if isinstance(m, Transformer)]
    assert (len(kinds), kinds.count(FoldedAttention), kinds.count(torch.nn.Conv2d)) == (16, 12, 4)


def test_queries_keys_and_temperature_of_the_finest_scale_do_nothing_and_all_else_counts():
    """The layers that folding drops do not change the published network's picture; those that it keeps do."""
    ir, luma = images(1, 24, 24, dtype=torch.float64)
    for scale, idle in ((0, True), (1, False)):
        net = shaken(torch.float64)
        attention = net.encoder_ir.blocks[scale].wide.attention
        with torch.no_grad():
            start = net(ir, luma), fold(net)(ir, luma)
            attention.temperature.mul_(3)
            attention.mix.weight[: 2 * attention.project.in_channels].add_(0.1)
            end = net(ir, luma), fold(net)(ir, luma)
        changes = [float((a - b).abs().max()) for a, b in zip(start, end, strict=True)]
        assert all((change == 0) if idle else (change > 1e-9) for change in changes)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("size", [(1, 16, 16), (2, 40, 24), (1, 72, 104)])
def test_the_processors_form_equals_it_too(size, lanes):
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        net, (ir, luma) = shaken(dtype), images(*size, dtype=dtype)
        form = ProcessorUFuser(net, lanes=lanes).to(dtype)
        with torch.no_grad():
            assert (form(ir, luma) - net(ir, luma)).abs().max() < tolerance


@pytest.mark.parametrize("level", [0.0, 0.4, 1.0])
def test_constant_frames_are_finite_in_half_precision(level):
    net = fold(shaken()).bfloat16()
    x = torch.full((1, 1, 48, 64), level, dtype=torch.bfloat16)
    with torch.no_grad():
        assert torch.isfinite(net(x, x)).all()


def test_the_folded_network_can_be_exported():
    net, inputs = fold(shaken()), tuple(images(1, 32, 48))
    with torch.no_grad():
        assert torch.allclose(torch.export.export(net, inputs).module()(*inputs), net(*inputs), atol=1e-6)


def test_scaled_features_stay_small_and_the_picture_the_same():
    """Powers of two change exponents alone, so that nothing is even rounded differently."""
    net, (ir, luma) = shaken(torch.float64), images(2, 40, 24, dtype=torch.float64)
    with torch.no_grad():
        for block in net.decoder:
            block.embed.weight *= 500  # as training does
        assert max(_largest(net).values()) > 1e5
        made = scaled(net)
        assert max(_largest(made).values()) <= 256
        assert (made(ir, luma) - net(ir, luma)).abs().max() < 1e-12
        assert (fold(made)(ir, luma) - net(ir, luma)).abs().max() < 1e-12


def test_the_shipped_network_computes_in_float16():
    """Unscaled, its features are beyond float16's largest number, and the picture is black."""
    net, inputs = load_weights(UFUSER_WEIGHTS).eval(), sample((50, 60), (48, 64))
    with torch.no_grad():
        want = Program(net)(*tensors(inputs)).int()
        error = (Program(for_gpu(net).half())(*tensors(inputs)).int() - want).abs()
    assert error.max() <= 3
    assert max(_largest(net).values()) > torch.finfo(torch.float16).max
