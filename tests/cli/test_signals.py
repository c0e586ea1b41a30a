"""A command that hangs ends within seconds of Ctrl-C, and leaves no part of its output."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HANGS = """
import sys, time
from pathlib import Path
import numpy as np
from rtfuse.cli.signals import interruptible
from rtfuse.record.video import open_writer, remove_partial

target = Path(sys.argv[1])

def job(signals):
    writer = open_writer(target)
    if hasattr(writer, "add"):
        writer.add(np.zeros((48, 64, 3), np.uint8), 0)
    print("writing", flush=True)
    time.sleep(60)

interruptible(job, cut_off=f"interrupted; {target} was not written", tidy=lambda: remove_partial(target))
"""


@pytest.mark.parametrize("name", ["out.mkv", "out.png", "folder"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_job_that_hangs_leaves_nothing(tmp_path, name, times):
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", HANGS, str(tmp_path / name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout.readline() == "writing\n"
        assert [*tmp_path.iterdir()] != []
        assert not (tmp_path / name).exists()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == f"error: interrupted; {tmp_path / name} was not written\n"
    assert [*tmp_path.iterdir()] == []
