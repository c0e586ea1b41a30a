"""`trainer export`: the same network in every format, with a manifest, written whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

import rtfuse
import trainer.export
from rtfuse.errors import (
    ConfigError,
    EngineUnavailable,
    OutputUnwritable,
    SourceNotFound,
    SourceUnreadable,
    WeightsMissing,
)
from rtfuse.fuse import UFUSER_WEIGHTS, open_fuser
from rtfuse.fuse.engines.convert import reference
from rtfuse.fuse.engines.onnx import program_as_onnx
from rtfuse.fuse.engines.tensorrt import build_plan, folded_program
from rtfuse.fuse.luma_fuser import luma
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser, load_weights
from trainer import cli
from trainer.data import PatchIndex
from trainer.export import Build, Manifest, export, manifest_beside, read_metrics
from trainer.recipe import Data, Recipe, Root, dump_recipe

pytestmark = pytest.mark.slow
SIZE = (64, 48)
SIZES = [(64, 48), (40, 24), (16, 16), (88, 104)]
HERE = str(Path(rtfuse.__file__).parent).encode()


@pytest.fixture(scope="module", autouse=True)
def traced_once():
    """Share one graph among the programs of a size: tracing the network is most of an export's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.export, "_program", functools.cache(trainer.export._program))
        yield


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return UFuser().eval()


def inputs(width=64, height=48):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(1, 1, height, width, generator=rng), torch.rand(1, 1, height, width, generator=rng)


@pytest.fixture(scope="module")
def model(net, tmp_path_factory):
    """Return the path of an ONNX file that the command wrote into the folder of its weights, and its manifest."""
    folder = tmp_path_factory.mktemp("export")
    export(net, folder / "u.safetensors", Manifest(steps=7, metrics={"msrs/EN": 6.5}))
    command = ["-m", "trainer", "export", "--weights", "u.safetensors", "-o", "u.onnx", "--size", "64x48"]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=200, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "u.onnx: 7 steps" in done.stdout
    return folder / "u.onnx", msgspec.json.decode((folder / "u.onnx.json").read_bytes(), type=Manifest)


@pytest.fixture(scope="module")
def program(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "u.pt2"
    export(net, path, Manifest(), Build(size_wh=SIZE))
    return path


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


def test_torch_export_computes_what_the_network_does(net, program):
    loaded = torch.export.load(program).module()
    with torch.no_grad():
        assert torch.allclose(loaded(*inputs()), net(*inputs()), atol=1e-5)


@pytest.mark.slow
def test_a_torch_export_of_dynamic_size(net, tmp_path):
    assert export(net, tmp_path / "u.pt2", Manifest(), Build(size_wh=None)).size_wh is None
    program = torch.export.load(tmp_path / "u.pt2").module()
    for size in SIZES:
        with torch.no_grad():
            assert torch.allclose(program(*inputs(*size)), net(*inputs(*size)), atol=1e-5)
    with pytest.raises(AssertionError, match="Guard failed"):
        program(*inputs(60, 48))


@pytest.mark.slow
def test_an_onnx_of_dynamic_size(net, tmp_path):
    export(net, tmp_path / "u.onnx", Manifest(), Build(size_wh=None))
    loaded = onnx.load(tmp_path / "u.onnx")
    assert sum(n.op_type == "Pad" for n in loaded.graph.node) == 119
    assert {p.key: p.value for p in loaded.metadata_props}["size"] == "dynamic"
    session = onnxruntime.InferenceSession(tmp_path / "u.onnx")
    for size in SIZES:
        ir, luma = inputs(*size)
        fused = session.run(None, {"ir": ir.numpy(), "luma": luma.numpy()})[0]
        with torch.no_grad():
            assert np.abs(fused - net(ir, luma).numpy()).max() < 1e-4


def test_programs_name_no_folder_of_the_machine_that_wrote_them(model, program):
    assert HERE not in model[0].read_bytes()
    with zipfile.ZipFile(program) as archive:
        assert not any(HERE in archive.read(name) for name in archive.namelist())


def test_a_manifest_lies_beside_every_target(net, model):
    path, manifest = model
    weights = path.with_suffix(".safetensors")
    assert sorted(p.name for p in path.parent.iterdir()) == ["u.json", "u.onnx", "u.onnx.json", "u.safetensors"]
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (manifest.steps, manifest.metrics, manifest.size_wh) == (7, {"msrs/EN": 6.5}, SIZE)
    kept = manifest_beside(weights)
    assert (kept.steps, kept.size_wh) == (7, None)
    digests = {kept.sha256, kept.weights_sha256, manifest.weights_sha256}
    assert digests == {hashlib.sha256(weights.read_bytes()).hexdigest()}
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in load_file(weights).items())


def test_what_cannot_be_written_is_refused_by_name(net, tmp_path):
    with pytest.raises(ConfigError, match=r"u\.trt: want one of .*\.safetensors"):
        export(net, tmp_path / "u.trt", Manifest())
    for size, words in (((60, 48), "60x48: want multiples of 8"), ((64, 8), "at least 16")):
        with pytest.raises(ConfigError, match=words):
            export(net, tmp_path / "u.onnx", Manifest(), Build(size_wh=size))
    with pytest.raises(ConfigError, match="--target tensorrt or tensorrt-rtx"):
        export(net, tmp_path / "u.plan", Manifest())
    with pytest.raises(ConfigError, match=r"openvino is written as \.xml"):
        export(net, tmp_path / "u.onnx", Manifest(), target="openvino")
    with pytest.raises(ConfigError, match="fixed sizes"):
        export(net, tmp_path / "u.plan", Manifest(), Build(size_wh=None), "tensorrt-rtx")
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        export(net, tmp_path / "file" / "u.safetensors", Manifest())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "w.json").write_text("{")
    with pytest.raises(SourceUnreadable, match=r"w\.json"):
        manifest_beside(tmp_path / "w.safetensors")


def test_what_writes_onnx_is_named_where_it_is_not_installed(net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(EngineUnavailable, match=r"needs onnxscript: .*-m pip install"):
        export(net, tmp_path / "u.onnx", Manifest(), Build(size_wh=SIZE))


@pytest.fixture(scope="module")
def whole_program():
    """Return rtfuse's own program with the shipped weights, as ONNX for TensorRT."""
    return program_as_onnx(folded_program(UFUSER_WEIGHTS, torch.float16), (48, 64), (96, 128))


def test_tensorrt_rtx_builds_the_whole_program_without_a_gpu(whole_program, tmp_path, monkeypatch):
    """Build every layer: the parser refuses a layer that TensorRT lacks. Ampere and Blackwell, four rigs at once."""
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("rtfuse.fuse.engines.onnx.program_as_onnx", lambda *_: whole_program)
    for gpu in ("8.6", "12.0"):
        build = Build(size_wh=(128, 96), ir_size_wh=(64, 48), rigs=4, gpu=gpu)
        made = export(load_weights(UFUSER_WEIGHTS), tmp_path / "u.plan", Manifest(), build, "tensorrt-rtx")
        assert (tmp_path / "u.plan").stat().st_size > 5_000_000
        assert made.sha256 == hashlib.sha256((tmp_path / "u.plan").read_bytes()).hexdigest()
        assert (made.target, made.build["gpu"], made.build["rigs"]) == ("tensorrt-rtx", gpu, 4)
        assert made.build["library"].startswith("tensorrt_rtx 1.")


def test_the_program_for_tensorrt_reads_and_writes_bytes(whole_program):
    graph = onnx.load_from_string(whole_program).graph
    kinds = {x.name: x.type.tensor_type.elem_type for x in (*graph.input, *graph.output)}
    grid = kinds.pop("grid")
    assert grid == onnx.TensorProto.FLOAT
    assert kinds == dict.fromkeys(("ir", "rgb", "table", "mask", "fused"), onnx.TensorProto.UINT8)
    assert HERE not in whole_program


def test_what_tensorrt_does_not_take_is_named():
    trt = pytest.importorskip("tensorrt_rtx")
    x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 4]) for n in "xy")
    odd = onnx.helper.make_node("Odd", ["x"], ["y"], name="odd_one", domain="elsewhere")
    graph = onnx.helper.make_graph([odd], "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("elsewhere", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets).SerializeToString()
    with pytest.raises(EngineUnavailable, match=r"does not take the program: odd_one"):
        build_plan(trt, model, capability="8.6")
    empty = onnx.helper.make_model(onnx.helper.make_graph([], "g", [x], [x])).SerializeToString()
    with pytest.raises(EngineUnavailable, match=r"does not build for compute capability '9\.0', only for 7\.5"):
        build_plan(trt, empty, capability="9.0")


def test_an_openvino_program_is_what_the_runtime_loads(tmp_path):
    pytest.importorskip("openvino")
    net = Student().eval()
    made = export(net, tmp_path / "u.xml", Manifest(), Build(lanes=16))
    assert (made.target, made.build) == ("openvino", {"lanes": 16})
    fuser = open_fuser("student", weights=tmp_path / "u.xml")
    assert str(fuser).startswith("student (OpenVINO")
    ir, rgb = np.full((48, 64), 200, np.uint8), np.full((48, 64, 3), 90, np.uint8)
    want = reference(net, ir, luma(rgb)).astype(int)
    assert np.abs(luma(fuser(ir, rgb)) - want).max() <= 2
    (tmp_path / "u.npz").unlink()
    with pytest.raises(WeightsMissing, match=r"its \.npz with the reference picture is missing"):
        open_fuser("student", weights=tmp_path / "u.xml")


def test_metrics_come_from_the_csv_of_an_evaluation(tmp_path):
    path = tmp_path / "lake.csv"
    path.write_text("method,pair,EN,SD\nufuser,a,6.0,30.0\nother,MEAN,1.0,2.0\nufuser,MEAN,6.123456,31.5\n")
    means = {"EN": 6.1235, "SD": 31.5}
    assert read_metrics([f"msrs={path}", str(path)], "ufuser") == {
        f"{n}/{k}": v for n in ("msrs", "lake") for k, v in means.items()
    }
    with pytest.raises(SourceNotFound, match=r"absent\.csv"):
        read_metrics(["msrs=absent.csv"], "ufuser")
    for item in (f"={path}", "msrs="):
        with pytest.raises(ConfigError, match="want NAME=CSV"):
            read_metrics([item], "ufuser")


LONG = "1" * 140_000  # beyond what the csv module takes as one field


@pytest.mark.parametrize(
    "row", ["pyramid,MEAN,6", "ufuser,a,6", *(f"ufuser,MEAN,{v}" for v in ("", "nan", "1,2", LONG))]
)
def test_a_malformed_csv_is_refused(tmp_path, row):
    (tmp_path / "m.csv").write_text(f"method,pair,EN\n{row}\n")
    with pytest.raises(ConfigError, match="--metrics"):
        read_metrics([str(tmp_path / "m.csv")], "ufuser")


@pytest.fixture
def run_folder(net, tmp_path):
    """Make the run folder of a run after 30 steps on two patches, and its recipe."""
    recipe = Recipe(name="r", data=Data(roots=(Root(name="street", ir="ir", rgb="rgb"),)))
    run, data = tmp_path / "run", tmp_path / "run" / "data"
    data.mkdir(parents=True)
    for path in (tmp_path / "r.yaml", run / "recipe.yaml"):
        path.write_text(dump_recipe(recipe))
    index = PatchIndex(patch_px=8, scenes=["a", "a"], places=[(0, 0)] * 2, weights=[1.0] * 2, methods=[])
    (data / "index.json").write_bytes(msgspec.json.encode(index))
    for name in ("patches", "pseudo"):
        np.save(data / f"{name}.npy", np.zeros((2, 2, 8, 8), np.uint8))
    torch.save({"task": {f"fusion.{k}": v for k, v in net.state_dict().items()}, "step": 30}, run / "fusion.ckpt")
    return run


def test_the_command_takes_a_recipe(run_folder):
    (run_folder / "msrs.csv").write_text("method,pair,EN\nufuser,MEAN,6.5\n")
    recipe, out = run_folder.parent / "r.yaml", run_folder / "u.safetensors"
    cli.export(config=recipe, run=run_folder, output=out, metrics=[str(run_folder / "msrs.csv")])
    made = manifest_beside(out)
    assert (made.steps, made.data, made.metrics) == (30, {"patches": 2, "scenes": 1}, {"msrs/EN": 6.5})
    cli.export(weights=out, output=run_folder / "v.safetensors", metrics=[f"lake={run_folder / 'msrs.csv'}"])
    assert manifest_beside(run_folder / "v.safetensors").metrics == {"msrs/EN": 6.5, "lake/EN": 6.5}


def test_the_command_refuses_what_it_cannot_do(net, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(net.state_dict(), weights)
    for options, words in [
        ({}, "either --config RECIPE or --weights FILE"),
        ({"config": tmp_path / "r.yaml", "weights": weights}, "either --config RECIPE or --weights FILE"),
        ({"weights": weights, "size": "big"}, "'big': want WIDTHxHEIGHT"),
        ({"weights": weights, "size": "0x480"}, "'0x480': want WIDTHxHEIGHT"),
    ]:
        with pytest.raises(ConfigError, match=words):
            cli.export(output=tmp_path / "u.onnx", **options)
    with pytest.raises(WeightsMissing, match=r"absent\.safetensors"):
        cli.export(weights=tmp_path / "absent.safetensors", output=tmp_path / "u.onnx")
