"""Compare the processor time of `rtfuse fuse` in two checkouts, run in turn so that the ratio holds on a busy machine.

Times are those of the whole process, all threads, user and system, start included, divided by the number of frames.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from rich.table import Table

import rtfuse
from rtfuse.capture.paths import ffmpeg_name
from rtfuse.errors import ConfigError, StageFailed

THIS = Path(rtfuse.__file__).resolve().parents[1]
"""The folder of the version that runs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Processor milliseconds a frame of two versions, the other first: `rounds_ms` is (rounds, 2)."""

    fuser: str
    frames: int
    rounds_ms: np.ndarray

    def percentiles_ms(self) -> list[list[float]]:
        """Return p50, p95 and p99 of the rounds, for each version."""
        return [[float(x) for x in row] for row in np.percentile(self.rounds_ms, [50, 95, 99], axis=0).T]

    def ratios(self) -> list[float]:
        """Return p50, the least and the largest of the rounds' ratios: this version's time by the other's."""
        ratios = self.rounds_ms[:, 1] / self.rounds_ms[:, 0]
        return [float(x) for x in np.percentile(ratios, [50, 0, 100])]


def compare(other: Path, ir: str, rgb: str, fusers: Sequence[str], rounds: int) -> list[Comparison]:
    """Fuse two recordings by both versions in turn, `rounds` times after one that is not counted, for each fuser.

    Raises ConfigError if `other` is not a checkout of rtfuse or a recording does not exist, and StageFailed if a
    version fails or the two write different numbers of frames.
    """
    versions = [other.resolve(), THIS]
    check(versions[0])
    files = [Path(path).resolve() for path in (ir, rgb)]
    for path in files:
        if not path.is_file():
            raise ConfigError(f"--compare fuses recordings, and {path} is not a file")
    return [_compared(versions, files, fuser, rounds) for fuser in fusers]


def check(checkout: Path) -> None:
    """Raise ConfigError if a folder is not a checkout whose `rtfuse` Python imports there."""
    if not (checkout / "rtfuse" / "__main__.py").is_file():
        raise ConfigError(f"--compare wants a folder that holds rtfuse/, a checkout of another version: got {checkout}")
    found = _run(checkout, "-c", "import rtfuse; print(rtfuse.__file__)").strip()
    if Path(found).resolve().parents[1] != checkout.resolve():
        raise ConfigError(f"Python in {checkout} imports rtfuse of another folder, {found}")


def _compared(versions: list[Path], files: list[Path], fuser: str, rounds: int) -> Comparison:
    """Compare one fuser. The versions change places each round, since the second of two may be the faster."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "fused.mp4")
        counts = []
        for version in versions:  # also warms the caches of files and of compiled Python
            _spent_ms(version, files, fuser, output)
            counts.append(_frames_in(output))
        if len(set(counts)) > 1 or not counts[0]:
            raise StageFailed(f"{fuser}: the versions fused {counts[0]} and {counts[1]} frames of the same recordings")
        spent = np.empty((rounds, 2))
        for k in range(rounds):
            for which in (0, 1) if k % 2 else (1, 0):
                spent[k, which] = _spent_ms(versions[which], files, fuser, output)
    return Comparison(fuser, counts[0], spent / counts[0])


def _spent_ms(checkout: Path, files: list[Path], fuser: str, output: Path) -> float:
    """Fuse both files by the code of a checkout; return the milliseconds of all its threads."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _run(checkout, "-m", "rtfuse", "fuse", *map(str, files), "--fuser", fuser, "-o", str(output), "--force")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _run(checkout: Path, *arguments: str) -> str:
    """Run Python in a checkout; return what it prints. Raises StageFailed, with its last lines, if it fails."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StageFailed(f"{checkout} failed with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _frames_in(path: Path) -> int:
    with av.open(ffmpeg_name(str(path))) as container:
        return sum(1 for _ in container.decode(video=0))


def table(found: Sequence[Comparison], other: Path, title: str) -> Table:
    """Return the comparisons as a table: a row for each version of each fuser, with the ratio of their times."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    for column in ("fuser", "version"):
        grid.add_column(column)
    for column in ("processor p50 / p95 / p99 ms a frame", "ratio p50 (least to largest)"):
        grid.add_column(column, justify="right")
    for one in found:
        p50, least, largest = one.ratios()
        ratio = ("1", f"{p50:.2f} ({least:.2f} to {largest:.2f})")
        for version, row, cell in zip((str(other), "this"), one.percentiles_ms(), ratio, strict=True):
            grid.add_row(one.fuser, version, " / ".join(f"{ms:.2f}" for ms in row), cell)
    return grid


def as_json(found: Sequence[Comparison], other: Path) -> dict[str, Any]:
    """Return the comparisons for a JSON file, the milliseconds of each round included."""
    return {
        "other": str(other),
        "processor_ms": {
            one.fuser: {
                "frames": one.frames,
                **dict(zip(("other", "this"), one.percentiles_ms(), strict=True)),
                "rounds": one.rounds_ms.tolist(),
                "ratio": one.ratios(),
            }
            for one in found
        },
    }
