"""Find the places of a transport stream's file where its packets do not follow each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from av.packet import Packet

_SYNC, _PREFIX = 0x47, 4
"""The first byte of each packet (ISO/IEC 13818-1, 2.4.3.2), and the bytes before it in M2TS."""
_SIZES = (188, 192, 204)
"""Bytes of a packet: plain, with M2TS's prefix, with error correction behind it."""


class Interruptions:
    """Count the pictures that a transport stream lost where it is interrupted, by the times around each place.

    FFmpeg finds the next packet by itself and tells of a loss only where the counter of the packets differs, which has
    four bits; then it marks a picture nearby.
    `lost`: the missing pictures; `hit`: places without one, where the picture before is not whole.
    `period`: the usual step, in units of the packets' times.
    """

    def __init__(self, path: str | Path, period: float) -> None:
        self.lost, self.hit = 0, 0
        self._path, self._period = Path(path), period
        self._before: tuple[int, int | None, bool] | None = None
        self._corrupt = False

    def sent(self, packet: Packet[Any]) -> bool:
        """Note a picture's packet, in the order of the file; return True if something is missing before it."""
        if packet.pos is None or packet.pos < 0 or not packet.size:
            return False
        broken = False
        if self._before is not None:
            pos, dts, corrupt = self._before
            steps = 0 if packet.dts is None or dts is None else round((packet.dts - dts) / self._period)
            if interrupted := self._interrupted(pos, packet.pos):
                self.hit += steps <= 1 and not corrupt
            # FFmpeg may mark the packet before the last one; at a key frame, another file may begin.
            broken = interrupted or ((corrupt or self._corrupt) and steps > 1 and not packet.is_keyframe)
            self.lost += max(0, steps - 1) if broken else 0
            self._corrupt = corrupt
        self._before = packet.pos, packet.dts, packet.is_corrupt
        return broken

    def _interrupted(self, begin: int, end: int) -> bool:
        """Return True if the bytes from one packet's begin to another's are not a row of packets."""
        if end <= begin:
            return False
        with self._path.open("rb") as file:
            file.seek(begin)
            data = file.read(end - begin)
        return not any(
            len(data) % size == 0 and set(data[at::size]) == {_SYNC} for size in _SIZES for at in (0, _PREFIX)
        )
