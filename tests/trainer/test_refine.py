"""Refinement: the command ends in weights of either network, resumes, and lowers its loss."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

from rtfuse.errors import ConfigError, WeightsMissing
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser
from trainer import cli, refine
from trainer.recipe import load_recipe

SCENE = "synthetic:?seed=5&size=160x112&duration_s=1"


@pytest.fixture
def config(tmp_path):
    tree = {
        "name": "tiny",
        "data": {"roots": [{"name": "street", "ir": SCENE, "rgb": SCENE, "every": 10}]},
        "refine": {"variants": 1, "crop": [96, 96], "batch": 2, "epochs": 6, "learning_rate": 2e-4},
        "checkpoint_every_s": 0.01,
    }
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("start", "kind", "epochs"), [("student", Student, 2), ("ufuser", Detailed, 1)])
def test_the_command_ends_in_weights_and_resumes_along_the_same_curve(config, tmp_path, start, kind, epochs):
    run, change = tmp_path / "run", [f"refine.start={start}", f"refine.epochs={epochs}"]
    args = [sys.executable, "-m", "trainer", "refine", "--config", str(config), "--run", str(run), *change]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(args, check=True, timeout=200, env=env, capture_output=True)
    curve = (run / "log.csv").read_text()
    assert isinstance(load_network(run / f"{start}.safetensors"), kind)
    manifest = json.loads((run / f"{start}.json").read_text())
    assert (manifest["network"], manifest["data"]["scenes"]) == (start, 3)
    assert manifest["recipe"]["refine"]["epochs"] == epochs
    assert str(tmp_path) not in json.dumps(manifest)
    cli.refine(config=config, run=run, overrides=change)  # it is complete: no step is taken twice
    assert (run / "log.csv").read_text() == curve


def test_a_network_that_was_never_trained_comes_closer(config, tmp_path):
    size = ["refine.start=new", "refine.channels=8", "refine.layers=1", "refine.context=8"]
    change = [*size, "refine.epochs=20", "refine.halve_every=20", "refine.learning_rate=5e-3", "refine.base=4"]
    cli.refine(config=config, run=tmp_path / "run", overrides=change)
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    losses = [float(line.split(",")[-1]) for line in lines if ",loss," in line]
    assert losses[-1] < losses[0] - 0.03, losses  # 0.10 where this was written


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("refine.start=gone.safetensors", WeightsMissing, "gone.safetensors"),
        ("refine.base_px=200", ConfigError, "does not fit into a crop"),
        ("refine.base_on=magic", ConfigError, "base_on"),
        ("refine.bands=2", ConfigError, "has its own bands"),
    ],
)
def test_a_mistake_is_found_before_the_first_step(config, tmp_path, change, error, words):
    with pytest.raises(error, match=words):
        cli.refine(config=config, run=tmp_path / "run", overrides=[change])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "weights"), [("student", STUDENT_WEIGHTS), ("ufuser", UFUSER_WEIGHTS)])
def test_the_shipped_weights_are_those_of_the_recipe(name, weights):
    """Their manifest holds the recipe, without paths; `refine` of it must be that of the file in configs/."""
    recipe = load_recipe(f"configs/train_{name}.yaml")
    kept = json.loads(weights.with_suffix(".json").read_text())["recipe"]
    assert kept["refine"] == json.loads(msgspec.json.encode(recipe.refine)) | {"start": kept["refine"]["start"]}
    assert (kept["name"], kept["seed"]) == (recipe.name, recipe.seed)


def test_contrast_stretches_a_picture_about_its_mean():
    x = np.random.default_rng(0).integers(60, 190, (40, 50), np.uint8)
    stretched = refine.stretched(x, 1.2)
    assert stretched.mean() == pytest.approx(x.mean(), abs=0.5)
    assert stretched.std() == pytest.approx(1.2 * x.std(), rel=0.01)
    assert np.array_equal(refine.stretched(x, 1.0), x)


def test_a_ufuser_of_whole_pictures_gets_bands(config, tmp_path):
    save_file(UFuser().state_dict(), tmp_path / "u.safetensors")
    options = load_recipe(config, [f"refine.start={tmp_path / 'u.safetensors'}", "refine.bands=1"]).refine
    net = refine.start_of(options)
    assert isinstance(net, Detailed)
    assert net.levels == 1
