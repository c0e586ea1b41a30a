"""Measure registration against known warps: what is claimed, the true error, the estimated error, the processor time.

    python tools/bench_register.py ../shared/data                    # 20 real pairs with a known smooth warp
    python tools/bench_register.py ../shared/data --set warped       # real pairs and clips, warped here
    python tools/bench_register.py ../shared/data --set synthetic    # the synthetic street
    python tools/bench_register.py ../shared/data --set turned       # other real pairs, turned and bent here
    python tools/bench_register.py ../shared/data --set fitted       # 138 real pairs; the estimate was fitted to them
    python tools/bench_register.py ../shared/data --set scenes       # 131 others, to which nothing was fitted
    python tools/bench_register.py ../shared/data --set unrelated    # pictures of two scenes: all must be refused
    python tools/bench_register.py ../shared/data --floor            # what a search that knows the truth would reach

The error is the mean distance over the picture, in RGB pixels, by the calibration that would be written; `corners` and
`middle` are its means over the four outer and the inner sixteenths of the picture. `beside` is the note's: how far
thermal lies beside RGB when it is stretched over it ("-": it cannot tell).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from register_cases import SETS, Case, grid
from rich.console import Console
from rich.table import Table

from calib.register.calibration import calibration_of
from calib.register.refine import bent as bend_of
from calib.register.refine import smooth_field
from calib.register.shift import beside_px
from calib.register.view import positions, whole_view
from rtfuse.align.calibration import ir_pixels_of_rgb
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

_EVERY = 4
"""The homography of a truth is fitted to one of so many pixels."""


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of a case, in RGB pixels: before and after registration, the estimate, and the note's distance.

    `after` and `said` are None where the registration was refused.
    """

    name: str
    before: float
    after: float | None
    corners: float | None
    middle: float | None
    said: float | None
    seconds: float
    beside: float | None


def errors(found: Image | None, case: Case) -> tuple[float, float, float]:
    """Return the mean error in RGB pixels: over the picture, over its corners, over its middle.

    `found`: the thermal position (H, W, 2) of each RGB pixel; None: thermal is stretched over the picture.
    """
    if case.truth is None:
        return np.nan, np.nan, np.nan
    (ih, iw), (h, w) = case.pairs[0][0].shape, case.pairs[0][1].shape[:2]
    per_ir = np.array([w / iw, h / ih])
    at = (grid((h, w)) + 0.5) / per_ir - 0.5 if found is None else found
    off = np.linalg.norm((at - case.truth) * per_ir, axis=-1)
    y, x = h // 4, w // 4
    outer = [off[a, b] for a in (np.s_[:y], np.s_[-y:]) for b in (np.s_[:x], np.s_[-x:])]
    inner = off[h // 2 - y // 2 : h // 2 + y // 2, w // 2 - x // 2 : w // 2 + x // 2]
    return float(np.nanmean(off)), float(np.nanmean(outer)), float(np.nanmean(inner))


def measured(case: Case, *, smooth: bool | None, write: Path | None) -> Result:
    """Register a case, and write the overlay if asked."""
    start = time.process_time()
    try:
        c = calibration_of(case.pairs, smooth=smooth)
    except CalibrationError:
        c = None
    seconds = time.process_time() - start
    if c is not None and write is not None:
        from calib.overlay import before_and_after
        from rtfuse.record.images import write_image

        write_image(write / f"{case.name.replace(' ', '_')}.jpg", before_and_after(*case.pairs[0], c))
    said, after = None, (None, None, None)
    if c is not None and c.quality is not None:
        xy = grid(case.pairs[0][1].shape).astype(float)
        said = c.quality.pair_error_px
        after = errors(ir_pixels_of_rgb(xy.reshape(-1, 2), c).reshape(xy.shape), case)
    return Result(case.name, errors(None, case)[0], *after, said, seconds, beside_px(*case.pairs[0]))


def show(results: list[Result], title: str) -> None:
    """Print one row for each result, and the summary."""
    columns = ("pair", "before", "after", "corners", "middle", "said", "said/true", "cpu s", "beside")
    table = Table(*columns, title=title, title_justify="left")
    for r in results:
        ratio = None if r.after is None or r.said is None else r.said / r.after
        cells = ("refused" if x is None else f"{x:.2f}" for x in (r.after, r.corners, r.middle, r.said, ratio))
        beside = "-" if r.beside is None else f"{r.beside:.0f}"
        table.add_row(r.name, f"{r.before:.1f}", *cells, f"{r.seconds:.1f}", beside)
    console = Console(width=120)
    console.print(table)
    claimed = [(r.after, r.said) for r in results if r.after is not None and r.said is not None]
    seconds = np.array([r.seconds for r in results])
    console.print(
        f"{len(claimed)} of {len(results)} claimed; {np.mean(seconds):.1f} s of one core on average, at most "
        f"{seconds.max():.1f}"
    )
    if claimed and not np.isnan(claimed[0][0]):
        after, said = np.array(claimed).T
        console.print(
            f"true error of the claimed: mean {after.mean():.2f}, median {np.median(after):.2f}, worst "
            f"{after.max():.2f} px, {int((after > 2).sum())} above 2; more than twice the estimate: "
            f"{int((after > 2 * said).sum())} of {len(after)}; said/true: median {np.median(said / after):.2f}, "
            f"10th to 90th percentile {' to '.join(f'{x:.2f}' for x in np.percentile(said / after, (10, 90)))}"
        )


def floor(cases: Iterator[Case]) -> None:
    """Print what a search that knows the truth would reach on each case with `straight`, and the means.

    `matrix`: error of the homography that is fitted to the truth, by least squares.
    `and field`: the same, then refined by the pictures as every registration is.
    `straight`: what the refinement moves the pair before its warp, which its label calls registered.
    """
    table = Table("pair", "matrix", "and field", "straight", title="Known truth", title_justify="left")
    rows = []
    for case in cases:
        if case.truth is None or case.straight is None:
            continue
        xy, seen = grid(case.truth.shape), ~np.isnan(case.truth[..., 0])
        rgb = case.pairs[0][1]
        matrix = cv2.findHomography(case.truth[seen][::_EVERY], xy[seen][::_EVERY])[0]
        found = [errors(x, case)[0] for x in (matrix_field(matrix, rgb.shape), refined_field(case.pairs[0], matrix))]
        moved = refined_field((case.straight, rgb), np.eye(3)) - xy
        rows.append([*found, float(np.linalg.norm(moved, axis=-1).mean())])
        table.add_row(case.name, *(f"{x:.2f}" for x in rows[-1]))
    table.add_section()
    table.add_row("mean", *(f"{x:.2f}" for x in np.mean(rows, 0)))
    Console(width=120).print(table)


def matrix_field(rgb_from_ir: Image, hw: tuple[int, ...]) -> Image:
    """Return the thermal position (H, W, 2) of each RGB pixel by a matrix alone."""
    return positions(np.linalg.inv(rgb_from_ir), (hw[0], hw[1]))


def refined_field(pair: tuple[Image, Image], rgb_from_ir: Image) -> Image:
    """Return the thermal position (H, W, 2) of each RGB pixel by a matrix and the smooth field about it."""
    view = whole_view([pair])
    matrix = np.linalg.inv(view.rgb_from_view) @ rgb_from_ir
    return smooth_field(view, matrix, bend_of(view, matrix), (pair[1].shape[0], pair[1].shape[1]))


def main() -> None:
    """Register every case of the set, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder of real footage")
    parser.add_argument("--set", choices=list(SETS), default="misaligned")
    parser.add_argument("--smooth", action=argparse.BooleanOptionalAction, help="with a smooth field, or without")
    parser.add_argument("--overlays", type=Path, help="folder for a picture of each registration that was claimed")
    parser.add_argument("--floor", action="store_true", help="print what a search that knows the truth would reach")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    if asked.floor:
        floor(SETS[asked.set](asked.data))
        return
    if asked.overlays is not None:
        asked.overlays.mkdir(parents=True, exist_ok=True)
    show([measured(c, smooth=asked.smooth, write=asked.overlays) for c in SETS[asked.set](asked.data)], asked.set)


if __name__ == "__main__":
    main()
