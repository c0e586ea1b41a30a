"""U-Fuser below bands of chosen details: the same integers in torch and in OpenCV, and its files."""

import copy

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtfuse.errors import WeightsMissing
from rtfuse.fuse import bands
from rtfuse.fuse.engines.convert import LumaProgram, reference
from rtfuse.fuse.inputs import MULTIPLE
from rtfuse.fuse.networks import bands as torch_bands
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import for_gpu, for_processor, load_network
from rtfuse.fuse.networks.ufuser import UFuser, load_weights
from trainer.export import _program


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    made = Detailed(UFuser(), 2).eval()
    with torch.no_grad():
        made.detail_gains.copy_(torch.tensor([1.1, 0.9]))
    return made


def _pair(h, w):
    rng = np.random.default_rng(3)
    made = [cv2.GaussianBlur(rng.integers(0, 256, (h, w), np.uint8), (0, 0), sigma) for sigma in (1, 3)]
    return [cv2.normalize(x, None, 0, 255, cv2.NORM_MINMAX) for x in made]


@pytest.mark.parametrize("hw", [(64, 96), (72, 88)], ids=["whole", "rests are extended"])
def test_torch_and_opencv_make_the_same_picture(net, hw):
    ir, luma = _pair(*hw)

    @torch.no_grad()
    def inner(*rests):
        h, w = rests[0].shape
        below, right = (max(-side % MULTIPLE, 2 * MULTIPLE - side) for side in (h, w))
        whole = (cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in rests)
        exact = LumaProgram(copy.deepcopy(net.net).double())
        return exact(*(torch.from_numpy(x)[None, None] for x in whole))[0, 0, :h, :w].numpy()

    want = bands.fuse_below(ir, luma, net.gains().byte().tolist(), inner)
    np.testing.assert_array_equal(reference(net, ir, luma), want)


def test_equal_sources_keep_their_details(net):
    """With gains of 1 everything above the rest comes out as it went in."""
    same, plain = _pair(64, 96)[0], Detailed(net.net, 2).eval()
    fused, want = (bands.split(x, 2)[0][0] for x in (reference(plain, same, same), same))
    inside = (reference(plain, same, same) > 0) & (reference(plain, same, same) < 255)
    assert (np.abs(fused.size.astype(int) - want.size)[inside] > 3).mean() < 0.05


def test_its_file_and_its_forms(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "u.safetensors")
    loaded = load_network(tmp_path / "u.safetensors").eval()
    assert isinstance(loaded, Detailed)
    assert loaded.levels == 2
    x = torch.rand(2, 1, 64, 96)
    with torch.no_grad():
        want = net(x[:1], x[1:])
        assert torch.equal(loaded(x[:1], x[1:]), want)
        for form in (for_gpu(net), for_processor(net, 8)):
            assert (form.eval()(x[:1], x[1:]) - want).abs().max() < 1.5 / 255
    inner = load_weights(tmp_path / "u.safetensors")
    assert torch.equal(inner.head.weight, net.net.head.weight)

    state = net.state_dict()
    del state["net.head.weight"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsMissing, match=r"head\.weight"):
        load_network(tmp_path / "less.safetensors")


def test_torch_and_opencv_agree_on_the_majority_around_each_pixel():
    mask = np.random.default_rng(5).integers(0, 2, (40, 56), np.uint8)
    found = torch_bands._majority(torch.from_numpy(mask)[None, None].float())[0, 0].numpy()
    np.testing.assert_array_equal(found, cv2.medianBlur(mask, 3))
    lone = np.zeros((5, 5), np.uint8)
    lone[2, 2] = 1
    assert not torch_bands._majority(torch.from_numpy(lone)[None, None].float()).any()


@pytest.mark.slow
@pytest.mark.parametrize("size_wh", [None, (104, 88)], ids=["dynamic", "fixed"])
def test_it_is_exported_for_any_size(net, size_wh):
    w, h = size_wh or (192, 128)
    x = torch.rand(2, 1, h, w)
    with torch.no_grad():
        assert torch.equal(_program(net, size_wh).module()(x[:1], x[1:]), net(x[:1], x[1:]))
