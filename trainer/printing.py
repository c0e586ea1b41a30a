"""Print lines and tables of the trainer's commands."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

out = Console(highlight=False)


def print_lines(lines: Iterable[str]) -> None:
    """Print each line as it is, without wrapping."""
    for line in lines:
        out.print(line, soft_wrap=True, markup=False)


def print_whole(grid: Table) -> None:
    """Print a table in its own width: a narrow terminal may wrap its lines, but no text is cut."""
    width = Console(width=1000).measure(grid).maximum
    Console(highlight=False, width=max(out.width, width)).print(grid)
