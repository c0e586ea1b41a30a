"""`rtfuse demo`: the synthetic street, a detector and the page, as one command with one screen."""

from __future__ import annotations

import io
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from rtfuse.cli.app import close, err, log_to, out
from rtfuse.cli.options import Duration, FuserName
from rtfuse.cli.screen import StatusLine

if TYPE_CHECKING:
    from rtfuse.cli.signals import Signals
    from rtfuse.config import Config
    from rtfuse.observe.stats import Snapshot
    from rtfuse.wire.detections import Box
    from rtfuse.wire.message import Header

_STREET = "synthetic:?live=1"
_PAGE, _FRAMES = 8080, 5555
_SHOWN = 3
_BEHIND = 5
"""Niceness of the detector: the rig goes first, as in `rtfuse detect`."""


def demo(
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    fuser: FuserName = None,
    duration: Duration = None,
) -> None:
    """Fuse a synthetic street live, find warm spots in it, and show both on a page in the browser; Ctrl-C ends it.

    Example: rtfuse demo --open
    """
    from rtfuse.cli.addresses import PAGE
    from rtfuse.cli.signals import interruptible
    from rtfuse.hints import need

    need("rtfuse demo", PAGE, "web")
    log_to(err, "text")
    settings, starting = _settings(fuser, duration), StatusLine(out)
    starting.show("starting: drawing the street, loading the fuser …")
    from rtfuse.cli.commands import run_live

    lines = Console(file=io.StringIO(), width=1000, color_system=None)  # the screen has them in its own words

    def job(signals: Signals) -> Snapshot:
        try:
            return run_live(settings, signals, lines, show=_Screen(settings, signals, starting, open_page).shown)
        finally:
            starting.clear()

    result = interruptible(job)
    assert isinstance(lines.file, io.StringIO)
    for line in lines.file.getvalue().splitlines():
        if line.startswith(("note:", "warning:")):
            out.print(line, style="yellow", soft_wrap=not out.is_terminal, markup=False)
    close(result, {})


def _settings(fuser: str | None, duration: float | None) -> Config:
    """Return the demo's settings, on ports that are free; says where that is not the usual one."""
    from rtfuse.cli.addresses import next_free
    from rtfuse.config import load_config

    page, frames = next_free(_PAGE), next_free(_FRAMES)
    for what, usual, taken in (("page", _PAGE, page), ("fused stream", _FRAMES, frames)):
        if taken != usual:
            out.print(f"port {usual} is in use: the {what} is on {taken}", style="yellow", highlight=False)
    options = {
        "rig": "demo",
        "ir.uri": _STREET,
        "rgb.uri": _STREET,
        "publish.endpoint": f"tcp://127.0.0.1:{frames}",
        "publish.planes": ["fused", "ir"],
        "web.address": f"127.0.0.1:{page}",
        "web.detections": [f"tcp://127.0.0.1:{next_free(frames + 1)}"],
        "fuse.fuser": fuser,
        "duration_s": duration,
    }
    return load_config(None, (), options)


class _Screen:
    """Screen of the demo, and the detector whose boxes it counts."""

    def __init__(self, settings: Config, signals: Signals, starting: StatusLine, open_page: bool) -> None:
        self._signals, self._starting, self._open = signals, starting, open_page
        self._endpoint, self._boxes_endpoint = str(settings.publish.endpoint), str(settings.web.detections[0])
        self._page = f"http://{settings.web.address}"
        self._found: tuple[Header, list[Box]] | None = None
        self._said = "starting"
        self._error: Exception | None = None

    @contextmanager
    def shown(self, _: Console, snapshot: Callable[[], Snapshot]) -> Iterator[None]:
        """Detect and show the state while the block runs; raises the detector's error afterwards."""
        from rtfuse.cli.screen import beside, drawable, status
        from rtfuse.cli.status import one_line

        self._starting.clear()
        if not drawable(out):
            out.print(self._addresses())
        if self._open:
            threading.Thread(target=self._browse, name="rtfuse-demo-browser", daemon=True).start()
        drawn = status(out, lambda: self._drawn(snapshot()), lambda: f"{one_line(snapshot())} {self._boxes()}")
        with beside("rtfuse-demo-detector", self._detect), drawn:
            yield
        if self._error is not None:
            raise self._error

    def _browse(self) -> None:
        from rtfuse.pipeline.priority import lower_priority

        lower_priority(0)  # a browser may wait
        if not webbrowser.open(self._page):
            out.print(f"no browser was found: open {self._page}", style="yellow", highlight=False)

    def _detect(self, over: threading.Event) -> None:
        from rtfuse.detect import Report, Warm, Watch, watch
        from rtfuse.pipeline.priority import lower_priority

        lower_priority(_BEHIND)
        how = Watch(self._endpoint, Warm.topic, self._boxes_endpoint)
        report = Report(self._say, lambda _: None, self._note)
        try:
            watch(how, Warm.name, Warm, report, lambda: over.is_set() or self._signals.stop.is_set())
        except Exception as e:  # noqa: BLE001 - raised again at the end of `shown`
            self._error = e
            self._signals.stop.set()

    def _say(self, line: str) -> None:
        self._said = line

    def _note(self, header: Header, boxes: list[Box]) -> None:
        self._found = header, boxes

    def _addresses(self) -> Table:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("page", Text(self._page, style="bold"))
        grid.add_row("watch", f"rtfuse view {self._endpoint}")
        grid.add_row("Python", f'rtfuse.Subscriber("{self._endpoint}")')
        return grid

    def _boxes(self) -> str:
        """Return the boxes of the newest frame in words, the best first."""
        if self._found is None:
            return self._said
        boxes = sorted(self._found[1], key=lambda box: -box.score)
        spots = ", ".join(f"{b.width:.0f}x{b.height:.0f} at {b.x:.0f},{b.y:.0f}" for b in boxes[:_SHOWN])
        return f"{len(boxes)} warm spots" + (f": {spots}" if spots else "") + (", …" if len(boxes) > _SHOWN else "")

    def _drawn(self, s: Snapshot) -> Group:
        from rtfuse.cli.status import drop_lines

        fuser = ""
        if self._found:
            fuser = f" by {self._found[0].fuser}" if self._found[0].fuser != "none" else ", one camera alone"
        grid = self._addresses()
        grid.add_row("", "")
        grid.add_row("fused", f"{s.recent_hz:.1f} frames/s{fuser}, {s.frames} so far")
        age = f"{s.age_ms[0]:.0f} ms (95 % below {s.age_ms[1]:.0f} ms), from capture to publishing"
        grid.add_row("age", age if s.frames else "-")
        for k, line in enumerate(drop_lines(s)):
            grid.add_row("" if k else "dropped", Text(line))
        grid.add_row("detector", Text(self._boxes(), overflow="ellipsis", no_wrap=True))
        title = Text("A street at night, drawn by rtfuse, as two cameras see it. Ctrl-C ends it.\n")
        return Group(title, grid)
