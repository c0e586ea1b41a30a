"""Write a video file that can still be completed when the disk becomes full."""

from __future__ import annotations

import os
from pathlib import Path

_CHUNK_BYTES, _SPARE_BYTES = 4 << 20, 1 << 20
_HEAD_BYTES, _INDEX_BYTES = 1 << 16, 64
"""The most bytes that completing a container needs, and those for each packet in it."""
_DELAYED = 64
"""The most frames that wait in an encoder."""


class ReservedFile:
    """Open a file for `av.open`, and reserve disk space for the data that completes a video.

    The writer asks `takes` before it hands a packet to the container, and calls `check` before each frame.
    `size`: the number of written bytes.
    Raises OSError if the file cannot be opened, and where a write fails.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._file = path.open("wb", buffering=0)
        self._full: OSError | None = None
        self._allocated = self._packets = self._bytes = 0
        self._reserve_bytes = _SPARE_BYTES

    def takes(self, packet_bytes: int) -> bool:
        """Count a packet; return False if the disk is full and the packet would take the room of the file's end."""
        if self._full is not None and self._allocated - self.size < self._owed + packet_bytes:
            return False
        self._packets, self._bytes = self._packets + 1, self._bytes + packet_bytes
        return True

    @property
    def _owed(self) -> int:
        """Return the most bytes needed to complete the file: an index, and the data not yet written."""
        return _HEAD_BYTES + _INDEX_BYTES * self._packets + max(0, self._bytes - self.size)

    def check(self) -> None:
        """Keep room for that, and for the frames that wait in the encoder. Raises OSError on a full disk."""
        waiting = _DELAYED * self._bytes // max(1, self._packets)
        self._reserve_bytes = _SPARE_BYTES + self._owed + waiting
        if self._full is not None:
            raise self._full

    def write(self, data: bytes) -> int:
        """Write bytes at the present position; returns their number."""
        left = memoryview(data)
        self._reserve(self._file.tell() + len(left))
        while left:
            left = left[self._file.write(left) :]
        self.size = max(self.size, self._file.tell())
        return len(data)

    def _reserve(self, end: int) -> None:
        """Allocate the room behind `end`, and some more, if the system can; note a full disk."""
        want = max(end, self.size) + self._reserve_bytes
        if self._full is not None or want <= self._allocated or not hasattr(os, "posix_fallocate"):
            return
        for size in (want + _CHUNK_BYTES, want):
            try:
                os.posix_fallocate(self._file.fileno(), self._allocated, size - self._allocated)
            except OSError as e:
                self._full = e
            else:
                self._full, self._allocated = None, size
                return

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; the end is that of the written bytes."""
        if whence == os.SEEK_END:
            return self._file.seek(self.size + offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the present position."""
        return self._file.tell()

    def close(self) -> None:
        """Give the spare room back and close the file; a second call does nothing."""
        if not self._file.closed:
            try:
                self._file.truncate(self.size)
            finally:
                self._file.close()
