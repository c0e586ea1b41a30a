"""Open a fuser by its name."""

from __future__ import annotations

import difflib
from functools import partial
from pathlib import Path

from rtfuse.errors import UnknownFuser
from rtfuse.fuse.fuser import DEFAULT_FUSER, Engine, Fuser, Precision

FUSERS = {
    "auto": "ufuser where it holds the camera's rate, else student; may change while it runs",
    "ufuser": "U-Fuser, the network of EMMA (CVPR 2024), with weights trained here",
    "student": "a small network that imitates ufuser in real time on two processor cores",
    "pyramid": "Laplacian pyramid: a few milliseconds on a processor",
}


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
    (processors), `eager` (torch, on a GPU if there is one), or `auto`, the fastest that works. `precision` is the
    network's; `auto`: float16 on GPUs, bfloat16 on processors with matrix units for it (AMX), float32 elsewhere and in
    eager torch. `plan` is an engine of TensorRT that `trainer export` wrote. Raises UnknownFuser, WeightsMissing if the
    network's weights are absent or do not fit it, or EngineUnavailable.
    """
    if name == "pyramid":
        from rtfuse.fuse.pyramid import open_pyramid

        return open_pyramid()
    if name in ("auto", "ufuser", "student"):
        from rtfuse.fuse.engines.machine import torch_gpu
        from rtfuse.fuse.engines.selection import open_network

        if name != "auto":
            return open_network(name, weights, engine, precision, plan)
        if weights is not None or plan is not None:
            return open_network("ufuser", weights, engine, precision, plan)
        from rtfuse.fuse.auto import AutoFuser

        small = partial(open_network, "student", None, engine, precision, resort=engine == "auto")
        return AutoFuser(small, partial(open_network, "ufuser", None, engine, precision), likely=torch_gpu())
    near = difflib.get_close_matches(name, FUSERS, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UnknownFuser(f"no fuser is called {name!r}: there are {', '.join(FUSERS)}{hint}")
