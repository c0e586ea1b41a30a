"""Weights out of a run, as what other programs load, with a manifest that says where they come from.

Three targets, by the file's suffix: `.safetensors`, which `rtfuse` loads; `.onnx` and `.pt2` (torch.export), programs
of the whole network with inputs `ir` and `luma` and output `fused`, (1, 1, H, W) float32 in [0, 1] each. A program's H
and W are fixed, or dynamic: any multiples of 8 from 16 up.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch

import rtfuse
from rtfuse.errors import ConfigError, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.fuse.ufuser import MULTIPLE, UFuser
from trainer.ablation import fusion_net
from trainer.recipe import Recipe, load_recipe

OPSET = 20
INPUTS, OUTPUT = ("ir", "luma"), "fused"

Size = tuple[int, int] | None
"""Width and height of a program in px; None: dynamic."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside a target as JSON.

    `sha256` is the target's digest, `weights_sha256` that of the weights as safetensors. `size_wh` is a program's.
    `metrics` are means over validation pairs, as `dataset/measure`.
    """

    network: str = "ufuser"
    sha256: str = ""
    weights_sha256: str = ""
    made: str = msgspec.field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    rtfuse_version: str = rtfuse.__version__
    torch_version: str = str(torch.__version__)
    steps: int = 0
    size_wh: Size = None
    recipe: dict[str, Any] = {}
    data: dict[str, int] = {}
    metrics: dict[str, float] = {}


def trained(run: Path) -> tuple[UFuser, int]:
    """Return the fusion net of a run folder as its last checkpoint has it, ablations too, and its steps.

    Raises SourceNotFound, or SourceUnreadable if the checkpoint is damaged or not of the folder's recipe.
    """
    path = run / "fusion.ckpt"
    if not path.exists():
        raise SourceNotFound(f"checkpoint {path} not found; train the fusion stage first")
    net = fusion_net(load_recipe(run / "recipe.yaml").fusion.without)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict({k.removeprefix("fusion."): v for k, v in state["task"].items() if k.startswith("fusion.")})
        return net.eval(), int(state["step"])
    except (RuntimeError, KeyError, TypeError, OSError, EOFError, UnpicklingError) as e:
        why = " ".join(str(e).split())[:200]
        raise SourceUnreadable(f"{path} is no checkpoint of this folder's fusion stage: {why}") from e


def manifest_of(recipe: Recipe, steps: int, data: Mapping[str, int], metrics: Mapping[str, float]) -> Manifest:
    """Return what is known of a run's weights, without the paths of the machine that trained them."""
    tree = msgspec.to_builtins(recipe)
    roots = [{"name": r["name"], "weight": r["weight"], "methods": len(r["pseudo"])} for r in tree["data"]["roots"]]
    tree["data"]["roots"] = roots
    for part, key in (("data", "validation"), ("fusion", "start")):
        tree[part][key] = tree[part][key] and Path(tree[part][key]).name
    return Manifest(steps=steps, recipe=tree, data=dict(data), metrics=dict(metrics))


def manifest_path(target: Path) -> Path:
    """Return `x.json` for weights, `x.onnx.json` or `x.pt2.json` for programs: none takes another's place."""
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


def read_metrics(items: list[str]) -> dict[str, float]:
    """Return the means of `ufuser` in CSV files of `trainer eval` as `NAME/measure`.

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
                row = next(r for r in csv.DictReader(file) if (r.get("method"), r.get("pair")) == ("ufuser", "MEAN"))
            means = {f"{name}/{k}": round(float(v), 4) for k, v in row.items() if k not in ("method", "pair")}
        except OSError as e:
            raise SourceNotFound(f"--metrics {item!r}: {path}: {e.strerror or e}") from e
        except (StopIteration, csv.Error, ValueError, TypeError) as e:
            raise ConfigError(f"--metrics {item!r}: want a CSV of `trainer eval` with means of `ufuser`") from e
        if bad := [k for k, v in means.items() if not math.isfinite(v)]:
            raise ConfigError(f"--metrics {item!r}: {', '.join(bad)} is not a finite number")
        found |= means
    return found


def export(net: UFuser, out: Path, manifest: Manifest, size_wh: Size = (640, 480)) -> Manifest:
    """Write the network as `out`, its manifest beside it (`manifest_path`), whole or not at all; return the manifest.

    `size_wh` is for programs, in px: fixed, or None for dynamic. Raises ConfigError for another suffix or an impossible
    size, or if what writes ONNX is not installed; OutputUnwritable.
    """
    program = {".onnx": _onnx, ".pt2": _pt2}.get(out.suffix)
    if program is None and out.suffix != ".safetensors":
        raise ConfigError(f"{out}: want .safetensors (for rtfuse), .onnx or .pt2 (torch.export), not {out.suffix!r}")
    if program and size_wh and any(side % MULTIPLE or side < 2 * MULTIPLE for side in size_wh):
        raise ConfigError(f"size {size_wh[0]}x{size_wh[1]}: want multiples of {MULTIPLE}, at least {2 * MULTIPLE}")
    weights = _safetensors(net)
    known = {"weights_sha256": hashlib.sha256(weights).hexdigest(), "size_wh": size_wh if program else None}
    manifest = msgspec.structs.replace(manifest, **known)
    blob = program(net.eval(), size_wh, manifest) if program else weights
    manifest = msgspec.structs.replace(manifest, sha256=hashlib.sha256(blob).hexdigest())
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(out, blob)
        _write(manifest_path(out), msgspec.json.format(msgspec.json.encode(manifest)))
    except OSError as e:
        raise OutputUnwritable(f"{out} cannot be written: {e.strerror or e}") from e
    return manifest


def _safetensors(net: UFuser) -> bytes:
    from safetensors.torch import save

    return save({k: v.detach().float().contiguous() for k, v in net.state_dict().items()})


def _program(net: UFuser, size_wh: Size) -> torch.export.ExportedProgram:
    """Return the network as a graph, without torch's stack traces: they name the folders of this machine."""
    w, h = size_wh or (64, 48)
    inputs = (torch.zeros(1, 1, h, w), torch.zeros(1, 1, h, w))
    free = {2: MULTIPLE * torch.export.Dim("rows", min=2), 3: MULTIPLE * torch.export.Dim("columns", min=2)}
    program = torch.export.export(net, inputs, dynamic_shapes=None if size_wh else {"ir": free, "luma": free})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def _pt2(net: UFuser, size_wh: Size, manifest: Manifest) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(_program(net, size_wh), buffer)
    return buffer.getvalue()


def _onnx(net: UFuser, size_wh: Size, manifest: Manifest) -> bytes:
    """The reflected borders stay 119 single `Pad` nodes (torch's default decompositions make 1,200 of them)."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise ConfigError(f"writing ONNX needs {e.name}: pip install 'rtfuse[export]'") from e
    with _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch says while it writes ONNX: that torchvision, of no use here, is not installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _write(path: Path, blob: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(blob)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
