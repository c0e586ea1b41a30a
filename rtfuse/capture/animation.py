"""Count the pictures of an animated WebP, PNG or AVIF, and take one of them out.

Layouts: RFC 9649 (WebP), PNG's third edition, section 11.3.4 (acTL), and ISO/IEC 14496-12 (AVIF's table of samples).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, Literal

import cv2
import numpy as np

from rtfuse.capture import png
from rtfuse.types import Image

_ANIMATED = 0x02
"""The bit of VP8X that says so."""
_BRAND_BYTES, _MOST_BYTES = 64, 1 << 20


def count(file: BinaryIO) -> int:
    """Return the number of pictures; 1 for files of other kinds, and for those that do not say it."""
    head = file.read(_BRAND_BYTES)
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & _ANIMATED:
        return max(sum(name == b"ANMF" for name, _ in _chunks(file, 12, "little", 0)), 1)
    if head.startswith(png.SIGNATURE):
        for name, at in _chunks(file, len(png.SIGNATURE), "big", 4):
            if name == b"acTL":
                file.seek(at)
                return max(int.from_bytes(file.read(4)), 1)
            if name == b"IDAT":
                break
    if head[4:8] == b"ftyp" and b"avis" in head[8 : int.from_bytes(head[:4])]:
        file.seek(0)
        data = file.read(_MOST_BYTES)
        at = data.find(b"stsz")
        return max(int.from_bytes(data[at + 12 : at + 16]), 1) if at >= 0 else 1
    return 1


def turned_to(data: bytes, number: int) -> Image | None:
    """Return one picture, as it is shown, as a PNG's bytes, (n,) uint8; None if it cannot be decoded."""
    _, found = cv2.imdecodeanimation(np.frombuffer(data, np.uint8), start=number, count=1)
    if len(found.frames) != 1:
        return None
    return cv2.imencode(".png", found.frames[0], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].ravel()


def _chunks(file: BinaryIO, at: int, order: Literal["little", "big"], behind: int) -> Iterator[tuple[bytes, int]]:
    """Yield name and place of the contents of each chunk: of RIFF (little), or of PNG (big, a check sum behind)."""
    end = file.seek(0, os.SEEK_END)
    while at + 8 <= end:
        file.seek(at)
        head = file.read(8)
        name, size = (head[:4], head[4:]) if order == "little" else (head[4:], head[:4])
        yield name, at + 8
        length = int.from_bytes(size, order)
        at += 8 + length + behind + (length % 2 if order == "little" else 0)
