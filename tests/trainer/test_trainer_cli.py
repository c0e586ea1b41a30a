"""The command line of the trainer: help, overrides, and mistakes that are told in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from rtfuse.errors import ConfigError, SourceNotFound
from trainer import cli
from trainer.ablation import fusion_net
from trainer.recipe import load_recipe

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = str(CONFIGS / "train_quick.yaml")


def trainer(*args):
    """Run a command in this process, without the line that the process would print for an error."""
    return cli.app([str(a) for a in args], standalone_mode=False)


def process(*args, **kwargs):
    command = [sys.executable, "-m", "trainer", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, **kwargs)


def test_a_bare_call_prints_the_help():
    done = process()
    assert (done.returncode, done.stderr) == (2, "")
    for command in ("prepare", "train", "distill", "export", "bench", "eval"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-h"], "EMMA's two stages"),
        (["train", "-h"], "KEY=VALUE"),
        (["export", "--help"], "--lanes"),
        (["--version"], "trainer 0"),
    ],
)
def test_help_and_version(args, words, capsys):
    trainer(*args)
    assert words in capsys.readouterr().out


def test_a_mistake_is_one_line_and_costs_no_run_folder(tmp_path):
    for args, words in [
        (("--config", tmp_path / "absent.yaml"), "absent.yaml does not exist"),
        (("--config", QUICK, "fusion.epohcs=3"), "unknown key fusion.epohcs; did you mean fusion.epochs?"),
    ]:
        done = process("train", *args, "--run", tmp_path / "run")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["prepare", "train", "distill", "bench"])
def test_a_command_without_a_recipe_says_what_to_give(command):
    with pytest.raises(ConfigError, match=rf"trainer {command} needs a recipe: .*--config .*train_quick\.yaml"):
        trainer(command)
    with pytest.raises(ConfigError, match=r"needs a recipe: give --config my\.yaml$"):
        trainer(command, "my.yaml", "seed=2")
    with pytest.raises(ConfigError, match="did you mean seed"):
        trainer(command, "--config", QUICK, "sede=2")


def test_overrides_change_the_recipe_and_are_checked_one_by_one():
    recipe = load_recipe(QUICK, ["fusion.epochs=2", "sensing={width: 8}", "name=other", "fusion.start=shipped"])
    assert (recipe.fusion.epochs, recipe.sensing.width, recipe.name) == (2, 8, "other")
    assert recipe.fusion.start == "shipped"
    assert recipe.data == load_recipe(QUICK).data
    for item, words in [
        ("fusion.transforms=two", r"'fusion.transforms=two': fusion.transforms: .*want all, one, none"),
        ("seed", r"'seed': want key=value, for example fusion\.epochs=2"),
        ("data.roots=[{name: a}]", "ir"),
        ("fusion.without=residual", "`start` gives weights of the whole network"),
    ]:
        with pytest.raises(ConfigError, match=words):
            load_recipe(QUICK, ["fusion.start=shipped", item])


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    scene = "synthetic:?seed=2&size=128x96&duration_s=2"
    roots = [{"name": "street", "ir": scene, "rgb": scene, "every": 20}]
    path.write_text(yaml.safe_dump({"name": "r", "data": {"roots": roots, "patch_px": 64, "stride_px": 32}}))
    return path


def test_a_run_folder_belongs_to_one_recipe(recipe, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match="--stage sensing first"):
        trainer("train", "--config", recipe, "--run", run, "--stage", "fusion", "data.min_patches=1")
    assert load_recipe(run / "recipe.yaml").data.min_patches == 1
    for overrides in ([], ["data.min_patches=1", "seed=5"]):
        with pytest.raises(ConfigError, match="another recipe"):
            trainer("train", "--config", recipe, "--run", run, *overrides)
    with pytest.raises(SourceNotFound, match=r"fusion\.ckpt not found"):
        trainer("export", "--config", recipe, "--run", run)


def test_an_ablation_is_not_exported(recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe.read_text() + "fusion: {without: residual}\n")
    state = fusion_net("residual").state_dict()
    torch.save({"task": {f"fusion.{k}": v for k, v in state.items()}, "step": 3}, run / "fusion.ckpt")
    with pytest.raises(ConfigError, match="is an ablation"):
        trainer("export", "--config", recipe, "--run", run)
