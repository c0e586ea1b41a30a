"""Read the numbers of Matroska's format, EBML (RFC 8794), and the check sums of its clusters (RFC 9559)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from av.packet import Packet

SEGMENT, CLUSTER = 0x18538067, 0x1F43B675
UNKNOWN = -1
"""The size of an element that ends where its content does."""
_SUM, _SUM_BYTES = b"\xbf\x84", 6
"""The head of an element with a CRC-32 of four bytes, and its whole size; it is the first of its parent."""
_BLOCK_BYTES = 1 << 20


def number(file: BinaryIO, *, marked: bool = False) -> tuple[int, int]:
    """Return a number of EBML's variable length and its bytes, 0 of them at the end of the file.

    `marked`: with the marker of its length, as in names. A size of ones alone is unknown (-1).
    """
    first = file.read(1)
    if not first or not first[0]:
        return 0, 0
    length = 9 - first[0].bit_length()
    rest = file.read(length - 1)
    if len(rest) < length - 1:
        return 0, 0
    value = int.from_bytes(first + rest)
    bits = 7 * length
    plain = value & ((1 << bits) - 1)
    return (value if marked else UNKNOWN if plain == (1 << bits) - 1 else plain), length


class Clusters:
    """Find the packets of a Matroska file that lie in clusters with wrong check sums."""

    def __init__(self, path: str | Path) -> None:
        self._wrong = list[list[int]]()
        self._count, self._end, self._sound = 0, 0, True
        self._bounds = self._clusters(Path(path))

    def sent(self, packet: Packet[Any]) -> None:
        """Note a packet, in the order of the file."""
        while packet.pos is not None and packet.pos >= self._end:
            found = next(self._bounds, None)
            if found is None:
                self._end, self._sound = packet.pos + (1 << 62), True
                break
            self._end, self._sound = found
            if not self._sound:
                self._wrong.append([self._count, self._count])
        if not self._sound:
            self._wrong[-1][1] = self._count
        self._count += 1

    @staticmethod
    def _clusters(path: Path) -> Iterator[tuple[int, bool]]:
        """Yield the end of each cluster, and False if its check sum is wrong; ends where the structure does."""
        with path.open("rb") as file:
            at = 0
            while True:
                file.seek(at)
                name, length = number(file, marked=True)
                size, more = number(file)
                if not length or not more:
                    return
                at += length + more
                if name == SEGMENT:
                    continue
                if size == UNKNOWN:
                    return
                if name == CLUSTER:
                    yield at + size, _is_sound(file, size)
                at += size

    def holds(self, index: int) -> bool:
        """Return True if a packet, by its place in the order of the file from 0, lies in a cluster with a wrong sum."""
        return any(first <= index <= last for first, last in reversed(self._wrong))


def _is_sound(file: BinaryIO, size: int) -> bool:
    """Return False if the check sum of an element of this size, whose content is next, is wrong.

    Without a sum nothing more is read, and of an element that the file does not hold whole, none is judged.
    """
    head = file.read(min(size, _SUM_BYTES))
    if len(head) < _SUM_BYTES or not head.startswith(_SUM):
        return True
    left, found = size - _SUM_BYTES, 0
    while left and (block := file.read(min(left, _BLOCK_BYTES))):
        left, found = left - len(block), zlib.crc32(block, found)
    return bool(left) or found == int.from_bytes(head[len(_SUM) :], "little")
