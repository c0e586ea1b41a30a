"""Which engine runs a network: the one that was asked for, or the fastest that works."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS, Fuser
from rtfuse.fuse.fallback import Candidate, FallbackFuser
from rtfuse.hints import install_hint
from rtfuse.types import Image

if TYPE_CHECKING:
    from rtfuse.fuse.network import ProgramEngine

PROGRAM_ENGINES = ("tensorrt", "cuda", "eager")
"""They compute everything from raw bytes to fused bytes, by torch; the others compute the network alone."""
_log = logging.getLogger("rtfuse.fuse")


def open_network(
    name: str,
    weights: str | Path | None = None,
    engine: str = "auto",
    precision: str = "auto",
    plan: str | Path | None = None,
    *,
    resort: bool = False,
) -> FallbackFuser:
    """Return the fuser `ufuser` or `student` by an engine (see `rtfuse.fuse.open_fuser`).

    `auto` takes the fastest engine that works, and the log says why others do not. With `resort` the pyramid is the
    last one. Raises EngineUnavailable if none works, or WeightsMissing.
    """
    engine = "tensorrt" if plan else engine
    kinds = [(e, p) for e in _engines(engine, weights) for p in _precisions(name, e, precision)]
    candidates: list[Candidate] = [(f"engine {e!r}", partial(_open, name, e, p, weights, plan)) for e, p in kinds]
    if resort:
        from rtfuse.fuse.pyramid import open_pyramid

        candidates.append(("the pyramid", open_pyramid))
    return FallbackFuser(candidates)


def _engines(engine: str, weights: str | Path | None) -> list[str]:
    if engine != "auto":
        return [engine]
    if weights is not None and Path(weights).suffix == ".xml":
        return ["openvino"]
    if nvidia_gpus() and not has_torch():
        _log.warning("an NVIDIA GPU is here, but torch is not installed: the processor fuses; %s", install_hint("cuda"))
    if torch_gpu():
        return [*PROGRAM_ENGINES, "openvino"]
    return ["openvino", "eager"] if has_torch() else ["openvino"]


def _precisions(name: str, engine: str, precision: str) -> list[str]:
    """Return the precisions worth trying: the picture is the same to the eye in all of them."""
    if precision != "auto":
        return [precision]
    if engine in ("tensorrt", "cuda"):
        return ["float16"]
    # The student is fast enough in float32 on a processor, and exact.
    return ["bfloat16", "float32"] if engine == "openvino" and name == "ufuser" and _has_amx() else ["float32"]


def _has_amx() -> bool:
    """Tell whether the processor has matrix units for bfloat16: three times as fast as float32."""
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _open(name: str, engine: str, precision: str, weights: str | Path | None, plan: str | Path | None) -> Fuser:
    if engine == "openvino":
        from rtfuse.fuse.luma import LumaFuser
        from rtfuse.fuse.openvino import OpenVinoEngine, program_of

        opened = OpenVinoEngine(program_of(name, weights), precision)
        return LumaFuser(name, opened, engine=opened.name, prepare=opened.prepare)
    if not has_torch():
        raise EngineUnavailable(f"engine {engine!r} needs torch, which is not installed: {install_hint('torch')}")
    from rtfuse.fuse.network import ProgramFuser

    weights = weights or shipped(name)
    return ProgramFuser(name, open_engine(engine, weights, precision, plan), partial(_check, engine, weights))


def shipped(name: str) -> Path:
    """Return the shipped weights of a network, as safetensors."""
    return STUDENT_WEIGHTS if name == "student" else UFUSER_WEIGHTS


def open_engine(
    engine: str, weights: str | Path, precision: str = "float32", plan: str | Path | None = None
) -> ProgramEngine:
    """Return an engine of `PROGRAM_ENGINES`. Raises EngineUnavailable or WeightsMissing."""
    import torch

    dtype = getattr(torch, precision)
    if engine == "cuda":
        from rtfuse.fuse.cuda import CudaEngine

        return CudaEngine(weights, dtype)
    if engine == "tensorrt":
        from rtfuse.fuse.tensorrt import TensorRtEngine

        return TensorRtEngine(weights, dtype, plan=plan)
    from rtfuse.fuse.eager import EagerEngine

    return EagerEngine(weights, dtype=dtype)


def _check(name: str, weights: str | Path, engine: ProgramEngine, ir_hw: tuple[int, int], hw: tuple[int, int]) -> None:
    """Hold an engine on the GPU to eager torch there; raise EngineUnavailable if its picture is another one."""
    from rtfuse.fuse.eager import EagerEngine
    from rtfuse.fuse.inputs import sample

    if isinstance(engine, EagerEngine):
        return
    inputs = sample(ir_hw, hw)
    check(name, engine(inputs), EagerEngine(weights)(inputs), engine.precision)


def check(name: str, fused: Image, reference: Image, precision: str) -> None:
    """Raise EngineUnavailable if an engine's picture differs from the reference by more than its roundings.

    Noise, gradients, black, white and constant parts are in it; a number that is not finite would come out as black.
    """
    error = np.abs(fused.astype(int) - reference)
    allowed, share = tolerance(precision)
    if (error > allowed).mean() > share or error.max() > 8 * allowed:
        raise EngineUnavailable(
            f"engine {name!r} differs from the reference by up to {error.max()} grey levels on this machine "
            f"({100 * (error > allowed).mean():.2f} % of values by more than {allowed})"
        )


def tolerance(precision: str) -> tuple[int, float]:
    """Return by how many grey levels an engine may differ, and the share of values that may differ by more."""
    return (1, 0.0) if precision in ("float32", "float64") else (3, 1e-3)


@cache
def nvidia_gpus() -> int:
    """Return how many NVIDIA GPUs the driver has, by asking the driver itself; 0 without one."""
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
            count = ctypes.c_int(0)
            if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
                return count.value
        except (OSError, AttributeError):
            continue
    return 0


def has_torch() -> bool:
    """Tell whether torch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


@cache
def torch_gpu() -> bool:
    """Tell whether torch is a CUDA build that sees a GPU; torch is imported only where the driver has one."""
    if not nvidia_gpus() or not has_torch():
        return False
    try:
        import torch

        return torch.cuda.is_available()
    except Exception as e:  # noqa: BLE001 - a torch that is broken or of another platform raises anything
        _log.warning("torch does not load: %s", " ".join(str(e).split())[:200])
        return False
