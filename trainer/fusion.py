"""Second stage: train the fusion net through the frozen sensing nets (EMMA, eq. 6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rtfuse.errors import WeightsMissing
from rtfuse.fuse import UFUSER_WEIGHTS
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from trainer.ablation import fusion_net
from trainer.data import Patches
from trainer.losses import Nets, distance, fusion_loss
from trainer.pictures import sheet
from trainer.recipe import Fusion, Recipe
from trainer.sensing import SensingTask
from trainer.stage import Stage, stage_on
from trainer.transforms import KINDS, Transform, draw, draw_set


class FusionTask(nn.Module):
    """Fusion net, its loss and the frozen sensing nets."""

    def __init__(self, sensing: SensingTask, options: Fusion) -> None:
        super().__init__()
        self.fusion = fusion_start(options)
        self.sensing = sensing
        self.options = options
        for net in (sensing.thermal, sensing.visible):
            net.frozen()

    def train(self, mode: bool = True) -> FusionTask:
        """Train the fusion net alone: the sensing nets' BatchNorm keeps its statistics."""
        super().train(mode)
        self.sensing.eval()
        return self

    def forward(
        self, ir: Tensor, luma: Tensor, transforms: list[Transform], target: Tensor | None = None, alone: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and its terms; imitating a `target` counts too, and is all that counts if `alone`."""
        options = self.options
        if target is not None and alone:
            imitation = distance(self.fusion(ir, luma), target)
            return imitation, {"imitation": imitation}
        if options.augment:
            for transform in transforms:
                ir, luma, target = transform(ir), transform(luma), None if target is None else transform(target)
            transforms = []
        nets = Nets(self.fusion, self.sensing.thermal, self.sensing.visible)
        weights = {"alpha1": options.alpha1, "alpha2": options.alpha2}
        terms = fusion_loss(nets, ir, luma, transforms, **weights, direct=options.direct)
        parts = {"thermal": terms.thermal, "visible": terms.visible, "equivariance": terms.equivariance}
        if target is None:
            return terms.total, parts
        imitation = distance(terms.fused, target)
        return terms.total + options.anchor * imitation, parts | {"imitation": imitation}


def fusion_start(options: Fusion) -> nn.Module:
    """Return the network with which the second stage begins, a U-Fuser, alone or below bands. Raises WeightsMissing."""
    if not options.start:
        return fusion_net(options.without)
    net = load_network(UFUSER_WEIGHTS if options.start == "shipped" else options.start)
    if isinstance(net, Student):
        raise WeightsMissing(f"weights {options.start} are those of a student, not of U-Fuser")
    return net


def drawn(options: Fusion, size_px: int, rng: torch.Generator) -> list[Transform]:
    """Return the transforms of one step."""
    size = (size_px, size_px)
    if options.transforms == "all":
        return draw_set(size, rng, per_kind=options.per_kind, any_angle=options.any_angle)
    if options.transforms == "one":
        kind = KINDS[int(torch.randint(len(KINDS), (), generator=rng))]
        return [draw(kind, size, rng, any_angle=options.any_angle)]
    return []


def fusion_stage(recipe: Recipe, patches: Patches, sensing: SensingTask) -> Stage:
    """Return the second stage of a recipe, on top of the first one's nets. Raises WeightsMissing."""
    options = recipe.fusion
    torch.manual_seed(recipe.seed + 1)
    size = min(options.crop_px or patches.index.patch_px, patches.index.patch_px)

    warm_up = options.warm_up_epochs * patches.steps(options.batch)

    def batch(step: int) -> tuple[Any, ...]:
        rng, rows = patches.rng(step), patches.rows(step, options.batch)
        if step < warm_up or options.anchor:
            x = patches.imitated(rows, options.warm_up_on, options.crop_px, rng)
            return x[:, 1:2], x[:, 2:], [] if step < warm_up else drawn(options, size, rng), x[:, :1], step < warm_up
        ir, luma = patches.sources(rows, options.crop_px, rng)
        return ir, luma, drawn(options, size, rng)

    @torch.no_grad()
    def sample(task: nn.Module) -> Any:
        assert isinstance(task, FusionTask)
        ir, luma = patches.sources([k * len(patches) // 6 for k in range(6)], None, patches.rng(0))
        device = next(task.parameters()).device
        fused = task.fusion(ir.to(device), luma.to(device))
        columns = [ir, luma, fused, task.sensing.thermal(fused), task.sensing.visible(fused)]
        return sheet(columns, ["thermal", "luma", "fused", "sensed thermal", "sensed luma"])

    task = FusionTask(sensing, options)
    return stage_on("fusion", options, patches, task, batch, sample)
