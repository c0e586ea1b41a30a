"""Store built engines in a private folder, under a key of all that they depend on; check them before each use.

An entry is a folder named by a digest of its key; `manifest.json` in it holds the key and the digest of every file. It
appears whole or not at all. An entry that is damaged, incomplete, of another user or of another key is built again;
nothing is ever unpickled. Beyond `LIMIT_BYTES` in total, the least recently used go.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rtfuse.folders import user_folder

Key = Mapping[str, str]

_MANIFEST = "manifest.json"
LIMIT_BYTES = 2 << 30
_log = logging.getLogger("rtfuse.fuse")


@dataclass(frozen=True, slots=True)
class Entry:
    """Stored engine: its folder, its key, its size, and the time of its last use (seconds since 1970)."""

    folder: Path
    key: dict[str, str]
    size_bytes: int
    used_s: float


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/rtfuse/engines` (`~/.cache/…`), which only its owner can enter.

    Raises OSError if it cannot be made.
    """
    folder = user_folder("XDG_CACHE_HOME") / "engines"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError as e:
        why = f"{e.strerror}; set XDG_CACHE_HOME to a folder that can be written"
        raise OSError(e.errno, why, str(folder)) from e
    return folder


def cached(key: Key, build: Callable[[Path], None], *, folder: Path | None = None) -> Path:
    """Return the folder of this key's files; call `build` with an empty folder if it does not exist.

    Where nothing can be kept, a line in the log says so, and the folder lasts until the end of the program. Raises
    OSError without a temporary folder.
    """
    try:
        return _kept(key, build, folder or cache_folder())
    except OSError as e:
        _log.warning("this engine cannot be kept, and is built at each start: %s", e)
    passing = Path(tempfile.mkdtemp(prefix="rtfuse-engine-"))
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    build(passing)
    return passing


def _kept(key: Key, build: Callable[[Path], None], folder: Path) -> Path:
    entry = folder / hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]
    if _sound(entry, key):
        os.utime(entry)
        return entry
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        build(scratch)
        manifest = {"key": dict(key), "files": {p.name: digest(p) for p in sorted(scratch.iterdir())}}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(entry, ignore_errors=True)
        try:
            scratch.rename(entry)
        except OSError:
            if not _sound(entry, key):  # another process was quicker: then its entry is as good
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _shrink(folder, entry)
    return entry


def entries(folder: Path | None = None) -> list[Entry]:
    """Return the entries, the last used first; a damaged entry has an empty key."""
    found = []
    for path in (folder or cache_folder()).iterdir():
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            key = {str(k): str(v) for k, v in json.loads((path / _MANIFEST).read_text())["key"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            key = {}
        try:
            size, used_s = sum(p.stat().st_size for p in path.iterdir()), path.stat().st_mtime
        except FileNotFoundError:  # another process has just removed it
            continue
        found.append(Entry(path, key, size, used_s))
    return sorted(found, key=lambda entry: -entry.used_s)


def clear(folder: Path | None = None) -> list[Entry]:
    """Remove all stored engines, and return their entries."""
    gone = entries(folder)
    for entry in gone:
        shutil.rmtree(entry.folder, ignore_errors=True)
    return gone


def _shrink(folder: Path, newest: Path) -> None:
    total = 0
    for entry in entries(folder):
        total += entry.size_bytes
        if total > LIMIT_BYTES and entry.folder != newest:
            shutil.rmtree(entry.folder, ignore_errors=True)


def _sound(entry: Path, key: Key) -> bool:
    try:
        manifest = json.loads((entry / _MANIFEST).read_text())
        mine = not hasattr(os, "getuid") or entry.stat().st_uid == os.getuid()
        files = manifest["files"]
        return mine and manifest["key"] == dict(key) and all(digest(entry / n) == d for n, d in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def digest(*paths: Path) -> str:
    """Return the SHA-256 of files, one after the other."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def installed(package: str) -> str:
    """Return the version of an installed package, for keys."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
