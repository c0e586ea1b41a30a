"""Walk the segments of a JPEG file (ITU-T T.81, annex B) without decoding it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

APP1, APP3 = 0xE1, 0xE3
START = b"\xff\xd8"
_EXIF, _ORIENTATION = b"Exif\0\0", 0x0112
SCAN, _END, _LEAST = 0xDA, 0xD9, 0xC0
_ALONE = frozenset([0x01, *range(0xD0, 0xD8)])
"""Markers without a length."""
_SIZES = frozenset([*range(0xC0, 0xD0), 0xF7]) - {0xC4, 0xC8, 0xCC}
"""Frame headers (start of frame), of JPEG-LS too: precision, height and width."""


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, first byte and end of the contents of each segment, up to the first scan, and this one's too.

    Ends at the first byte that is not JPEG, so that no file can make it fail.
    """
    if data[:2] != START:
        return
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _END or marker < _LEAST or end < at + 4 or end > len(data):
            return
        yield marker, at + 4, end
        if marker == SCAN:
            return
        at = end


def fault(data: bytes) -> tuple[Literal["", "cut", "damaged"], int]:
    """Return the fault of the segments before the first scan, and its place: after the last sound segment.

    "cut": the data ends in a segment, or between two. "damaged": a segment does not end where another begins.
    """
    marker, at = 0, len(START)
    for marker, _, at in segments(data):  # noqa: B007 - the last one counts
        pass
    if marker == SCAN:
        return "", at
    begun = data[at : at + 4]
    whole = len(begun) == 4 and not (begun[0] == 0xFF and begun[1] >= _LEAST and int.from_bytes(begun[2:]) >= 2)
    return "damaged" if whole else "cut", at


def orientation(data: bytes) -> int:
    """Return the orientation that EXIF tells, 1 to 8 (tag 0x0112 of its first directory); 1 without one."""
    for marker, at, end in segments(data):
        tiff = data[at + len(_EXIF) : end]
        if marker != APP1 or data[at : at + len(_EXIF)] != _EXIF or len(tiff) < 8:
            continue
        order: Literal["little", "big"] = "little" if tiff[:2] == b"II" else "big"
        first = int.from_bytes(tiff[4:8], order)
        for k in range(int.from_bytes(tiff[first : first + 2], order)):
            entry = tiff[first + 2 + 12 * k : first + 14 + 12 * k]
            if len(entry) == 12 and int.from_bytes(entry[:2], order) == _ORIENTATION:
                found = int.from_bytes(entry[8:10], order)
                return found if 1 <= found <= 8 else 1
    return 1


def header(data: bytes) -> tuple[int, int, int]:
    """Return width, height and bits as the frame header says; zeros without one."""
    for marker, at, end in segments(data):
        if marker in _SIZES and end - at >= 5:
            height, width = (int.from_bytes(data[k : k + 2], "big") for k in (at + 1, at + 3))
            return width, height, data[at]
    return 0, 0, 0
