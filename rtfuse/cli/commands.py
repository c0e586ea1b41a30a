"""What the subcommands do, once their options have become a `Config`."""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import rtfuse
from rtfuse.align.drift import DriftMonitor
from rtfuse.cli.signals import Signals
from rtfuse.cli.status import CAUSES, one_line, slow_fuser, sources_line, watching
from rtfuse.config import Config, Detector, Web
from rtfuse.errors import ConfigError, Interrupted
from rtfuse.fuse import DEFAULT_FUSER, Engine
from rtfuse.hints import install_hint
from rtfuse.observe.stats import Snapshot
from rtfuse.observe.trace import Trace
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.outputs import describing, open_publisher, open_raw
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.sources import open_lasting
from rtfuse.publish.publisher import Publisher
from rtfuse.record.raw import RawRecorder
from rtfuse.record.session import RecordSummary, record
from rtfuse.record.video import PictureWriter, Writer, open_writer
from rtfuse.types import Frame, Sink, Source, Stream

if TYPE_CHECKING:
    from rtfuse.web.server import WebServer


def run_live(settings: Config, signals: Signals, console: Console, replay: str | None = None) -> Snapshot:
    """`rtfuse run`: fuse at the sources' own pace, publish, record; returns the counts.

    Addresses and files are opened before the cameras; each part that was opened is closed, whichever one fails.
    """
    say = partial(console.print, soft_wrap=True, markup=False)
    with ExitStack() as stack:
        publisher = open_publisher(
            settings,
            statistics=lambda: pipeline.statistics(),
            states=lambda: rig.states(),
            about=lambda: about(),
            clock=lambda: rig.clock(),
        )
        if publisher is not None:
            stack.enter_context(publisher)
        trace = stack.enter_context(Trace(settings.trace, force=settings.record.force)) if settings.trace else None
        rig = open_rig(settings, replay=replay, trace=trace, status=lambda: one_line(pipeline.snapshot()))
        stack.enter_context(rig)
        about = describing(settings, rig)
        say(sources_line(rig))
        for said in _unused(settings):
            say(f"note: {said}", style="yellow", highlight=False)
        taps = []
        if settings.raw.path:
            taps.append(partial(_tap, stack.enter_context(closing(open_raw(settings, rig.sources)))))
            say(f"recording both streams to {settings.raw.path}")
        for line in publisher.lines() if publisher is not None else ():
            say(f"publishing {line}")
        sinks: dict[str, Sink] = {"publish": publisher} if publisher is not None else {}
        sinks |= _local_sinks(settings, rig, console, stack)
        server = _open_page(settings, rig, lambda: pipeline.snapshot(), publisher)
        if server is not None:
            sinks["web"] = stack.enter_context(closing(server)).live
            _print_page(settings.web, server, console)
        age_at = next((name for name in ("publish", "record", "web") if name in sinks), None)
        pipeline = Pipeline(rig, sinks, age_at=age_at, taps=taps, stop=signals.stop)
        with watching(console, pipeline.snapshot):
            result = pipeline.run(frames=settings.frames, duration_s=settings.duration_s)
        if any(cause == "busy" for _, cause in result.drops):
            say(f"note: {slow_fuser(str(rig.fuser))}", style="yellow")
        return result


def _local_sinks(settings: Config, rig: Rig, console: Console, stack: ExitStack) -> dict[str, Sink]:
    """Open the recording of fused video and the watch on the registration, as the configuration says."""
    sinks: dict[str, Sink] = {}
    how, rgb = settings.record, rig.sources["rgb"].info
    if how.path:
        writer = open_writer(
            how.path, rate_hz=rgb.rate_hz, time_base=rgb.time_base, side_by_side=how.side_by_side, force=how.force
        )
        sinks["record"] = stack.enter_context(closing(writer))
    if settings.align.monitor and settings.align.calib:
        sinks["drift"] = DriftMonitor(partial(console.print, "warning:", style="yellow", soft_wrap=True))
    return sinks


def _unused(settings: Config) -> Iterator[str]:
    """Say what was asked for in vain."""
    if settings.publish.keys and settings.publish.endpoint is None and not settings.publish.endpoints:
        yield "publish.keys (--keys) encrypts nothing: nothing is published"
    if settings.web.detections and settings.web.address is None:
        yield "web.detections (--boxes) are drawn on the page: open it with --web"
    if settings.web.detections_keys and not settings.web.detections:
        yield "web.detections_keys (--boxes-keys) are for no detector: name one with --boxes"


def _open_page(
    settings: Config, rig: Rig, snapshot: Callable[[], Snapshot], publisher: Publisher | None
) -> WebServer | None:
    """Serve the page, if the configuration names an address."""
    if settings.web.address is None:
        return None
    try:
        from rtfuse.web.rig_view import RigView
        from rtfuse.web.server import WebServer
    except ImportError as e:
        raise ConfigError(f"--web needs {e.name}, which is not installed: {install_hint('web')}") from e
    how, software = settings.web, rtfuse.__version__

    def about() -> dict[str, str]:
        return {"rig": settings.rig, "fuser": str(rig.fuser), "version": software}

    view = RigView(snapshot, about, rig.clock, CAUSES, rig if how.controls else None, publisher)
    return WebServer(
        settings.web.address,
        view,
        allow_remote=how.insecure,
        token=how.token,
        hosts=how.hosts,
        viewers=how.viewers,
        detections=_keyed(how),
        cert=how.cert,
        key=how.key,
    )


def _print_page(how: Web, server: WebServer, console: Console) -> None:
    """Print the page's address, and the login where it needs a token."""
    from rtfuse.web.qr import qr_code

    console.print(f"answering on {server.url}", soft_wrap=True)
    if not server.token_needed:
        return
    # A token that somebody chose stays out of logs; a random one is nowhere else to be found.
    login = server.login if console.is_terminal or not how.token else server.login.partition("#")[0]
    console.print(f"log in at {login}", soft_wrap=True, highlight=False, markup=False)
    if server.plain:
        console.print("nothing of it is encrypted: whoever is on the way can read it", style="yellow")
    if console.is_terminal:
        console.print(qr_code(server.login), style="black on white", highlight=False)


def _keyed(how: Web) -> dict[str, str | None]:
    """Return where boxes come from, with the file of keys for each."""
    listed = [Detector(endpoint=d) if isinstance(d, str) else d for d in how.detections]
    return {d.endpoint: d.keys or how.detections_keys for d in listed}


def _tap(recorder: RawRecorder, frame: Frame) -> None:
    recorder.write(frame.sent)


def record_raw(settings: Config, signals: Signals, console: Console) -> RecordSummary:
    """`rtfuse record`: both streams as they come, into one file; returns what was recorded and why it ended."""
    sources: dict[Stream, Source] = {}
    with ExitStack() as stack:
        for stream in STREAMS:
            sources[stream] = stack.enter_context(closing(open_lasting(settings, stream)))
        recorder = open_raw(settings, sources)
        console.print(f"recording to {settings.raw.path}; Ctrl-C ends it", soft_wrap=True, markup=False)
        return record(sources, recorder, signals.stop, duration_s=settings.duration_s, frames=settings.frames)


def fuse_recordings(
    settings: Config,
    signals: Signals,
    console: Console,
    output: Path,
    *,
    side_by_side: bool = False,
    picture: Path | None = None,
    force: bool = False,
) -> Snapshot:
    """`rtfuse fuse`: every pair once, in order, into `output`; a failed or interrupted run leaves no output."""
    with ExitStack() as stack:
        rig = stack.enter_context(open_rig(settings))
        console.print(sources_line(rig), soft_wrap=True, markup=False, highlight=False)
        rgb = rig.sources["rgb"].info
        writers: dict[str, Writer] = {}
        writers["record"] = open_writer(
            output, rate_hz=rgb.rate_hz, time_base=rgb.time_base, side_by_side=side_by_side, force=force
        )
        stack.push(partial(_finish, writers["record"]))
        if picture:
            writers["picture"] = PictureWriter(picture, at=(rgb.frames or 1) // 2, force=force)
            stack.push(partial(_finish, writers["picture"]))
        pipeline = Pipeline(rig, writers, age_at="record", stop=signals.stop)
        with _progress(console, pipeline.snapshot, settings.frames or rgb.frames):
            result = pipeline.run(frames=settings.frames)
        if signals.fired:
            raise Interrupted(f"interrupted after {result.frames} frames; {output} was not written")
    return result


def _finish(writer: Writer, failure: type[BaseException] | None, *_: object) -> None:
    """Complete a writer's output; remove it if the run has failed."""
    if failure is None:
        writer.close()
    else:
        writer.abort()


@contextmanager
def _progress(console: Console, snapshot: Callable[[], Snapshot], total: int | None) -> Iterator[None]:
    """Show a bar with the frames done, their rate and the time left, while the block runs."""
    columns = (
        TextColumn("fusing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task, over = progress.add_task("", total=total, rate=""), threading.Event()

        def follow() -> None:
            while not over.wait(0.2):
                now = snapshot()
                progress.update(task, completed=now.frames, rate=f"{now.recent_hz:.0f} frames/s")

        thread = threading.Thread(target=follow, name="rtfuse-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(1.0)
            progress.update(task, completed=snapshot().frames)


def bench_and_print(
    console: Console,
    ir: str | None,
    rgb: str | None,
    *,
    fuser: str | None,
    weights: str | None,
    engines: str | None,
    frames: int,
    size: str,
    batch: str,
    json_file: Path | None,
) -> None:
    """`rtfuse bench`: the stages on two recordings, or on the synthetic scene recorded in `size`; or the engines."""
    from rtfuse.bench import stages as bench

    if (ir is None) != (rgb is None):
        raise ConfigError("rtfuse bench needs both --ir and --rgb, or neither")
    sizes = [size_of(text) for text in size.split(",")]
    numbers: dict[str, Any] = {"machine": bench.machine()}
    if engines:
        from rtfuse.bench.engines import as_json, bench_engines
        from rtfuse.bench.engines import table as engines_table

        counts = [int(n) for n in batch.split(",") if n.isdigit() and int(n)]
        if not counts:
            raise ConfigError(f"--batch {batch!r}: want numbers, for example 1,4")
        rows = bench_engines(engines.split(","), sizes, batches=counts, weights=weights, frames=frames)
        title = f"U-Fuser, raw bytes to fused bytes, engines in turn; {bench.machine()}"
        _print_whole(console, engines_table(rows, title))
        numbers = as_json(rows, bench.machine())
    else:
        name = fuser or DEFAULT_FUSER
        with tempfile.TemporaryDirectory() as folder:
            if ir is None or rgb is None:
                ir, rgb = bench.record_scene(Path(folder), sizes[0], frames + bench.WARM_UP)
            watch = bench.bench_stages(ir, rgb, fuser_name=name, weights=weights, frames=frames)
        console.print(bench.table(watch, f"{name}, milliseconds per frame; {bench.machine()}"))
        numbers |= {"fuser": name, "stages_ms": bench.rows(watch)}
    if json_file:
        json_file.write_text(json.dumps(numbers, indent=1))


def _print_whole(console: Console, grid: Table) -> None:
    """Print a table as wide as it is where nobody looks at a terminal."""
    wide = Console(width=200, highlight=False) if not console.is_terminal else console
    wide.print(grid)


def _engine(name: str) -> Engine:
    for known in get_args(Engine):
        if name == known:
            return known
    raise ConfigError(f"no engine is called {name!r}: there are {', '.join(get_args(Engine))}")


def list_engines(console: Console) -> None:
    """`rtfuse engines list`: what is kept, for what, how large, and when it was last used."""
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
    """`rtfuse engines clear`: remove everything that is kept."""
    from rtfuse.fuse.engines.cache import clear

    gone = clear()
    console.print(f"{len(gone)} engines removed, {sum(e.size_bytes for e in gone) / 1e6:.1f} MB")


def build_engine(console: Console, engine: str, weights: str | None, rgb_size: str, ir_size: str | None) -> None:
    """`rtfuse engines build`: build, or load, the engine for these sizes, check it, and say how long that took."""
    from rtfuse.fuse import open_fuser

    (w, h), (iw, ih) = size_of(rgb_size), size_of(ir_size or rgb_size)
    start = time.monotonic()
    fuser = open_fuser("ufuser", weights=weights, engine=_engine(engine))
    fuser.prepare((ih, iw), (h, w))
    console.print(f"{fuser}: ready for {w}x{h} after {time.monotonic() - start:.1f} s", soft_wrap=True)


def size_of(text: str) -> tuple[int, int]:
    """Return WIDTHxHEIGHT as numbers. Raises ConfigError."""
    try:
        width, height = map(int, text.split("x"))
    except ValueError:
        width = height = 0
    if width < 1 or height < 1:
        raise ConfigError(f"size {text!r}: want WIDTHxHEIGHT, for example 640x480")
    return width, height
