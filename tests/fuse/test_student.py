"""The student: its form, its weights, and what it makes beside its teacher."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rtfuse.capture import open_source
from rtfuse.errors import WeightsMissing
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS, open_fuser
from rtfuse.fuse.engines.convert import reference
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.engines.parity import tolerance
from rtfuse.fuse.engines.program import Program, tensors
from rtfuse.fuse.inputs import MULTIPLE, sample
from rtfuse.fuse.luma_fuser import luma
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import for_gpu, load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser

SIZES = [(16, 16), (40, 24), (72, 104)]


@pytest.mark.parametrize("size", SIZES)
def test_any_multiple_of_eight_and_a_batch_is_its_images(size):
    torch.manual_seed(0)
    net = Student(8, 2, 8).eval()
    ir, luma = torch.rand(2, 2, 1, *size)
    with torch.no_grad():
        both = net(ir, luma)
        alone = torch.cat([net(ir[k : k + 1], luma[k : k + 1]) for k in range(2)])
    assert both.shape == ir.shape
    assert torch.allclose(both, alone, atol=1.01 / 255)  # a rounding may fall the other way


def test_it_begins_near_the_mean_of_both_and_details_are_never_resampled():
    """A pixel alone in one source is a pixel alone in the picture: nothing smears it over the coarse grid."""
    torch.manual_seed(0)
    net = Student().eval()
    ir, luma = torch.full((1, 1, 48, 64), 0.6), torch.full((1, 1, 48, 64), 0.2)
    with torch.no_grad():
        flat = net(ir, luma)
        assert (flat - 0.4).abs().max() < 0.15
        ir[..., 21, 30] = 1.0
        dot = net(ir, luma) - flat
    beside = dot[0, 0, 20:23, 29:32].abs()
    assert dot[0, 0, 21, 30] > 0.15
    assert beside.sum() - beside[1, 1] < 0.1 * beside[1, 1]


def test_the_file_says_which_network_it_holds(tmp_path):
    assert isinstance(load_network(STUDENT_WEIGHTS), Student)
    assert isinstance(load_network(UFUSER_WEIGHTS), Detailed)
    save_file(load_network(UFUSER_WEIGHTS).net.state_dict(), tmp_path / "whole.safetensors")
    assert isinstance(load_network(tmp_path / "whole.safetensors"), UFuser)
    state = load_file(STUDENT_WEIGHTS)
    state.pop("guide.head.weight")
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsMissing, match=r"do not fit the student.*guide\.head\.weight"):
        load_network(tmp_path / "less.safetensors")


def test_half_precision_makes_the_same_picture():
    inputs = sample((50, 60), (48, 64), 2)
    want = EagerEngine(STUDENT_WEIGHTS, "cpu", torch.float64)(inputs).astype(int)
    half = Program(for_gpu(load_network(STUDENT_WEIGHTS)).half()).eval()
    with torch.inference_mode():
        error = np.abs(half(*tensors(inputs)).numpy() - want)
    allowed, share = tolerance("float16", chooses=True)
    assert (error > allowed).mean() <= share


@pytest.mark.parametrize("level", [0, 128, 255])
def test_constant_frames(level):
    fuser = open_fuser("student", engine="eager")
    fused = fuser(np.full((40, 50), level, np.uint8), np.full((40, 50, 3), level, np.uint8))
    assert fused.std() < 12
    assert abs(float(fused.mean()) - level) < 60


def test_it_shows_what_its_teacher_shows():
    ir, rgb = (next(iter(open_source("synthetic:?seed=3&size=320x240", s))).image for s in ("ir", "rgb"))
    student, teacher = (open_fuser(name, engine="eager")(ir, rgb).astype(float) for name in ("student", "ufuser"))
    pyramid = open_fuser("pyramid")(ir, rgb).astype(float)
    off = np.abs(student - teacher).mean()
    assert off < 12
    assert off < np.abs(pyramid - teacher).mean()


@pytest.mark.parametrize("size", ["320x240", "328x250"])
def test_the_program_on_a_processor_and_torch_make_the_same_picture(size):
    """OpenCV computes the bands and OpenVINO the guide; torch computes all of it, in float64."""
    pytest.importorskip("openvino")
    ir, rgb = (next(iter(open_source(f"synthetic:?seed=4&size={size}", s))).image for s in ("ir", "rgb"))
    y = luma(rgb)
    fused = luma(open_fuser("student", engine="openvino")(ir, cv2.cvtColor(y, cv2.COLOR_GRAY2RGB)))
    below, right = (-side % MULTIPLE for side in y.shape)
    padded = (cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in (ir, y))
    want = reference(load_network(STUDENT_WEIGHTS), *padded)[: y.shape[0], : y.shape[1]]
    assert (np.abs(fused.astype(int) - want) > 1).mean() <= 1e-3


def test_what_thermal_alone_shows_is_in_the_picture_and_noise_is_held_down():
    """A warm square in the dark is seen; a choice between two noises is somewhat noisier than each."""
    rng = np.random.default_rng(0)
    ir = np.full((128, 160), 60, np.uint8)
    ir[40:80, 60:90] = 200
    noisy = [np.clip(x + rng.normal(0, 3, x.shape), 0, 255).astype(np.uint8) for x in (ir, np.full_like(ir, 12))]
    fused = luma(open_fuser("student")(noisy[0], cv2.cvtColor(noisy[1], cv2.COLOR_GRAY2RGB)))
    assert fused[45:75, 65:85].mean() > fused[:, 110:].mean() + 40
    corner = (slice(90, 128), slice(110, 160))
    assert fused[corner].std() < 1.4 * max(x[corner].std() for x in noisy)
