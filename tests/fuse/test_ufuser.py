"""The network: its size, its parts against their formulas, and that it is safe in every precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rtfuse.errors import WeightsMissing
from rtfuse.fuse.networks import ufuser
from rtfuse.fuse.networks.ufuser import UFuser, crop, from_reference, load_weights, pad_to_multiple, reference_key_map


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return UFuser().eval()


def images(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=g), torch.rand(*shape, generator=g)


def test_parameter_count(net):
    assert sum(p.numel() for p in net.parameters()) == 1_517_657


def test_work_per_frame():
    """80.8 GFLOP per 640×480 frame, counted without computing anything."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UFuser()(torch.empty(1, 1, 480, 640), torch.empty(1, 1, 480, 640))
    assert counter.get_total_flops() / 1e9 == pytest.approx(80.8, rel=0.02)


@torch.inference_mode()
def test_output_is_a_picture_of_the_same_size(net):
    out = net(*images(2, 1, 48, 64))
    assert out.shape == (2, 1, 48, 64)
    assert out.min() > 0
    assert out.max() < 1


@torch.inference_mode()
def test_images_of_a_batch_do_not_influence_each_other(net):
    ir, luma = images(3, 1, 32, 40)
    luma[2] = 0  # an extreme neighbour
    together = net(ir, luma)
    for k in range(3):
        assert torch.allclose(together[k], net(ir[k : k + 1], luma[k : k + 1])[0], atol=1e-6)


@torch.inference_mode()
def test_thermal_and_visible_are_not_interchangeable(net):
    ir, luma = images(1, 1, 32, 32)
    assert (net(ir, luma) - net(luma, ir)).abs().max() > 1e-3


@torch.inference_mode()
def test_attention_is_its_formula():
    torch.manual_seed(1)
    attention = ufuser.ChannelAttention(16).double()
    attention.temperature.copy_(torch.rand(8, 1, 1) * 3)
    x = torch.randn(2, 16, 6, 5, dtype=torch.float64)
    wide = torch.einsum("oi,nihw->nohw", attention.expand.weight[:, :, 0, 0], x)
    qkv = F.conv2d(F.pad(wide, (1, 1, 1, 1)), attention.mix.weight)
    result = torch.zeros_like(x)
    for head in range(8):
        q, k, v = (qkv[:, 16 * part + 2 * head : 16 * part + 2 * head + 2].flatten(2) for part in range(3))
        q, k = (y / y.pow(2).sum(-1, keepdim=True).sqrt() for y in (q, k))
        weights = (torch.einsum("nip,njp->nij", q, k) * attention.temperature[head]).exp()
        weights /= weights.sum(-1, keepdim=True)
        result[:, 2 * head : 2 * head + 2] = torch.einsum("nij,njp->nip", weights, v).view(2, 2, 6, 5)
    want = torch.einsum("oi,nihw->nohw", attention.project.weight[:, :, 0, 0], result)
    assert torch.allclose(attention(x), want, atol=1e-12)


@torch.inference_mode()
def test_norm_and_feed_forward_are_their_formulas():
    torch.manual_seed(1)
    norm = ufuser.ChannelNorm(8).double()
    norm.weight.normal_()
    norm.bias.normal_()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    want = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert torch.allclose(norm(x), want, atol=1e-12)
    layer = ufuser.GatedFeedForward(4).double()
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    wide = F.pad(F.conv2d(x, layer.expand.weight), (1, 1, 1, 1), mode="reflect")
    spread = torch.cat(
        [F.conv2d(wide[:, 2 * g : 2 * g + 2], layer.spread.weight[2 * g : 2 * g + 2]) for g in range(4)], 1
    )
    want = F.conv2d(F.gelu(spread[:, :4]) * spread[:, 4:], layer.project.weight)
    assert torch.allclose(layer(x), want, atol=1e-12)


def test_every_parameter_learns():
    torch.manual_seed(0)
    net = UFuser()
    net(*images(1, 1, 16, 24)).sum().backward()
    still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    # Eight heads on eight channels: a softmax over one number has nothing to learn.
    blocks = ("encoder_ir.blocks.0", "encoder_rgb.blocks.0", "fusion.0", "decoder.0")
    assert still == {f"{block}.wide.attention.temperature" for block in blocks}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 1), (0, 1), (1, 0), (0.5, 0.5)])
@torch.inference_mode()
def test_shutter_saturated_and_constant_frames_give_finite_pictures(net, dtype, a, b):
    half = UFuser().eval()
    half.load_state_dict(net.state_dict())
    half = half.to(dtype)
    out = half(torch.full((1, 1, 64, 48), a, dtype=dtype), torch.full((1, 1, 64, 48), b, dtype=dtype))
    assert torch.isfinite(out).all()


@torch.inference_mode()
def test_unit_length_survives_sums_past_the_largest_half():
    x = torch.full((1, 1, 1, 640 * 480), 4.0, dtype=torch.float16)
    assert ufuser._unit(x).float().pow(2).sum() == pytest.approx(1, abs=5e-3)
    assert torch.isfinite(ufuser._unit(torch.zeros(1, 1, 1, 9, dtype=torch.float16))).all()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)])
@torch.inference_mode()
def test_half_precision_is_close(net, dtype, bound):
    other = UFuser().eval()
    other.load_state_dict(net.state_dict())
    ir, luma = images(1, 1, 64, 64)
    out = other.to(dtype)(ir.to(dtype), luma.to(dtype)).float()
    assert (out - net(ir, luma)).abs().max() < bound


@torch.inference_mode()
def test_it_exports_as_one_graph(net):
    ir, luma = images(1, 1, 32, 48)
    exported = torch.export.export(net, (ir, luma)).module()
    assert torch.allclose(exported(ir, luma), net(ir, luma), atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_padding_is_taken_off_again(h, w, multiple):
    x = torch.rand(1, 2, h, w)
    padded = pad_to_multiple(x, multiple)
    assert padded.shape[-2] % multiple == padded.shape[-1] % multiple == 0
    assert padded.shape[-2] == max(2 * multiple, -(-h // multiple) * multiple)
    assert padded.shape[-1] == max(2 * multiple, -(-w // multiple) * multiple)
    assert torch.equal(crop(padded, h, w), x)
    assert torch.equal(padded[..., -1, -1], x[..., -1, -1])


def reference_state(net):
    back = {ours: theirs for theirs, ours in reference_key_map().items()}
    return {back[k]: v for k, v in net.state_dict().items()}


def test_the_key_map_covers_both_sides_one_to_one(net):
    keys = reference_key_map()
    assert set(keys.values()) == set(net.state_dict())
    assert len(set(keys.values())) == len(keys) == 347
    assert keys["V_en_2.GlobalFeature.attn.qkv2.weight"] == "encoder_rgb.blocks.1.wide.attention.mix.weight"
    assert keys["up4.0.weight"] == "up.2.weight"


@torch.inference_mode()
def test_a_reference_checkpoint_loads(net, tmp_path):
    path = tmp_path / "reference.pth"
    torch.save({f"module.{k}": v for k, v in reference_state(net).items()}, path)
    ir, luma = images(1, 1, 16, 16)
    assert torch.equal(load_weights(path)(ir, luma), net(ir, luma))


def waves(shape, phase):
    """Numbers in -1 … 1 that look random and are the same everywhere."""
    n = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return (n * 0.6180339887498949 * (phase + 1) ** 0.5).frac().reshape(shape) * 2 - 1


@torch.inference_mode()
def test_a_reference_checkpoint_gives_the_reference_output():
    """Made-up weights under the reference's names; the expected pixels were computed by the reference itself.

    Any order of concatenation, exchanged by mistake, moves them by 8e-6 or more: shapes would not tell.
    """
    net, state = UFuser().double().eval(), {}
    for phase, (theirs, ours) in enumerate(sorted(reference_key_map().items())):
        shape = net.state_dict()[ours].shape
        gain = 1.4 / shape[1:].numel() ** 0.5 if len(shape) == 4 else 0.5
        offset = len(shape) == 3 or ("norm" in theirs and theirs.endswith("weight"))
        state[theirs] = waves(shape, phase) * gain + offset
    net.load_state_dict(from_reference(state))
    ir, luma = ((waves((1, 1, 16, 24), phase) + 1) / 2 for phase in (1, 2))
    pixels = net(ir, luma)[0, 0, [0, 5, 15], [0, 11, 23]]
    assert pixels.tolist() == pytest.approx([0.52410995835, 0.41374704811, 0.44127362207], abs=1e-8)


@pytest.mark.parametrize("thing", [[1, 2], None, torch.zeros(3), {1: torch.zeros(1)}, {"last.0.bias": 3}])
def test_files_of_other_things_than_named_tensors_are_refused(tmp_path, thing):
    torch.save(thing, tmp_path / "w.pth")
    with pytest.raises(WeightsMissing, match="state_dict alone"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_constant_frames_give_finite_gradients(grey):
    torch.manual_seed(0)
    net = UFuser()
    net(torch.full((1, 1, 16, 16), grey), torch.full((1, 1, 16, 16), grey)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_foreign_checkpoints_are_refused_by_key(net, tmp_path):
    state = reference_state(net)
    state["extra.weight"] = state.pop("f_1.FFN.weight")
    with pytest.raises(WeightsMissing, match=r"missing \(f_1\.FFN\.weight\).*unknown \(extra\.weight\)"):
        from_reference(state)
    ours = dict(net.state_dict())
    ours["head.bias"] = torch.zeros(3)
    save_file(ours, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMissing, match=r"another shape \(head\.bias\)"):
        load_weights(tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_files_that_are_no_weights_are_refused(tmp_path, capfd):
    with pytest.raises(WeightsMissing, match="not found"):
        load_weights(tmp_path / "absent.safetensors")
    for name in ("w.safetensors", "w.pth"):
        (tmp_path / name).write_bytes(b"not tensors at all")
        with pytest.raises(WeightsMissing, match=name):
            load_weights(tmp_path / name)
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsMissing, match=r"evil\.pth"):
        load_weights(tmp_path / "evil.pth")
    assert "executed" not in capfd.readouterr().out
