"""Hide the messages that image decoders print about damaged input; the commands report it in one line."""

from __future__ import annotations

import os
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO, TextIOWrapper

_NOISE = re.compile(
    rb"\[ *(?:DEBUG|INFO|WARN|ERROR|FATAL) *:\d+@|libpng (?:error|warning)|Corrupt JPEG data|Premature end of JPEG|"
    rb"Invalid SOS parameters|Inconsistent progression sequence|Warning: unknown JFIF|Application transferred too"
)
"""OpenCV's log, libpng's messages, and libjpeg's warnings; each decodes in our process and knows no other place."""
_JOIN_S = 0.5


@contextmanager
def filtered() -> Iterator[None]:
    """Filter the standard error of the process while the block runs; it changes the whole process.

    Python's own `sys.stderr` goes around the filter. All other lines of native code pass, a little later.
    """
    warnings.simplefilter("ignore", RuntimeWarning)  # NumPy's, about values that the code behind it checks
    before = sys.stderr
    if before is None or before.fileno() != 2:  # closed from the start, or somebody else's already
        yield
        return
    before.flush()
    kept, (reading, writing) = os.dup(2), os.pipe()
    sys.stderr = TextIOWrapper(
        FileIO(kept, "w", closefd=False), before.encoding, "backslashreplace", line_buffering=True, write_through=True
    )
    os.dup2(writing, 2)
    os.close(writing)
    thread = threading.Thread(target=_forward, args=(reading, kept), name="rtfuse-noise", daemon=True)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = before
        os.dup2(kept, 2)  # the last writer of the pipe, except programs that still run
        thread.join(_JOIN_S)


def _forward(reading: int, kept: int) -> None:
    """Copy lines, without noise and the empty lines behind it, until the other end is closed."""
    noisy = False
    with open(reading, "rb") as lines:
        for line in lines:
            noisy = _NOISE.match(line) is not None or (noisy and not line.strip())
            if not noisy:
                os.write(kept, line)
