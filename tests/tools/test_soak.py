"""The soak in compressed time; `python tools/soak.py` runs the real command for an hour."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.soak import Sample, grown

TOOL = Path(__file__).parents[2] / "tools" / "soak.py"


@pytest.mark.slow
def test_forty_thousand_faulty_frames_leave_nothing_behind():
    """Run in a small process of its own, where a leak of 300 bytes a frame is visible."""
    command = [sys.executable, TOOL, "--frames", "40000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    *samples, verdict = done.stdout.splitlines()
    assert verdict.startswith("flat: ")
    assert int(samples[-1].split()[0]) > 20_000


def test_growth_is_seen():
    """The soak itself must find growth."""
    flat = [Sample(k, 100_000, 20, 9, 8.0) for k in range(20)]
    assert grown(flat) == []
    leaking = [Sample(k, 100_000 + 5_000 * k, 20, 9, 8.0) for k in range(20)]
    assert any("resident" in fault for fault in grown(leaking))
    lagging = [Sample(k, 100_000, 20, 9, 8.0 + 3 * k) for k in range(20)]
    assert any("age" in fault for fault in grown(lagging))
    hoarding = [Sample(k, 100_000, 20 + k, 9, 8.0) for k in range(20)]
    assert any("descriptors" in fault for fault in grown(hoarding))
