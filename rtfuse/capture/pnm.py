"""Read what the header of a PNM file (PGM, PPM) says of its values."""

from __future__ import annotations

import re

_BINARY = re.compile(rb"P[56](?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+\d+(?:\s|#[^\n]*\n)+(\d{1,5})\s")
_HEADER = 4096


def white(data: bytes | memoryview) -> int | None:
    """Return the value of white in a binary PGM or PPM, 1 to 65535; None for other data.

    Decoders give the values as they are. Of text (P2, P3) with values of 8 bits they scale them.
    """
    found = _BINARY.match(bytes(data[:_HEADER]))
    return int(found[1]) if found and 0 < int(found[1]) <= 65535 else None
