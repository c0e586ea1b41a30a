"""Do the work of `rtfuse run`, `fuse` and `record` with the `Config` that their options give."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from math import nan, prod
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rtfuse.capture.paths import matches
from rtfuse.capture.scenes.names import png_names
from rtfuse.capture.scenes.pairing import listed
from rtfuse.capture.tracks import split_track
from rtfuse.cli.notes import open_rig_or_advise
from rtfuse.cli.page import open_page
from rtfuse.cli.radiometric import Refinement
from rtfuse.cli.registering import check_register, registered
from rtfuse.cli.screen import beside
from rtfuse.cli.signals import Signals
from rtfuse.cli.sinks import beside_sink, local_sinks, page_sink, print_note, print_notes, raw_taps
from rtfuse.cli.start import keep_frames_only
from rtfuse.cli.status import one_line, slow_fuser, sources_line, watching
from rtfuse.config import Config
from rtfuse.errors import Interrupted, OutputExists, OutputUnwritable
from rtfuse.observe.stats import Snapshot, Stats
from rtfuse.observe.trace import Trace
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.controls import Controls
from rtfuse.pipeline.outputs import (
    check_outputs,
    describing,
    open_control,
    open_publisher,
    open_raw,
)
from rtfuse.pipeline.priority import raise_priority
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.scenes import Scenes, stills_of
from rtfuse.pipeline.sources import open_lasting
from rtfuse.publish.control import ControlEndpoint
from rtfuse.publish.publisher import About, Publisher
from rtfuse.record.session import RecordSummary, record
from rtfuse.record.video import VIDEO_CODECS, PictureWriter, Writer, check_picture, check_writer, open_writer
from rtfuse.types import LABELS, Sink, Source, Stream


def run_live(
    settings: Config,
    signals: Signals,
    console: Console,
    replay: str | None = None,
    *,
    window: Sink | None = None,
    show: Callable[[Console, Callable[[], Snapshot]], AbstractContextManager[None]] = watching,
) -> Snapshot:
    """`rtfuse run`: fuse at the sources' own pace, publish, record; returns the counts.

    Files are checked and addresses bound before the cameras are opened; an error closes each part that was opened.
    `window` is one more sink; `show` is entered when everything is open, and left at the end.
    """
    check_outputs(settings)
    say = partial(console.print, soft_wrap=not console.is_terminal, markup=False)
    rig: Rig
    running, controls = list[Pipeline](), list[Controls]()
    about: Callable[[], About]
    with ExitStack() as stack:
        publisher = open_publisher(
            settings,
            statistics=lambda: running[0].statistics(),
            states=lambda: rig.states(),
            about=lambda: about(),
            clock=lambda: rig.clock(),
        )
        control = open_control(settings, controls)
        _ = publisher and stack.enter_context(publisher), control and stack.enter_context(control)
        trace = stack.enter_context(Trace(settings.trace, force=settings.record.force)) if settings.trace else None
        rig = stack.enter_context(_open_live(settings, replay, trace, lambda: one_line(running[0].snapshot())))
        about = describing(settings, rig)
        controls.append(Controls(rig))
        say(sources_line(rig))
        print_notes(console, settings, rig, replay)
        taps = raw_taps(settings, rig, console, stack)
        for line in _addresses(publisher, control):
            say(line)
        sinks = _given({"publish": publisher, "window": window}) | local_sinks(settings, rig, console, stack)
        page = open_page(settings, rig, _snapshots(running, rig), publisher, controls[0])
        sinks |= page_sink(settings, page, console, stack)
        age_at = next((name for name in ("publish", "record", "web") if name in sinks), None)
        pipeline = Pipeline(rig, sinks, age_at=age_at, taps=taps, stop=signals.stop)
        running.append(pipeline)
        keep_frames_only(max(prod(source.info.size_wh) * 3 for source in rig.sources.values()))
        with show(console, pipeline.snapshot):
            result = pipeline.run(frames=settings.frames, duration_s=settings.duration_s)
        _note_slow(console, rig, result)
        return result


def _open_live(settings: Config, replay: str | None, trace: Trace | None, status: Callable[[], str]) -> Rig:
    """Open the rig; one with cameras raises the priority of this process."""
    rig = open_rig_or_advise(settings, replay, trace=trace, status=status)
    if rig.live:
        raise_priority(settings.load.nice)
    return rig


def _addresses(publisher: Publisher | None, control: ControlEndpoint | None) -> Iterator[str]:
    """Yield the lines about the addresses of the rig."""
    if publisher is not None:
        yield from (f"publishing {line}" for line in publisher.lines())
    if control is not None:
        yield f"changes of settings on {control.name}"


def _given(sinks: dict[str, Sink | None]) -> dict[str, Sink]:
    """Return the sinks that are there."""
    return {name: sink for name, sink in sinks.items() if sink is not None}


def _snapshots(running: list[Pipeline], rig: Rig) -> Callable[[], Snapshot]:
    """Return a provider of the counts, for the page, which may ask before there is a pipeline."""
    before = Stats(rig.clock)
    return lambda: running[0].snapshot() if running else before.snapshot()


def _note_slow(console: Console, rig: Rig, result: Snapshot) -> None:
    """Say that the fuser was too slow, unless the log has told what was lowered: then it may be another one by now."""
    if result.lowered:
        return
    by_cause = Counter[str]()
    for (_, cause), count in result.drops.items():
        by_cause[cause] += count
    if by_cause["busy"] + by_cause["queue"] > max(
        by_cause["stale"], result.frames // 20
    ):  # else it was a moment, or the captures
        wrap = not console.is_terminal
        console.print(f"note: {slow_fuser(str(rig.fuser))}", style="yellow", soft_wrap=wrap, markup=False)


def record_raw(settings: Config, signals: Signals, console: Console) -> RecordSummary:
    """`rtfuse record`: write both streams into one file as they come; returns the counts and the cause of the end."""
    check_outputs(settings)
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
    register: bool = False,
    force: bool = False,
) -> Snapshot:
    """`rtfuse fuse`: every pair once, in order, into `output`; a failed or interrupted run leaves no output.

    `register`: finds the calibration from the footage first. Raises OutputExists or OutputUnwritable for an output that
    cannot be written, before anything is opened.
    """
    for path in (output, picture):
        _refuse_input(path, settings)
    if register:  # what it kept is told before an output that exists
        check_register(settings, output, force=force)
    _check_files(output, picture, force=force)
    refinement = Refinement()
    scenes = Scenes(mixed=output.suffix.lower() not in VIDEO_CODECS, refine=refinement)
    if register:
        settings = registered(settings, output, signals, console, scenes=scenes, force=force)
    with ExitStack() as stack:
        rig = stack.enter_context(open_rig(settings, scenes=scenes))
        rig.check_overlap()
        _announce(console, settings, rig, output)
        writers = _writers(rig, output, picture, stack, side_by_side=side_by_side, force=force)
        sinks = {**writers, **beside_sink(settings, rig, console, stack)}
        pipeline = Pipeline(rig, sinks, age_at="record", stop=signals.stop)
        with _progress(console, pipeline.snapshot, settings.frames or rig.sources["rgb"].info.frames):
            result = pipeline.run(frames=settings.frames)
        for line in refinement.lines():
            console.print(line, soft_wrap=True, markup=False, highlight=False)
        if signals.fired:
            raise Interrupted(f"interrupted after {result.frames} frames; {output} was not written")
        _print_damaged(console, rig)
    return replace(result, skew_ms=(nan,) * 3) if rig.stages.scenes else result


def _writers(
    rig: Rig, output: Path, picture: Path | None, stack: ExitStack, *, side_by_side: bool, force: bool
) -> dict[str, Writer]:
    """Open the outputs; the stack completes them, or removes them if the run fails."""
    rgb = rig.sources["rgb"].info
    writers: dict[str, Writer] = {}
    writers["record"] = open_writer(
        output,
        rate_hz=rgb.rate_hz,
        time_base=rgb.time_base,
        utc_ns=None if rgb.utc_ns is None else rgb.utc_ns - (rgb.start_ns or 0),
        side_by_side=side_by_side,
        force=force,
        names=_names(rig),
    )
    stack.push(partial(_finish, writers["record"]))
    if picture:
        writers["picture"] = PictureWriter(picture, at=rgb.frames // 2 if rgb.frames else None, force=force)
        stack.push(partial(_finish, writers["picture"]))
    return writers


def _announce(console: Console, settings: Config, rig: Rig, output: Path) -> None:
    """Print the inputs and the output, and notes on sources that look wrong."""
    for line in (sources_line(rig), f"writing {output}"):
        console.print(line, soft_wrap=True, markup=False, highlight=False)
    print_notes(console, settings, rig)
    if rig.stages.scenes and output.suffix.lower() in VIDEO_CODECS:
        print_note(console, "each picture is fused by itself; --sequence fuses them as one video")


def _names(rig: Rig) -> list[str] | None:
    """Return the file names for a folder of fused pictures: those of RGB's stills."""
    stills = stills_of(rig, "rgb")
    return None if stills is None else png_names([still.name for still in stills.stills])


def _print_damaged(console: Console, rig: Rig) -> None:
    """Print the names of the stills that could not be read."""
    sides = {stream: stills for stream in STREAMS if (stills := stills_of(rig, stream)) is not None}
    for stream, stills in sides.items():
        if not stills.damaged:
            continue
        names = [stills.stills[k].name for k in stills.damaged]
        if rig.chosen is not None and not rig.chosen.timed:
            (partners,) = (side.stills for other, side in sides.items() if other != stream)
            names = [f"{name} (partner {partners[k].name})" for name, k in zip(names, stills.damaged, strict=True)]
        line = f"{LABELS[stream]}: {len(names)} of {len(stills.stills)} cannot be read: {listed(names)}"
        console.print(line, style="yellow", soft_wrap=not console.is_terminal, markup=False, highlight=False)


def _check_files(output: Path, picture: Path | None, *, force: bool) -> None:
    """Raise OutputExists or OutputUnwritable for outputs that cannot be written, or are one file."""
    check_writer(output, force=force)
    if picture is None:
        return
    check_picture(picture, force=force)
    if os.path.realpath(output) == os.path.realpath(picture):
        raise OutputUnwritable(f"output {output} and --picture name the same file; give each its own")


def _refuse_input(output: Path | None, settings: Config) -> None:
    """Raise OutputExists for an output that is, or holds, one of the inputs: with --force it could replace it."""
    if output is None or not output.exists():
        return
    place = os.path.realpath(output)
    for file in [split_track(uri)[0] for uri in (settings.ir.uri, settings.rgb.uri) if uri]:
        for path in [file] if Path(file).exists() else matches(file):
            if place in (real := os.path.realpath(path), *map(str, Path(real).parents)):
                what = "is" if place == real else "holds"
                raise OutputExists(f"output {output} {what} the input {path}; choose another name with -o")


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
        task = progress.add_task("", total=total, rate="")

        def follow(over: threading.Event) -> None:
            while not over.wait(0.2):
                now = snapshot()
                progress.update(task, completed=now.frames, rate=f"{now.recent_hz:.0f} frames/s")

        with beside("rtfuse-progress", follow):
            yield
        progress.update(task, completed=snapshot().frames)
