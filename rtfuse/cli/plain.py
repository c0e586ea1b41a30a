"""Write ASCII in place of characters that the terminal's encoding lacks."""

from __future__ import annotations

import codecs
import os
import sys

_SIGNS = {
    "×": "x", "±": "+-", "…": "...", "–": "-", "−": "-", "─": "-", "│": "|", "→": "->", "·": "*", "÷": "/", "≤": "<=",
    "≥": ">=", "↑": "^", "↓": "v", "°": " deg", "µ": "u", "²": "2", "³": "3", "✓": "ok", "█": "#", "▀": "#", "▄": "#",
}  # fmt: skip
_ERRORS = "rtfuse.plain"


def plain(text: str) -> str:
    """Return a text as standard output will show it, for columns that have to be as wide as that."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, _ERRORS).decode(encoding)


def fit_streams() -> None:
    """Make standard output and standard error take every text: what their encoding lacks is replaced.

    `LC_ALL=C` asks for ASCII, where Python would write UTF-8 (PEP 540).
    """
    encoding = "ascii" if os.environ.get("LC_ALL") in ("C", "POSIX") else None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding=encoding, errors=_ERRORS)


def _replaced(e: UnicodeError) -> tuple[str | bytes, int]:
    """Return signs of ASCII for the characters that cannot be encoded, and the place behind them."""
    if not isinstance(e, UnicodeEncodeError):
        raise e
    lacking = e.object[e.start : e.end]
    return "".join(_SIGNS.get(c) or c.encode("ascii", "backslashreplace").decode() for c in lacking), e.end


codecs.register_error(_ERRORS, _replaced)
