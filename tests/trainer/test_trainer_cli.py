"""The command line of the trainer: help, overrides, and mistakes that are told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from rtfuse.errors import ConfigError, RtfuseError
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS
from rtfuse.fuse.networks.ufuser import UFuser
from trainer import cli
from trainer.ablation import fusion_net
from trainer.recipe import load_recipe
from trainer.run_folder import claim

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
    for command in ("prepare", "train", "distill", "refine", "export", "bench", "eval"):
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


@pytest.mark.parametrize("command", ["prepare", "train", "distill", "refine", "bench"])
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


MISTAKES = [
    (
        ["fusion.warm_up_on=magic", "fusion.warm_up_epochs=1"],
        "no pseudo ground truth is called 'magic'; there are",
    ),
    (["fusion.anchor=1", "data.classical=[guided]"], "is called 'additive'; there are guided"),
    (["fusion.start=gone.safetensors"], r"weights not found: gone\.safetensors"),
    (["fusion.crop_px=96"], "fusion.crop_px: 96 px do not fit into a patch"),
    (["data.validation=gone.txt"], "split file gone.txt: No such file"),
    (["data.classical=[]"], "no pseudo ground truth; name folders"),
    (["data.roots=[]"], "name at least one set of pairs"),
    (["data.roots=[{name: a, ir: 'synthetic:', rgb: 'synthetic:'}, {name: a, ir: x, rgb: y}]"], "two are called a"),
    (["data.roots=[{name: a, ir: nowhere, rgb: 'synthetic:'}]"], "data root a: nowhere does not exist"),
    (
        ["data.roots=[{name: a, ir: 'synthetic:', rgb: 'synthetic:', pseudo: [gone]}]"],
        "data root a: gone does not exist",
    ),
    (["--stage", "fusion"], "--stage sensing first"),
]


@pytest.mark.parametrize(("changes", "words"), MISTAKES)
def test_a_mistake_in_a_recipe_is_found_before_its_folder_is_touched(recipe, tmp_path, changes, words):
    with pytest.raises(RtfuseError, match=words):
        trainer("train", "--config", recipe, "--run", tmp_path / "run", *changes)
    assert not (tmp_path / "run").exists()


def test_mistakes_of_the_students_recipe_too(recipe, tmp_path):
    for change, words in [
        ("distill.teacher=gone.safetensors", "weights not found"),
        (f"distill.start={UFUSER_WEIGHTS}", "is not a student"),
        ("distill={emma: 1, sensing_run: gone}", "no sensing nets in gone|gone/recipe.yaml"),
        (f"distill.teacher={STUDENT_WEIGHTS}", "are those of a student, not of U-Fuser"),
    ]:
        with pytest.raises(RtfuseError, match=words):
            trainer("distill", "--config", recipe, "--run", tmp_path / "run", change)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("there", "change", "allowed"),
    [
        ([], "seed=5", True),
        ([], "sensing.width=8", True),
        (["sensing.ckpt"], "seed=5", False),
        (["sensing.ckpt"], "sensing.learning_rate=0.1", False),
        (["sensing.ckpt"], "sensing.epochs=3", True),
        (["sensing.ckpt"], "fusion.warm_up_on=guided", True),
        (["sensing.ckpt"], "data.stride_px=64", False),
        (["sensing.ckpt", "fusion.ckpt"], "sensing.epochs=3", False),
        (["sensing.ckpt", "fusion.ckpt"], "fusion.epochs=7", True),
        (["sensing.ckpt", "fusion.ckpt"], "fusion.alpha2=0.3", False),
        (["sensing.ckpt", "fusion.ckpt"], "checkpoint_every_s=1", True),
        (["distill.ckpt"], "distill.channels=8", False),
        (["distill.ckpt"], "sensing.width=8", True),
    ],
)
def test_a_mended_recipe_goes_on_in_its_folder_where_no_checkpoint_depends_on_the_change(
    recipe, tmp_path, there, change, allowed
):
    old, new = load_recipe(recipe), load_recipe(recipe, [change])
    assert claim(tmp_path / "run", old) == []
    (tmp_path / "run" / "data").mkdir()
    for name in (*there, "data/index.json", "data/pictures.json"):
        (tmp_path / "run" / name).touch()
    key = change.partition("=")[0]
    if allowed:
        assert claim(tmp_path / "run", new) == [key]
        assert claim(tmp_path / "run", new) == []
    else:
        with pytest.raises(ConfigError, match=rf"another recipe .*{key} differs, and {there[0][:4]}|{key} differs"):
            claim(tmp_path / "run", new)
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == (new if allowed else old)
    assert (tmp_path / "run" / "data" / "index.json").exists()


def test_data_that_another_recipe_prepared_are_forgotten(recipe, tmp_path):
    claim(tmp_path, load_recipe(recipe))
    (tmp_path / "data").mkdir()
    for change, left in (("distill.variants=5", {"index.json"}), ("data.patch_px=96", set())):
        for name in ("index.json", "pictures.json"):
            (tmp_path / "data" / name).touch()
        claim(tmp_path, load_recipe(recipe, [change, "distill.variants=5"]))
        assert {path.name for path in (tmp_path / "data").iterdir()} == left


def test_home_is_expanded_wherever_a_path_is_read(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    roots = "data.roots=[{name: a, ir: ~/ir, rgb: ~/rgb, pseudo: [~/p]}]"
    found = load_recipe(recipe, [roots, "fusion.start=~/w.safetensors", "data.validation=~/v.txt"])
    root = found.data.roots[0]
    assert [root.ir, root.rgb, *root.pseudo] == [f"{tmp_path}/{name}" for name in ("ir", "rgb", "p")]
    assert (found.fusion.start, found.data.validation) == (f"{tmp_path}/w.safetensors", f"{tmp_path}/v.txt")


def test_weights_with_a_nan_are_refused(recipe, tmp_path):
    state = UFuser().state_dict()
    state["head.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(RtfuseError, match=r"nan\.safetensors are damaged: head\.bias holds NaN"):
        trainer("train", "--config", recipe, "--run", tmp_path / "run", f"fusion.start={tmp_path / 'nan.safetensors'}")
    claim(tmp_path / "run", load_recipe(recipe))
    torch.save({"task": {f"fusion.{k}": v for k, v in state.items()}, "step": 3}, tmp_path / "run" / "fusion.ckpt")
    for command in (["export", "--config", recipe, "--run", tmp_path / "run", "-o", tmp_path / "o.safetensors"],
                    ["eval", "--ir", tmp_path, "--rgb", tmp_path, "--run", tmp_path / "run"]):  # fmt: skip
        with pytest.raises(RtfuseError, match=r"fusion\.ckpt are damaged: head\.bias holds NaN"):
            trainer(*command)
    assert not (tmp_path / "o.safetensors").exists()


def test_an_ablation_is_not_exported(recipe, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe.read_text() + "fusion: {without: residual}\n")
    state = fusion_net("residual").state_dict()
    torch.save({"task": {f"fusion.{k}": v for k, v in state.items()}, "step": 3}, run / "fusion.ckpt")
    with pytest.raises(ConfigError, match="is an ablation"):
        trainer("export", "--config", recipe, "--run", run)


@pytest.fixture
def pairs(tmp_path):
    """Two folders of two pictures, one folder for what is written."""
    rng = np.random.default_rng(0)
    for side, shape in (("ir", (40, 50)), ("rgb", (40, 50, 3))):
        (tmp_path / side).mkdir()
        for k in range(2):
            cv2.imwrite(str(tmp_path / side / f"{k}.png"), rng.integers(0, 255, shape, np.uint8))
    (tmp_path / "file").touch()
    return tmp_path


UNWRITABLE = [
    ("eval", "--csv", "ir", "is a folder; name a file in it"),
    ("eval", "--csv", "file/a.csv", "cannot be written: "),
    ("eval", "--csv", "/dev/full", "cannot be written: No space left"),
    ("eval", "--sheet", "sheet", "the name must end in .png or .jpg"),
    ("eval", "--sheet", "sheet.pdf", "the name must end in .png or .jpg"),
    ("bench", "--json", "ir", "is a folder"),
    ("bench", "--json", "file/x.json", "cannot be written: "),
    ("export", "-o", "ir", "want one of .onnx"),
    ("export", "-o", "file/w.safetensors", "cannot be written: "),
    ("train", "--run", "file", "is a file; name a folder"),
    ("prepare", "--run", "file", "is a file; name a folder"),
]


@pytest.mark.parametrize(("command", "option", "path", "words"), UNWRITABLE)
def test_an_output_that_cannot_be_written_is_one_error(pairs, recipe, command, option, path, words, monkeypatch):
    monkeypatch.chdir(pairs)
    args = {"eval": ["--ir", "ir", "--rgb", "rgb", "--pyramid"], "export": ["--weights", UFUSER_WEIGHTS]}
    before = sorted(pairs.rglob("*"))
    with pytest.raises(RtfuseError, match=words):
        trainer(command, *args.get(command, ["--config", recipe]), option, path)
    assert sorted(pairs.rglob("*")) == before


def test_a_missing_folder_is_made_and_every_output_is_whole(pairs, monkeypatch):
    monkeypatch.chdir(pairs)
    made = ["--csv", "new/a/s.csv", "--sheet", "new/b/s.JPG"]
    trainer("eval", "--ir", "ir", "--rgb", "rgb", "--pyramid", *made)
    assert (pairs / "new/a/s.csv").read_text().count("\n") == 4
    assert cv2.imread(str(pairs / "new/b/s.JPG")) is not None
    trainer("export", "--weights", UFUSER_WEIGHTS, "-o", "new/c/w.safetensors")
    assert not list(pairs.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "status", "out", "error"),
    [
        ("LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {}", 0, "+-", ""),
        ("LC_ALL=C {}", 0, "+-", ""),
        ("{} > /dev/full", 2, "", "No space left on device"),
        ("{} >&-", 0, "", ""),
        ("{} 2>&-", 0, "pyramid", ""),
        ("set -o pipefail; {} | true", 1, "", ""),
    ],
)
def test_a_terminal_of_another_encoding_and_an_output_that_takes_nothing(pairs, shell, status, out, error):
    command = shell.format(f"{sys.executable} -m trainer eval --ir ir --rgb rgb --pyramid")
    done = subprocess.run(["bash", "-c", command], cwd=pairs, capture_output=True, text=True, timeout=100,
                          env=os.environ | {"PYTHONPATH": str(CONFIGS.parent)})  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    assert out in done.stdout
    assert error in done.stderr
    assert "\\x" not in done.stdout + done.stderr
