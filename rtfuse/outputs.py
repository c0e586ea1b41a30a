"""Check an output before the work begins, and write it whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import yaml

from rtfuse.errors import OutputExists, OutputUnwritable


def check_output(path: Path, *, force: bool = False, suffixes: Collection[str] = ()) -> Path:
    """Return the path of a file that can be written, with `~` expanded.

    `force`: True replaces a file that exists.
    `suffixes`: the possible ends of the name, in lower case; empty: any.

    Raises OutputExists, or OutputUnwritable if the path is a folder, its folder is missing or takes no file, or the
    suffix is another one.
    """
    path = _expanded(path)
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix}" if path.suffix else "no suffix"
        raise OutputUnwritable(f"output {path} has {found}; want one of {' '.join(suffixes)}")
    try:
        if path.is_dir():
            raise OutputUnwritable(f"output {path} is a folder; name a file in it")
        if path.is_file() and not force:
            raise OutputExists(f"{path} already exists; --force overwrites it")
        if not is_special(path):
            try_in(path.parent)
    except (OutputExists, OutputUnwritable):
        raise
    except OSError as e:
        raise _unwritable(path, e) from e
    return path


def check_folder(path: Path) -> Path:
    """Return the path of a folder that exists or can be made, with `~` expanded.

    Raises OutputUnwritable if it is a file, or takes no files.
    """
    path = _expanded(path)
    try:
        above = next(p for p in (path, *path.absolute().parents) if p.exists())
        if not above.is_dir():
            raise OutputUnwritable(f"output {path}: {above} is a file; name a folder")
        try_in(above)
    except OutputUnwritable:
        raise
    except OSError as e:
        raise _unwritable(path, e) from e
    return path


def try_in(folder: Path) -> None:
    """Make and remove a file in a folder, which shows that it takes files. Raises OSError."""
    partial = _partial(folder / "x")
    os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o666))
    partial.unlink()


def write_whole(path: str | Path, data: bytes | memoryview) -> None:
    """Do what `replace_file` does, with `~` expanded. Raises OutputUnwritable."""
    path = _expanded(Path(path))
    try:
        replace_file(path, data)
    except OSError as e:
        raise _unwritable(path, e) from e


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole, or leave it as it was, even if the power fails; a pipe or a device gets the bytes.

    Raises OSError that names the file.
    """
    partial = _partial(path)
    try:
        if is_special(path):
            path.write_bytes(data)
            return
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, partial)
        os.replace(partial, os.path.realpath(path))
    except OSError as e:
        raise OSError(e.errno, e.strerror, str(path)) from e
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_yaml(tree: object, path: str | Path) -> None:
    """Write plain values as YAML, innermost lists on one line, whole or not at all. Raises OutputUnwritable."""
    write_whole(path, yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=120).encode())


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as e:
        raise OutputUnwritable(f"output {path}: {e}") from e


def is_special(path: Path) -> bool:
    """Return True for a pipe or a device, which must not be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _partial(path: Path) -> Path:
    real = Path(os.path.realpath(path))
    return real.with_name(f".{real.name[:200]}.{os.getpid()}.partial")


def _unwritable(path: Path, e: OSError) -> OutputUnwritable:
    return OutputUnwritable(f"output {path} cannot be written: {e.strerror or e}")
