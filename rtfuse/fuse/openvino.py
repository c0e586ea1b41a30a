"""U-Fuser by OpenVINO: the engine for processors, in float32.

The program is converted once for any size and kept (`cache.py`); for each size of image it is compiled when that comes,
in about a second. Every load is checked against eager torch on a fixed input.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse import fold, processor, program, ufuser
from rtfuse.fuse.cache import cached
from rtfuse.fuse.processor import ProcessorUFuser
from rtfuse.fuse.program import LumaProgram, exported
from rtfuse.fuse.ufuser import MULTIPLE, load_weights
from rtfuse.types import Image

_MODEL = "program.xml"
_SOURCES = (ufuser, fold, processor, program)
"""What the converted program depends on."""


class OpenVinoUFuser:
    """Fuses thermal and visible luma, (H, W) uint8 of any size, into (H, W) uint8.

    `cache` is a folder for converted programs in place of the user's. Raises WeightsMissing, or EngineUnavailable if
    OpenVINO is not installed or does not compute what torch does.
    """

    def __init__(self, weights: str | Path, *, cache: Path | None = None) -> None:
        try:
            import openvino
        except ImportError as e:
            raise EngineUnavailable("engine 'openvino' needs OpenVINO: pip install 'rtfuse[openvino]'") from e
        self._program = LumaProgram(ProcessorUFuser(load_weights(weights), lanes=_lanes()))
        self._core = openvino.Core()
        self._path = cached(_key(Path(weights)), self._convert, folder=cache) / _MODEL
        self._requests: dict[tuple[int, int], Any] = {}
        self._check()

    def __call__(self, ir: Image, luma: Image) -> Image:
        """Return the fused luma, (H, W) uint8."""
        h, w = luma.shape
        down, right = (max(-side % MULTIPLE, 2 * MULTIPLE - side) for side in (h, w))
        if down or right:
            ir, luma = (cv2.copyMakeBorder(x, 0, down, 0, right, cv2.BORDER_REPLICATE) for x in (ir, luma))
        request = self._requests.get(luma.shape) or self._compile(luma.shape)
        result: Image = request.infer([ir, luma], share_inputs=True)[0]
        return result[:h, :w] if down or right else result

    def _compile(self, shape_hw: tuple[int, int]) -> Any:
        model = self._core.read_model(self._path)
        model.reshape({0: list(shape_hw), 1: list(shape_hw)})
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = self._core.compile_model(model, "CPU", options).create_infer_request()
        self._requests[shape_hw] = request
        return request

    def _convert(self, folder: Path) -> None:
        import openvino

        logging.getLogger("rtfuse").info("converting the network for OpenVINO: once for these weights, some 20 s")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(exported(self._program))
        openvino.save_model(model, folder / _MODEL, compress_to_fp16=False)

    def _check(self) -> None:
        rng = np.random.default_rng(0)
        ir, luma = (rng.integers(0, 256, (48, 64), np.uint8) for _ in range(2))
        with torch.inference_mode():
            want = self._program(torch.from_numpy(ir), torch.from_numpy(luma)).numpy()
        error = int(np.abs(self(ir, luma).astype(int) - want).max())
        if error > 1:
            raise EngineUnavailable(f"engine 'openvino' differs from torch by {error} grey levels on this machine")


def _lanes() -> int:
    """Return how many float32 a vector register of this processor holds."""
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)


def _key(weights: Path) -> dict[str, str]:
    sources = b"".join(Path(str(m.__file__)).read_bytes() for m in _SOURCES)
    return {
        "engine": "openvino",
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "program": hashlib.sha256(sources).hexdigest(),
        "lanes": str(_lanes()),
        "openvino": _version("openvino"),
        "torch": _version("torch"),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
