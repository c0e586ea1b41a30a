"""Open the sinks of a running rig, and print notes about it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console

from rtfuse.align.drift import DriftMonitor
from rtfuse.cli.notes import notes
from rtfuse.cli.page import print_page
from rtfuse.cli.registering import beside_watch
from rtfuse.config import Config
from rtfuse.pipeline.outputs import open_raw, open_streams
from rtfuse.pipeline.rig import Rig
from rtfuse.record.live import LiveRecording
from rtfuse.record.raw import RawRecorder
from rtfuse.record.video import open_writer
from rtfuse.types import Frame, Sink

if TYPE_CHECKING:
    from rtfuse.web.server import WebServer


def page_sink(settings: Config, page: WebServer | None, console: Console, stack: ExitStack) -> dict[str, Sink]:
    """Print the page's address and return its sink; none without a page."""
    if page is None:
        return {}
    stack.enter_context(closing(page))
    print_page(settings.web, page, console)
    return {"web": page.live}


def raw_taps(settings: Config, rig: Rig, console: Console, stack: ExitStack) -> list[Callable[[Frame], None]]:
    """Open the recording of both streams, as the configuration says."""
    if not settings.raw.path:
        return []
    recorder = stack.enter_context(closing(open_raw(settings, rig.sources)))
    console.print(f"recording both streams to {settings.raw.path}", soft_wrap=True, markup=False)
    return [partial(_tap, recorder)]


def local_sinks(settings: Config, rig: Rig, console: Console, stack: ExitStack) -> dict[str, Sink]:
    """Open the recording of fused video, the streams and the watch on the registration, as the configuration says."""
    sinks: dict[str, Sink] = {}
    how, rgb = settings.record, rig.sources["rgb"].info
    if how.path:
        writer = open_writer(
            how.path, rate_hz=rgb.rate_hz, time_base=rgb.time_base, side_by_side=how.side_by_side, force=how.force
        )
        sinks["record"] = stack.enter_context(closing(LiveRecording(writer)))
    for name, streamer in open_streams(settings, rig).items():
        sinks[name] = stack.enter_context(closing(streamer))
    if settings.align.monitor and settings.align.calib:
        sinks["drift"] = DriftMonitor(partial(console.print, "warning:", style="yellow", soft_wrap=True))
    return sinks | beside_sink(settings, rig, console, stack)


def beside_sink(settings: Config, rig: Rig, console: Console, stack: ExitStack) -> dict[str, Sink]:
    """Open the watch that compares thermal and RGB of a rig without a calibration."""
    watch = beside_watch(settings, rig, partial(print_note, console))
    return {} if watch is None else {"beside": stack.enter_context(closing(watch))}


def _tap(recorder: RawRecorder, frame: Frame) -> None:
    recorder.write(frame.sent)


def print_notes(console: Console, settings: Config, rig: Rig, replay: str | None = None) -> None:
    """Print notes on what looks wrong in a rig."""
    for note in notes(settings, rig, replay):
        print_note(console, note)


def print_note(console: Console, note: str) -> None:
    """Print one note."""
    wrap = not console.is_terminal  # a terminal gets whole words, a file whole lines
    console.print(f"note: {note}", style="yellow", soft_wrap=wrap, markup=False, highlight=False)
