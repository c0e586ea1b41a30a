"""Leave out the pictures of a recording that were decoded from damaged or lost ones, up to the next key frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

_LONGEST = 16
"""The most pictures that a decoder keeps as references, so the most that wait for an earlier one."""
_SOON = 2
"""Packets behind a marked one that tell what the mark means."""
_KEPT = 64
"""Key frames whose times are kept."""


@dataclass(frozen=True, slots=True)
class _Coded:
    """Place of a packet in the order of decoding, and the number of its key frame, 0 before the first one."""

    index: int
    key: int


class References:
    """Pass the pictures of a track in their order, without those that were decoded from damaged or lost ones.

    An encoder that reorders shows a picture before one that it was coded from, so each waits until the packets before
    its own have given theirs. Damage before the first key frame is ignored.
    `each`: True if each packet is one picture, so that a packet without one is a loss. `timed`: True if the
    times of packets are those of their pictures. `suspected`: tells of a packet,
    by its place from 0, whether its part of the file is not as it was written.
    `left_out` counts the pictures that were left out, `damaged` those that have errors themselves, which are passed,
    and `suspect` the others from such parts.
    """

    def __init__(
        self, *, each: bool, timed: bool = True, suspected: Callable[[int], bool] = lambda index: False
    ) -> None:
        self.left_out, self.damaged, self.suspect = 0, 0, 0
        self._suspected, self._timed = suspected, timed
        self._each, self._count, self._keys, self._broken = each, 0, 0, False
        self._key_pts, self._bad = dict[int, int | None](), dict[int, int]()
        self._open = dict[int, _Coded]()
        self._marked = deque[_Coded]()
        self._waiting = deque[tuple[VideoFrame, _Coded | None, bool]]()

    def sent(self, packet: Packet[Any]) -> None:
        """Note a packet that goes to the decoder."""
        if packet.is_keyframe:
            self._keys += 1
            self._key_pts[self._keys] = packet.pts
            self._key_pts.pop(self._keys - _KEPT, None)
        if packet.pts is not None and self._timed and not packet.is_discard:
            self._each &= packet.pts not in self._open
            self._open[packet.pts] = _Coded(self._count, self._keys)
        self._judge_marks(packet)
        self._count += 1

    def _judge_marks(self, packet: Packet[Any]) -> None:
        """Believe the container's mark on a packet, unless a key frame follows soon, where another file may begin."""
        if packet.is_keyframe:
            self._marked.clear()
        if self._marked and self._marked[0].index <= self._count - _SOON:
            self._note(self._marked.popleft())
        if packet.is_corrupt:
            self._marked.append(_Coded(self._count, self._keys))

    def lost(self) -> None:
        """Note that the oldest packet without a picture is damaged: the decoder has failed."""
        self._note(min(self._open.values(), key=lambda c: c.index, default=_Coded(self._count - 1, self._keys)))

    def interrupted(self) -> None:
        """Note that something is missing behind the last packet."""
        self._note(_Coded(self._count - 1, self._keys))

    def came(self, frame: VideoFrame, *, damaged: bool) -> Iterator[VideoFrame]:
        """Take a picture from the decoder, and yield those that are certain now.

        `damaged`: it has errors itself, or is marked by the container.
        """
        self._each &= not frame.interlaced_frame  # two packets may be one picture
        coded = None if frame.pts is None else self._open.pop(frame.pts, None)
        if frame.pts is not None and self._timed:
            self._note_gone(frame.pts, self._count if coded is None else coded.index)
        if frame.is_corrupt and coded is not None:
            self._note(coded)
        self._waiting.append((frame, coded, damaged))
        while self._waiting and (len(self._waiting) > _LONGEST or self._certain(self._waiting[0][1])):
            yield from self._decided(*self._waiting.popleft())

    def rest(self) -> Iterator[VideoFrame]:
        """Yield the pictures that still wait."""
        while self._waiting:
            yield from self._decided(*self._waiting.popleft())

    def _note_gone(self, pts: int, index: int) -> None:
        """Note the packets that should have given their pictures before that of this time and place."""
        for gone in [t for t, coded in self._open.items() if t < pts and coded.index < index]:
            coded = self._open.pop(gone)
            if self._each:
                self._note(coded)

    def _note(self, coded: _Coded) -> None:
        self._broken = True
        if coded.key:
            self._bad[coded.key] = min(coded.index, self._bad.get(coded.key, coded.index))

    def _certain(self, coded: _Coded | None) -> bool:
        if coded is None:
            return True
        return coded.index < self._count - _SOON and all(other.index > coded.index for other in self._open.values())

    def _decided(self, frame: VideoFrame, coded: _Coded | None, damaged: bool) -> Iterator[VideoFrame]:
        """Yield a picture, unless it depends on what was lost; one without a packet's time goes by key frames alone."""
        if coded is None:
            self._broken &= not frame.key_frame
            depends = self._broken
            self._broken |= damaged
        else:
            depends = self._depends(coded, frame.pts)
        if depends:
            self.left_out += 1
            return
        self.damaged += damaged
        self.suspect += not damaged and coded is not None and self._suspected(coded.index)
        yield frame

    def _depends(self, coded: _Coded, pts: int | None) -> bool:
        """Return True if damage precedes a picture in decoding, up to its key frame, or up to the one before this.

        A picture that is shown before its key frame may be coded from the pictures before that.
        """
        key_pts = self._key_pts.get(coded.key)
        leading = key_pts is not None and pts is not None and pts < key_pts
        return coded.index > self._bad.get(coded.key, self._count) or (leading and coded.key - 1 in self._bad)
