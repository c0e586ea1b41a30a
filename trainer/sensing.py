"""First stage: train the sensing nets to map fused images back to their sources (EMMA, section 3.3)."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtfuse.errors import SourceUnreadable
from rtfuse.fuse.networks.checkpoints import fault_of, refuse_infinite
from trainer.data import Patches
from trainer.pictures import sheet
from trainer.recipe import Recipe, Sensing, load_recipe
from trainer.sensing_net import SensingNet
from trainer.stage import Stage, stage_on


class SensingTask(nn.Module):
    """Both nets and their l2 loss."""

    def __init__(self, options: Sensing, *, half: bool = False) -> None:
        super().__init__()
        self.thermal, self.visible = (
            SensingNet(options.width, optics=options.optics, noise=options.noise, autocast=half) for _ in range(2)
        )

    def forward(self, fused: Tensor, ir: Tensor, luma: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of both mean squared errors, and each."""
        thermal, visible = F.mse_loss(self.thermal(fused), ir), F.mse_loss(self.visible(fused), luma)
        return thermal + visible, {"thermal": thermal, "visible": visible}


def in_half(recipe: Recipe) -> bool:
    """Return True if the sensing nets of this recipe compute in bfloat16 on this machine."""
    if recipe.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return recipe.precision == "bf16-mixed"


def sensing_stage(recipe: Recipe, patches: Patches) -> Stage:
    """Return the first stage of a recipe."""
    options = recipe.sensing
    torch.manual_seed(recipe.seed)

    def batch(step: int) -> tuple[Tensor, ...]:
        return patches.fused(patches.rows(step, options.batch), options.crop_px, patches.rng(step))

    @torch.no_grad()
    def sample(task: nn.Module) -> Any:
        fused, ir, luma = patches.fused([k * len(patches) // 6 for k in range(6)], None, patches.rng(0))
        assert isinstance(task, SensingTask)
        device = next(task.parameters()).device
        was, _ = task.training, task.eval()
        columns = [fused, ir, task.thermal(fused.to(device)), luma, task.visible(fused.to(device))]
        task.train(was)
        return sheet(columns, ["fused", "thermal", "sensed", "luma", "sensed"])

    return stage_on("sensing", options, patches, SensingTask(options, half=in_half(recipe)), batch, sample)


def sensing_net_of(run: Path) -> SensingTask:
    """Return both nets of a run folder's checkpoint. Raises SourceUnreadable if it is missing or does not fit."""
    path = run / "sensing.ckpt"
    try:
        recipe = load_recipe(run / "recipe.yaml")
        task = SensingTask(recipe.sensing, half=in_half(recipe))
        task.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["task"])
    except (RuntimeError, KeyError, OSError, EOFError, UnpicklingError) as e:
        raise SourceUnreadable(f"no sensing nets in {path}: {fault_of(e)}") from e
    refuse_infinite(task.state_dict(), f"weights in {path}")
    return task
