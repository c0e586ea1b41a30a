"""Write the program as ONNX, which TensorRT reads."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.engines.program import Program, tensors
from rtfuse.fuse.inputs import NAMES, sample
from rtfuse.hints import install_hint

OUTPUT = "fused"
OPSET = 20


def program_as_onnx(program: Program, ir_hw: tuple[int, int], rgb_hw: tuple[int, int]) -> bytes:
    """Return the program for frames of fixed sizes and any number of rigs, as an ONNX model.

    Raises EngineUnavailable if what writes ONNX is not installed.
    """
    check_installed()
    inputs = tensors(sample(ir_hw, rgb_hw, batch=2))
    rigs = torch.export.Dim("rigs", min=1)
    shapes: Any = {name: {0: rigs} for name in NAMES}
    with quiet():
        graph = torch.export.export(program.eval(), inputs, dynamic_shapes=shapes)
        for node in graph.graph.nodes:
            node.meta.pop("stack_trace", None)  # they name the folders of this machine
        made = torch.onnx.export(
            graph, dynamo=True, input_names=list(NAMES), output_names=[OUTPUT], opset_version=OPSET, verbose=False
        )
    assert made is not None
    model = made.model_proto
    del model.metadata_props[:]
    blob: bytes = model.SerializeToString()
    return blob


def check_installed() -> None:
    """Raise EngineUnavailable if what writes ONNX is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise EngineUnavailable(f"writing ONNX needs {e.name}: {install_hint('export')}") from e


@contextmanager
def quiet() -> Iterator[None]:
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
