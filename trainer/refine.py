"""Train a network without a teacher: it learns from what its own pictures keep of both sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rtfuse.errors import ConfigError
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser
from rtfuse.types import Image
from trainer.classical import CLASSICAL
from trainer.distill import ssim
from trainer.fidelity import edges_kept, gradients, means_differ, noise_added, outside, vif, wanted_gradients
from trainer.pictures import sheet
from trainer.recipe import Recipe, Refine
from trainer.stage import Stage, stage_on
from trainer.teacher import PictureIndex, Pictures, imitate

_SMOOTH_PX = 0.8
_SMOOTH_GAIN = 2 * np.pi**0.5 * _SMOOTH_PX
"""It keeps the deviation of noise that was smoothed by a Gaussian of σ = `_SMOOTH_PX`."""


class RefineTask(nn.Module):
    """Network, and the loss of its pictures."""

    def __init__(self, network: nn.Module, options: Refine) -> None:
        super().__init__()
        self.network, self.options = network, options

    def forward(self, planes: Tensor, seen: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms.

        `planes` are thermal, luma and the base picture, (N, 3, H, W) uint8; `seen` what the network sees of the first
        two, (N, 2, H, W) uint8.
        """
        options, planes, seen = self.options, planes.float() / 255, seen.float() / 255
        sources, base = planes[:, :2], planes[:, 2:]
        fused = self.network(seen[:, :1], seen[:, 1:])
        wanted = options.detail * wanted_gradients(sources, options.flat / 255)
        parts = {
            "gradient": (gradients(fused) - wanted).abs().mean(),
            "base": means_differ(fused, base, options.base_px),
            "range": outside(fused),
        }
        if options.structure:
            parts["structure"] = 2 - ssim(fused, sources[:, :1]) - ssim(fused, sources[:, 1:])
        if options.fidelity:
            parts["fidelity"] = -vif(sources, fused)
        if options.edges:
            parts["edges"] = -edges_kept(sources, fused)
        if options.noise:
            parts["noise"] = noise_added(sources, fused)
        loss: Tensor = sum((getattr(options, name) * part for name, part in parts.items()), fused.new_zeros(()))
        return loss, parts


def start_of(options: Refine) -> nn.Module:
    """Return the network with which a refinement begins. Raises WeightsMissing; ConfigError if `bands` do not fit."""
    if options.start == "new":
        return Student(options.channels, options.layers, options.context)
    shipped = {"student": STUDENT_WEIGHTS, "ufuser": UFUSER_WEIGHTS}
    net = load_network(shipped.get(options.start, Path(options.start)))
    if options.bands and isinstance(net, UFuser):
        return Detailed(net, options.bands)
    if options.bands and not (isinstance(net, Detailed) and net.levels == options.bands):
        raise ConfigError(f"refine.bands: {options.start} has its own bands; leave it out")
    return net


def prepare_pictures(recipe: Recipe, folder: Path) -> PictureIndex:
    """Fuse the recipe's pairs by the classical method `refine.base_on`, as training data."""
    options = recipe.refine
    fuse, contrast = CLASSICAL[options.base_on], options.contrast
    about: dict[str, str | int] = {"base_on": options.base_on, "contrast": str(contrast)}
    return imitate(recipe.data, options, lambda ir, luma: stretched(fuse(ir, luma), contrast), about, folder)


def stretched(picture: Image, contrast: float) -> Image:
    """Multiply the distances from the mean of a picture, (H, W) uint8; values are cut off at black and white."""
    mean = picture.mean()
    table = mean + contrast * (np.arange(256) - mean)
    changed: Image = np.clip(table, 0, 255).round().astype(np.uint8)[picture]
    return changed


def refine_stage(recipe: Recipe, pictures: Pictures) -> Stage:
    """Return the refinement as a stage. Raises WeightsMissing."""
    options = recipe.refine
    torch.manual_seed(recipe.seed)

    def batch(step: int) -> tuple[Any, ...]:
        rng = pictures.rng(step)
        planes = pictures.crops(pictures.rows(step, options.batch), options.crop, rng)
        return planes, grainy(planes[:, :2], options.grain, rng)

    @torch.no_grad()
    def sample(task: nn.Module) -> Any:
        assert isinstance(task, RefineTask)
        planes = pictures.crops([k * len(pictures) // 6 for k in range(6)], options.crop, pictures.rng(0))
        ir, luma, base = (planes.float() / 255).chunk(3, 1)
        device = next(task.parameters()).device
        fused = task.network(ir.to(device), luma.to(device)).clamp(0, 1)
        return sheet([ir, luma, base, fused], ["thermal", "luma", options.base_on, "fused"])

    task = RefineTask(start_of(options), options)
    return stage_on("refine", options, pictures, task, batch, sample)


def grainy(sources: Tensor, most: float, rng: torch.Generator) -> Tensor:
    """Add sensor noise to pictures (N, C, H, W) uint8: normal, with a deviation drawn for each from 0 to `most` levels.

    Half of them get noise that is smooth over some pixels, as an enlarged or compressed picture has it.
    """
    if not most:
        return sources
    noise = torch.randn(sources.shape, generator=rng)
    smooth = _SMOOTH_GAIN * torch.stack([torch.from_numpy(_smoothed(x.numpy())) for x in noise])
    drawn = torch.rand((2, *sources.shape[:2], 1, 1), generator=rng)
    noise = most * drawn[0] * torch.where(drawn[1] < 0.5, smooth, noise)
    return (sources + noise).round().clamp(0, 255).to(torch.uint8)


def _smoothed(planes: Image) -> Image:
    return np.stack([cv2.GaussianBlur(x, (0, 0), _SMOOTH_PX) for x in planes])


def name_of(network: nn.Module) -> str:
    """Return the name under which a network's weights are written."""
    return "student" if isinstance(network, Student) else "ufuser"
