"""Show an unforeseen exception as one line; its traceback goes into a file.

`RTFUSE_TRACEBACK=1` shows tracebacks instead, for developers.
Nothing is imported here that could itself be missing.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from types import TracebackType
from typing import Any

import rtfuse
from rtfuse.cli.plain import fit_streams
from rtfuse.errors import RtfuseError, StageFailed, redact
from rtfuse.hints import install_hint, missing_packages
from rtfuse.observe.logs import event

INTERNAL = 70
"""Exit status after an error of the program itself (EX_SOFTWARE of sysexits.h)."""
ENVIRONMENT = 2
"""Exit status after an error of the machine (no file, no memory, no permission), as after a wrong option."""
_OURS = ("rtfuse", "trainer", "calib")
_REMEDIES = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EMFILE: "raise the limit of open files: ulimit -n 65536",
    errno.ENOMEM: "smaller pictures need less memory",
}
_NO_MEMORY = ("not enough memory", "insufficient memory", "bad_alloc", "out of memory", "cannot allocate memory")
_LONGEST = 500
"""Characters of a foreign message that are shown; torch's can be ten thousand."""
_log = logging.getLogger("rtfuse")
_written: dict[tuple[str, str, int], str] = {}
"""The file of every traceback so far, by the exception's type and place: a repeated exception writes no second one."""


def shown() -> bool:
    """Return True if the user wants tracebacks on the terminal."""
    return os.environ.get("RTFUSE_TRACEBACK", "0") not in ("", "0")


def explained(e: BaseException) -> tuple[str, int]:
    """Return one line about an exception, and the exit status.

    An error of the package is its own text. An error of the environment has status 2. Any other is an internal error,
    status 70; its traceback is written to a file that the line names.
    """
    if isinstance(e, StageFailed) and e.__cause__ is not None:
        return f"{str(e).partition(' failed: ')[0]} failed: {explained(e.__cause__)[0]}", e.exit_status
    if isinstance(e, RtfuseError):
        return str(e), e.exit_status
    if (said := _of_environment(e)) is not None:
        return said, ENVIRONMENT
    return internal(e), INTERNAL


def _of_environment(e: BaseException) -> str | None:
    """Return one line about an exception that the environment caused; None for any other."""
    said = _one_line(e)
    if isinstance(e, ImportError) and (e.name or "").partition(".")[0] not in _OURS:
        if not isinstance(e, ModuleNotFoundError):
            return f"{e.name or 'a library'} cannot be loaded: {said}"
        return f"{e.name} is not installed" + (f": {install_hint()}" if missing_packages() else "")
    if isinstance(e, MemoryError) or any(words in said.lower() for words in _NO_MEMORY):
        return f"not enough memory ({said or type(e).__name__}): {_REMEDIES[errno.ENOMEM]}"
    if isinstance(e, OSError) and e.errno is not None:
        names = [os.fsdecode(n) for n in (e.filename, e.filename2) if isinstance(n, (str, bytes))]
        parts = [redact(" and ".join(names)), e.strerror or said]
        remedy = f"; {_REMEDIES[e.errno]}" if e.errno in _REMEDIES else ""
        if "No usable temporary directory" in said:
            remedy = "; set TMPDIR to a folder that can be written"
        return ": ".join(part for part in parts if part) + remedy
    if isinstance(e, UnicodeError):
        return f"text cannot be read or written ({said}): want UTF-8; LC_ALL=C.UTF-8 sets it for this terminal"
    return None


def internal(e: BaseException) -> str:
    """Write the traceback to a private file, once for each place, and return one line that names error and file."""
    what = f"internal error: {': '.join(part for part in (type(e).__name__, _one_line(e)) if part)}"
    last = traceback.extract_tb(e.__traceback__)[-1:]
    place = (type(e).__name__, last[0].filename if last else "", (last[0].lineno or 0) if last else 0)
    text = redact("".join(traceback.format_exception(e)))
    try:
        if place not in _written:
            handle, path = tempfile.mkstemp(prefix="rtfuse-", suffix=".traceback.txt")
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"rtfuse {rtfuse.__version__}, Python {sys.version}, {sys.platform}\n{text}")
            _written[place] = path
    except OSError as unwritable:
        print(text, file=sys.stderr, end="")
        return f"{what}; please report it with the traceback above, which no file could take ({unwritable})"
    return f"{what}; please report it, the traceback is in {_written[place]}"


def watch() -> None:
    """Make output fit every locale, and turn exceptions outside the main thread into log lines.

    It changes the whole process: for command lines only.
    """
    fit_streams()
    if shown():
        sys.excepthook = _traceback
        return
    threading.excepthook = _in_thread
    sys.unraisablehook = _unraisable
    logging.raiseExceptions = False  # a log line that cannot be written has nowhere to be told
    logging.lastResort = _Foreign(logging.WARNING)


def leave(status: str | int | None) -> None:
    """End the process at once with this status if threads are still in native code; return otherwise.

    Python ends its daemon threads by unwinding their stacks as soon as they come back from native code. Where that is
    C++ (a picture being decoded), the process would abort (signal 6) after an otherwise orderly end.
    """
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    if not isinstance(status, int) or not others or not all(thread.daemon for thread in others):
        return
    atexit._run_exitfuncs()  # what Python itself calls at its end
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(status)


def let_go_of_output() -> None:
    """Redirect a standard output that takes nothing more to nowhere, so that Python's last flush does not fail too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _traceback(kind: type[BaseException], e: BaseException, trace: TracebackType | None) -> None:
    print(redact("".join(traceback.format_exception(kind, e, trace))), file=sys.stderr, end="")


def _in_thread(args: Any) -> None:
    _log_exception(args.exc_value or args.exc_type(), args.thread.name if args.thread else "a thread")


def _unraisable(args: Any) -> None:
    _log_exception(args.exc_value or args.exc_type(), getattr(args.object, "__qualname__", type(args.object).__name__))


def _log_exception(e: BaseException, stage: str) -> None:
    """Log an exception outside the main thread, with the thread or function; the program goes on."""
    if not isinstance(e, (SystemExit, KeyboardInterrupt)):
        event(_log, logging.ERROR, "unexpected", _of_environment(e) or internal(e), stage=stage)


class _Foreign(logging.Handler):
    """Show warnings and errors that foreign libraries log, as one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        line = " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[1]:
            line += f": {_of_environment(record.exc_info[1]) or internal(record.exc_info[1])}"
        event(_log, record.levelno, "foreign", f"{record.name}: {line}", stage=record.name)


def _one_line(e: BaseException) -> str:
    text = redact(" ".join(str(e).split()))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
