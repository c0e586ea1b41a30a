"""Weights out of a run, with a manifest that says where they come from."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import msgspec
import torch

import rtfuse
from rtfuse.errors import SourceNotFound, SourceUnreadable
from rtfuse.fuse.ufuser import UFuser
from trainer.recipe import Recipe


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is written beside weights as JSON: their digest, recipe, data, steps and metrics."""

    network: str = "ufuser"
    sha256: str
    made: str
    rtfuse_version: str
    torch_version: str
    steps: int
    recipe: dict[str, Any]
    data: dict[str, int]
    metrics: dict[str, float]


def fusion_weights(checkpoint: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Return the fusion net's tensors (float32) and steps from a checkpoint of the second stage.

    Raises SourceNotFound, or SourceUnreadable if it holds something else.
    """
    if not checkpoint.exists():
        raise SourceNotFound(f"checkpoint {checkpoint} not found; train the fusion stage first")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        tensors = {k.removeprefix("fusion."): v.float() for k, v in state["task"].items() if k.startswith("fusion.")}
        UFuser().load_state_dict(tensors)
    except (RuntimeError, KeyError, TypeError, OSError, EOFError, UnpicklingError) as e:
        raise SourceUnreadable(
            f"{checkpoint} is no checkpoint of the fusion stage: {' '.join(str(e).split())[:200]}"
        ) from e
    return tensors, int(state["step"])


def export_safetensors(
    checkpoint: Path, out: Path, recipe: Recipe, *, data: dict[str, int], metrics: dict[str, float]
) -> Manifest:
    """Write the weights as `out` (.safetensors) and their manifest beside it (.json); returns the manifest."""
    from safetensors.torch import save

    tensors, steps = fusion_weights(checkpoint)
    blob = save({k: v.contiguous() for k, v in tensors.items()})
    manifest = Manifest(
        sha256=hashlib.sha256(blob).hexdigest(),
        made=datetime.now(UTC).date().isoformat(),
        rtfuse_version=rtfuse.__version__,
        torch_version=str(torch.__version__),
        steps=steps,
        recipe=_without_paths(msgspec.to_builtins(recipe)),
        data=data,
        metrics=metrics,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    _write(out, blob)
    _write(out.with_suffix(".json"), msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


def _without_paths(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out where data lay on the machine that trained; the roots' names stay."""
    data = recipe["data"]
    data["roots"] = [{"name": r["name"], "weight": r["weight"], "methods": len(r["pseudo"])} for r in data["roots"]]
    data["validation"] = data["validation"] and Path(data["validation"]).name
    recipe["fusion"]["start"] = recipe["fusion"]["start"] and Path(recipe["fusion"]["start"]).name
    return recipe


def _write(path: Path, blob: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(blob)
    os.replace(partial, path)
