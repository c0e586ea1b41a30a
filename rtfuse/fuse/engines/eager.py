"""Run the program in eager torch: the reference for every faster engine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from rtfuse.fuse.engines.program import Program, tensors
from rtfuse.fuse.inputs import Inputs
from rtfuse.fuse.networks.loading import load_network
from rtfuse.types import Image


class EagerEngine:
    """Runs the network as published, in float32 (`dtype`: or in another precision).

    `weights` is a file of them, or a network that has them. `device` is torch's; by default a GPU where
    the machine has one. Raises WeightsMissing if the file is absent or its tensors do not fit the network.
    """

    def __init__(
        self, weights: str | Path | nn.Module, device: str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.on_gpu = self._device.type == "cuda"
        self.precision = str(dtype).removeprefix("torch.")
        self.name = f"torch, {self.precision}, on the GPU" if self.on_gpu else f"torch, {self.precision}"
        net = weights if isinstance(weights, nn.Module) else load_network(weights)
        self._program = Program(net.to(self._device, dtype).eval())

    def prepare(self, inputs: Inputs) -> None:
        """Do nothing: eager torch needs no build."""

    @torch.inference_mode()
    def __call__(self, inputs: Inputs) -> Image:
        """Return the fused images, (N, H, W, 3) uint8."""
        result: Image = self._program(*tensors(inputs, self._device)).cpu().numpy()
        return result
