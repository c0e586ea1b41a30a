"""Run networks on processors by OpenVINO, in float32, or in bfloat16 on processors that compute in it (AMX).

`LumaFuser` calls it. The default for cameras is the student, unless U-Fuser holds their rate.

It runs programs: OpenVINO's `.xml` and `.bin` for pictures of any size, with an `.npz` file each: a pair of pictures
and the picture that must come out. A program of two inputs is a whole network, from two luma pictures to one, uint8
each; one of a single input is the guide of a student, whose bands OpenCV computes (`rtfuse.fuse.bands`). The shipped
networks are programs; other weights are converted by torch, once, and kept (`cache.py`). A program is compiled for each
size of picture.
"""

from __future__ import annotations

import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rtfuse.errors import EngineUnavailable, WeightsMissing
from rtfuse.fuse.bands import fuse_guided
from rtfuse.fuse.engines.machine import has_torch, openvino_module
from rtfuse.fuse.engines.parity import check
from rtfuse.fuse.inputs import MULTIPLE
from rtfuse.hints import install_hint
from rtfuse.types import Image

PROGRAMS = Path(__file__).parents[1] / "programs"
_KEPT = 3
"""Sizes that stay compiled: each takes tens of megabytes, and folders of stills have hundreds of sizes."""
_HINTS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}


class OpenVinoEngine:
    """Runs a program on the processor.

    `program` is its `.xml`. Raises WeightsMissing if it is absent or damaged, EngineUnavailable if OpenVINO is not
    installed, or the processor does not compute in this precision.
    """

    def __init__(self, program: Path, precision: str = "float32") -> None:
        self.name, self.precision = f"OpenVINO, {precision}, on the processor", precision
        self._core, self._path = openvino_module().Core(), program
        self._hint, wanted = _HINTS[precision]
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if wanted not in able:
            raise EngineUnavailable(f"engine 'openvino': this processor does not compute in {precision}; it can {able}")
        self._lock = threading.Lock()
        self._requests: dict[tuple[int, int], Any] = {}
        self._check()

    def prepare(self, hw: tuple[int, int]) -> None:
        """Compile the program for pictures of this height and width."""
        self._request(_whole(hw))

    def __call__(self, ir: Image, luma: Image) -> Image:
        """Fuse thermal and visible luma, (H, W) uint8 each, into (H, W) uint8."""
        with self._lock:  # a request has one set of buffers
            return self._fused(ir, luma)

    def _fused(self, ir: Image, luma: Image) -> Image:
        h, w = luma.shape
        rows, columns = _whole((h, w))
        if (rows, columns) != (h, w):
            below, right = rows - h, columns - w
            ir, luma = (cv2.copyMakeBorder(x, 0, below, 0, right, cv2.BORDER_REPLICATE) for x in (ir, luma))
        request = self._request((rows, columns))
        if self._levels:
            fused = fuse_guided(ir, luma, self._levels, lambda planes: _infer(request, planes[None])[0])
        else:
            fused = _infer(request, *(np.ascontiguousarray(x)[None, None] for x in (ir, luma)))[0, 0].copy()
        return np.ascontiguousarray(fused[:h, :w])

    def _request(self, hw: tuple[int, int]) -> Any:
        if hw not in self._requests:
            if len(self._requests) == _KEPT:
                del self._requests[next(iter(self._requests))]
            model = self._core.read_model(self._path)
            if self._levels:
                model.reshape([1, 2 + 2 * self._levels, *(side >> self._levels for side in hw)])
            else:
                model.reshape({k: [1, 1, *hw] for k in range(2)})
            options = {"INFERENCE_PRECISION_HINT": self._hint, "PERFORMANCE_HINT": "LATENCY"}
            if self._levels:  # a second thread would save 0.5 ms, and wait busily for longer than that
                options["INFERENCE_NUM_THREADS"] = "1"
            self._requests[hw] = self._core.compile_model(model, "CPU", options).create_infer_request()
        return self._requests[hw]

    @cached_property
    def _levels(self) -> int:
        """The number of bands that a student's guide directs; 0 for a program that is a whole network."""
        inputs = self._core.read_model(self._path).inputs
        return (inputs[0].partial_shape[1].get_length() - 2) // 2 if len(inputs) == 1 else 0

    def _check(self) -> None:
        """Raise EngineUnavailable if the output differs from the stored reference picture."""
        try:
            with np.load(self._path.with_suffix(".npz"), allow_pickle=False) as kept:
                ir, luma, fused = (kept[name] for name in ("ir", "luma", "fused"))
        except (OSError, ValueError, KeyError, EOFError) as e:
            raise WeightsMissing(f"program {self._path}: its .npz with the reference picture is missing: {e}") from e
        if not self._path.is_file() or not self._path.with_suffix(".bin").is_file():
            raise WeightsMissing(f"program {self._path}: want .xml and .bin of one name; write them by trainer export")
        check("openvino", self(ir, luma), fused, self.precision, chooses=bool(self._levels))
        self._requests.clear()


def _infer(request: Any, *given: Image) -> Image:
    """Return the output of a program, which stays valid until its next call."""
    out: Image = request.infer(given, share_inputs=True, share_outputs=True)[0]
    return out


def program_of(name: str, weights: str | Path | None = None, *, cache: Path | None = None) -> Path:
    """Return the program of a network: the shipped one, the one that `weights` is (`.xml`), or that of such weights.

    `cache` is a folder for converted weights in place of the user's. Raises WeightsMissing, or EngineUnavailable if
    weights must be converted and torch is not installed.
    """
    if weights is None:
        return PROGRAMS / f"{name}{'-avx512' if name == 'ufuser' and _has_avx512() else ''}.xml"
    path = Path(weights)
    if path.suffix == ".xml":
        return path
    if not has_torch():
        raise EngineUnavailable(
            f"weights {path} must be converted for engine 'openvino', which needs torch, and torch is not installed: "
            f"write a program (.xml) where it is, by trainer export, or install it: {install_hint('torch')}"
        )
    from rtfuse.fuse.engines.convert import converted

    return converted(path, lanes=16 if _has_avx512() else 8, cache=cache)


def _whole(hw: tuple[int, int]) -> tuple[int, int]:
    """Return the smallest size that a network takes and that this one fits into."""
    rows, columns = (max(-(-side // MULTIPLE), 2) * MULTIPLE for side in hw)
    return rows, columns


def _has_avx512() -> bool:
    """Tell whether vector registers hold 16 float32."""
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
