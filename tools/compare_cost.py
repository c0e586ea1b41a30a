"""Compare the cost of `rtfuse fuse` in two checkouts: processor time a frame, run in turn so that the ratio holds.

    python tools/compare_cost.py ../older . thermal.mp4 rgb.mp4 --fuser student --rounds 5

Times are those of the whole process, user and system, start included, divided by the number of frames.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np


def spent_ms(checkout: Path, ir: Path, rgb: Path, fuser: str, output: Path) -> float:
    """Fuse both files by the code of a checkout; return the milliseconds of all its threads.

    Raises CalledProcessError if the command fails.
    """
    command = [sys.executable, "-m", "rtfuse", "fuse", str(ir), str(rgb), "--fuser", fuser, "-o", str(output)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--force"], cwd=checkout, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def frames_in(path: Path) -> int:
    """Return the number of frames of a recording, decoded."""
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def main() -> None:
    """Print p50 and p95 of each checkout, and the ratio of their p50."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs=2, type=Path, metavar="CHECKOUT", help="the older one first")
    parser.add_argument("ir", type=Path, help="thermal recording")
    parser.add_argument("rgb", type=Path, help="RGB recording")
    parser.add_argument("--fuser", nargs="+", default=["pyramid", "student"])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    ir, rgb, count = given.ir.resolve(), given.rgb.resolve(), frames_in(given.rgb)
    names = [path.resolve() for path in given.checkouts]
    with tempfile.TemporaryDirectory() as folder:
        for fuser in given.fuser:
            output = Path(folder, "o.mp4")
            rounds = [[spent_ms(n, ir, rgb, fuser, output) / count for n in names] for _ in range(given.rounds)]
            p50, p95 = np.percentile(rounds, [50, 95], axis=0)
            for name, middle, high in zip(names, p50, p95, strict=True):
                print(f"{fuser:8} {name.name:20} p50 {middle:5.1f} ms, p95 {high:5.1f} ms a frame")
            print(f"{fuser:8} {p50[1] / p50[0]:.2f} x")


if __name__ == "__main__":
    main()
