"""Tell paths, patterns and addresses apart, and name files so that FFmpeg takes them for files."""

from __future__ import annotations

import glob
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer

_NETWORK = re.compile(r"(rtsps?|https?|udp|rtp|srt|tcp|rtmps?)://", re.IGNORECASE)
_NUMBER = re.compile(r"%(?:%|0?(\d*)d)")
_SCRIPT = b"ffconcat version"
_SCRIPT_SUFFIX = ".ffconcat"
_RELATIVE = re.compile(rb"^(\s*file\s+)(?!'?(?:/|\w+://|file:))(?=\S)", re.MULTILINE)


def is_network(uri: str) -> bool:
    """Return True for the address of a network stream: a known scheme and `://`, and no file of that name."""
    return _NETWORK.match(uri) is not None and not Path(uri).exists()


def is_device(uri: str) -> bool:
    """Return True for a camera: what lies below `/dev`, without files and pipes (`/dev/stdin`, `/dev/shm/…`)."""
    if not uri.startswith("/dev/"):
        return False
    try:
        return stat.S_ISCHR(os.stat(uri).st_mode)
    except OSError:
        return True


def is_pipe(path: str | Path) -> bool:
    """Return True for a pipe or a socket (`/dev/stdin`, `<(command)`), which can be read once."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_pattern(uri: str) -> bool:
    """Return True for a pattern of several files (`*`, `?`, `[…]`, `%04d`), and no file of that name."""
    return (any(c in uri for c in "*?[") or any(m[1] is not None for m in _NUMBER.finditer(uri))) and not exists(uri)


def exists(path: str | Path) -> bool:
    """Return True if there is such a file, also for a name that no file can have."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long, a zero byte
        return False


def matches(pattern: str) -> list[str]:
    """Return the files of a pattern, unsorted: `*`, `?`, `[…]`, and `%d` or `%04d` for a number of so many digits.

    A folder in it that exists as it is written is taken as it is.
    """
    named, rest = _known_folder(pattern)
    if any(m[1] is not None for m in _NUMBER.finditer(rest)) and not any(c in rest for c in "*?["):
        return list(_numbered(named, rest))
    return glob.glob(glob.escape(named) + rest, recursive=True)


def _known_folder(pattern: str) -> tuple[str, str]:
    """Split a pattern behind its longest folder that exists as it is written."""
    at = len(pattern)
    while (at := pattern.rfind("/", 0, at)) >= 0:
        if Path(pattern[: at + 1]).is_dir():
            return pattern[: at + 1], pattern[at + 1 :]
    return "", pattern


def _numbered(folder: str, rest: str) -> Iterator[str]:
    """Yield the files below a folder whose path fits `%04d`, `%d` and `%%`."""
    parts, at = list[str](), 0
    loose = ""
    for found in _NUMBER.finditer(rest):
        text = rest[at : found.start()]
        digits = "%" if found[1] is None else rf"\d{{{found[1] or 1},}}"
        parts += [re.escape(text), digits]
        loose += glob.escape(text) + ("%" if found[1] is None else "*")
        at = found.end()
    fits = re.compile("".join([*parts, re.escape(rest[at:])]))
    for path in glob.glob(glob.escape(folder) + loose + glob.escape(rest[at:])):
        if fits.fullmatch(path[len(folder) :]):
            yield path


def ffmpeg_name(path: str | Path) -> str:
    """Return the name by which FFmpeg opens a file as a file: `file:` and the path.

    Without the prefix, it takes `12:30.mp4` for an address of the protocol `12`.
    """
    return f"file:{path}"


_LIST = {"safe": "0", "segment_time_metadata": "1"}
"""Options of a list of recordings: any file; each packet names the times of its file."""


def open_file(path: str | Path) -> InputContainer:
    """Open a recording with FFmpeg, which then opens no network stream that the file may name.

    A list of recordings (`ffconcat`) is one only if its name ends in `.ffconcat`; it may name any file, and files only.
    Raises av.error.FFmpegError, and OSError.
    """
    import av

    more = {"protocol_whitelist": "file,crypto,data"}
    if str(path).lower().endswith(_SCRIPT_SUFFIX):
        return av.open(io.BytesIO(_script(path)), "r", format="concat", options=more | _LIST)
    return av.open(ffmpeg_name(path), "r", options=more)


def _script(path: str | Path) -> bytes:
    """Return a list of recordings with its relative names made absolute: FFmpeg takes `12:30.mp4` for an address."""
    folder = os.path.dirname(os.path.abspath(path))
    quoted = "'" + f"{folder}/".replace("'", r"'\''") + "'"
    return _RELATIVE.sub(lambda m: m[1] + os.fsencode(quoted), Path(path).read_bytes())


def is_disguised_script(path: str | Path) -> bool:
    """Return True for a file that FFmpeg would take for a list of recordings, though its name is not that of one."""
    if str(path).lower().endswith(_SCRIPT_SUFFIX) or not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        return file.read(len(_SCRIPT)) == _SCRIPT
