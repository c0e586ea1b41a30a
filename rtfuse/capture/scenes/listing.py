"""List the pictures of a folder, a pattern or a single file, by their names in it; hidden files are not pictures."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rtfuse.capture.images import SUFFIXES, is_image
from rtfuse.capture.paths import exists, matches
from rtfuse.errors import SourceNotFound
from rtfuse.types import LABELS, Stream

_CLUTTER = frozenset(["thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"])
"""Files and folders that systems leave among pictures, beside those whose name begins with a dot."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Names of pictures below `root`, with `/` between their parts.

    - `broken`: names of links that lead nowhere; they are in `names` too.
    - `other`: names of files that are not pictures.
    """

    root: Path
    names: tuple[str, ...]
    broken: frozenset[str] = frozenset()
    other: tuple[str, ...] = ()

    def path(self, name: str) -> str:
        """Return the path of a picture."""
        return str(self.root / name)


def list_pictures(uri: str, stream: Stream, *, recursive: bool = False) -> Listing:
    """List a folder (with its subfolders if `recursive`), the files that match a pattern, or one file.

    Raises SourceNotFound if it has none.
    """
    path, label = Path(uri), LABELS[stream]
    if path.is_dir():
        made = _sorted_out(path, _files(path, recursive=recursive))
        if not made.names:
            deeper = not recursive and _sorted_out(path, _files(path, recursive=True)).names
            hint = "; its subfolders do: add --recursive" if deeper else f" ({' '.join(sorted(SUFFIXES))})"
            raise SourceNotFound(f"{label} folder {uri} holds no images{hint}")
        return made
    if exists(path) or path.is_symlink():
        return Listing(path.parent, (path.name,))
    found = [Path(name) for name in matches(uri)]
    root = _root(uri)
    made = _sorted_out(root, (p.relative_to(root).as_posix() for p in found if not p.is_dir()))
    if not made.names:
        raise SourceNotFound(f"{label} image not found: {uri}")
    return made


def _files(folder: Path, *, recursive: bool) -> Iterable[str]:
    """Yield the names of the files of a folder and, if `recursive`, of its subfolders, also of linked ones once.

    Raises OSError for a folder that cannot be read.
    """
    seen = set[tuple[int, int]]()
    for base, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = os.stat(base)
        again = (here.st_dev, here.st_ino) in seen
        seen.add((here.st_dev, here.st_ino))
        folders[:] = [] if again or not recursive else sorted(name for name in folders if not _is_clutter(name))
        if not again:
            yield from ((Path(base) / name).relative_to(folder).as_posix() for name in files)


def _raise(error: OSError) -> None:
    raise error


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _CLUTTER


def _root(pattern: str) -> Path:
    """Return the folder of a pattern before its first wildcard."""
    parts = Path(pattern).parts
    first = next(k for k, part in enumerate(parts) if glob.has_magic(part) or k == len(parts) - 1)
    return Path(*parts[:first])


def _sorted_out(root: Path, files: Iterable[str]) -> Listing:
    names, other = list[str](), list[str]()
    for name in files:
        if not _is_clutter(name.rpartition("/")[2]):
            (names if is_image(name) else other).append(name)
    broken = frozenset(name for name in names if not (root / name).exists())
    return Listing(root, tuple(names), broken, tuple(sorted(other)))
