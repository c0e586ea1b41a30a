"""The start of a command saves memory and time."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FREED = """
from rtfuse.cli.start import keep_frames_only, share_heap
import numpy as np

def resident_mb():
    return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS"))) / 1e3

share_heap()
del (block := [np.ones(20_000_000, np.uint8)])[0]  # glibc takes blocks of this size from the heap from now on
{then}
before = resident_mb()
block = [np.ones(20_000_000, np.uint8), np.ones(100_000, np.uint8)]
del block[0]
print(resident_mb() - before)
"""
LOADED = """
import sys
from rtfuse.libraries import openvino_converter, openvino_library

openvino_library()
assert "openvino.frontend.tensorflow" not in sys.modules
assert openvino_converter().__name__ == "convert_model"
"""


def output(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="sets what only glibc has")
def test_only_memory_of_frames_is_kept():
    kept, returned = (float(output(FREED.format(then=then))) for then in ("", "keep_frames_only(900_000)"))
    assert kept > 15
    assert returned < 2


def test_openvino_loads_without_its_converter_which_comes_when_it_is_asked_for():
    output(LOADED)
