"""Train the student to imitate the teacher on the same pairs; EMMA's own terms can count too."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtfuse.errors import ConfigError
from rtfuse.fuse import UFUSER_WEIGHTS, open_fuser
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.types import Image
from trainer.fusion import drawn
from trainer.losses import Nets, fusion_loss, sobel
from trainer.pictures import sheet
from trainer.recipe import Distill, Fusion, Recipe
from trainer.sensing import SensingTask, sensing_net_of
from trainer.stage import Stage, stage_on
from trainer.teacher import PictureIndex, Pictures, imitate


def ssim(x: Tensor, y: Tensor, window: int = 7) -> Tensor:
    """Return the mean structural similarity of pictures in [0, 1], uniform windows (Wang et al., TIP 2004, eq. 13)."""

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z, window, stride=1)

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))).mean()


class DistillTask(nn.Module):
    """Student, its loss, and the frozen sensing nets, None without EMMA's terms."""

    def __init__(self, student: nn.Module, options: Distill, fusion: Fusion, sensing: SensingTask | None) -> None:
        super().__init__()
        self.student, self.sensing = student, sensing
        self.options, self.emma = options, fusion
        for net in (sensing.thermal, sensing.visible) if sensing else ():
            net.frozen()

    def train(self, mode: bool = True) -> DistillTask:
        """Train the student alone."""
        super().train(mode)
        if self.sensing is not None:
            self.sensing.eval()
        return self

    def forward(self, planes: Tensor, transforms: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms; `planes` are thermal, luma and the teacher's picture, (N, 3, H, W) uint8."""
        ir, luma, target = (planes.float() / 255).chunk(3, 1)
        fused = self.student(ir, luma)
        parts = {
            "intensity": (fused - target).abs().mean(),
            "gradient": (sobel(fused) - sobel(target)).abs().mean(),
            "structure": 1 - ssim(fused, target),
        }
        loss = parts["intensity"] + self.options.gradient * parts["gradient"]
        loss = loss + self.options.structure * parts["structure"]
        if self.sensing is not None and self.options.emma:
            nets, emma = Nets(self.student, self.sensing.thermal, self.sensing.visible), self.emma
            terms = fusion_loss(nets, ir, luma, transforms, alpha1=emma.alpha1, alpha2=emma.alpha2)
            parts["emma"] = terms.total
            loss = loss + self.options.emma * terms.total
        return loss, parts


def taught(recipe: Recipe, folder: Path) -> PictureIndex:
    """Fuse the recipe's pairs with its teacher, as training data of the student. Raises WeightsMissing."""
    options = recipe.distill
    weights = UFUSER_WEIGHTS if options.teacher == "shipped" else Path(options.teacher)
    fuser = open_fuser("ufuser", weights=weights)  # by the fastest engine of this machine

    def teacher(ir: Image, luma: Image) -> Image:
        fused: Image = fuser(ir, cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB))[..., 0]
        return fused

    about: dict[str, str | int] = {"teacher": hashlib.sha256(weights.read_bytes()).hexdigest()}
    return imitate(recipe.data, options, teacher, about, folder)


def distill_stage(recipe: Recipe, pictures: Pictures) -> Stage:
    """Return the training of the student as a stage. Raises WeightsMissing, ConfigError, SourceUnreadable."""
    options = recipe.distill
    torch.manual_seed(recipe.seed)
    student: nn.Module = Student(options.channels, options.layers, options.context)
    if options.start:
        student = load_network(options.start)
        if not isinstance(student, Student):
            raise ConfigError(f"distill.start: {options.start} does not hold a student")
    sensing = sensing_net_of(Path(options.sensing_run)) if options.sensing_run and options.emma else None
    (w, h), seen = options.crop, min(options.crop)

    def batch(step: int) -> tuple[Any, ...]:
        rng = pictures.rng(step)
        crop = (seen, seen) if sensing else (w, h)  # rotations by 90° need a square
        planes = pictures.crops(pictures.rows(step, options.batch), crop, rng)
        return planes, drawn(recipe.fusion, seen, rng) if sensing else []

    @torch.no_grad()
    def sample(task: nn.Module) -> Any:
        assert isinstance(task, DistillTask)
        planes = pictures.crops([k * len(pictures) // 6 for k in range(6)], options.crop, pictures.rng(0))
        device = next(task.parameters()).device
        ir, luma, target = (planes.float() / 255).chunk(3, 1)
        fused = task.student(ir.to(device), luma.to(device)).clamp(0, 1)
        return sheet([ir, luma, target, fused], ["thermal", "luma", "teacher", "student"])

    task = DistillTask(student, options, recipe.fusion, sensing)
    return stage_on("distill", options, pictures, task, batch, sample)
