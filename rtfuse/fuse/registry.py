"""Open a fuser by its name."""

from __future__ import annotations

import difflib
from importlib import import_module
from pathlib import Path
from typing import cast

from rtfuse.errors import UnknownFuser
from rtfuse.fuse.fuser import DEFAULT_FUSER, Engine, Fuser, Opener, Options, Precision

_REGISTRY = {
    "auto": ("ufuser where it holds the camera's rate, else student; under load a cheaper one", "auto:open_auto"),
    "ufuser": (
        "U-Fuser, the network of EMMA (CVPR 2024), with weights trained here",
        "engines.selection:open_chosen",
    ),
    "student": (
        "a small network that directs a choice between both pictures' details, in real time on two processor cores",
        "engines.selection:open_chosen",
    ),
    "pyramid": ("Laplacian pyramid: a few milliseconds on a processor", "pyramid:open_pyramid"),
}
"""Name of each fuser → its summary, and its `Opener` as `module:function` in `rtfuse.fuse`, imported when opened."""

FUSERS = {name: summary for name, (summary, _) in _REGISTRY.items()}


def open_fuser(
    name: str = DEFAULT_FUSER,
    *,
    weights: str | Path | None = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    plan: str | Path | None = None,
) -> Fuser:
    """Return the fuser of this name (see `FUSERS`), ready to use.

    For the networks: `weights` is a file in place of the shipped ones: a program that `trainer export` wrote (`.xml`),
    or safetensors, which need torch. `engine` is what computes them: `tensorrt`, `cuda` (torch, compiled), `openvino`
    (processors), `eager` (torch, on a GPU where one works), or `auto`, the fastest that works. `precision` is the
    network's; `auto`: float16 on GPUs, bfloat16 on processors with matrix units for it (AMX), float32 elsewhere and in
    eager torch. `plan` is an engine of TensorRT that `trainer export` wrote. Raises UnknownFuser, WeightsMissing if the
    network's weights are absent or do not fit it, or EngineUnavailable.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, FUSERS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UnknownFuser(f"no fuser is called {name!r}: want one of {', '.join(FUSERS)}{hint}")
    module, _, function = _REGISTRY[name][1].partition(":")
    opener = cast(Opener, getattr(import_module(f"rtfuse.fuse.{module}"), function))
    return opener(Options(name, weights, engine, precision, plan))
