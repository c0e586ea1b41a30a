"""Convert weights into programs for processors (`openvino.py`) by torch, once; U-Fuser takes some 40 s."""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rtfuse.fuse import bands, inputs
from rtfuse.fuse.engines.cache import cached, digest, installed
from rtfuse.fuse.engines.machine import openvino_module
from rtfuse.fuse.engines.program import Program, tensors
from rtfuse.fuse.inputs import MULTIPLE
from rtfuse.fuse.networks import bands as torch_bands
from rtfuse.fuse.networks import detailed, folding, student, ufuser, ufuser_processor
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import for_processor, load_network
from rtfuse.fuse.networks.student import LEVELS, Guide, Student
from rtfuse.libraries import openvino_converter
from rtfuse.types import Image

_SOURCES = (ufuser, student, detailed, bands, torch_bands, folding, ufuser_processor, inputs)
"""The files that a program depends on."""
_NAME = "program.xml"


class LumaProgram(nn.Module):
    """Run a network on bytes: thermal and visible luma, (N, 1, H, W) uint8 each, to fused luma of the same shape."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
        """Return the fused luma."""
        dtype = next((p.dtype for p in [*self.net.parameters(), *self.net.buffers()]), torch.float32)
        fused: Tensor = self.net(ir.to(dtype) / 255, luma.to(dtype) / 255)
        return (fused * 255).round().clamp(0, 255).to(torch.uint8)


class GuideProgram(nn.Module):
    """Run a student's guide on bytes: planes (N, 2 + 2 L, h, w) uint8 to (N, 1 + 2 L, h, w) uint8."""

    def __init__(self, guide: Guide) -> None:
        super().__init__()
        self.guide = guide

    def forward(self, planes: Tensor) -> Tensor:
        """Return fused rest, weights and gains."""
        guided: Tensor = self.guide(planes.to(self.guide.head.weight.dtype))
        return guided.round().clamp(0, 255).to(torch.uint8)


def converted(weights: Path, *, lanes: int = 8, cache: Path | None = None) -> Path:
    """Return the program of these weights, from the cache or converted now (`lanes`: see `ufuser_processor`).

    Raises WeightsMissing, or EngineUnavailable if OpenVINO is not installed; OSError if nothing can be written.
    """
    net = load_network(weights)
    key = {
        "engine": "openvino",
        "weights": digest(weights),
        "program": digest(Path(__file__), *(Path(str(m.__file__)) for m in _SOURCES)),
        "lanes": str(lanes),
        "openvino": installed("openvino"),
        "torch": installed("torch"),
    }

    def build(folder: Path) -> None:
        logging.getLogger("rtfuse.fuse").info("converting %s for OpenVINO: once for these weights", weights)
        convert(net, folder / _NAME, lanes=lanes)

    return cached(key, build, folder=cache) / _NAME


def convert(net: nn.Module, path: Path, *, lanes: int = 8) -> None:
    """Write the program of a network as `.xml`, `.bin` and `.npz`, for pictures of any size.

    Of a student it is the guide, of a `Detailed` U-Fuser that U-Fuser.

    Raises EngineUnavailable if OpenVINO is not installed.
    """
    openvino = openvino_module()
    program, given, step = _program(net, lanes)
    rows, columns = (step * torch.export.Dim(name, min=3) for name in ("rows", "columns"))
    shapes = ({0: torch.export.Dim("rigs", min=1), 2: rows, 3: columns},) * len(given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = openvino_converter()(torch.export.export(program.eval(), given, dynamic_shapes=shapes))
    model.reshape({k: [-1, x.shape[1], -1, -1] for k, x in enumerate(given)})
    openvino.save_model(model, path, compress_to_fp16=False)
    ir, luma = _pictures()
    kept = {"ir": ir, "luma": luma, "fused": reference(net, ir, luma)}
    if isinstance(net, Detailed):
        kept["gains"] = net.gains().byte().numpy()
    np.savez_compressed(path.with_suffix(".npz"), **kept)  # type: ignore[arg-type]


def _program(net: nn.Module, lanes: int) -> tuple[nn.Module, tuple[Tensor, ...], int]:
    """Return what OpenVINO computes of a network, what to trace it with, and of which number sides are multiples."""
    if isinstance(net, Student):
        planes = torch.zeros(2, 2 + 2 * LEVELS, 6, 9, dtype=torch.uint8)
        return GuideProgram(net.guide), (planes,), MULTIPLE // 2**LEVELS
    net = net.net if isinstance(net, Detailed) else net
    pair = tuple(torch.zeros(2, 1, 48, 64, dtype=torch.uint8) + k for k in range(2))
    return LumaProgram(for_processor(net, lanes)), pair, MULTIPLE


@torch.no_grad()
def reference(net: nn.Module, ir: Image, luma: Image) -> Image:
    """Fuse two luma pictures, (H, W) uint8 each, by the network in float64; H and W are multiples of 8."""
    exact = LumaProgram(copy.deepcopy(net).double().eval())
    fused: Image = exact(*(torch.from_numpy(x)[None, None] for x in (ir, luma)))[0, 0].numpy()
    return fused


def _pictures() -> tuple[Image, Image]:
    """Return thermal and luma, (48, 64) uint8, with noise, gradients, black, white and constant parts."""
    kept = inputs.sample((48, 64), (48, 64))

    class Seen(nn.Module):
        """Keeps what a program gives the network."""

        def forward(self, ir: Tensor, luma: Tensor) -> Tensor:
            self.pair = ir, luma
            return luma

    seen = Seen()
    Program(seen)(*tensors(kept))
    ir, luma = ((255 * x[0, 0]).round().to(torch.uint8).numpy() for x in seen.pair)
    return ir, luma
