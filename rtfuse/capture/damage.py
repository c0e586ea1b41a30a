"""Judge the packets and pictures of a recording by all that tells of damage: decoder, container and check sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rtfuse.capture.completeness import Undecoded
from rtfuse.capture.ebml import Clusters
from rtfuse.capture.references import References
from rtfuse.capture.transport import Interruptions


class Damage:
    """Take the packets of a track and the pictures that it gives; leave out those that are known to be wrong.

    `ahead`: the first packets. `rate_hz`: the usual rate, which tells how many pictures a hole has taken.
    """

    def __init__(
        self, container: InputContainer, video: VideoStream, ahead: Sequence[Packet[Any]], rate_hz: float
    ) -> None:
        file, kind = Path(container.name.removeprefix("file:")), container.format.name
        self._failed = 0
        self._undecoded = Undecoded(video.codec_context.name, ahead)
        self._interruptions = None
        if file.is_file() and kind == "mpegts":
            base = video.time_base or Fraction(1, 90_000)
            self._interruptions = Interruptions(file, float(1 / (Fraction(rate_hz) * base)))
        clusters = Clusters(file) if file.is_file() and "matroska" in kind and not self._undecoded.summed else None
        self._clusters, each, timed = clusters, self._undecoded.each, kind != "avi"
        self._references = References(
            each=each, timed=timed, suspected=clusters.holds if clusters else lambda index: False
        )

    def sent(self, packet: Packet[Any]) -> bool:
        """Note a packet before it is decoded; return False if it must not be."""
        self._undecoded.sent(packet)
        if not packet.size:
            return True
        if self._interruptions is not None and self._interruptions.sent(packet):
            self._references.interrupted()
        if self._undecoded.broken(packet):
            self._failed += 1
            return False
        if self._clusters is not None:
            self._clusters.sent(packet)
        self._references.sent(packet)
        return True

    def failed(self) -> None:
        """Note that the decoder has refused a packet."""
        self._failed += 1
        self._references.lost()

    def came(self, frame: VideoFrame) -> Iterator[VideoFrame]:
        """Take a picture from the decoder, and yield those that are to be shown."""
        return self._references.came(frame, damaged=self._undecoded.came(frame))

    def rest(self) -> Iterator[VideoFrame]:
        """Yield the last pictures."""
        return self._references.rest()

    @property
    def losses(self) -> Counter[str]:
        """The pictures so far that are missing or left out (`corrupt`), and those shown with errors (`damaged`)."""
        corrupt = max(self._undecoded.count, self._failed) + self._references.left_out
        found = Counter(corrupt=corrupt, damaged=self._references.damaged + self._references.suspect)
        if self._interruptions is not None:
            found += Counter(corrupt=self._interruptions.lost, damaged=self._interruptions.hit)
        return +found

    def said(self) -> Iterator[str]:
        """Yield a line about each kind of damage that a count alone does not explain."""
        if left := self._references.left_out:
            yield f"has damage: {left} pictures that were coded from lost ones are left out, up to the next key frame"
        if suspect := self._references.suspect:
            yield f"has damage: some of {suspect} pictures may be wrong, as parts of the file have wrong check sums"
