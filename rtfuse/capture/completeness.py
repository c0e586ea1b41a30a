"""Find the losses of a recording: its end, by the file's own structure, and pictures that could not be decoded."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from av.codec.context import CodecContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from rtfuse.capture.ebml import CLUSTER, SEGMENT, UNKNOWN, number

_TS_PACKET = 188
_Y4M_BYTES = 1 << 26
_PACK, _PACK_BYTES = b"\0\0\1\xba", 1 << 17
"""The start of a pack in a program stream, and the bytes at the end of a file in which one is looked for."""
_PICTURE_EACH = ("h264", "hevc", "mjpeg", "mpeg2video", "ffv1", "prores", "dnxhd", "png", "rawvideo", "huffyuv")
"""Codecs whose every packet is one picture; the others have packets that show nothing."""
_STRICT = ("mjpeg", "png")
"""Codecs whose decoder shows what it could not read, unless it is told to stop at errors."""
_FOOTER = 8
"""Bytes of an FFV1 slice's end (RFC 9043, 4.9): the size of its content (3), the error status (1), a CRC (4)."""
_LOOKED_AT = 8
"""The first packets, of which one with right check sums shows that the recording has them."""
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Each byte with its bits reversed: FFV1's CRC has zlib's polynomial, but takes the highest bit first."""


def stop_at_errors(video: VideoStream, first: Packet[Any]) -> None:
    """Make the decoder of some codecs refuse damaged pictures, if it accepts the first one so."""
    coder = video.codec_context
    if coder.name not in _STRICT:
        return
    strict = {"err_detect": "crccheck+explode"}
    trial = CodecContext.create(coder.name, "r")
    assert isinstance(trial, VideoCodecContext)
    trial.extradata, trial.options = coder.extradata, strict
    with suppress(FFmpegError):  # else this recorder's pictures have oddities
        trial.decode(first)
        coder.options = strict


def whole_slices(data: bytes) -> bool:
    """Return True if all slices of an FFV1 picture have the right check sums; False also if they have none."""
    end = len(data)
    while end > _FOOTER:
        begin = end - _FOOTER - int.from_bytes(data[end - _FOOTER : end - _FOOTER + 3])
        if not 0 <= begin < end - _FOOTER:
            return False
        # zlib inverts the sum before and after
        if zlib.crc32(data[begin:end].translate(_MIRRORED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end = begin
    return end == 0


class Undecoded:
    """Count the packets of a track that gave no picture, where every packet is one (`each`)."""

    def __init__(self, codec: str, ahead: Sequence[Packet[Any]]) -> None:
        self._summed = codec == "ffv1" and any(whole_slices(bytes(packet)) for packet in ahead[:_LOOKED_AT])
        self._broken = False
        self._counts = self.each = codec in _PICTURE_EACH
        self._sent: dict[int, bool] = {}

    def sent(self, packet: Packet[Any]) -> None:
        """Note a packet that goes to the decoder."""
        self._counts &= not packet.size or (packet.pts is not None and packet.pts not in self._sent)
        if packet.pts is not None and packet.size and not packet.is_discard:
            self._sent[packet.pts] = packet.is_corrupt

    def broken(self, packet: Packet[Any]) -> bool:
        """Return True if an FFV1 picture, or one it is coded from, has a wrong check sum; its decoder is silent."""
        if self._summed and packet.size:
            self._broken = (self._broken and not packet.is_keyframe) or not whole_slices(bytes(packet))
        return self._broken and bool(packet.size)

    def came(self, frame: VideoFrame) -> bool:
        """Note a picture that the decoder gave; return True if it has errors."""
        self._counts &= not frame.interlaced_frame  # two packets may be one picture
        corrupt = False if frame.pts is None else self._sent.pop(frame.pts, False)
        return corrupt or frame.is_corrupt

    @property
    def summed(self) -> bool:
        """True if every picture has a check sum of its own."""
        return self._summed

    @property
    def count(self) -> int:
        """The number of packets so far without a picture; 0 if it is unknown."""
        return len(self._sent) if self._counts else 0


def is_cut(path: str | Path) -> bool:
    """Return True if the file ends before its own structure does: it was cut, or not copied whole.

    Knows MP4 and MOV, Matroska and WebM, AVI, FLV, MPEG's transport and program streams, YUV4MPEG, and rows of JPEG;
    returns False for other files, for pipes, and for damage in the middle.
    """
    path = Path(path)
    if not path.is_file():
        return False
    end = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_TS_PACKET + 1)
        used = _padding_at(file, end)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp", b"pnot"):
            return _beyond(_boxes(file, end, used), end)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _beyond(_elements(file, end, used), end)
        if head[:4] == b"RIFF":
            return _beyond(_chunks(file, end), end)
        if head[:3] == b"FLV":
            return not any(_whole_tag(file, at) for at in range(used, min(used + 4, end + 1)))
        if head[:4] == _PACK:
            return _pack_beyond(file, end)
        if head[:2] == b"\xff\xd8":
            return not _tail(file, used, 64).rstrip(b"\0\r\n").endswith(b"\xff\xd9")
        if head[:9] == b"YUV4MPEG2":
            return _part_of_frame(file, end)
        if head[:1] == b"\x47" and head[_TS_PACKET:] == b"\x47":
            return end % _TS_PACKET != 0 and not _only_padded(file, end, used)
    return False


def _padding_at(file: BinaryIO, end: int) -> int:
    """Return where the zero bytes at the end of a file begin, which recorders may leave; they may be data."""
    at = end
    while at:
        part = _tail(file, at, _PACK_BYTES)
        kept = part.rstrip(b"\0")
        at -= len(part) - len(kept)
        if kept:
            break
    return at


def _only_padded(file: BinaryIO, end: int, used: int) -> bool:
    """Return True if a transport stream ends with a whole packet and only zero bytes behind it."""
    last = (used - 1) // _TS_PACKET * _TS_PACKET
    file.seek(last)
    return file.read(1) == b"\x47" and last + _TS_PACKET <= end


def _beyond(ends: Iterator[int], end: int) -> bool:
    """Return True if a part ends behind the end of the file."""
    return any(at > end for at in ends)


def _boxes(file: BinaryIO, end: int, used: int) -> Iterator[int]:
    """Yield the end of each top box of an MP4 or MOV file; the last may reach to the end of the file."""
    at = 0
    while at < end:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            yield at + 8 if at < used else at
            return
        if not head[4:8].isalnum():  # not a box any more
            return
        size = struct.unpack(">I", head[:4])[0]
        if size == 1:
            size = struct.unpack(">Q", head[8:])[0] if len(head) == 16 else end
        if size == 0:
            return
        at += max(size, 8)
        yield at


def _chunks(file: BinaryIO, end: int) -> Iterator[int]:
    """Yield the end of each RIFF chunk of an AVI file; one without a size was not completed by its recorder."""
    at = 0
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        if head[:4] != b"RIFF":
            return
        size = struct.unpack("<I", head[4:])[0]
        at += 8 + size + size % 2
        yield at if size else end + 1


def _elements(file: BinaryIO, end: int, used: int) -> Iterator[int]:
    """Yield the end of each element of a Matroska file, and of those inside of elements without a known size.

    No element begins with the zero bytes from `used` on.
    """
    at = 0
    while at < used:
        file.seek(at)
        name, length = number(file, marked=True)
        size, more = number(file)
        if not length or not more:
            yield end + 1
            return
        at += length + more
        if size != UNKNOWN:
            at += size
            yield at
        elif name not in (SEGMENT, CLUSTER):
            return


def _tail(file: BinaryIO, end: int, size: int) -> bytes:
    """Return the last bytes of a file, at most `size`."""
    file.seek(max(0, end - size))
    return file.read(size)


def _pack_beyond(file: BinaryIO, end: int) -> bool:
    """Return True if the last pack of a program stream has a packet that ends behind the end of the file."""
    tail = _tail(file, end, _PACK_BYTES)
    at = tail.rfind(_PACK)
    if at < 0 or at + 14 > len(tail):
        return at >= 0
    at += 12 if tail[at + 4] >> 4 == 2 else 14 + (tail[at + 13] & 7)  # MPEG-1's header, or MPEG-2's
    while at + 6 <= len(tail) and tail[at : at + 3] == b"\0\0\1" and tail[at + 3] != 0xB9:
        at += 6 + int.from_bytes(tail[at + 4 : at + 6])
    return at > len(tail)


def _part_of_frame(file: BinaryIO, end: int) -> bool:
    """Return True if a YUV4MPEG file does not end with a whole frame, by the distance of its first two."""
    file.seek(0)
    head = file.read(_Y4M_BYTES)
    first = head.find(b"FRAME")
    second = head.find(b"FRAME", first + 5)
    return 0 < first < second and (end - first) % (second - first) != 0


def _whole_tag(file: BinaryIO, end: int) -> bool:
    """Return True if an FLV file ends with a tag and the tag's size behind it."""
    file.seek(max(end - 4, 0))
    size = int.from_bytes(file.read(4))
    if not 11 <= size <= end - 17:
        return False
    file.seek(end - 4 - size)
    head = file.read(4)
    return head[0] in (8, 9, 18) and int.from_bytes(head[1:]) + 11 == size
