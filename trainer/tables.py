"""Write the results of `trainer eval` as tables, CSV and JSON: one table for each family of measures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import msgspec
import numpy as np
from rich import box
from rich.table import Table

from rtfuse.cli.plain import plain
from trainer.evaluate import MEASURES, Result
from trainer.measures.artefacts import Artefacts
from trainer.measures.average_precision import Estimate
from trainer.measures.detection import Found
from trainer.measures.segmentation import Overlap
from trainer.measures.video import Steadiness, ratios
from trainer.published import COLUMNS, published

ARTEFACTS = [f.name for f in msgspec.structs.fields(Artefacts)]
Detected = Mapping[str, Mapping[str, Mapping[str, Found]]]
"""AP by time of day, method and class."""


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
    writer.writerow(["method", "pair", *MEASURES, *ARTEFACTS])
    for method, scores in result.scores.items():
        for name, row in scores.items():
            seen = result.artefacts[method][name]
            values = [*(getattr(row, m) for m in MEASURES), *(getattr(seen, a) for a in ARTEFACTS)]
            writer.writerow([method, name, *(f"{v:.6f}" for v in values)])
        means = [*(result.mean(method, m)[0] for m in MEASURES), *(result.artefact(method, a) for a in ARTEFACTS)]
        writer.writerow([method, "MEAN", *(f"{v:.6f}" for v in means)])
    return text.getvalue()


def _grid(title: str, *columns: str) -> Table:
    grid = Table(title=title, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD)
    for k, name in enumerate(columns):
        grid.add_column(plain(name), justify="right" if k else "left", no_wrap=True)
    return grid


def artefact_table(result: Result) -> Table:
    """Return the mean of each artefact by method; a measure that no pair has is empty."""
    grid = _grid("artefacts", "method", "halo ↓", "noise gain ↓", "saturated % ↓", "cast ↓", "pairs")
    for method, rows in result.artefacts.items():
        grid.add_row(method, *(_number(result.artefact(method, name), 3) for name in ARTEFACTS), str(len(rows)))
    return grid


def video_table(result: Mapping[str, Steadiness]) -> Table:
    """Return the steadiness of each stream, and its ratio to the worse source."""
    names = ["flowD ↓", "ratio ↓", "BiSWE ↓", "ratio ↓", "MS2R px ↓", "ratio ↓", "trailing ↑"]
    grid, over = _grid("steadiness in motion; ratio: to the worse source", "stream", *names), ratios(result)
    for name, row in result.items():
        pairs = [(getattr(row, m), over.get(name, {}).get(m, float("nan"))) for m in ("flowD", "BiSWE", "MS2R")]
        grid.add_row(name, *(_number(v, 3) for pair in pairs for v in pair), _number(row.trailing, 3))
    return grid


def detection_table(found: Detected) -> Table:
    """Return AP of each method by time of day and class, with 95 % intervals."""
    classes = list(next(iter(next(iter(found.values())).values())))
    columns = [f"{c} {name}" for c in classes for name in ("AP50 ↑", "AP ↑", "boxes", "≥ sources ↑")]
    grid = _grid("detection; ≥ sources: share of draws at or above the better source", "time", "method", *columns)
    for time, methods in found.items():
        for method, each in methods.items():
            cells = [x for f in each.values() for x in (_cell(f.ap50), _cell(f.ap), str(f.boxes), _number(f.share, 2))]
            grid.add_row(f"{time} ({next(iter(each.values())).pictures})", method, *cells)
        grid.add_section()
    return grid


def segmentation_table(result: Mapping[str, Overlap]) -> Table:
    """Return IoU of each method by class number, with 95 % intervals."""
    numbers = list(next(iter(result.values())).classes)
    grid = _grid("segmentation: IoU", "method", "pictures", "mean ↑", *(f"class {n} ↑" for n in numbers))
    for method, row in result.items():
        grid.add_row(method, str(row.pictures), _cell(row.mean), *(_cell(row.classes[n]) for n in numbers))
    return grid


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""


def _cell(e: Estimate) -> str:
    if not np.isfinite(e.value):
        return ""
    return f"{e.value:.3f}\n[dim]{plain(f'{e.low:.3f}–{e.high:.3f}')}[/]"


def to_json(result: Result, found: Detected | None, overlaps: Mapping[str, Overlap] | None) -> bytes:
    """Return all values as JSON; a value that cannot be measured is null."""
    video = result.steadiness
    whole = {
        "fidelity": result.scores,
        "artefacts": result.artefacts,
        "flicker": result.flicker,
        "shown": result.shown,
        "video": video,
        "video_ratio_to_worse_source": ratios(video) if video else {},
        "detection": found or {},
        "segmentation": overlaps or {},
        "data": result.survey,
    }
    return msgspec.json.format(msgspec.json.encode(whole))
