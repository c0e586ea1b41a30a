"""`rtfuse bench --compare`: two versions in turn, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rtfuse.bench import stages
from rtfuse.bench.compare import Comparison, compare
from rtfuse.errors import ConfigError, StageFailed

ROOT = Path(__file__).parents[2]
WASTED_S = 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return stages.record_scene(tmp_path_factory.mktemp("clips"), (160, 120), 30)


@pytest.fixture
def older(tmp_path):
    """A checkout of its own."""
    shutil.copytree(ROOT / "rtfuse", tmp_path / "older" / "rtfuse", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "older"


def edit(checkout, text):
    """Put lines before the code of the command."""
    main = checkout / "rtfuse" / "__main__.py"
    main.write_text(f"{text}\n{main.read_text()}")


def test_a_version_that_wastes_seconds_of_processor_shows_them(clips, older, tmp_path):
    edit(older, f"import time\nwhile time.process_time() < {WASTED_S}: pass")
    command = [sys.executable, "-m", "rtfuse", "bench", "--compare", "older", "--fuser", "pyramid", "--rounds", "1"]
    files = ["--ir", clips[0], "--rgb", clips[1], "--json", "found.json"]
    done = subprocess.run(
        [*command, *files],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["processor_ms"]["pyramid"]
    ((other_ms, this_ms),) = found["rounds"]
    assert found["frames"] == 30
    assert other_ms * 30 > 1000 * WASTED_S
    assert found["ratio"] == pytest.approx([this_ms / other_ms] * 3)
    assert this_ms < other_ms
    assert "pyramid" in done.stdout
    assert f"{other_ms:.2f} / {other_ms:.2f} / {other_ms:.2f}" in done.stdout


def test_a_version_that_fails_ends_the_comparison_with_its_own_error(clips, older):
    edit(older, "raise SystemExit('this version is broken')")
    with pytest.raises(StageFailed, match="this version is broken"):
        compare(older, *clips, ["pyramid"], 1)


def test_what_is_not_a_checkout_is_refused(clips, tmp_path):
    with pytest.raises(ConfigError, match="a checkout of another version"):
        compare(tmp_path, *clips, ["pyramid"], 1)


def test_what_is_not_a_file_is_refused(clips, older):
    with pytest.raises(ConfigError, match=r"none\.mp4 is not a file"):
        compare(older, clips[0], "none.mp4", ["pyramid"], 1)


def test_percentiles_and_ratios_are_of_the_rounds():
    rounds = np.array([[10.0, 5.0], [20.0, 8.0], [30.0, 18.0]])
    one = Comparison("pyramid", 30, rounds)
    assert one.percentiles_ms()[0] == pytest.approx([20, 29, 29.8])
    assert one.ratios() == pytest.approx([0.5, 0.4, 0.6])
