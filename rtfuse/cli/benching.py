"""Do the work of `rtfuse bench` and `rtfuse engines`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from rtfuse.cli.arguments import size_of
from rtfuse.errors import ConfigError
from rtfuse.fuse import DEFAULT_FUSER, Engine


@dataclass(frozen=True, slots=True)
class Bench:
    """Options of `rtfuse bench`; without `ir` and `rgb` the synthetic scene is recorded in `size`."""

    ir: str | None
    rgb: str | None
    fuser: str | None
    weights: str | None
    engines: str | None
    frames: int
    size: str
    batch: str
    json_file: Path | None
    compare: Path | None = None
    rounds: int = 5


def bench_and_print(console: Console, how: Bench) -> None:
    """Measure the stages on two recordings, the engines, or two versions, and print and write the numbers."""
    from rtfuse.bench import stages as bench

    if (how.ir is None) != (how.rgb is None):
        raise ConfigError("rtfuse bench needs both --ir and --rgb, or neither")
    if how.batch != "1" and not how.engines:
        raise ConfigError(f"--batch {how.batch} has no effect without --engines, for example --engines openvino")
    if how.compare and (how.engines or how.weights):
        raise ConfigError("--compare runs each version with its own engines and weights: omit --engines and --weights")
    numbers: dict[str, Any] = {"machine": bench.machine()}
    measure = _versions if how.compare else _engines if how.engines else _stages
    numbers |= measure(console, how)
    if how.json_file:
        how.json_file.write_text(json.dumps(numbers, indent=1))


def _engines(console: Console, how: Bench) -> dict[str, Any]:
    from rtfuse.bench.engines import as_json, bench_engines, table
    from rtfuse.bench.stages import machine

    counts = [int(n) for n in how.batch.split(",") if n.strip().isdecimal() and int(n)]
    if len(counts) < len(how.batch.split(",")):
        raise ConfigError(f"--batch {how.batch!r}: want numbers, for example 1,4")
    assert how.engines is not None
    rows = bench_engines(how.engines.split(","), _sizes(how), batches=counts, weights=how.weights, frames=how.frames)
    _print_whole(console, table(rows, f"U-Fuser, raw bytes to fused bytes, engines in turn; {machine()}"))
    return as_json(rows, machine())


def _versions(console: Console, how: Bench) -> dict[str, Any]:
    from rtfuse.bench import compare
    from rtfuse.bench.stages import machine

    assert how.compare is not None
    fusers = (how.fuser or "pyramid,student").split(",")
    compare.check(how.compare.resolve())
    with _recordings(how) as (ir, rgb):
        found = compare.compare(how.compare, ir, rgb, fusers, how.rounds)
    title = f"rtfuse fuse, {how.rounds} rounds of {found[0].frames} frames in turn, start included; {machine()}"
    _print_whole(console, compare.table(found, how.compare, title))
    return compare.as_json(found, how.compare)


@contextmanager
def _recordings(how: Bench) -> Iterator[tuple[str, str]]:
    """Yield the recordings that were given, or those of the synthetic scene, which exist while the block runs."""
    from rtfuse.bench import stages as bench

    if how.ir is not None and how.rgb is not None:
        yield how.ir, how.rgb
        return
    with tempfile.TemporaryDirectory() as folder:
        yield bench.record_scene(Path(folder), _sizes(how)[0], how.frames + bench.WARM_UP)


def _stages(console: Console, how: Bench) -> dict[str, Any]:
    from rtfuse.bench import stages as bench

    name = how.fuser or DEFAULT_FUSER
    with _recordings(how) as (ir, rgb):
        watch = bench.bench_stages(ir, rgb, fuser_name=name, weights=how.weights, frames=how.frames)
    console.print(bench.table(watch, f"{name}, milliseconds per frame; {bench.machine()}"))
    return {"fuser": name, "stages_ms": bench.rows(watch)}


def _sizes(how: Bench) -> list[tuple[int, int]]:
    return [size_of(text) for text in how.size.split(",")]


def _print_whole(console: Console, grid: Table) -> None:
    """Print a table; in its full width unless the output is a terminal."""
    wide = Console(width=200, highlight=False) if not console.is_terminal else console
    wide.print(grid)


def _engine(name: str) -> Engine:
    for known in get_args(Engine):
        if name == known:
            return known
    raise ConfigError(f"no engine is called {name!r}: want one of {', '.join(get_args(Engine))}")


def list_engines(console: Console) -> None:
    """`rtfuse engines list`: print every engine that is kept: name, sizes, weights, megabytes, time of its last use."""
    from rtfuse.fuse.engines.cache import cache_folder, entries

    kept = entries()
    if not kept:
        console.print(f"no engines are kept in {cache_folder()}", soft_wrap=True)
        return
    grid = Table(title=str(cache_folder()), title_justify="left", header_style="bold")
    for column in ("engine", "for", "weights", "MB", "last used"):
        grid.add_column(column, justify="right" if column == "MB" else "left")
    for entry in kept:
        key = entry.key
        about = ", ".join(key[k] for k in ("sizes", "precision", "gpu") if k in key) or "any size, float32"
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used_s))
        name = key.get("engine", "damaged")
        grid.add_row(name, about if key else "", key.get("weights", "")[:12], f"{entry.size_bytes / 1e6:.1f}", used)
    console.print(grid)


def clear_engines(console: Console) -> None:
    """`rtfuse engines clear`: remove all engines that are kept."""
    from rtfuse.fuse.engines.cache import clear

    gone = clear()
    console.print(f"{len(gone)} engines removed, {sum(e.size_bytes for e in gone) / 1e6:.1f} MB")


def build_engine(console: Console, engine: str, weights: str | None, rgb_size: str, ir_size: str | None) -> None:
    """`rtfuse engines build`: build, or load, the engine for these sizes, check it, and print the time that it took."""
    from rtfuse.fuse import open_fuser

    (w, h), (iw, ih) = size_of(rgb_size), size_of(ir_size or rgb_size)
    start = time.monotonic()
    fuser = open_fuser("ufuser", weights=weights, engine=_engine(engine))
    fuser.prepare((ih, iw), (h, w))
    console.print(f"{fuser}: ready for {w}x{h} after {time.monotonic() - start:.1f} s", soft_wrap=True)
    if str(fuser).endswith("on the processor)"):
        console.print("nothing is kept: on a processor each run compiles the network, in a second or less")
