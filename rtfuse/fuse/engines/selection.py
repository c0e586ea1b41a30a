"""Select the engine of a network: the requested one, or the fastest that works."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.engines.machine import has_torch, nvidia_gpus, torch_gpu
from rtfuse.fuse.engines.parity import check
from rtfuse.fuse.fallback import Candidate, FallbackFuser
from rtfuse.fuse.fuser import STUDENT_WEIGHTS, UFUSER_WEIGHTS, Fuser, Options
from rtfuse.hints import install_hint

if TYPE_CHECKING:
    from rtfuse.fuse.raw_fuser import ProgramEngine

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


def open_chosen(options: Options) -> FallbackFuser:
    """Return the network that the options name."""
    return open_network(options.name, options.weights, options.engine, options.precision, options.plan)


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
        from rtfuse.fuse.engines.openvino import OpenVinoEngine, program_of
        from rtfuse.fuse.luma_fuser import LumaFuser

        opened = OpenVinoEngine(program_of(name, weights), precision)
        return LumaFuser(name, opened, engine=opened.name, prepare=opened.prepare)
    if not has_torch():
        raise EngineUnavailable(f"engine {engine!r} needs torch, which is not installed: {install_hint('torch')}")
    from rtfuse.fuse.raw_fuser import RawFuser

    weights = weights or shipped(name)
    return RawFuser(name, open_engine(engine, weights, precision, plan), partial(_check, engine, weights))


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
        from rtfuse.fuse.engines.cuda import CudaEngine

        return CudaEngine(weights, dtype)
    if engine == "tensorrt":
        from rtfuse.fuse.engines.tensorrt import TensorRtEngine

        return TensorRtEngine(weights, dtype, plan=plan)
    from rtfuse.fuse.engines.eager import EagerEngine

    return EagerEngine(weights, dtype=dtype)


def _check(name: str, weights: str | Path, engine: ProgramEngine, ir_hw: tuple[int, int], hw: tuple[int, int]) -> None:
    """Hold an engine on the GPU to eager torch there; raise EngineUnavailable if its picture is another one."""
    from rtfuse.fuse.engines.eager import EagerEngine
    from rtfuse.fuse.inputs import sample

    if isinstance(engine, EagerEngine):
        return
    inputs, reference = sample(ir_hw, hw), EagerEngine(weights)
    check(name, engine(inputs), reference(inputs), engine.precision, chooses=reference.chooses)
