"""Find the pages of a TIFF file, and point a decoder at one of them.

Layout: "TIFF Revision 6.0" (Adobe, 1992) and, with offsets of 64 bits, BigTIFF.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES, _EXTRA_SAMPLES = 254, 258, 262, 277, 284, 338
_NODATA, _ASCII = 42113, 2
"""GDAL's tag (https://gdal.org/drivers/raster/gtiff.html): the value of pixels without one, as text."""
_WHITE_IS_ZERO = 0
_REDUCED, _MASK = 1, 4
_ASSOCIATED, _SEPARATE = 1, 2
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8}
"""Bytes of the types of a tag that are read here: byte, ASCII, short, long, IFD, long8."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Byte order and widths of a file: those of its counts, its entries and its offsets."""

    order: str
    big: bool

    @property
    def first_at(self) -> int:
        """The place of the first page's offset."""
        return 8 if self.big else 4

    @property
    def offset(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "I"))

    @property
    def count(self) -> struct.Struct:
        return struct.Struct(self.order + ("Q" if self.big else "H"))

    @property
    def entry(self) -> struct.Struct:
        """Tag, type and number of values; the value, or its place, follows in as many bytes as an offset has."""
        return struct.Struct(self.order + ("HHQ8s" if self.big else "HHI4s"))


@dataclass(frozen=True, slots=True)
class Page:
    """Locate one page of a TIFF file.

    `at`: the offset of its directory.
    `alpha_at`: the offset of the tag value for unassociated alpha; None without one.
    `planar`: True if its channels follow one another.
    `deep`: True if the file says that a channel has more than 8 bits.
    `inverted`: True if 0 is white.
    `nodata`: the value that marks pixels without data.
    """

    at: int
    alpha_at: int | None
    planar: bool
    deep: bool
    inverted: bool
    nodata: float | None


def is_tiff(head: bytes) -> bool:
    """Return True if a file that begins with `head` (4 bytes or more) is a TIFF."""
    return _kind(head) is not None


def find_pages(file: BinaryIO) -> list[Page]:
    """List the pages that are pictures: smaller copies and masks of others are none. Empty for a broken file."""
    file.seek(0)
    head = file.read(16)
    kind = _kind(head)
    if kind is None or len(head) < kind.first_at + kind.offset.size:
        return []
    (at,), seen, every, pages = kind.offset.unpack_from(head, kind.first_at), set[int](), list[Page](), list[Page]()
    while at and at not in seen:
        seen.add(at)
        tags = _tags(file, kind, at)
        if tags is None:
            break
        alpha, alpha_at = tags.get(_EXTRA_SAMPLES, (0, 0))
        several = tags.get(_SAMPLES, (1, 0))[0] > 1
        planar = several and tags.get(_PLANES, (0, 0))[0] == _SEPARATE
        deep, inverted = tags.get(_BITS, (8, 0))[0] > 8, tags.get(_PHOTOMETRIC, (1, 0))[0] == _WHITE_IS_ZERO
        nodata = _nodata(file, tags)
        page = Page(at, alpha_at if alpha == _SEPARATE else None, planar, deep, inverted, nodata)
        every.append(page)
        if not tags.get(_SUBFILE, (0, 0))[0] & (_REDUCED | _MASK):
            pages.append(page)
        (at,) = kind.offset.unpack(tail) if len(tail := file.read(kind.offset.size)) == kind.offset.size else (0,)
    return pages or every[:1]


def turned_to(data: bytes, page: Page) -> bytearray:
    """Return a file's bytes with `page` as the first one, which is the one that a decoder reads.

    Alpha is declared as already applied: libtiff would multiply the colours by it, which may be thermal there.
    """
    kind, made = _kind(data), bytearray(data)
    assert kind is not None
    kind.offset.pack_into(made, kind.first_at, page.at)
    if page.alpha_at is not None:
        struct.pack_into(kind.order + "H", made, page.alpha_at, _ASSOCIATED)
    return made


def _kind(head: bytes) -> _Kind | None:
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 4:
        return None
    (version,) = struct.unpack_from(order + "H", head, 2)
    return _Kind(order, version == 43) if version in (42, 43) else None


def _tags(file: BinaryIO, kind: _Kind, at: int) -> dict[int, tuple[int, int]] | None:
    """Read the directory at a place: by tag, its first whole number and where that stands; None if it is cut short."""
    file.seek(at)
    raw = file.read(kind.count.size)
    if len(raw) < kind.count.size:
        return None
    (count,) = kind.count.unpack(raw)
    body = file.read(min(count, 4096) * kind.entry.size)
    if count > 4096 or len(body) < count * kind.entry.size:
        return None
    found = dict[int, tuple[int, int]]()
    for k in range(count):
        tag, of, many, value = kind.entry.unpack_from(body, k * kind.entry.size)
        if of in _SIZES and many * _SIZES[of] <= kind.offset.size:
            place = at + kind.count.size + (k + 1) * kind.entry.size - kind.offset.size
            form = {1: "B", 2: "B", 3: "H", 16: "Q"}.get(of, "I")
            found[tag] = struct.unpack_from(kind.order + form, value)[0], place
        if tag == _NODATA and of == _ASCII:
            inside = many <= kind.offset.size
            found[tag] = many, place if inside else kind.offset.unpack(value)[0]
    return found


def _nodata(file: BinaryIO, tags: dict[int, tuple[int, int]]) -> float | None:
    """Return the number in the text of GDAL's tag, None without one; the place in the file stays."""
    length, place = tags.get(_NODATA, (0, 0))
    back = file.tell()
    file.seek(place)
    text = file.read(min(length, 64))
    file.seek(back)
    try:
        return float(text.partition(b"\0")[0])
    except ValueError:
        return None
