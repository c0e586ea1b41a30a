"""Measure registration against known warps: what is claimed, the true error, the estimated error, the processor time.

    python tools/bench_register.py ../shared/data                    # 20 real pairs with a known smooth warp
    python tools/bench_register.py ../shared/data --set warped       # real pairs and clips, warped here
    python tools/bench_register.py ../shared/data --set synthetic    # the synthetic street
    python tools/bench_register.py ../shared/data --set turned       # other real pairs, turned and bent here
    python tools/bench_register.py ../shared/data --set unrelated    # pictures of two scenes: all must be refused
    python tools/bench_register.py ../shared/data --floor            # what a search that knows the truth would reach

The error is the mean distance over the picture, in RGB pixels, by the calibration that would be written; `corners` and
`middle` are its means over the four outer and the inner sixteenths of the picture. `beside` is the note's: how far
thermal lies beside RGB when it is stretched over it ("-": it cannot tell).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from calib.register.calibration import calibration_of
from calib.register.refine import bent as bend_of
from calib.register.refine import smooth_field
from calib.register.shift import beside_px
from calib.register.view import positions, whole_view
from rtfuse.align.calibration import ir_pixels_of_rgb
from rtfuse.capture import open_source
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.errors import CalibrationError
from rtfuse.types import Image

Pairs = list[tuple[Image, Image]]
_EVERY = 4
"""The homography of a truth is fitted to one of so many pixels."""
_CUT_PX = 40


@dataclass(frozen=True, slots=True)
class Case:
    """Pairs of one rig, and where in thermal the RGB pixels lie, (H, W, 2), NaN outside; None: nowhere.

    `straight`: thermal (H, W) before the warp, on the RGB grid, if known.
    """

    name: str
    pairs: Pairs
    truth: Image | None
    straight: Image | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a case, in RGB pixels: before and after registration, the estimate, and the note's distance.

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


def grid(hw: tuple[int, ...]) -> Image:
    """Return the positions (x, y) of all pixels, (H, W, 2) float32."""
    return np.stack(np.meshgrid(np.arange(hw[1]), np.arange(hw[0])), -1).astype(np.float32)


def inverse(offset: Image) -> Image:
    """Return p (H, W, 2) with p + offset(p) = x for every pixel x; NaN outside the picture."""
    at = still = grid(offset.shape)
    for _ in range(50):
        at = (at + still - cv2.remap(offset, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)) / 2
    outside = (at < 0).any(-1) | (at > np.array(offset.shape[1::-1]) - 1).any(-1)
    return np.where(outside[..., None], np.nan, at)


def read(data: Path, folder: str, name: str) -> tuple[Image, Image]:
    """Return the registered pair of a name: thermal (H, W) and RGB (H, W, 3)."""
    ir, rgb = (next((data / folder / s).glob(f"{name}.*")) for s in ("ir", "rgb"))
    return cv2.imread(str(ir), cv2.IMREAD_GRAYSCALE), cv2.imread(str(rgb))[..., ::-1].copy()


def names(data: Path, folder: str, count: int) -> list[str]:
    """Return `count` names of registered pairs, spread evenly over a folder."""
    every = sorted(p.stem for p in (data / folder / "ir").iterdir())
    return [every[k] for k in np.linspace(0, len(every) - 1, count).round().astype(int)]


def misaligned(data: Path) -> Iterator[Case]:
    """Yield the real pairs with a known smooth warp."""
    folder = data / "misaligned"
    for path in sorted((folder / "offset").iterdir(), key=lambda p: int(p.stem)):
        rgb = cv2.imread(str(folder / "rgb" / f"{path.stem}.png"))[..., ::-1].copy()
        ir = cv2.imread(str(folder / "ir_warped" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        straight = cv2.imread(str(folder / "ir" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        yield Case(path.stem, [(ir, rgb)], inverse(np.load(path)["offset_px"].astype(np.float32)), straight)


def turned(data: Path, count: int = 40) -> Iterator[Case]:
    """Yield registered pairs that `misaligned` does not hold, turned, scaled, moved and bent at random.

    Turns deviate by 5 degrees, every second one sheared as a turn of the square that is stretched to the picture;
    bends are of 0.5 to 2 px on average and 12 to 48 px long. What is moved in from outside is black.
    """
    known = [thumbnail(cv2.imread(str(p))) for p in (data / "misaligned" / "rgb").iterdir()]
    rng = np.random.default_rng(20)
    for name in names(data, "pairs/roadscene", count):
        ir, rgb = read(data, "pairs/roadscene", name)
        if any(np.abs(thumbnail(rgb) - x).mean() < 5 for x in known):
            continue
        h, w = ir.shape
        turn, length = np.deg2rad(rng.normal(0, 5)), rng.uniform(12, 48)
        aspect = (w / h) ** rng.choice((0, 1))
        c, s = np.cos(turn), np.sin(turn)
        about = (np.array([w, h]) - 1) / 2
        m = rng.uniform(0.97, 1.03) * np.array([[c, -s * aspect], [s / aspect, c]])
        noise = rng.normal(size=(h, w, 2))
        bend = cv2.GaussianBlur(noise, (0, 0), length / np.sqrt(2))
        bend *= rng.uniform(0.5, 2) / np.linalg.norm(bend, axis=-1).mean()
        moved = ((grid((h, w)) - about) @ m.T + about + rng.uniform(-0.03, 0.03, 2) * w + bend).astype(np.float32)
        yield Case(name, [(cv2.remap(ir, moved, None, cv2.INTER_LINEAR), rgb)], inverse(moved - grid((h, w))), ir)


def thumbnail(picture: Image) -> Image:
    """Return the grey picture at 32 x 16 pixels, by which copies of a picture are told."""
    grey = picture.astype(np.float32).mean(-1)
    return cv2.resize(grey, (32, 16), interpolation=cv2.INTER_AREA)


def bent(pairs: Pairs, rng: np.random.Generator) -> tuple[Pairs, Image]:
    """Return the pairs with thermal warped at random, their edges cut off, and the truth of `Case`.

    Turns by up to 2.5 degrees, scales by up to 4 % and moves by up to 3 % of the width; every second time also bends
    smoothly by 2 px on average.
    """
    h, w = pairs[0][0].shape
    m = cv2.getRotationMatrix2D((w / 2, h / 2), rng.uniform(-2.5, 2.5), rng.uniform(0.96, 1.04))
    m[:, 2] += rng.uniform(-0.03, 0.03, 2) * w
    moved = cv2.transform(grid((h, w)), m)
    if rng.random() < 0.5:
        knots = cv2.resize(rng.normal(size=(5, 7, 2)), (w, h), interpolation=cv2.INTER_CUBIC)
        moved = moved + 2 * knots / np.linalg.norm(knots, axis=-1).mean()
    moved = moved.astype(np.float32)
    c = _CUT_PX if w > 600 else _CUT_PX // 2
    cut = np.s_[c:-c, c:-c]
    warped: Pairs = []
    for ir, rgb in pairs:
        bent_ir = cv2.remap(ir, moved, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        warped.append((np.ascontiguousarray(bent_ir[cut]), np.ascontiguousarray(rgb[cut])))
    truth = inverse(moved - grid((h, w)))[cut] - c
    inside = ((truth >= 0) & (truth <= np.array([w, h]) - 2 * c - 1)).all(-1)
    return warped, np.where(inside[..., None], truth, np.nan)


def warped(data: Path, count: int = 16) -> Iterator[Case]:
    """Yield registered pairs and clips of several datasets, thermal warped."""
    rng = np.random.default_rng(7)
    for folder in ("pairs/msrs", "pairs/roadscene"):
        for name in names(data, folder, count):
            yield Case(f"{folder[6:]} {name}", *bent([read(data, folder, name)], rng))
    for clip in ("0113_1714", "0117_1605", "1230_1202"):
        frames = [frames_of(str(data / "clips" / clip / f"{s}.mp4"), s, every=16, count=12) for s in ("ir", "rgb")]
        for k in (0, 6):
            pairs = list(zip(*frames, strict=True))
            yield Case(f"{clip} frame {16 * k}", *bent([pairs[k]], rng))
        yield Case(f"{clip} 12 frames", *bent(pairs, rng))


def frames_of(uri: str, stream: str, every: int, count: int) -> list[Image]:
    """Return the images of every so many frames."""
    source = open_source(uri, stream)
    found = [frame.image for frame in islice(source, 0, every * count, every)]
    source.close()
    return [x if stream == "rgb" or x.ndim == 2 else x[..., 1].copy() for x in found]


def synthetic(_: Path) -> Iterator[Case]:
    """Yield the street with a baseline of 0, by several seeds, sizes and warps."""
    for keys in ("", "&ir_size=320x240", "&ir_size=160x120", "&bits=16&ir_size=320x256&size=960x540"):
        for seed in (1, 2, 3):
            warp = (0.5, 1, 1.5)[seed - 1]
            uri = f"synthetic:?warp={warp}&baseline_m=0&motion=0&duration_s=4&seed={seed}{keys}"
            pairs = list(zip(*(frames_of(uri, s, 20, 3) for s in ("ir", "rgb")), strict=True))
            xy = grid(pairs[0][1].shape)
            H = np.linalg.inv(SyntheticScene.from_uri(uri).H_rgb_from_ir)
            truth = cv2.perspectiveTransform(xy.reshape(-1, 1, 2).astype(float), H).reshape(xy.shape)
            inside = ((truth >= 0) & (truth <= np.array(pairs[0][0].shape[::-1]) - 1)).all(-1)
            for some in (pairs[:1], pairs):
                yield Case(f"{seed}{keys} {len(some)} frames", some, np.where(inside[..., None], truth, np.nan))


def unrelated(data: Path, count: int = 24) -> Iterator[Case]:
    """Yield thermal and RGB of two different scenes."""
    for folder in ("pairs/msrs", "pairs/roadscene"):
        found = [read(data, folder, name) for name in names(data, folder, count)]
        for k, (ir, _) in enumerate(found):
            rgb = found[(k + count // 2) % count][1]
            yield Case(f"{folder[6:]} {k}", [(cv2.resize(ir, rgb.shape[1::-1]), rgb)], None)


SETS: dict[str, Callable[[Path], Iterator[Case]]] = {
    "misaligned": misaligned,
    "turned": turned,
    "warped": warped,
    "synthetic": synthetic,
    "unrelated": unrelated,
}


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
            f"{after.max():.2f} px, {int((after > 2).sum())} above 2; said/true: median {np.median(said / after):.2f}, "
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
