"""Run on NVIDIA GPUs by TensorRT, with one of its two libraries.

`tensorrt` builds for the GPU at hand, on data-centre GPUs and Jetson. `tensorrt_rtx` is for RTX cards and builds on any
machine, without a GPU, for stated ones. Both read the program as ONNX, whole: a layer that they do not have is an
error, nothing falls back to torch. They are strongly typed: precision is the program's own.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse import bands, inputs
from rtfuse.fuse.engines import onnx, program
from rtfuse.fuse.engines.cache import cached, digest, installed
from rtfuse.fuse.engines.cuda import GpuEngine
from rtfuse.fuse.engines.onnx import OUTPUT, program_as_onnx
from rtfuse.fuse.engines.program import Program
from rtfuse.fuse.inputs import NAMES, Inputs, Shapes
from rtfuse.fuse.networks import bands as torch_bands
from rtfuse.fuse.networks import detailed, folding, scaling, student, ufuser
from rtfuse.fuse.networks.loading import for_gpu, load_network
from rtfuse.hints import install_hint

LIBRARIES = ("tensorrt", "tensorrt_rtx")
RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
"""Compute capabilities that TensorRT-RTX builds for."""

_PLAN = "program.plan"
_SOURCES = (ufuser, student, detailed, bands, torch_bands, scaling, folding, program, inputs, onnx)


def library(name: str | None = None) -> Any:
    """Return the module of this name, or the first of `LIBRARIES` that is installed. Raises EngineUnavailable."""
    for candidate in (name,) if name else LIBRARIES:
        try:
            return importlib.import_module(candidate)
        except ImportError:
            continue
    raise EngineUnavailable(
        f"engine 'tensorrt' needs TensorRT: on a data-centre GPU {install_hint('tensorrt')}, on an RTX card "
        f"{install_hint('rtx')}; a Jetson has it in JetPack"
    )


def build_plan(trt: Any, model: bytes, *, rigs: int = 1, capability: str | None = None) -> bytes:
    """Return an engine of an ONNX program for 1 to `rigs` rigs at once, fastest for all of them.

    `capability` is the compute capability of the GPU that it is for, such as "8.6" (TensorRT-RTX alone); None: the one
    at hand. Raises EngineUnavailable naming the layers that TensorRT does not take, or if it builds nothing.
    """
    log = _logger(trt)
    builder = trt.Builder(log)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the default of later versions
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        faults = "; ".join(f"{e.node_name()}: {e.desc()}" for e in map(parser.get_error, range(parser.num_errors)))
        raise EngineUnavailable(f"{trt.__name__} {trt.__version__} does not take the program: {faults[:500]}")
    config = builder.create_builder_config()
    if capability is not None:
        if not hasattr(trt, "ComputeCapability"):
            raise EngineUnavailable(
                f"{trt.__name__} builds only for the GPU of this machine; tensorrt_rtx builds for others"
            )
        if capability not in RTX_CAPABILITIES:
            raise EngineUnavailable(
                f"TensorRT-RTX does not build for compute capability {capability!r}, only for "
                f"{', '.join(RTX_CAPABILITIES)}"
            )
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability.replace('.', '')}"), 0)
    profile = builder.create_optimization_profile()
    for k in range(network.num_inputs):
        name, (_, *shape) = network.get_input(k).name, tuple(network.get_input(k).shape)
        profile.set_shape(name, (1, *shape), (rigs, *shape), (rigs, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineUnavailable(f"{trt.__name__} {trt.__version__} built no engine: {log.last}")
    return bytes(plan)


def folded_program(weights: str | Path, dtype: torch.dtype) -> Program:
    """Return the program that engines on a GPU run. Raises WeightsMissing."""
    return Program(for_gpu(load_network(weights)).to(dtype))


class TensorRtEngine(GpuEngine):
    """Runs the program by TensorRT on the GPU at hand, in float16 (`dtype`: or float32).

    An engine is built for every size of frames when that comes first, in about a minute, and kept. `plan` is a file
    that `trainer export` wrote, in place of building. Raises WeightsMissing, or EngineUnavailable.
    """

    def __init__(
        self,
        weights: str | Path,
        dtype: torch.dtype = torch.float16,
        *,
        plan: str | Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self._trt = library()
        super().__init__("tensorrt", dtype)
        self._weights, self._dtype, self._cache = Path(weights), dtype, cache
        self._plan = None if plan is None else Path(plan)
        self.name = f"{self._trt.__name__} {self._trt.__version__}, {self.precision}, on {torch.cuda.get_device_name()}"

    def program(self, inputs: Inputs) -> _Plan:
        """Return the engine for inputs of these shapes: built, or taken from the cache."""
        return _Plan(self._trt, self._built(inputs), inputs.shapes)

    def _built(self, inputs: Inputs) -> bytes:
        if self._plan is not None:
            try:
                return self._plan.read_bytes()
            except OSError as e:
                raise EngineUnavailable(f"engine {self._plan}: {e.strerror or e}") from e
        rigs, ir_hw, rgb_hw = len(inputs.ir), inputs.ir.shape[1:3], inputs.rgb.shape[1:3]
        key = {
            "engine": self._trt.__name__,
            "version": self._trt.__version__,
            "weights": digest(self._weights),
            "program": digest(*(Path(str(m.__file__)) for m in _SOURCES)),
            "sizes": f"{rigs}x{ir_hw}x{rgb_hw}",
            "precision": str(self._dtype),
            "gpu": torch.cuda.get_device_name(),
            "capability": str(torch.cuda.get_device_capability()),
            "cuda": str(torch.version.cuda),
            "driver": installed("nvidia-ml-py") and _driver(),
            "torch": torch.__version__,
        }

        def build(folder: Path) -> None:
            model = program_as_onnx(folded_program(self._weights, self._dtype), ir_hw, rgb_hw)
            (folder / _PLAN).write_bytes(build_plan(self._trt, model, rigs=rigs))

        return (cached(key, build, folder=self._cache) / _PLAN).read_bytes()


class _Plan:
    """Run a built engine on tensors on the GPU."""

    def __init__(self, trt: Any, plan: bytes, shapes: Shapes) -> None:
        self._runtime = trt.Runtime(_logger(trt))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineUnavailable(f"{trt.__name__} {trt.__version__} does not load this engine on this GPU")
        self._context = self._engine.create_execution_context()
        for name, shape in zip(NAMES, shapes, strict=True):
            if not self._context.set_input_shape(name, shape):
                raise EngineUnavailable(f"this engine was built for other sizes than {name} {shape}")

    def __call__(self, *tensors: Tensor) -> Tensor:
        fused = torch.empty(tuple(self._context.get_tensor_shape(OUTPUT)), dtype=torch.uint8, device="cuda")
        for name, tensor in zip((*NAMES, OUTPUT), (*tensors, fused), strict=True):
            self._context.set_tensor_address(name, tensor.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise EngineUnavailable("TensorRT did not run the engine")
        return fused


def _driver() -> str:
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return str(nvml.nvmlSystemGetDriverVersion())
    except Exception:  # noqa: BLE001 - NVML's errors are its own, and it may be absent: the version is then unknown
        return "unknown"


_loggers: dict[str, Any] = {}


def _logger(trt: Any) -> Any:
    """Return the one logger of a library (it takes no other later), which keeps the last error."""
    if trt.__name__ not in _loggers:

        class Logger(trt.ILogger):  # type: ignore[misc]
            last = ""

            def log(self, severity: Any, message: str) -> None:
                if severity <= trt.ILogger.ERROR:
                    self.last = message

        _loggers[trt.__name__] = Logger()
    return _loggers[trt.__name__]
