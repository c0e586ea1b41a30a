"""Time the gain control on one core, its methods in turn: p50, p95, p99 in milliseconds.

    python tools/bench_agc.py                       # 640x512 counts of the synthetic scene
    python tools/bench_agc.py --picture out/agc.png # and the last frame by each method

`table` follows the scene (histogram and mapping); `shown` also makes the 8-bit picture of it.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from rtfuse.capture import open_source
from rtfuse.record.images import write_image
from rtfuse.thermal.agc import Agc
from rtfuse.thermal.settings import AgcSettings
from rtfuse.types import Frame

SIZE_WH = (640, 512)
METHODS = ("plateau", "linear", "clahe")


def scene(count: int) -> list[Frame]:
    """Return thermal frames of the synthetic scene, in 16-bit counts."""
    w, h = SIZE_WH
    with_counts = f"synthetic:?ir_size={w}x{h}&bits=16"
    return list(islice(open_source(with_counts, "ir"), count))


def main() -> None:
    """Measure, print the table, and write the pictures if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="frames measured with each method")
    parser.add_argument("--picture", type=Path, help="write the last frame by each method, side by side")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    frames = scene(30)
    controls: dict[str, Agc] = {name: Agc(AgcSettings(method=name)) for name in METHODS}
    took: dict[tuple[str, str], list[float]] = {}
    for k in range(asked.rounds):
        for name, agc in controls.items():
            steps: tuple[tuple[str, Callable[[Frame], object]], ...] = (("table", agc.table), ("shown", agc))
            for step, call in steps:
                start = time.perf_counter()
                call(frames[k % len(frames)])
                took.setdefault((name, step), []).append((time.perf_counter() - start) * 1e3)
    grid = Table(title=f"gain control, {SIZE_WH[0]}x{SIZE_WH[1]} counts of 16 bits, one core, ms", title_justify="left")
    for column in ("method", "step", "p50", "p95", "p99"):
        grid.add_column(column, justify="left" if column in ("method", "step") else "right")
    for (name, step), all_ms in took.items():
        grid.add_row(name, step, *(f"{p:.2f}" for p in np.percentile(all_ms, (50, 95, 99))))
    Console().print(grid)
    if asked.picture:
        write_image(asked.picture, np.hstack([np.dstack([agc(frames[-1])] * 3) for agc in controls.values()]))


if __name__ == "__main__":
    main()
