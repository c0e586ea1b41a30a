"""CONTRIBUTING.md's stage and fuser, added to a copy of the package by its own words, and used by real commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rtfuse.capture import open_source
from rtfuse.fuse.luma_fuser import LumaFuser

ROOT = Path(__file__).parents[2]
STEP = re.compile(r"`(rtfuse/\S+\.py)`(?:, (before|after) `([^`\n]+)`)?:\n\n```(?:python)?\n(.*?)```", re.DOTALL)
SCENE = "synthetic:?size=160x120&duration_s=0.2&noise=3"


def steps(heading):
    """Return path, `before` or `after`, line and code of each step of a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return STEP.findall(text.split(f"## {heading}\n")[1].split("\n## ")[0])


def take(folder, path, where, mark, code):
    """Do one step on the copy of the package."""
    file = folder / path
    if not where:
        assert not file.exists(), f"{path} is there already"
        file.write_text(code, encoding="utf-8")
        return
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    found = [k for k, line in enumerate(lines) if mark in line]
    assert len(found) == 1, f"{path} has {len(found)} lines with {mark}"
    lines.insert(found[0] + (where == "after"), code)
    file.write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the package, with both sections' steps done; returns a function that fuses with it."""
    folder = tmp_path_factory.mktemp("grown")
    shutil.copytree(ROOT / "rtfuse", folder / "rtfuse", ignore=shutil.ignore_patterns("__pycache__"))
    for heading in ("Adding a stage", "Adding a fuser"):
        for step in steps(heading):
            take(folder, *step)

    def fuse(name, scene, *args):
        command = [sys.executable, "-m", "rtfuse", "fuse", scene, scene, "-o", str(folder / name), *args]
        env = os.environ | {"PYTHONPATH": str(folder)}
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [cv2.imread(str(path))[..., ::-1] for path in sorted((folder / name).glob("*.png"))]

    return fuse


def test_a_stage_is_one_file_one_line_and_its_settings():
    changed = [path for path, where, *_ in steps("Adding a stage") if where]
    added = [path for path, where, *_ in steps("Adding a stage") if not where]
    assert added == ["rtfuse/thermal/denoise.py"]
    assert set(changed) == {"rtfuse/thermal/settings.py", "rtfuse/pipeline/stages.py"}
    lines = [code for path, where, _, code in steps("Adding a stage") if where and path.endswith("stages.py")]
    assert [code.count("\n") for code in lines] == [1, 1]  # the line and its import


def test_a_fuser_is_one_file_and_one_line():
    (new, line) = steps("Adding a fuser")
    assert (new[0], new[1]) == ("rtfuse/fuse/mean.py", "")
    assert (line[0], line[3].count("\n")) == ("rtfuse/fuse/registry.py", 1)


def test_the_stage_that_was_added_works(grown):
    plain = grown("plain", SCENE + "&bits=16", "--fuser", "mean")
    smooth = grown("smooth", SCENE + "&bits=16", "--fuser", "mean", "thermal.denoise.sigma_px=2")
    assert len(plain) == len(smooth) == 6
    rough = [np.abs(np.diff(image.astype(int), axis=1)).mean() for image in (plain[3], smooth[3])]
    assert rough[1] < 0.8 * rough[0]


def test_the_fuser_that_was_added_works(grown):
    ir, rgb = (next(iter(open_source(SCENE, stream))).image for stream in ("ir", "rgb"))
    wanted = LumaFuser("mean", lambda a, b: cv2.addWeighted(a, 0.5, b, 0.5, 0))(ir, rgb)
    assert np.array_equal(grown("mean", SCENE, "--fuser", "mean")[0], wanted)
