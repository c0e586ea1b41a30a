"""Check output files before the work begins, and write them whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtfuse.errors import OutputUnwritable
from rtfuse.outputs import is_special, replace_file, try_in


def check_output(option: str, path: Path, suffixes: Sequence[str] = ()) -> None:
    """Make the folder of an output and see that a file can be written there; an existing file stays as it is.

    `option` names it in errors; `suffixes`: those that it may have, any if there are none. Raises OutputUnwritable.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise OutputUnwritable(f"{option} {path}: the name must end in {' or '.join(suffixes)}")
    if path.is_dir():
        raise OutputUnwritable(f"{option} {path} is a folder; name a file in it")
    try:
        if is_special(path):
            path.open("ab").close()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        try_in(path.parent)
    except OSError as e:
        raise OutputUnwritable(f"{option} {path} cannot be written: {e.strerror or e}") from e


def write_output(option: str, path: Path, data: bytes) -> None:
    """Write an output that `check_output` has seen. Raises OutputUnwritable."""
    try:
        replace_file(path, data)
    except OSError as e:
        raise OutputUnwritable(f"{option} {path} cannot be written: {e.strerror or e}") from e
