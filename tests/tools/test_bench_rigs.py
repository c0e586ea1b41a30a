"""The table of tools/bench_rigs.py: two small rigs, and a rate that no rig can have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench_rigs import Case, Found

TOOL = Path(__file__).parents[2] / "tools" / "bench_rigs.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_rigs_at_once_have_a_row():
    command = [sys.executable, TOOL, "--rigs", "2", "--sizes", "160x120", "--rates", "9", "--fusers", "pyramid"]
    done = subprocess.run([*command, "--seconds", "2"], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    columns, row = ([cell.strip() for cell in done.stdout.splitlines()[k].split("|")[1:-1]] for k in (1, 3))
    found = dict(zip(columns, row, strict=True))
    assert [found[name] for name in ("rigs", "size", "Hz", "fuser")] == ["2", "160×120", "9", "pyramid"]
    assert float(found["frames/s"].split()[0]) > 0
    assert float(found["processor ms a frame"]) > 0
    resident_mb, own_mb = map(float, found["MB"].split(", "))
    assert 20 < own_mb < resident_mb


def test_the_slowest_rig_and_the_largest_age_are_shown():
    ages_ms = [[10.0] * 300, [20.0] * 250]
    found = Found(10.0, [300, 250], ages_ms, 5.5, [100.0, 120.0], [60.0, 80.0])
    assert found.row(Case(2, "640x480", 30, "student")) == (
        "| 2 | 640×480 | 30 | student | 25.0 ! | 20 / 20 / 20 | 10.0 | 0.55 | 110, 70 |"
    )


def test_a_rig_that_publishes_nothing_has_a_row():
    found = Found(10.0, [0], [[]], 19.0, [100.0], [60.0])
    assert " | 0.0 ! | - | " in found.row(Case(1, "3840x2160", 30, "student"))
