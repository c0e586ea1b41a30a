"""U-Fuser in eager torch: the reference that every faster engine is held to."""

from __future__ import annotations

from pathlib import Path

import torch

from rtfuse.fuse.ufuser import UFuser, crop, load_weights, pad_to_multiple
from rtfuse.types import Image


class EagerUFuser:
    """Fuses thermal and visible luma, (H, W) uint8 of any size, by the network in float32.

    `weights` is a file of them, or a network that has them. `device` is torch's; by default a GPU, if there is one.
    Raises WeightsMissing if the file is absent or its tensors do not fit the network.
    """

    def __init__(self, weights: str | Path | UFuser, device: str | None = None) -> None:
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        net = weights if isinstance(weights, UFuser) else load_weights(weights)
        self._net = net.to(self._device).eval()

    @torch.inference_mode()
    def __call__(self, ir: Image, luma: Image) -> Image:
        """Return the fused luma, (H, W) uint8."""
        fused = self._net(self._tensor(ir), self._tensor(luma))
        fused = crop(fused, luma.shape[0], luma.shape[1])
        result: Image = fused[0, 0].mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
        return result

    def _tensor(self, image: Image) -> torch.Tensor:
        x = torch.from_numpy(image).to(self._device)[None, None].float().div_(255)
        return pad_to_multiple(x, 8)
