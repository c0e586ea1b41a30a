"""Weights files as training programs leave them: nested tables, prefixes, optimizers, half precision."""

from __future__ import annotations

from argparse import Namespace
from warnings import catch_warnings, simplefilter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtfuse.errors import WeightsMissing
from rtfuse.fuse.networks.checkpoints import read_tensors
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser, load_weights, reference_key_map


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return UFuser().eval()


@pytest.fixture(scope="module")
def reference(net):
    """The network's tensors under the names of the reference implementation."""
    theirs = {ours: name for name, ours in reference_key_map().items()}
    return {theirs[name]: x for name, x in net.state_dict().items()}


def prefixed(state, before):
    return {f"{before}{name}": x for name, x in state.items()}


def adam():
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


SAVED = {
    "plain": lambda s: s,
    "module.": lambda s: prefixed(s, "module."),
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": prefixed(s, "module."), "optimizer": adam(), "best": 0.5},
    "net": lambda s: {"net": s, "optimizer": adam(), "epoch": 7, "args": Namespace(lr=1e-4)},
    "network": lambda s: {"network": s},
    "another name": lambda s: {"fuser": s, "epoch": 1},
    "lightning": lambda s: {"state_dict": prefixed(s, "model."), "optimizer_states": [adam()], "callbacks": {}},
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "two wrappers": lambda s: {"checkpoint": {"state_dict": prefixed(s, "module.net.")}},
    "beside its average": lambda s: {"model": s, "model_ema": {k: x * 0 for k, x in s.items()}},
    "beside other nets": lambda s: {"model": prefixed(s, "fusion.") | {"sensing.conv.weight": torch.ones(3)}},
    "half": lambda s: {k: x.half() for k, x in s.items()},
    "with the best score": lambda s: {"state_dict": s, "best": np.float64(0.7)},
}


@pytest.mark.parametrize("form", SAVED)
def test_a_checkpoint_loads_however_it_was_saved(net, reference, tmp_path, form):
    suffix = (".pth", ".pt", ".ckpt")[list(SAVED).index(form) % 3]
    for k, state in enumerate((reference, net.state_dict())):
        path = tmp_path / f"{k}{suffix}"
        torch.save(SAVED[form](state), path)
        found = load_weights(path).state_dict()
        assert all(torch.allclose(found[name], x, atol=1e-3, rtol=1e-3) for name, x in net.state_dict().items())
        assert all(x.dtype == torch.float32 for x in found.values())


def test_the_suffix_does_not_decide(net, tmp_path):
    torch.save(net.state_dict(), tmp_path / "w.safetensors")
    save_file(net.state_dict(), tmp_path / "w.pth")
    for name in ("w.safetensors", "w.pth"):
        assert torch.equal(load_weights(tmp_path / name).head.bias, net.head.bias)


def test_a_student_loads_from_a_checkpoint_too(tmp_path):
    student = Student(8, 1, 8)
    torch.save(
        {"task": prefixed(student.state_dict(), "student."), "optimizer": adam(), "step": 3}, tmp_path / "d.ckpt"
    )
    found = load_network(tmp_path / "d.ckpt")
    assert isinstance(found, Student)
    assert torch.equal(found.guide.stem.weight, student.guide.stem.weight)


OTHERS = {
    "CDDFuse": {"DIDF_Encoder": {"module.patch_embed.proj.weight": 1}, "BaseFuseLayer": {"module.norm1.bias": 1}},
    "SeAFusion": {"vis_conv.conv.weight": 1, "vis_rgbd1.dense.conv1.conv.weight": 1},
    "TarDAL": {"encoder.0.weight": 1, "dense.0.0.weight": 1, "fuse.0.0.weight": 1},
    "IFCNN": {"conv1.weight": 1, "conv3.bn.running_mean": 1},
    "EMMA's sensing nets": {"down1.conv.0.weight": 1, "up_sample5.0.weight": 1},
    "the sensing nets of a training run": {"task": {"thermal.down.0.0.weight": 1, "visible.down.0.0.weight": 1}},
    "a student": {"guide.context.down.weight": 1, "guide.stem.weight": 1},
    "a student of before December 2026": {"context.down.weight": 1, "stem.weight": 1},
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_of_a_known_network_are_told_by_its_name(tmp_path, name):
    def tensors(tree):
        return {k: tensors(v) if isinstance(v, dict) else torch.ones(v) for k, v in tree.items()}

    torch.save(tensors(OTHERS[name]), tmp_path / "w.pth")
    with pytest.raises(WeightsMissing, match=rf"w\.pth are those of {name}.*, not of U-Fuser"):
        load_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("half", [False, True])
def test_numbers_that_are_not_finite_are_refused(net, tmp_path, value, half):
    state = {k: x.half() if half else x.clone() for k, x in net.state_dict().items()}
    state["head.bias"][0] = value
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsMissing, match=r"w\.safetensors are damaged: head\.bias holds NaN or infinity"):
        read_tensors(tmp_path / "w.safetensors")


def test_a_whole_model_a_program_and_a_folder_are_told(net, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(WeightsMissing, match="objects of another program, which are not loaded"):
        load_network(tmp_path / "model.pt")
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(WeightsMissing, match="a TorchScript program"):
        load_network(tmp_path / "script.pt")
    with pytest.raises(WeightsMissing, match="is a folder"):
        load_network(tmp_path)


UNUSABLE = {
    "sparse": (lambda s: {k: x.to_sparse() for k, x in s.items()}, "is a tensor sparse"),
    "complex": (lambda s: {k: x.to(torch.complex64) for k, x in s.items()}, "is a tensor complex"),
    "meta": (lambda s: {k: x.to("meta") for k, x in s.items()}, "is a tensor without values"),
    "quantized": (
        lambda s: {k: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8) for k, x in s.items()},
        "is a tensor quantized",
    ),
    "integers": (lambda s: {k: (x * 100).to(torch.int8) for k, x in s.items()}, "of whole numbers"),
    "zeros": (lambda s: {k: x * 0 for k, x in s.items()}, "are all zero"),
    "two": (lambda s: {"netA": s, "netB": {k: x * 2 for k, x in s.items()}}, r"twice, as netA\.… and as netB\.…"),
}


@pytest.mark.parametrize("form", UNUSABLE)
def test_tensors_that_no_engine_computes_with_are_refused(net, tmp_path, form):
    change, fault = UNUSABLE[form]
    with catch_warnings():
        simplefilter("ignore")
        torch.save(change(net.state_dict()), tmp_path / "w.pth")
        with pytest.raises(WeightsMissing, match=fault):
            load_network(tmp_path / "w.pth")


def test_a_network_that_stands_twice_and_equal_is_loaded(net, tmp_path):
    torch.save({"a": net.state_dict(), "b": net.state_dict()}, tmp_path / "w.pth")
    assert torch.equal(load_weights(tmp_path / "w.pth").head.bias, net.head.bias)


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("w.pth", b"", "are empty"),
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "pointer of Git LFS"),
        ("w.pth", b"<!doctype html><p>404", "are a web page"),
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "are HDF5"),
        ("w.onnx", b"\x08\x07\x12\x07pytorch" * 9, "program for another engine"),
        ("w.pth", b"PK\x03\x04" + bytes(99), "damaged or cut short"),
        ("w.safetensors", b"\x10\x27\0\0\0\0\0\0{}", "damaged or cut short"),
        ("w.npz", None, "an archive that torch has not written"),
    ],
)
def test_files_that_are_no_weights_are_told_in_words(tmp_path, name, data, fault):
    path = tmp_path / name
    if data is None:
        np.savez(path, a=np.ones(3))
    else:
        path.write_bytes(data)
    with pytest.raises(WeightsMissing, match=fault):
        read_tensors(path)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "pickle"])
def test_a_checkpoint_that_is_cut_short_is_told_at_every_length(net, tmp_path, archive):
    path = tmp_path / "w.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=archive)
    data = path.read_bytes()
    for size in [1, 2, 5, 12, 40, 200, 500, 1000, 5000, *np.linspace(6000, len(data) - 1, 20).astype(int)]:
        path.write_bytes(data[:size])
        with pytest.raises(WeightsMissing, match="damaged or cut short"):
            read_tensors(path)
