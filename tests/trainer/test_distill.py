"""Distillation: the teacher's pictures are computed once, the student learns them, a complete run stays as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from rtfuse.errors import ConfigError, SourceUnreadable
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from trainer import cli
from trainer.distill import DistillTask, ssim
from trainer.recipe import Data, Distill, Fusion, Root, Sensing, load_recipe
from trainer.sensing import SensingTask
from trainer.teacher import Pictures, imitate

pytestmark = pytest.mark.slow
SCENE = "synthetic:?seed=5&size=160x112&duration_s=1"
DATA = Data(roots=(Root(name="street", ir=SCENE, rgb=SCENE, every=6),))
OPTIONS = Distill(variants=1, crop=(96, 96), batch=2)


def brighter(ir, luma):
    return np.maximum(ir, luma)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    imitate(DATA, OPTIONS, brighter, {"teacher": "brighter"}, folder)
    return folder


def test_the_teacher_sees_whole_pictures_and_their_variants(taught):
    pictures = Pictures(taught, seed=0)
    assert pictures.counts == {"pictures": 10, "scenes": 5}
    for row in range(len(pictures)):
        ir, luma, fused = pictures.whole(row)
        assert ir.shape == (112, 160)
        assert np.array_equal(fused, brighter(ir, luma))
    plain, variant = pictures.whole(0), pictures.whole(1)
    assert not np.array_equal(plain[0], variant[0])
    assert np.corrcoef(plain[0].ravel(), variant[0].ravel())[0, 1] > 0.8


def test_batches_depend_on_seed_and_step_alone_and_crops_are_of_one_place(taught):
    first, again, other = (Pictures(taught, seed=s) for s in (1, 1, 2))
    batches = [p.crops(p.rows(3, 4), (96, 64), p.rng(3)) for p in (first, again, other)]
    assert batches[0].shape == (4, 3, 64, 96)
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])
    assert torch.equal(batches[0][:, 2], torch.maximum(batches[0][:, 0], batches[0][:, 1]))


def test_too_few_pictures_and_a_folder_that_is_none(tmp_path):
    with pytest.raises(ConfigError, match=r"0 pictures, at least 2.*smaller than 320x240 \(e\.g\. street/"):
        imitate(DATA, Distill(batch=2), brighter, {}, tmp_path)
    with pytest.raises(SourceUnreadable, match="no prepared pictures"):
        Pictures(tmp_path / "absent", seed=0)


def test_similarity_is_one_of_a_picture_with_itself_and_falls_with_noise():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 32, 32)
    values = [float(ssim(x, (x + level * torch.randn_like(x)).clamp(0, 1))) for level in (0.0, 0.05, 0.2, 0.5)]
    assert values[0] == pytest.approx(1, abs=1e-4)
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.6


def test_emmas_terms_count_and_teach_the_student_alone():
    torch.manual_seed(0)
    options = Distill(emma=0.5, sensing_run="run", crop=(32, 32))
    task = DistillTask(Student(8, 1, 8), options, Fusion(), SensingTask(Sensing(width=2))).train()
    planes = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    loss, parts = task(planes, [])
    loss.backward()
    without = parts["intensity"] + parts["gradient"] + 0.2 * parts["structure"]
    assert loss.item() == pytest.approx((without + 0.5 * parts["emma"]).item(), rel=1e-5)
    assert all(p.grad is not None for p in task.student.parameters())
    assert all(p.grad is None for p in task.sensing.parameters())
    assert not task.sensing.thermal.training


def test_the_command_ends_in_weights_and_resumes_along_the_same_curve(tmp_path):
    tree = {
        "name": "tiny",
        "data": {"roots": [{"name": "street", "ir": SCENE, "rgb": SCENE, "every": 10}]},
        "distill": {"channels": 8, "layers": 1, "context": 8, "variants": 1, "crop": [96, 96], "batch": 2, "epochs": 8},
        "checkpoint_every_s": 0.01,
    }
    config = tmp_path / "d.yaml"
    config.write_text(yaml.safe_dump(tree))
    env = os.environ | {"OMP_NUM_THREADS": "1"}

    args = [sys.executable, "-m", "trainer", "distill", "--config", str(config), "--run", str(tmp_path / "run")]
    subprocess.run(args, check=True, timeout=200, env=env, capture_output=True)
    curve = (tmp_path / "run" / "log.csv").read_text()
    lines = [line.split(",") for line in curve.splitlines() if ",loss," in line]
    assert float(lines[-1][-1]) < float(lines[0][-1])
    net = load_network(tmp_path / "run" / "student.safetensors")
    assert isinstance(net, Student)
    manifest = json.loads((tmp_path / "run" / "student.json").read_text())
    assert (manifest["network"], manifest["data"]["scenes"]) == ("student", 3)
    assert str(tmp_path) not in json.dumps(manifest)
    cli.distill(config=config, run=tmp_path / "run")  # it is complete: no step is taken twice
    assert (tmp_path / "run" / "log.csv").read_text() == curve


def test_the_shipped_recipe_is_valid():
    recipe = load_recipe("configs/distill.yaml")
    assert recipe.distill.teacher == "shipped"
    assert recipe.data.validation
