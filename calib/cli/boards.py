"""`calib pattern | boards`: print a board, and find it in pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from calib.cli.app import Force, Ir, Output, Rgb, say
from calib.session import NAMES
from rtfuse.errors import NoDisplay
from rtfuse.outputs import check_folder, check_output
from rtfuse.types import Stream

if TYPE_CHECKING:
    from calib.boards import Finding
    from calib.footage import Moment
    from calib.views import Chooser

BoardText = Annotated[str, typer.Option("--board", help="KIND:COLSxROWS:SPACING, e.g. checkerboard:9x6:25mm.")]


def pattern(
    board: Annotated[str, typer.Argument(help="KIND:COLSxROWS:SPACING, e.g. circles:7x5:30mm.")],
    output: Output,
    paper: Annotated[str, typer.Option(help="A4, A3, A2, letter …")] = "A4",
    force: Force = False,
) -> None:
    """Draw a board to print at true size, with advice for thermal cameras.

    Example: calib pattern circles:7x5:30mm -o board.pdf
    """
    from calib.pattern import SUFFIXES, write_pattern
    from calib.targets import parse_board

    output = check_output(output, force=force, suffixes=SUFFIXES)
    write_pattern(parse_board(board), output, paper=paper)
    say(f"{output}: print at 100 % and check that the ruler is 100 mm long")


def boards(
    board: BoardText,
    output: Annotated[Path, typer.Option("--output", "-o", help="Session folder to write.")],
    ir: Ir = None,
    rgb: Rgb = None,
    every: Annotated[int, typer.Option(help="Use every n-th moment of a recording or camera.", min=1)] = 3,
    limit: Annotated[int, typer.Option(help="Keep at most this many views.", min=6)] = 40,
    moving: Annotated[bool, typer.Option("--moving", help="Keep views of a moving board too.")] = False,
    colourless_rgb: Annotated[bool, typer.Option("--colourless-rgb", help="The RGB camera is monochrome.")] = False,
    force: Force = False,
) -> None:
    """Find a board in stills, recordings or live video, keep the best views, and name the missing ones.

    Example: calib boards --ir ir.mkv --rgb rgb.mkv --board checkerboard:9x6:25mm -o session
    """
    from calib.footage import Footage
    from calib.guide import find_views, save_views
    from calib.session import BOARDS
    from calib.targets import parse_board
    from rtfuse.capture.stills import is_stills

    target = parse_board(board)
    output = check_folder(output)
    if output.exists():
        check_output(output / BOARDS, force=force)
    stills = all(is_stills(s) for s in (ir, rgb) if s)
    with Footage(ir, rgb) as footage, _Watch(footage.live, footage.count) as watch:
        chooser = find_views(
            footage,
            target,
            every=1 if stills else every,
            limit=limit,
            still=not (stills or moving),
            colourless_rgb=colourless_rgb,
            watch=watch,
        )
        session = save_views(chooser, footage, output)
        for stream in footage.sources:
            kept = len(session.points(stream))
            say(f"{NAMES[stream]}: the board in {chooser.seen[stream]} of {chooser.looked} pictures, {kept} views kept")
            for advice in chooser.lacks(stream, session.size_wh(stream)):
                say(f"  still missing: {advice}")
    say(f"{output}: see views.jpg, then run calib intrinsics {output}")


class _Watch:
    """Shows the progress of the search: in a window for live cameras with a display, otherwise as a bar."""

    def __init__(self, live: bool, count: int | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not Console(stderr=True).is_terminal)
        self._task = self._bar.add_task("searching", total=count)
        self._window = None
        if live:
            from rtfuse.view.window import Window

            try:
                self._window = Window("calib boards")
            except NoDisplay:
                say("no display for a guiding picture; end with Ctrl-C, then see the kept views in views.jpg")

    def __enter__(self) -> _Watch:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._window is not None:
            self._window.close()

    def __call__(self, moment: Moment, found: Mapping[Stream, Finding], chooser: Chooser) -> bool:
        """Show a moment and its findings; return False once the person closes the window."""
        from calib.guide import advice, guide_picture

        frame = moment.rgb or moment.ir
        assert frame is not None
        text = f"{len(chooser.kept)} views; {advice(moment, chooser)}"
        self._bar.update(self._task, completed=frame.frame_id + 1, description=text)
        if self._window is None:
            return True
        self._window.draw(guide_picture(moment, found, chooser))
        return not self._window.closed()
