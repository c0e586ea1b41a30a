"""Training runs: their outputs, resuming after a kill or a full disk, several processes, and divergence."""

from __future__ import annotations

import csv
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from lightning_fabric import Fabric
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from rtfuse.capture import open_source
from rtfuse.errors import OutputUnwritable, SourceUnreadable
from rtfuse.fuse import open_fuser
from rtfuse.fuse.luma_fuser import luma
from rtfuse.fuse.networks.detailed import Detailed
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.ufuser import UFuser, load_weights
from trainer import cli
from trainer.recipe import load_recipe
from trainer.run import Run, TrainingDiverged
from trainer.stage import Stage

pytestmark = pytest.mark.slow
SCENE = "synthetic:?seed=2&size=128x96&duration_s=4&fps=3"


RECIPE = {
    "name": "tiny",
    "data": {
        "roots": [{"name": "street", "ir": SCENE, "rgb": SCENE, "every": 2}],
        "patch_px": 64,
        "stride_px": 32,
        "min_patches": 8,
    },
    "sensing": {
        "width": 2,
        "epochs": 3,
        "batch": 4,
        "crop_px": 32,
        "learning_rate": 0.01,
        "optics": True,
        "noise": 0.01,
    },
    "fusion": {"epochs": 5, "warm_up_epochs": 3, "batch": 4, "crop_px": 32, "transforms": "one"},
    "checkpoint_every_s": 0.01,
}


def recipe(tmp_path, **changes):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | changes))
    return path


ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def trainer(*args):
    return [sys.executable, "-m", "trainer", *map(str, args)]


def curve(folder):
    with (folder / "log.csv").open() as file:
        return {(r["stage"], int(r["step"]), r["name"]): float(r["value"]) for r in csv.DictReader(file)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    command = trainer("train", "--config", recipe(folder), "--run", folder / "run")
    subprocess.run(command, check=True, timeout=200, env=ENV)
    return folder / "run"


def wait_for(path, process):
    """Wait until the process has written the file."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)


def test_a_run_leaves_weights_a_manifest_pictures_and_curves(whole):
    manifest = json.loads((whole / "ufuser.json").read_text())
    assert manifest["recipe"]["name"] == "tiny"
    assert "synthetic" not in json.dumps(manifest)
    samples = list((whole / "samples").glob("fusion-*.jpg"))
    assert all(cv2.imread(str(path)) is not None for path in samples)
    assert len(samples) > 1
    board = EventAccumulator(str(whole / "tensorboard")).Reload()
    shown = {(*tag.split("/"), e.step): e.value for tag in board.Tags()["scalars"] for e in board.Scalars(tag)}
    assert {(stage, step, name): v for (stage, name, step), v in shown.items()} == pytest.approx(curve(whole), rel=1e-4)
    image = np.zeros((40, 50), np.uint8)
    fuser = open_fuser("ufuser", weights=whole / "ufuser.safetensors", engine="eager")
    assert fuser(image, np.zeros((40, 50, 3), np.uint8)).shape == (40, 50, 3)


def test_a_killed_run_goes_on_along_the_same_curve(tmp_path, whole):
    command = trainer("train", "--config", recipe(tmp_path), "--run", tmp_path / "cut")
    process = subprocess.Popen(command, env=ENV)
    wait_for(tmp_path / "cut" / "fusion.ckpt", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "ufuser.safetensors").exists()
    subprocess.run(command, check=True, timeout=200, env=ENV)
    assert ("fusion", 20, "imitation") in curve(whole)
    assert curve(tmp_path / "cut") == pytest.approx(curve(whole), rel=1e-3, abs=1e-5)
    nets = [load_weights(run / "ufuser.safetensors").state_dict() for run in (whole, tmp_path / "cut")]
    assert all(torch.allclose(a, nets[1][k], atol=1e-4) for k, a in nets[0].items())


@pytest.mark.parametrize(("limit", "where"), [(100, "run folder"), (4000, "data")])
def test_a_full_disk_before_the_first_step_is_one_line(tmp_path, limit, where):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = trainer("train", "--config", recipe(tmp_path), "--run", tmp_path / "run")
    done = subprocess.run(command, env=ENV, capture_output=True, text=True, timeout=100, preexec_fn=small_files)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    assert where in done.stderr
    assert "cannot be written: " in done.stderr
    assert not (tmp_path / "run" / "data" / "index.json").exists()
    cli.prepare(config=tmp_path / "recipe.yaml", run=tmp_path / "run")  # with room again
    assert (tmp_path / "run" / "data" / "index.json").exists()


def test_a_full_disk_costs_what_came_after_the_last_checkpoint(tmp_path, whole):
    """A limit on the size of files makes writes fail in the middle, as a full disk does."""
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("fusion*", "ufuser.*", "log.csv"))
    command = trainer("train", "--config", recipe(tmp_path), "--run", run)

    def start():
        return subprocess.Popen(command, env=ENV, stderr=subprocess.PIPE, text=True)

    def fails_beyond(size, process):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 2
        assert "Traceback" not in errors
        line = errors.strip().splitlines()[-1]
        assert line.startswith("error: fusion, step ")
        assert os.strerror(errno.EFBIG) in line
        kept = torch.load(run / "fusion.ckpt", weights_only=True)["step"]
        assert line.endswith(f"last good checkpoint: {run / 'fusion.ckpt'}, step {kept}")
        assert not list(run.rglob("*.partial"))
        return line, kept

    process = start()
    wait_for(run / "samples" / "fusion-0000010.jpg", process)  # drawn after the checkpoint
    limit = (run / "log.csv").stat().st_size + 60
    line, first = fails_beyond(limit, process)
    assert f"step {first + 10}: {run}: " in line
    assert (run / "log.csv").stat().st_size == limit  # in the middle of a line
    line, again = fails_beyond(1 << 20, start())
    assert f"{run / 'fusion.ckpt'}: " in line
    assert again == first
    subprocess.run(command, check=True, timeout=200, env=ENV)
    fusion = {k: v for k, v in curve(whole).items() if k[0] == "fusion"}
    assert curve(run) == pytest.approx(fusion, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("bands", [0, 2])
def test_training_may_start_from_weights_and_compute_in_half_precision(tmp_path, bands):
    """It keeps the form of the network: a U-Fuser alone, or below bands of details."""
    torch.manual_seed(3)
    begun = Detailed(UFuser(), bands) if bands else UFuser()
    save_file(begun.state_dict(), tmp_path / "w.safetensors")
    changes = {"epochs": 1, "start": str(tmp_path / "w.safetensors"), "warm_up_epochs": 0, "anchor": 0.5}
    path = recipe(tmp_path, precision="bf16-mixed", sensing={"width": 2, "epochs": 1, "batch": 4, "crop_px": 32},
                  fusion=RECIPE["fusion"] | changes | {"learning_rate": 1e-9})  # fmt: skip
    cli.train(config=path, run=tmp_path / "run")
    assert ("fusion", 9, "imitation") in curve(tmp_path / "run")
    trained = load_network(tmp_path / "run" / "ufuser.safetensors").state_dict()
    assert trained.keys() == begun.state_dict().keys()
    assert all(torch.allclose(v, trained[k], atol=1e-6) for k, v in begun.state_dict().items())
    assert str(tmp_path) not in (tmp_path / "run" / "ufuser.json").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_recipe_ends_in_weights_that_show_what_either_camera_sees(tmp_path):
    """Run `configs/train_quick.yaml`, and judge the weights on another street."""
    config = Path(__file__).parents[2] / "configs" / "train_quick.yaml"
    subprocess.run(trainer("train", "--config", config, "--run", tmp_path), check=True, timeout=800)
    losses = curve(tmp_path)
    assert losses["fusion", 150, "imitation"] < 0.5 * losses["fusion", 10, "imitation"]
    fuser = open_fuser("ufuser", weights=tmp_path / "ufuser.safetensors", engine="eager")
    ir, rgb = (next(iter(open_source("synthetic:?seed=3&size=320x240", s))).image for s in ("ir", "rgb"))
    fused, y = luma(fuser(ir, rgb)), luma(rgb)
    details = [cv2.Laplacian(cv2.GaussianBlur(x, (0, 0), 1), cv2.CV_32F) for x in (fused, ir, y)]
    for source, other in ((1, 2), (2, 1)):
        there = np.abs(details[source]) > 4 * np.abs(details[other]) + 8
        assert np.corrcoef(details[0][there], details[source][there])[0, 1] > 0.6


def test_two_processes_follow_the_curve_of_one(tmp_path):
    # Each process draws its own noise, so a batch would not be the same split in two.
    short = RECIPE["fusion"] | {"epochs": 2, "warm_up_epochs": 1}
    path = recipe(tmp_path, fusion=short, sensing=RECIPE["sensing"] | {"noise": 0.0})
    cli.train(config=path, run=tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two", ignore=shutil.ignore_patterns("fusion.ckpt", "log.csv"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    train = ["-m", "trainer", "--", "train", "--config", path, "--run", tmp_path / "two", "--stage", "fusion"]
    subprocess.run(list(map(str, [*launch, *train])), check=True, timeout=200, env=ENV)
    one = {k: v for k, v in curve(tmp_path / "one").items() if k[0] == "fusion"}
    assert curve(tmp_path / "two") == pytest.approx(one, rel=1e-3)


class Diverging(nn.Module):
    """A task whose loss is not a number at step 25."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, step):
        value = self.weight.sum() * (float("nan") if step == 25 else 1.0)
        return value, {"value": value}


def diverging(**changes):
    return Stage(
        name="fusion",
        task=Diverging(),
        steps_per_epoch=100,
        epochs=1,
        learning_rate=1e-3,
        halve_every=1,
        batch=lambda step: (step,),
        names=lambda step: [f"street/{step:06d}"],
        **changes,
    )


def test_a_loss_that_is_no_number_stops_with_step_scenes_and_checkpoint(tmp_path):
    stage = diverging()
    settings = load_recipe(recipe(tmp_path, checkpoint_every_s=1e-9))
    run = Run(tmp_path, settings, Fabric(accelerator="cpu"))
    with pytest.raises(TrainingDiverged, match=r"step 25 is nan.*street/000025.*fusion\.ckpt"):
        run.train(stage)
    assert torch.load(run.checkpoint("fusion"), weights_only=True)["step"] == 20
    run.checkpoint("fusion").write_bytes(b"damaged")
    with pytest.raises(SourceUnreadable, match="damaged"):
        run.train(stage)


def test_a_picture_that_cannot_be_written_leaves_the_checkpoint_just_made(tmp_path):
    (tmp_path / "samples" / "fusion-0000010.jpg").mkdir(parents=True)
    run = Run(tmp_path, load_recipe(recipe(tmp_path, checkpoint_every_s=1e-9)), Fabric(accelerator="cpu"))
    with pytest.raises(OutputUnwritable, match=r"samples/fusion-0000010\.jpg: .*fusion\.ckpt, step 10$"):
        run.train(diverging(sample=lambda _: np.zeros((8, 8, 3), np.uint8)))
    assert torch.load(run.checkpoint("fusion"), weights_only=True)["step"] == 10
    assert not list(tmp_path.rglob("*.partial"))
