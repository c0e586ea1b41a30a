"""Read how long tasks of this machine have waited for a processor: Linux's pressure stall information (PSI)."""

from __future__ import annotations

from pathlib import Path

_FILE = Path("/proc/pressure/cpu")


def waited_ns(file: Path = _FILE) -> int:
    """Return the time in which at least one task has waited for a processor, since the start, in nanoseconds.

    0 where the system does not say. The file's `total` is in microseconds (Documentation/accounting/psi.rst of Linux).
    """
    try:
        text = file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0
    total = text.partition("\n")[0].rpartition("total=")[2]
    return 1000 * int(total) if text.startswith("some ") and total.isdigit() else 0
