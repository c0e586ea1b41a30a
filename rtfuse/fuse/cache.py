"""Built engines, kept in a private folder: found again by everything that they depend on, and never trusted unseen.

An entry is a folder named by a digest of its key; `manifest.json` in it holds the key and the digest of every file. It
appears whole or not at all. What is damaged, incomplete, somebody else's or of another key is built anew; nothing is
ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

Key = Mapping[str, str]

_MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Return `$XDG_CACHE_HOME/rtfuse/engines` (`~/.cache/…`), which only its owner can enter."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "rtfuse" / "engines"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.chmod(0o700)
    return folder


def cached(key: Key, build: Callable[[Path], None], *, folder: Path | None = None) -> Path:
    """Return the folder of what `build` writes into an empty folder for this key; it is called only if need be.

    Raises OSError if there is nowhere to write.
    """
    folder = folder or cache_folder()
    entry = folder / hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:24]
    if _sound(entry, key):
        return entry
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        build(scratch)
        manifest = {"key": dict(key), "files": {p.name: _digest(p) for p in sorted(scratch.iterdir())}}
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        shutil.rmtree(entry, ignore_errors=True)
        try:
            scratch.rename(entry)
        except OSError:
            if not _sound(entry, key):  # another process was quicker: then its entry is as good
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return entry


def _sound(entry: Path, key: Key) -> bool:
    try:
        manifest = json.loads((entry / _MANIFEST).read_text())
        mine = not hasattr(os, "getuid") or entry.stat().st_uid == os.getuid()
        files = manifest["files"]
        return mine and manifest["key"] == dict(key) and all(_digest(entry / n) == d for n, d in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
