"""`trainer eval`: measure methods over a set of pairs, with intervals, published rows and a contact sheet."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
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
from rtfuse.capture.scenes.pairing import pair as pair_names
from rtfuse.capture.stills import is_image, read_image
from rtfuse.errors import ConfigError, SourceNotFound
from rtfuse.fuse.deflicker import Deflicker
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.luma import luma
from rtfuse.fuse.program_fuser import ProgramFuser
from rtfuse.types import Frame, Image
from trainer.metrics import Flicker, Scores, measure, stretched
from trainer.published import COLUMNS, published
from trainer.recordings import registered

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
    """Scores by method and pair name, and the reason for each skipped pair.

    For recordings also the flicker by method: of the fused images, and `shown` after `rtfuse.fuse.deflicker`.
    """

    scores: dict[str, dict[str, Scores]]
    skipped: dict[str, str]
    flicker: dict[str, float] = field(default_factory=dict)
    shown: dict[str, float] = field(default_factory=dict)

    def mean(self, method: str, name: str) -> tuple[float, float]:
        """Return the mean of a measure and the half-width of its 95 % interval (1.96 standard errors)."""
        values = [getattr(s, name) for s in self.scores[method].values()]
        half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return float(np.mean(values)), half


def by_stem(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their name without suffix. Raises SourceNotFound."""
    if not folder.is_dir():
        raise SourceNotFound(f"folder {folder} does not exist")
    return {p.stem: p for p in sorted(folder.iterdir()) if is_image(p)}


def matched(ir: Path, rgb: Path) -> tuple[dict[str, Path], dict[str, Path], dict[str, str]]:
    """Pair the images of two folders by name as `rtfuse fuse` does.

    Returns thermal and RGB by the name of RGB without suffix, which is that of the fused image, and the reason for each
    name without a partner. Raises SourceNotFound for a folder that is not there, ConfigError for names in doubt.
    """
    sides = [{p.name: p for p in by_stem(folder).values()} for folder in (ir, rgb)]
    found = pair_names(list(sides[0]), list(sides[1]))
    thermal = {Path(b).stem: sides[0][a] for a, b in found.pairs}
    colour = {Path(b).stem: sides[1][b] for _, b in found.pairs}
    alone = [Path(name).stem for names in found.alone.values() for name in names]
    return thermal, colour, dict.fromkeys(alone, "no partner of this name")


def method_name(folder: Path) -> str:
    """Name a folder of fused images: `METHOD/dataset` or `METHOD` by its last two parts."""
    return "/".join(folder.resolve().parts[-2:])


def evaluate(
    ir: Path,
    rgb: Path,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    only: set[str] | None = None,
    paper: bool = False,
    workers: int = 2,
) -> Result:
    """Measure stored images (`folders`) and running fusers on the pairs of two folders; see `matched`.

    `only` limits the pairs to these names. `paper` stretches every fused image to its own minimum and maximum first,
    as the published tables did. Raises ConfigError if no pair is left.
    """
    thermal, colour, skipped = matched(ir, rgb)
    stored = {method: by_stem(folder) for method, folder in folders.items()}
    names = sorted(thermal.keys() & (only if only is not None else thermal.keys()))
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *folders)}
    with ProcessPoolExecutor(workers) as pool:
        waiting = []
        for name in names:
            i, c = read_image(str(thermal[name]), "ir"), read_image(str(colour[name]), "rgb")
            if i is None or c is None or i.shape != c.shape[:2] or i.dtype != np.uint8:
                skipped[name] = "unreadable, or two sizes"
                continue
            v = luma(c)
            for method, image in _fused(name, i, v, stored, fusers):
                if image is None or image.shape != i.shape:
                    skipped[f"{method}: {name}"] = "no fused image of this name and size"
                else:
                    waiting.append((method, name, pool.submit(measure, stretched(image) if paper else image, i, v)))
        for method, name, future in waiting:
            scores[method][name] = future.result()
    scores = {m: s for m, s in scores.items() if s}
    if not scores:
        raise ConfigError(
            f"nothing to evaluate: no pair of {ir} and {rgb} has a fused image; {len(skipped)} were skipped"
        )
    return Result(scores, skipped)


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
    stored = {method: iter(open_source(uri, "rgb")) for method, uri in recordings.items()}
    scores: dict[str, dict[str, Scores]] = {m: {} for m in (*fusers, *recordings)}
    meters, shown = ({method: Flicker() for method in scores} for _ in range(2))
    steadies = {method: Deflicker() for method in scores}
    for k, pair in enumerate(islice(registered(ir, rgb, calib), frames)):
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
    return Result(scores, {}, *({method: meter.value for method, meter in each.items()} for each in (meters, shown)))


def _next_luma(source: Iterator[Frame], shape: tuple[int, ...], name: str, k: int) -> Image:
    frame = next(source, None)
    if frame is None or frame.image.shape[:2] != shape:
        found = "has ended" if frame is None else f"is {frame.image.shape[1]}x{frame.image.shape[0]}"
        raise ConfigError(
            f"{name} {found} at pair {k}, where RGB is {shape[1]}x{shape[0]}; fuse these recordings again"
        )
    return luma(frame.image)


def _fused(
    name: str, ir: Image, v: Image, stored: Mapping[str, Mapping[str, Path]], fusers: Mapping[str, FuseLuma]
) -> Iterator[tuple[str, Image | None]]:
    for method, fuse in fusers.items():
        yield method, fuse(ir, v)
    for method, files in stored.items():
        yield method, read_image(str(files[name]), "ir") if name in files else None


def table(result: Result, dataset: str | None = None) -> Table:
    """Return mean ± 95 % half-width of every method and measure, the best mean bold, then published rows."""
    grid = Table(header_style="bold", box=box.SIMPLE_HEAD)
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
                + (f"\n[dim]±{half:.2f}[/]" if np.isfinite(half) else "\n")
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


def write_csv(result: Result, path: Path) -> None:
    """Write one row for each method and pair, and one of means for each method."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "pair", *MEASURES])
        for method, scores in result.scores.items():
            for name, row in scores.items():
                writer.writerow([method, name, *(f"{getattr(row, m):.6f}" for m in MEASURES)])
            writer.writerow([method, "MEAN", *(f"{result.mean(method, m)[0]:.6f}" for m in MEASURES)])


def contact_sheet(
    result: Result,
    ir: Path,
    rgb: Path,
    folders: Mapping[str, Path],
    fusers: Mapping[str, FuseLuma],
    *,
    rows: int = 6,
    width: int = 320,
) -> Image:
    """Return evenly chosen pairs as rows, and thermal, RGB and every method as columns, (H, W, 3) uint8 BGR."""
    names = sorted(next(iter(result.scores.values())))
    chosen = [names[k * len(names) // rows] for k in range(min(rows, len(names)))]
    thermal, colour, _ = matched(ir, rgb)
    stored = {method: by_stem(folder) for method, folder in folders.items()}
    titles = ["thermal", "RGB", *fusers, *folders]
    lines = [_titles(titles, width)]
    for name in chosen:
        i, c = read_image(str(thermal[name]), "ir"), read_image(str(colour[name]), "rgb")
        assert i is not None
        assert c is not None
        images = [i, c, *(x for _, x in _fused(name, i, luma(c), stored, fusers))]
        height = round(width * i.shape[0] / i.shape[1])
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
