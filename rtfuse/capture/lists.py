"""Leave out the frames of a list's files (`ffconcat`) that are decoded only to reach their `inpoint`."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

_START = b"lavf.concatdec.start_time"
_US = 1_000_000


class Inpoints:
    """Tell the frames before the `inpoint` of their file; packets must be noted before they are decoded."""

    def __init__(self) -> None:
        self._before: defaultdict[int, deque[bool]] = defaultdict(deque)

    def sent(self, packet: Packet[Any]) -> None:
        """Note a packet, with FFmpeg's `segment_time_metadata`."""
        if packet.pts is None or packet.time_base is None or not packet.has_sidedata("strings_metadata"):
            return
        words = bytes(packet.get_sidedata("strings_metadata")).split(b"\0")
        start_us = int(words[words.index(_START) + 1]) if _START in words else None
        self._before[packet.pts].append(start_us is not None and packet.pts * packet.time_base * _US < start_us - 1)

    def leaves_out(self, frame: VideoFrame) -> bool:
        """Return True if a frame lies before the `inpoint`; each frame is asked for once, in order."""
        waiting = self._before.get(frame.pts) if frame.pts is not None else None
        if not waiting:
            return False
        before = waiting.popleft()
        if not waiting and frame.pts is not None:
            del self._before[frame.pts]
        return before
