"""`trainer bench`: its parts add up to the step, its estimate follows from it, and it leaves the run folder alone.

Nothing here is said about speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest
import yaml
from lightning_fabric import Fabric

from trainer.bench import PARTS, Report, bench
from trainer.cli import bench as command
from trainer.data import Patches, prepare
from trainer.recipe import load_recipe
from trainer.run import Run

pytestmark = pytest.mark.slow
SCENE = "synthetic:?seed=2&size=96x96&duration_s=2"
RECIPE = {
    "name": "tiny",
    "data": {
        "roots": [{"name": "street", "ir": SCENE, "rgb": SCENE, "every": 20}],
        "patch_px": 64, "stride_px": 32, "min_patches": 1, "min_contrast": 0,
    },
    "sensing": {"width": 2, "epochs": 3, "batch": 4, "crop_px": 32},
    "fusion": {"epochs": 5, "warm_up_epochs": 2, "batch": 4, "crop_px": 32, "transforms": "one"},
}  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    line = [sys.executable, "-m", "trainer", "bench", "--config", "r.yaml", "--steps", "3", "--json", "b.json"]
    done = subprocess.run(
        line, cwd=folder, capture_output=True, text=True, timeout=200, env=os.environ | {"COLUMNS": "60"}
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == ["b.json", "r.yaml"]  # no run folder, no checkpoint
    return done.stdout, json.loads((folder / "b.json").read_text())


def test_the_recipe_s_phases_are_all_there_and_add_up(result):
    _, report = result
    phases = {p["name"]: p for p in report["phases"]}
    assert list(phases) == ["sensing", "fusion, warming up", "fusion"]
    per_epoch = phases["sensing"]["steps"] // 3
    assert [p["steps"] for p in report["phases"]] == [3 * per_epoch, 2 * per_epoch, 3 * per_epoch]
    for phase in report["phases"]:
        assert phase["total_s"] == pytest.approx(phase["steps"] * phase["step_ms"][0] / 1000)
        for ms in (phase["step_ms"], *phase["parts_ms"].values()):
            assert ms == sorted(ms)
        assert phase["shares"].keys() == phase["parts_ms"].keys()
        assert sum(phase["shares"].values()) == pytest.approx(1)
        assert all(share > 0 for share in phase["shares"].values())
        assert phase["gflop_per_step"] > 0.01
        assert phase["tflops"] == pytest.approx(phase["gflop_per_step"] / phase["step_ms"][0])
        assert phase["images_per_s"] == pytest.approx(4 * 1000 / phase["step_ms"][0])
        assert phase["busy"] > 0
        assert phase["memory_mb"] > 50
    assert report["total_s"] == pytest.approx(sum(p["total_s"] for p in report["phases"]))
    assert report["device"]
    assert report["threads"] >= 1


def test_parts_are_those_that_the_phase_has(result):
    _, report = result
    sensing, warm, fusion = (p["parts_ms"] for p in report["phases"])
    always = {"batch", "transfer", "rest of forward", "backward", "optimizer"}
    assert sensing.keys() == always | {"sensing nets"}
    assert warm.keys() == always | {"fusion net"}
    assert fusion.keys() == always | {"fusion net", "sensing nets", "equivariance"}
    for parts in (sensing, warm, fusion):
        assert all(p50 > 0 for p50, _, _ in parts.values())
    # Both nets work again, on the transformed images: forward passes that the warm-up does not have.
    phases = {p["name"]: p["gflop_per_step"] for p in report["phases"]}
    assert phases["fusion"] > 1.9 * phases["fusion, warming up"]


def test_the_table_is_whole_on_a_narrow_terminal(result):
    text, report = result
    for words in ("one step", "all of them, minutes", "the whole recipe", "cores in use", "fusion, warming up"):
        assert words in text
    assert "…" not in text
    assert f"{report['phases'][2]['step_ms'][2]:.1f}" in text
    assert "100 %" in text


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Make a run folder with prepared data, and a recipe next to it."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    prepare(load_recipe(folder / "r.yaml").data, folder / "run" / "data")
    return folder / "run"


def test_prepared_data_are_used_and_the_run_folder_stays_as_it_is(run, tmp_path, monkeypatch):
    def state():
        return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in run.rglob("*")}

    monkeypatch.setattr("trainer.data.prepare", None)  # not called
    before = state()
    command(run.parent / "r.yaml", run, steps=1, json=tmp_path / "b.json")
    assert state() == before
    assert len(msgspec.json.decode((tmp_path / "b.json").read_bytes(), type=Report).phases) == 3


@pytest.mark.parametrize(
    ("changes", "absent"),
    [
        ({"direct": True}, {"sensing nets"}),  # the sensing nets work for equivariance alone
        ({"transforms": "none"}, {"equivariance"}),
        ({"augment": True}, {"equivariance"}),
        ({"anchor": 0.5, "transforms": "all", "per_kind": 1}, set()),
    ],
)
def test_nets_are_booked_by_what_they_work_on(run, tmp_path, changes, absent):
    recipe = load_recipe(run.parent / "r.yaml")
    fusion = msgspec.structs.replace(recipe.fusion, warm_up_epochs=0, **changes)
    recipe = msgspec.structs.replace(recipe, fusion=fusion)
    report = bench(recipe, Patches(run / "data", seed=0), Run(tmp_path, recipe, Fabric(accelerator="cpu")), 1)
    assert [phase.name for phase in report.phases] == ["sensing", "fusion"]
    assert report.phases[1].shares.keys() == set(PARTS) - absent
    assert not list(tmp_path.iterdir())
