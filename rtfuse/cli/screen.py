"""Draw a status in place on a terminal, and as lines where another program may write too."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.logging import RichHandler

_REFRESH_S = 0.25


def drawable(console: Console) -> bool:
    """Return True if this process alone writes to the console's terminal: it is its foreground program.

    A program behind `&` writes lines instead. A script without job control starts it in the foreground group of the
    terminal, but with another standard input: both are asked for.
    """
    if not console.is_terminal or console.is_dumb_terminal:
        return False
    if not hasattr(os, "tcgetpgrp"):  # Windows
        return True
    try:
        return os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False


@contextmanager
def status(
    console: Console, draw: Callable[[], RenderableType], line: Callable[[], str], every_s: float = 5.0
) -> Iterator[None]:
    """Show `draw` in place while the block runs and the console is drawable, else print `line` every `every_s`.

    Ctrl-Z, `bg` and `fg` change between them.
    """
    with beside("rtfuse-status", lambda over: _follow(console, draw, line, every_s, over)):
        yield


@contextmanager
def beside(name: str, job: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a job in a thread while the block runs; the event tells it to end."""
    over = threading.Event()
    thread = threading.Thread(target=job, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1.0)


def _follow(
    console: Console,
    draw: Callable[[], RenderableType],
    line: Callable[[], str],
    every_s: float,
    over: threading.Event,
) -> None:
    due = time.monotonic() + every_s
    while not over.is_set():
        if drawable(console):
            _draw_in_place(console, draw, over)
        elif time.monotonic() >= due:
            due = time.monotonic() + every_s
            console.print(f"{time.strftime('%H:%M:%S')} {line()}", soft_wrap=True, highlight=False, markup=False)
        over.wait(_REFRESH_S)


def _draw_in_place(console: Console, draw: Callable[[], RenderableType], over: threading.Event) -> None:
    """Draw until the end, or until another program has the foreground."""

    def drawn() -> RenderableType:
        return Constrain(draw(), console.width - len("^C") - 1)  # which the terminal writes behind the last line

    with _log_above(console), Live(drawn(), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while not over.wait(_REFRESH_S) and drawable(console):
            live.update(drawn(), refresh=True)
        live.update(drawn())


@contextmanager
def _log_above(console: Console) -> Iterator[None]:
    """Print log lines above the live status."""
    handlers = [h for h in logging.getLogger("rtfuse").handlers if isinstance(h, RichHandler) and h.console.is_terminal]
    before = [(handler, handler.console) for handler in handlers]
    for handler in handlers:
        handler.console = console
    try:
        yield
    finally:
        for handler, its in before:
            handler.console = its


class StatusLine:
    """Show one line that changes: in place on a terminal of its own, else every `every_s`."""

    def __init__(self, console: Console, every_s: float = 5.0) -> None:
        self._console, self._every_s = console, every_s
        self._drawn, self._due = False, 0.0

    def show(self, text: str) -> None:
        """Replace the line."""
        if drawable(self._console):
            self._console.file.write(f"\r\x1b[2K{text[: self._console.width - 1]}")
            self._console.file.flush()
            self._drawn = True
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            self.print(text)

    def print(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)

    def clear(self) -> None:
        """Remove the line from the terminal."""
        if self._drawn:
            self._console.file.write("\r\x1b[2K")
            self._console.file.flush()
            self._drawn = False
