"""Run on NVIDIA GPUs by torch alone: the folded program, compiled, in half precision, replayed as a graph.

`Session` is the part that all engines on a GPU share: pinned buffers, a stream of their own, copies that overlap with
the computation of the frame before, and one launch for the whole program (a CUDA graph).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse.engines.program import Program
from rtfuse.fuse.inputs import NAMES, Inputs, Shapes
from rtfuse.fuse.networks.loading import for_gpu, load_network
from rtfuse.types import Image

Run = Callable[..., Tensor]

_CONSTANT = ("grid", "mask")
"""Arrays of the calibration, uploaded again only when the array is another one."""


class _Slot:
    """Everything that one frame on its way needs."""

    def __init__(self, run: Run, inputs: Inputs) -> None:
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pinned = [torch.from_numpy(np.ascontiguousarray(x)).pin_memory() for x in inputs.arrays()]
        self._device = [x.to("cuda") for x in self._pinned]
        self._uploaded: dict[str, Image] = {}
        with torch.cuda.stream(self.stream):
            for _ in range(3):  # first-time compilation and allocation must not be part of the graph
                run(*self._device)
        self.stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self.stream):
            self._fused = run(*self._device)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._result = torch.empty(0)

    def submit(self, inputs: Inputs) -> None:
        with torch.cuda.stream(self.stream):
            for name, array, pinned, device in zip(NAMES, inputs.arrays(), self._pinned, self._device, strict=True):
                if name in _CONSTANT and self._uploaded.get(name) is array:
                    continue
                np.copyto(pinned.numpy(), array)
                device.copy_(pinned, non_blocking=True)
                self._uploaded[name] = array
            self._graph.replay()
            # Pinned memory comes out of torch's own pool: the result is the caller's, and nothing is copied twice.
            self._result = torch.empty(self._fused.shape, dtype=torch.uint8, pin_memory=True)
            self._result.copy_(self._fused, non_blocking=True)
            self._done.record(self.stream)

    def result(self) -> Image:
        self._done.synchronize()
        fused: Image = self._result.numpy()
        return fused


class Session:
    """Runs a program on the GPU for frames of fixed sizes, up to `slots` of them on their way at once."""

    def __init__(self, run: Run, inputs: Inputs, slots: int = 2) -> None:
        self._run = run  # a graph does not keep the weights alive that it reads
        self._slots = [_Slot(run, inputs) for _ in range(slots)]
        self._next = 0

    def submit(self, inputs: Inputs) -> Callable[[], Image]:
        """Start with a frame; return what waits for its fused image. Ask for it before `slots` more are submitted."""
        slot = self._slots[self._next]
        self._next = (self._next + 1) % len(self._slots)
        slot.submit(inputs)
        return slot.result

    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8."""
        return self.submit(inputs)()


class GpuEngine(ABC):
    """Base of the engines on a GPU: a session for each size of frames, made when that comes first."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        """Raise EngineUnavailable without a CUDA GPU; `name` is that of the engine in the error."""
        if not torch.cuda.is_available():
            raise EngineUnavailable(
                f"engine '{name}' needs an NVIDIA GPU and a CUDA build of torch; this is torch {torch.__version__}"
            )
        self.precision = str(dtype).removeprefix("torch.")
        self._sessions: dict[Shapes, Session] = {}

    @abstractmethod
    def program(self, inputs: Inputs) -> Run:
        """Return the function of tensors on the GPU that computes inputs of these shapes."""

    def session(self, inputs: Inputs) -> Session:
        """Return the session for inputs of these shapes; it is built, compiled or loaded when they come first."""
        shapes = inputs.shapes
        if shapes not in self._sessions:
            with torch.inference_mode():
                self._sessions[shapes] = Session(self.program(inputs), inputs)
        return self._sessions[shapes]

    def prepare(self, inputs: Inputs) -> None:
        """Build, load and record the session for inputs of these shapes."""
        self.session(inputs)

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8."""
        return self.session(inputs)(inputs)


class CudaEngine(GpuEngine):
    """Runs the program by torch.compile on a GPU. Raises WeightsMissing, or EngineUnavailable without a CUDA GPU."""

    def __init__(self, weights: str | Path, dtype: torch.dtype = torch.float16) -> None:
        super().__init__("cuda", dtype)
        self.name = f"torch, compiled, {self.precision}, on {torch.cuda.get_device_name()}"
        net = for_gpu(load_network(weights)).to("cuda", dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The default mode is ready within a minute; autotuning every convolution took over two and was given up.
        self._program = torch.compile(Program(net), dynamic=False)

    def program(self, inputs: Inputs) -> Run:
        """Return the compiled program, which fits inputs of all shapes."""
        del inputs
        return self._program
