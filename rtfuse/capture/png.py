"""PNG's frame of chunks (ISO/IEC 15948, section 5): what must hold before a decoder sees the data."""

from __future__ import annotations

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_whole(data: bytes | memoryview) -> bool:
    """Return True if the chunks of a PNG go on to its end and their check sums are right.

    libpng reads on over wrong ones, and writes about them to the terminal.
    """
    at, view = len(SIGNATURE), memoryview(data)
    while at + 12 <= len(view):
        size, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        end = at + 8 + size
        if end + 4 > len(view) or zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return False
        if bytes(kind) == b"IEND":
            return True
        at = end + 4
    return False
