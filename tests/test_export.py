"""`trainer export`: the same network in three forms, each with a manifest, each whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from rtfuse.errors import ConfigError, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.fuse.ufuser import UFuser
from trainer.export import Manifest, export, manifest_beside, read_metrics

SIZE = (64, 48)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return UFuser().eval()


def inputs(width=64, height=48):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(1, 1, height, width, generator=rng), torch.rand(1, 1, height, width, generator=rng)


@pytest.fixture(scope="module")
def model(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "u.onnx"
    return path, export(net, path, Manifest(steps=7, metrics={"msrs/EN": 6.5}), SIZE)


def test_onnx_computes_what_the_network_does(net, model):
    path, _ = model
    session = onnxruntime.InferenceSession(path)
    assert [i.name for i in session.get_inputs()] == ["ir", "luma"]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("fused", [1, 1, 48, 64])]
    ir, luma = inputs()
    fused = session.run(None, {"ir": ir.numpy(), "luma": luma.numpy()})[0]
    with torch.no_grad():
        assert np.abs(fused - net(ir, luma).numpy()).max() < 1e-4


def test_onnx_keeps_each_reflected_border_one_node_and_says_what_it_is(model):
    path, manifest = model
    loaded = onnx.load(path)
    pads = [n for n in loaded.graph.node if n.op_type == "Pad"]
    modes = {a.s for n in pads for a in n.attribute if a.name == "mode"}
    assert (len(pads), modes) == (119, {b"reflect"})
    assert len(loaded.graph.node) < 1200
    facts = {p.key: p.value for p in loaded.metadata_props}
    assert facts == {
        "network": "ufuser",
        "weights_sha256": manifest.weights_sha256,
        "rtfuse_version": manifest.rtfuse_version,
        "size": "64x48",
    }


def test_torch_export_computes_what_the_network_does(net, tmp_path):
    export(net, tmp_path / "u.pt2", Manifest(), SIZE)
    program = torch.export.load(tmp_path / "u.pt2").module()
    with torch.no_grad():
        assert torch.allclose(program(*inputs()), net(*inputs()), atol=1e-5)


def test_a_program_for_any_size(net, tmp_path):
    manifest = export(net, tmp_path / "u.pt2", Manifest(), None)
    assert manifest.size_wh is None
    program = torch.export.load(tmp_path / "u.pt2").module()
    for width, height in ((64, 48), (40, 24), (16, 16), (88, 104)):
        with torch.no_grad():
            assert torch.allclose(program(*inputs(width, height)), net(*inputs(width, height)), atol=1e-5)


def test_a_manifest_lies_beside_every_target(net, model, tmp_path):
    path, manifest = model
    kept = json.loads(path.with_suffix(".json").read_text())
    assert kept["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (kept["steps"], kept["metrics"], kept["size_wh"]) == (7, {"msrs/EN": 6.5}, [64, 48])
    weights = export(net, tmp_path / "u.safetensors", Manifest())
    assert weights.sha256 == weights.weights_sha256 == manifest.weights_sha256
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in load_file(tmp_path / "u.safetensors").items())
    assert manifest_beside(tmp_path / "u.safetensors") == weights
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u.json", "u.safetensors"]


def test_what_cannot_be_written_is_refused_by_name(net, tmp_path):
    with pytest.raises(ConfigError, match=r"u\.trt: want \.safetensors"):
        export(net, tmp_path / "u.trt", Manifest())
    for size, words in (((60, 48), "60x48: want multiples of 8"), ((64, 8), "at least 16")):
        with pytest.raises(ConfigError, match=words):
            export(net, tmp_path / "u.onnx", Manifest(), size)
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        export(net, tmp_path / "file" / "u.safetensors", Manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(SourceUnreadable, match=r"w\.json"):
        manifest_beside(tmp_path / "w.safetensors")


def test_metrics_come_from_the_csv_of_an_evaluation(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("method,pair,EN,SD\nufuser,a,6.0,30.0\nother,MEAN,1.0,2.0\nufuser,MEAN,6.123456,31.5\n")
    assert read_metrics([f"msrs={path}"]) == {"msrs/EN": 6.1235, "msrs/SD": 31.5}
    with pytest.raises(SourceNotFound, match=r"absent\.csv"):
        read_metrics(["msrs=absent.csv"])
    path.write_text("method,pair,EN\npyramid,MEAN,6\n")
    for item in (f"msrs={path}", str(path)):
        with pytest.raises(ConfigError, match="--metrics"):
            read_metrics([item])


def test_the_command_takes_weights_or_a_recipe(net, tmp_path):
    save_file(net.state_dict(), tmp_path / "w.safetensors")

    def run(*args):
        command = [sys.executable, "-m", "trainer", "export", *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, env=os.environ)

    done = run("--weights", "w.safetensors", "-o", "copy.safetensors")
    assert done.returncode == 0, done.stderr
    assert "copy.safetensors: 0 steps" in done.stdout
    for args, words in [
        ((), "either --config RECIPE or --weights FILE"),
        (("--weights", "w.safetensors", "--size", "big"), "'big'"),
        (("--weights", "absent.safetensors"), "absent.safetensors"),
    ]:
        done = run(*args)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert words in done.stderr
