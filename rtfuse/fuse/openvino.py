"""OpenVINO: the engine for processors, in float32, or in bfloat16 where they compute in it (AMX).

The program is converted once for any size and kept (`cache.py`); for each size of image it is compiled when that comes,
in about a second. Every load is checked against eager torch.
"""

from __future__ import annotations

import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse import fold, processor, program, student, ufuser
from rtfuse.fuse.cache import cached, digest, installed
from rtfuse.fuse.nets import for_processor, load_network
from rtfuse.fuse.program import Inputs, Program, Shapes, exported
from rtfuse.types import Image

_MODEL = "program.xml"
_KEPT = 3
"""Sizes that stay compiled: each takes a hundred megabytes or more, and folders of stills have hundreds of sizes."""
_SOURCES = (ufuser, student, fold, processor, program)
"""What the converted program depends on."""


class OpenVinoEngine:
    """Runs the program on the processor, for frames of any size.

    `cache` is a folder for converted programs in place of the user's. Raises WeightsMissing, or EngineUnavailable if
    OpenVINO is not installed.
    """

    def __init__(self, weights: str | Path, dtype: torch.dtype = torch.float32, *, cache: Path | None = None) -> None:
        openvino = _library()
        net = load_network(weights)
        key = {
            "engine": "openvino",
            "weights": digest(Path(weights)),
            "program": digest(*(Path(str(m.__file__)) for m in _SOURCES)),
            "lanes": str(_lanes()),
            "openvino": installed("openvino"),
            "torch": installed("torch"),
        }
        self.dtype = dtype
        self._hint = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
        self.name = f"OpenVINO, {str(dtype).removeprefix('torch.')}, on the processor"
        self._core = openvino.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}[self._hint] not in able:
            raise EngineUnavailable(f"engine 'openvino': this processor does not compute in {dtype}; it can {able}")
        self._path = cached(key, lambda folder: convert(net, folder / _MODEL, lanes=_lanes()), folder=cache) / _MODEL
        self._requests: dict[Shapes, Any] = {}

    def prepare(self, inputs: Inputs) -> None:
        """Compile the program for inputs of these shapes."""
        self._request(inputs)

    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8."""
        fused: Image = self._request(inputs).infer(list(inputs.arrays()), share_inputs=True)[0]
        return fused

    def _request(self, inputs: Inputs) -> Any:
        shapes = inputs.shapes
        if shapes not in self._requests:
            if len(self._requests) == _KEPT:
                del self._requests[next(iter(self._requests))]
            model = self._core.read_model(self._path)
            model.reshape(dict(enumerate(map(list, shapes))))
            options = {"INFERENCE_PRECISION_HINT": self._hint, "PERFORMANCE_HINT": "LATENCY"}
            self._requests[shapes] = self._core.compile_model(model, "CPU", options).create_infer_request()
        return self._requests[shapes]


def convert(net: nn.Module, path: Path, *, lanes: int = 8) -> None:
    """Write the program as OpenVINO's `.xml` and `.bin`, for frames of any size (`lanes`: see `processor`).

    Raises EngineUnavailable if OpenVINO is not installed.
    """
    openvino = _library()
    logging.getLogger("rtfuse").info("converting the network for OpenVINO: once for these weights, some 20 s")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino.convert_model(exported(Program(for_processor(net, lanes))))
    openvino.save_model(model, path, compress_to_fp16=False)


def _library() -> Any:
    try:
        return importlib.import_module("openvino")
    except ImportError as e:
        raise EngineUnavailable("engine 'openvino' needs OpenVINO: pip install 'rtfuse[openvino]'") from e


def _lanes() -> int:
    """Return how many float32 a vector register of this processor holds."""
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)
