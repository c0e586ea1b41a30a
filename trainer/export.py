"""Write a run's weights in the formats that rtfuse and other programs load, with a manifest of their origin.

`safetensors`: the weights, which rtfuse loads where torch is installed.
`openvino`: the program that rtfuse runs on processors, without torch (`rtfuse.fuse.engines.openvino`).
`onnx`, `torch-export`: the network for other programs, with inputs `ir` and `luma` and output `fused`, (1, 1, H, W)
float32 in [0, 1] each; H and W are fixed, or dynamic: any multiples of 8 from 16 up (`torch-export` of a student: 24),
of a U-Fuser below L bands of details multiples of 8 · 2^L.
`tensorrt`, `tensorrt-rtx`: whole programs, from raw bytes to fused bytes (`rtfuse.fuse.engines.program`).
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import msgspec
import torch
from torch import nn

import rtfuse
from rtfuse.errors import ConfigError, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.fuse.engines.onnx import OPSET, OUTPUT, check_installed, quiet
from rtfuse.fuse.inputs import MULTIPLE
from rtfuse.fuse.networks.checkpoints import fault_of, refuse_infinite
from rtfuse.fuse.networks.detailed import MARK, Detailed
from rtfuse.outputs import replace_file
from trainer.ablation import fusion_net
from trainer.outputs import check_output
from trainer.recipe import Recipe, load_recipe

INPUTS = ("ir", "luma")
TARGETS = {
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "openvino": ".xml",
    "tensorrt": ".plan",
    "tensorrt-rtx": ".plan",
}
"""The formats, and the file suffix of each."""

Size = tuple[int, int] | None
"""Width and height of a program in px; None: dynamic."""


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes and the device for which a program is built.

    `size_wh`: RGB's size in px.
    `ir_size_wh`: thermal's size in px; None: the same.
    `rigs`: TensorRT: the largest number of frames in one call.
    `gpu`: TensorRT-RTX: the compute capability, such as "8.6"; None: that of this machine's GPU.
    `precision`: TensorRT: of the network.
    `lanes`: OpenVINO: the number of float32 in a vector register; 16 with AVX-512.
    """

    size_wh: Size = (640, 480)
    ir_size_wh: Size = None
    rigs: int = 1
    gpu: str | None = None
    precision: Literal["float16", "float32"] = "float16"
    lanes: int = 8


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Origin of a written file, as the JSON file next to it.

    `sha256`: digest of the file; `weights_sha256`: digest of the weights as safetensors.
    `size_wh`: a program's size in px.
    `build`: the other settings of a program, and the version of the library that built it.
    `metrics`: means over validation pairs, as `dataset/measure`.
    """

    network: str = "ufuser"
    sha256: str = ""
    weights_sha256: str = ""
    made: str = msgspec.field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    rtfuse_version: str = rtfuse.__version__
    torch_version: str = str(torch.__version__)
    steps: int = 0
    target: str = "safetensors"
    size_wh: Size = None
    build: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    data: dict[str, int] = {}
    metrics: dict[str, float] = {}


def trained(run: Path) -> tuple[nn.Module, int]:
    """Return the fusion net of a run folder's last checkpoint, ablations too, and its number of steps.

    Raises SourceNotFound, or SourceUnreadable if the checkpoint is damaged or not of the folder's recipe.
    """
    path = run / "fusion.ckpt"
    if not path.exists():
        raise SourceNotFound(f"checkpoint {path} not found; train the fusion stage first")
    net: nn.Module = fusion_net(load_recipe(run / "recipe.yaml").fusion.without)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {k.removeprefix("fusion."): v for k, v in state["task"].items() if k.startswith("fusion.")}
        net = Detailed(net, len(found[MARK])) if MARK in found else net
        net.load_state_dict(found)
        steps = int(state["step"])
    except (RuntimeError, KeyError, TypeError, OSError, EOFError, UnpicklingError) as e:
        raise SourceUnreadable(f"{path} does not fit this folder's fusion stage: {fault_of(e)}") from e
    refuse_infinite(net.state_dict(), f"weights in {path}")
    return net.eval(), steps


def manifest_of(
    recipe: Recipe, steps: int, data: Mapping[str, int], metrics: Mapping[str, float], network: str = "ufuser"
) -> Manifest:
    """Return the manifest of a run's weights, without the paths of the machine that trained them."""
    tree = msgspec.to_builtins(recipe)
    roots = [{"name": r["name"], "weight": r["weight"], "methods": len(r["pseudo"])} for r in tree["data"]["roots"]]
    tree["data"]["roots"] = roots
    files = (("data", "validation"), ("fusion", "start"), ("distill", "teacher"), ("distill", "start"))
    for part, key in (*files, ("distill", "sensing_run"), ("refine", "start")):
        tree[part][key] = tree[part][key] and Path(tree[part][key]).name
    return Manifest(network=network, steps=steps, recipe=tree, data=dict(data), metrics=dict(metrics))


def manifest_path(target: Path) -> Path:
    """Return `x.json` for weights, `x.onnx.json` or `x.pt2.json` for programs, so that no two share a name."""
    return target.with_suffix(".json" if target.suffix == ".safetensors" else f"{target.suffix}.json")


def manifest_beside(weights: Path) -> Manifest:
    """Return the manifest of a weights file, an empty one if it has none. Raises SourceUnreadable if it is damaged."""
    path = manifest_path(weights)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        return Manifest()
    except (OSError, msgspec.MsgspecError) as e:
        raise SourceUnreadable(f"manifest {path} cannot be read: {e}") from e


def read_metrics(items: list[str], method: str) -> dict[str, float]:
    """Return the means of a method, `ufuser` or `student`, in CSV files of `trainer eval` as `NAME/measure`.

    Each is given as `NAME=FILE`, or as `FILE`, whose name without suffix then counts. Raises ConfigError, or
    SourceNotFound.
    """
    found: dict[str, float] = {}
    for item in items:
        name, separator, path = item.partition("=")
        if not separator:
            name, path = Path(item).stem, item
        if not name or not path:
            raise ConfigError(f"--metrics {item!r}: want NAME=CSV, for example msrs=msrs.csv")
        try:
            with Path(path).open(newline="", encoding="utf-8") as file:
                row = next(r for r in csv.DictReader(file) if (r.get("method"), r.get("pair")) == (method, "MEAN"))
            means = {f"{name}/{k}": round(float(v), 4) for k, v in row.items() if k not in ("method", "pair")}
        except OSError as e:
            raise SourceNotFound(f"--metrics {item!r}: {path}: {e.strerror or e}") from e
        except (StopIteration, csv.Error, ValueError, TypeError) as e:
            raise ConfigError(f"--metrics {item!r}: want a CSV of `trainer eval` with means of `{method}`") from e
        if bad := [k for k, v in means.items() if not math.isfinite(v)]:
            raise ConfigError(f"--metrics {item!r}: {', '.join(bad)} is not a finite number")
        found |= means
    return found


def export(
    net: nn.Module, out: Path, manifest: Manifest, build: Build = Build(), target: str | None = None
) -> Manifest:
    """Write the network as `out` and its manifest (`manifest_path`), each whole or not at all; return the manifest.

    `target` is one of `TARGETS`; None: by the suffix. Raises ConfigError for another target or suffix or an impossible
    size; EngineUnavailable if the library that builds it is missing or fails; OutputUnwritable.
    """
    target = target_of(out, target)
    weights = _safetensors(net)
    known: dict[str, Any] = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "target": target}
    beside: dict[Path, bytes] = {}
    if target == "safetensors":
        blob = weights
    elif target in ("onnx", "torch-export"):
        _check_size(build.size_wh, MULTIPLE)
        known["size_wh"] = build.size_wh
        write = _onnx if target == "onnx" else _pt2
        blob = write(net.eval(), build.size_wh, msgspec.structs.replace(manifest, **known))
    elif target == "openvino":
        blob, more = _openvino(net.eval(), build.lanes)
        beside = {out.with_suffix(suffix): content for suffix, content in more.items()}
        known["build"] = {"lanes": build.lanes}
    else:
        if build.size_wh is None:
            raise ConfigError("size: TensorRT's engines are for fixed sizes; give --size WIDTHxHEIGHT")
        blob, version = _plan(net.eval(), build, "tensorrt_rtx" if target == "tensorrt-rtx" else "tensorrt")
        known |= {"size_wh": build.size_wh, "build": msgspec.to_builtins(build) | {"library": version}}
    manifest = msgspec.structs.replace(manifest, **known, sha256=hashlib.sha256(blob).hexdigest())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, content in (beside | {out: blob}).items():
            replace_file(path, content)
        replace_file(manifest_path(out), msgspec.json.format(msgspec.json.encode(manifest)))
    except OSError as e:
        raise OutputUnwritable(f"{out} cannot be written: {e.strerror or e}") from e
    return manifest


def target_of(out: Path, target: str | None = None) -> str:
    """Return the format of an output, and see that it can be written. Raises ConfigError, OutputUnwritable."""
    fits = [name for name, suffix in TARGETS.items() if suffix == out.suffix]
    if target is None and len(fits) > 1:
        raise ConfigError(f"{out}: say which with --target {' or '.join(fits)}")
    if target is None and not fits:
        raise ConfigError(f"{out}: want one of {', '.join(sorted(set(TARGETS.values())))}, not {out.suffix!r}")
    target = target or fits[0]
    if out.suffix != TARGETS[target]:
        raise ConfigError(f"{out}: {target} is written as {TARGETS[target]}, not {out.suffix!r}")
    check_output("output", out)
    return target


def _check_size(size_wh: Size, multiple: int) -> None:
    if size_wh and any(side % multiple or side < 2 * multiple for side in size_wh):
        raise ConfigError(f"size {size_wh[0]}x{size_wh[1]}: want multiples of {multiple}, at least {2 * multiple}")


def _openvino(net: nn.Module, lanes: int) -> tuple[bytes, dict[str, bytes]]:
    """Return the program for processors, of any size, and the files that belong to it, by suffix."""
    from rtfuse.fuse.engines.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.xml"
        convert(net, path, lanes=lanes)
        return path.read_bytes(), {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".bin", ".npz")}


def _plan(net: nn.Module, build: Build, library_name: str) -> tuple[bytes, str]:
    """Return an engine of the program, and the version of the library that built it."""
    from rtfuse.fuse.engines.onnx import program_as_onnx
    from rtfuse.fuse.engines.program import Program
    from rtfuse.fuse.engines.tensorrt import build_plan, library
    from rtfuse.fuse.networks.loading import for_gpu

    trt = library(library_name)
    (w, h), (iw, ih) = build.size_wh or (0, 0), build.ir_size_wh or build.size_wh or (0, 0)
    _check_size((w, h), MULTIPLE)
    program = Program(for_gpu(net).to(getattr(torch, build.precision)))
    model = program_as_onnx(program, (ih, iw), (h, w))
    return build_plan(trt, model, rigs=build.rigs, capability=build.gpu), f"{trt.__name__} {trt.__version__}"


def _safetensors(net: nn.Module) -> bytes:
    from safetensors.torch import save

    return save({k: v.detach().float().contiguous() for k, v in net.state_dict().items()})


def _program(net: nn.Module, size_wh: Size) -> torch.export.ExportedProgram:
    """Return the network as a graph, without torch's stack traces: they name the folders of this machine."""
    w, h = size_wh or (128, 96)
    inputs = (torch.zeros(1, 1, h, w), torch.zeros(1, 1, h, w))
    step = MULTIPLE * 2 ** (net.levels if isinstance(net, Detailed) else 0)
    free = {2: step * torch.export.Dim("rows", min=2), 3: step * torch.export.Dim("columns", min=2)}
    program = torch.export.export(net, inputs, dynamic_shapes=None if size_wh else {"ir": free, "luma": free})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _pt2(net: nn.Module, size_wh: Size, manifest: Manifest) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(net, size_wh), buffer)
    return buffer.getvalue()


def _onnx(net: nn.Module, size_wh: Size, manifest: Manifest) -> bytes:
    """Return the network as ONNX; its reflected borders are 119 `Pad` nodes, not 1,200 as by torch's default."""
    check_installed()
    import onnx

    with quiet():
        made = torch.onnx.export(
            _program(net, size_wh),
            dynamo=True,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            opset_version=OPSET,
            verbose=False,
        )
    assert made is not None
    model = made.model_proto
    del model.metadata_props[:]
    size = "x".join(map(str, size_wh)) if size_wh else "dynamic"
    facts = {
        "network": manifest.network,
        "weights_sha256": manifest.weights_sha256,
        "rtfuse_version": manifest.rtfuse_version,
        "size": size,
    }
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(model, full_check=True)
    blob: bytes = model.SerializeToString()
    return blob
