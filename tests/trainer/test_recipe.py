"""Recipes: every shipped one loads, and an ablation differs from its base only in its subject."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch

from rtfuse.errors import ConfigError
from rtfuse.fuse.networks.ufuser import Residual, Transformer
from trainer.ablation import fusion_net
from trainer.recipe import dump_recipe, load_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
ABLATIONS = {
    "no_equivariance": {"alpha2": 0.0, "transforms": "none"},
    "direct_loss": {"direct": True},
    "direct_loss_no_equivariance": {"direct": True, "alpha2": 0.0, "transforms": "none"},
    "augmentation": {"direct": True, "alpha2": 0.0, "augment": True},
    "no_restormer": {"without": "restormer"},
    "no_residual": {"without": "residual"},
}


def test_the_paper_s_recipe_is_the_paper_s():
    recipe = load_recipe(CONFIGS / "train_paper.yaml")
    assert (recipe.sensing.width, recipe.sensing.epochs, recipe.sensing.batch, recipe.sensing.halve_every) == (
        64,
        40,
        64,
        10,
    )
    fusion = recipe.fusion
    assert (fusion.epochs, fusion.batch, fusion.halve_every, fusion.warm_up_epochs) == (100, 8, 20, 0)
    assert (fusion.alpha1, fusion.alpha2, fusion.transforms, fusion.per_kind) == (1.0, 0.1, "all", 3)
    assert recipe.sensing.learning_rate == fusion.learning_rate == 1e-4
    assert (recipe.data.patch_px, recipe.data.stride_px, recipe.data.min_contrast) == (128, 200, 0.1)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_changes_what_it_is_about(name):
    base, recipe = load_recipe(CONFIGS / "train_gpu.yaml"), load_recipe(CONFIGS / "ablations" / f"{name}.yaml")
    assert recipe == msgspec.structs.replace(
        base, name=name, fusion=msgspec.structs.replace(base.fusion, **ABLATIONS[name])
    )


def test_every_ablation_is_tested_and_every_recipe_survives_being_written(tmp_path):
    assert {p.stem for p in (CONFIGS / "ablations").iterdir()} == set(ABLATIONS)
    for path in CONFIGS.rglob("*.yaml"):
        if "train" in path.name or "ablations" in path.parts:
            (tmp_path / "kept.yaml").write_text(dump_recipe(load_recipe(path)))
            assert load_recipe(tmp_path / "kept.yaml") == load_recipe(path)


def test_a_wrong_word_in_a_list_is_answered_by_the_right_ones():
    with pytest.raises(ConfigError, match=r"data\.classical\[1\]: invalid.*; want pyramid, guided, wavelet, additive$"):
        load_recipe(CONFIGS / "train_quick.yaml", ["data.classical=[pyramid, median]"])


def test_a_base_that_leads_back_or_nowhere_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        load_recipe(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text("base: gone.yaml\n")
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_recipe(tmp_path / "a.yaml")


def test_a_start_and_a_missing_branch_do_not_go_together(tmp_path):
    (tmp_path / "r.yaml").write_text(f"base: {CONFIGS}/train_cpu.yaml\nfusion: {{start: shipped, without: residual}}\n")
    with pytest.raises(ConfigError, match="`start` gives weights of the whole network"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.parametrize(("without", "left"), [("restormer", Residual), ("residual", Transformer)])
def test_a_branch_is_left_out_and_the_size_kept(without, left):
    net = fusion_net(without)
    whole, here = (sum(p.numel() for p in n.parameters()) for n in (fusion_net(), net))
    assert here == pytest.approx(whole, rel=0.01)
    gone = Transformer if left is Residual else Residual
    assert any(isinstance(m, left) for m in net.modules())
    assert not any(isinstance(m, gone) for m in net.modules())
    net(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)).mean().backward()
    assert all(p.grad is not None for p in net.parameters())
