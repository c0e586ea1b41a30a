"""Start a command line; an error while its modules are imported is one line too."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from importlib import import_module

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Parameters of mallopt(3): free bytes that a heap keeps, size of blocks outside of it, heaps of a process."""


def share_heap() -> None:
    """Let all threads allocate from one heap, where the C library is glibc.

    It would give each thread a heap of its own, which keeps what the largest frames took: some 20 MB of a live rig.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def keep_frames_only(frame_bytes: int) -> None:
    """Keep freed memory for frames of this size, and return what is larger to the system, where the C library is glibc.

    Left alone, it keeps twice the largest block that was ever freed, which is one of the network's: some 6 MB of a rig.
    """
    libc = ctypes.CDLL(None)
    if getattr(libc, "mallopt", None) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, frame_bytes + frame_bytes // 8)
        libc.mallopt(_M_TRIM_THRESHOLD, 2 * frame_bytes)
        libc.malloc_trim(0)


def run(module: str) -> None:
    """Import a module and run its `main`; Ctrl-C or SIGTERM during the import ends the process at once."""
    share_heap()
    if os.getpid() == 1:  # the first process of a container: the kernel drops signals that it has no handler for
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        main = import_module(module).main
    except Exception as e:
        from rtfuse.cli.failures import explained, shown

        if shown():
            raise
        line, status = explained(e)
        print(f"error: {line}", file=sys.stderr)
        sys.exit(status)
    if usual:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
