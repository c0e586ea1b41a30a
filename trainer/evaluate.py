"""`trainer eval`: measure methods over a set of pairs, with intervals, published rows and a contact sheet."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import cv2
import msgspec
import numpy as np
from rich import box
from rich.table import Table
from torch import nn

from rtfuse.capture import open_source
from rtfuse.capture.stills import is_stills
from rtfuse.cli.plain import plain
from rtfuse.errors import ConfigError
from rtfuse.fuse.deflicker import Deflicker
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.luma import luma
from rtfuse.fuse.program_fuser import ProgramFuser
from rtfuse.types import Frame, Image
from trainer.metrics import SMALLEST_PX, Flicker, Scores, measure, stretched
from trainer.pairs import SAME, Pairs, Registered, Survey, by_name
from trainer.published import COLUMNS, published

FuseLuma = Callable[[Image, Image], Image]


def by_network(weights: Path | nn.Module) -> FuseLuma:
    """Return a function that fuses thermal and luma, (H, W) uint8 each, by the network as published, in eager torch."""
    fuser = ProgramFuser("ufuser", EagerEngine(weights))

    def fuse(ir: Image, luma: Image) -> Image:
        fused: Image = fuser(ir, cv2.cvtColor(luma, cv2.COLOR_GRAY2RGB))[..., 0]
        return fused

    return fuse


MEASURES = [f.name for f in msgspec.structs.fields(Scores)]


@dataclass(frozen=True, slots=True)
class Result:
    """Scores by method and pair name, and the survey of the pairs.

    For recordings also the flicker by method: of the fused images, and `shown` after `rtfuse.fuse.deflicker`.
    """

    scores: dict[str, dict[str, Scores]]
    survey: Survey
    flicker: dict[str, float] = field(default_factory=dict)
    shown: dict[str, float] = field(default_factory=dict)

    def mean(self, method: str, name: str) -> tuple[float, float]:
        """Return the mean of a measure and the half-width of its 95 % interval (1.96 standard errors)."""
        values = [getattr(s, name) for s in self.scores[method].values()]
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return float(np.mean(values)), half


def method_name(folder: Path) -> str:
    """Name a folder of fused images: `METHOD/dataset` or `METHOD` by its last two parts."""
    return "/".join(folder.resolve().parts[-2:])


def are_pictures(uri: str) -> bool:
    """Return True for folders, patterns and image files; False for recordings."""
    return not uri.startswith("synthetic:") and is_stills(uri)


def read_grey(path: str | Path) -> Image | None:
    """Read a picture as the evaluator of the papers does, (H, W) uint8; None if it cannot be read.

    It converts colours in float32 and rounds. `rtfuse.fuse.luma` computes in integers, and thermal in a colour JPEG is
    the luma that is stored: single pixels differ by a grey level or two.
    """
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    if bgr is None:
        return None
    return np.rint(cv2.cvtColor(bgr.astype(np.float32), cv2.COLOR_BGR2GRAY)).astype(np.uint8)


def evaluate(
    ir: str,
    rgb: str,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    only: set[str] | None = None,
    paper: bool = False,
    workers: int = 2,
) -> Result:
    """Measure stored images (`folders`) and running fusers on the pairs of two folders.

    `only` limits the pairs to these names. `paper` stretches every fused image to its own minimum and maximum first,
    as the published tables did. Raises ConfigError if no pair is left, and what `Pairs` raises.
    """
    pairs = Pairs(ir, rgb, calib, only=None if only is None else only.__contains__)
    stored = {method: by_name(folder, pairs.names) for method, folder in folders.items()}
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *folders)}
    for name in sorted((only or set()) - set(pairs.names)):
        pairs.survey.note("listed name without a pair", name)
    waiting, taken = deque[tuple[str, str, Future[Scores]]](), pairs.survey.taken
    taken[""] = 0
    with ProcessPoolExecutor(workers) as pool:
        for pair in pairs:
            if pair.stretched or min(pair.rgb.shape[:2]) < SMALLEST_PX:
                reason = "two sizes, and no --calib" if pair.stretched else f"smaller than {SMALLEST_PX} px"
                pairs.survey.note(reason, pair.name)
                continue
            i, v = _sources(pair)
            if np.array_equal(i, v):
                pairs.survey.note(SAME, pair.name)
                continue
            taken[""] += 1
            for method, image in _fused(pair, stored, fusers):
                if image is None or image.shape != v.shape:
                    lacks = "of this name" if image is None else "of the pair's size"
                    pairs.survey.note(f"no fused image {lacks}", f"{method}: {pair.name}")
                    continue
                waiting.append((method, pair.name, pool.submit(measure, stretched(image) if paper else image, i, v)))
            while len(waiting) > 4 * workers:
                _take(waiting, scores)
        while waiting:
            _take(waiting, scores)
    scores = {m: s for m, s in scores.items() if s}
    if not scores:
        raise ConfigError(f"nothing to evaluate: no pair of {ir} and {rgb} has a fused image; {pairs.survey.summary()}")
    return Result(scores, pairs.survey)


def _take(waiting: deque[tuple[str, str, Future[Scores]]], scores: dict[str, dict[str, Scores]]) -> None:
    method, name, future = waiting.popleft()
    scores[method][name] = future.result()


def _sources(pair: Registered) -> tuple[Image, Image]:
    """Return thermal and luma of a pair, (H, W) uint8 each, as the evaluator would read them where it can."""
    assert pair.files is not None
    thermal, visible = (read_grey(path) for path in pair.files)
    fits = pair.as_stored and thermal is not None and thermal.shape == pair.ir.shape
    i = thermal if fits and thermal is not None else pair.ir
    return i, luma(pair.rgb) if visible is None or visible.shape != i.shape else visible


def evaluate_recordings(
    ir: str,
    rgb: str,
    recordings: Mapping[str, str],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    every: int = 10,
    frames: int | None = None,
) -> Result:
    """Measure flicker over all pairs of two recordings (or the first `frames`), the other measures every n-th pair.

    `recordings` are outputs of `rtfuse fuse` for the two: a frame for each pair, in order. Raises ConfigError if one
    has fewer frames or another size, or if there are no pairs.
    """
    pairs = Pairs(ir, rgb, calib)
    stored = {method: iter(open_source(uri, "rgb")) for method, uri in recordings.items()}
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *recordings)}
    meters, shown = ({method: Flicker() for method in scores} for _ in range(2))
    steadies = {method: Deflicker() for method in scores}
    for k, pair in enumerate(islice(pairs, frames)):
        pairs.survey.taken[""] = k + 1
        v = luma(pair.rgb)
        images = {method: fuse(pair.ir, v) for method, fuse in fusers.items()}
        images |= {method: _next_luma(source, v.shape, recordings[method], k) for method, source in stored.items()}
        for method, image in images.items():
            meters[method].add(image, pair.ir, v)
            shown[method].add(steadies[method](image, k), pair.ir, v)
            if k % every == 0:
                scores[method][f"{pair.frame_id:06d}"] = measure(image, pair.ir, v)
    if not all(scores.values()):
        raise ConfigError(f"nothing to evaluate: {ir} and {rgb} have no pair of frames")
    return Result(
        scores, pairs.survey, *({method: meter.value for method, meter in each.items()} for each in (meters, shown))
    )


def _next_luma(source: Iterator[Frame], shape: tuple[int, ...], name: str, k: int) -> Image:
    frame = next(source, None)
    if frame is None or frame.image.shape[:2] != shape:
        found = "has ended" if frame is None else f"is {frame.image.shape[1]}x{frame.image.shape[0]}"
        raise ConfigError(
            f"{name} {found} at pair {k}, where RGB is {shape[1]}x{shape[0]}; fuse these recordings again"
        )
    return luma(frame.image)


def _fused(
    pair: Registered, stored: Mapping[str, Mapping[str, Path]], fusers: Mapping[str, FuseLuma]
) -> Iterator[tuple[str, Image | None]]:
    v = luma(pair.rgb)
    for method, fuse in fusers.items():
        yield method, fuse(pair.ir, v)
    for method, files in stored.items():
        yield method, read_grey(files[pair.name]) if pair.name in files else None


def table(result: Result, dataset: str | None = None) -> Table:
    """Return mean ± 95 % half-width of every method and measure, the best mean bold, then published rows."""
    grid, sign = Table(header_style="bold", box=box.SIMPLE_HEAD), plain("±")
    grid.add_column("method", no_wrap=True)
    for name in ["pairs", *MEASURES, *(["flicker", "shown"] if result.flicker else [])]:
        grid.add_column(name, justify="right", no_wrap=True)
    best = {n: max(result.mean(m, n)[0] for m in result.scores) for n in MEASURES}
    for method, scores in result.scores.items():
        cells = []
        for name in MEASURES:
            mean, half = result.mean(method, name)
            cells.append(
                (f"[bold]{mean:.2f}[/]" if mean == best[name] else f"{mean:.2f}")
                + (f"\n[dim]{sign}{half:.2f}[/]" if np.isfinite(half) else "\n")
            )
        if result.flicker:
            cells += [f"{result.flicker[method]:.2f}", f"{result.shown[method]:.2f}"]
        grid.add_row(method, str(len(scores)), *cells)
    if dataset:
        grid.add_section()
        for method, row in published(dataset).items():
            grid.add_row(
                f"{method} (published)", "", *(f"{row[n]:.2f}" if n in COLUMNS else "" for n in MEASURES), style="dim"
            )
    return grid


def to_csv(result: Result) -> str:
    """Return a table with one row for each method and pair, and one of means for each method."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["method", "pair", *MEASURES])
    for method, scores in result.scores.items():
        for name, row in scores.items():
            writer.writerow([method, name, *(f"{getattr(row, m):.6f}" for m in MEASURES)])
        writer.writerow([method, "MEAN", *(f"{result.mean(method, m)[0]:.6f}" for m in MEASURES)])
    return text.getvalue()


def contact_sheet(
    result: Result,
    ir: str,
    rgb: str,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    calib: str | None = None,
    rows: int = 6,
    width: int = 320,
) -> Image:
    """Return evenly chosen pairs as rows, and thermal, RGB and every method as columns, (H, W, 3) uint8 BGR."""
    names = sorted(next(iter(result.scores.values())))
    rows = min(rows, len(names))
    chosen = {names[k * len(names) // rows] for k in range(rows)}
    pairs = Pairs(ir, rgb, calib, only=chosen.__contains__)
    stored = {method: by_name(folder, pairs.names) for method, folder in folders.items()}
    lines = [_titles(["thermal", "RGB", *fusers, *folders], width)]
    for pair in pairs:
        images = [pair.ir, pair.rgb, *(x for _, x in _fused(pair, stored, fusers))]
        height = round(width * pair.ir.shape[0] / pair.ir.shape[1])
        lines.append(np.hstack([_thumb(x, (width, height)) for x in images]))
    return np.vstack(lines)


def _thumb(image: Image | None, size_wh: tuple[int, int]) -> Image:
    if image is None:
        return np.full((size_wh[1], size_wh[0], 3), 64, np.uint8)
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_GRAY2BGR if small.ndim == 2 else cv2.COLOR_RGB2BGR)


def _titles(titles: list[str], width: int) -> Image:
    head = np.full((26, width * len(titles), 3), 32, np.uint8)
    for k, title in enumerate(titles):
        cv2.putText(head, title, (k * width + 6, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240,) * 3, 1, cv2.LINE_AA)
    return head
