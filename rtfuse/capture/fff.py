"""Read FLIR's FFF: a directory of records with the counts of one thermal picture, the camera's constants and a photo.

The layout is that of ExifTool's tables (https://exiftool.org/TagNames/FLIR.html). Two numbers are not in them: the
display's zoom, which was found by comparing files with the pictures that they show, and JPEG-LS as the code of counts.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from rtfuse.capture.pictures import decoded_counts, decoded_photo, size_of
from rtfuse.errors import SourceUnreadable
from rtfuse.types import Image, Radiometry

MAGICS = (b"FFF\0", b"AFF\0")
HEADER, _ENTRY = 64, 32
_MOST_RECORDS = 1024
_PIXELS, _PHOTO, _CAMERA, _PALETTE, _PIP = 0x01, 0x0E, 0x20, 0x22, 0x2A
_PIXEL_ORDERS = {1: ">", 2: "<"}
_SCENE = {
    "emissivity": 0x20,
    "distance_m": 0x24,
    "reflected_k": 0x28,
    "air_k": 0x2C,
    "window_k": 0x30,
    "window_transmission": 0x34,
    "humidity": 0x3C,
}
_PLANCK = (("f", 0x58), ("f", 0x5C), ("f", 0x60), ("i", 0x308), ("f", 0x30C))
_AIR = (("f", 0x70), ("f", 0x74), ("f", 0x78), ("f", 0x7C), ("f", 0x80))
"""Places in the camera's record, of float32 and int32 values, in the order of `Radiometry`."""


@dataclass(frozen=True, slots=True)
class PictureInPicture:
    """Place of the thermal picture in the photo, as the camera's display showed it.

    - `real_to_ir`: width of the photo over that of the thermal picture in it, after the display's zoom.
    - `offset_xy`: centre of thermal less centre of the photo, in photo pixels.
    - `box`: the part of the thermal picture that the display showed in the photo, x1, x2, y1, y2 inclusive.
    """

    real_to_ir: float
    offset_xy: tuple[int, int]
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Record:
    """Contents of one record, uncopied; its first two bytes tell its byte order, `<` or `>`."""

    data: memoryview
    subtype: int

    @property
    def order(self) -> str:
        return ">" if int.from_bytes(self.data[:2], "little") >= 0x100 else "<"

    def value(self, kind: str, at: int) -> float:
        """Return the number at a place, by its code of `struct`; 0 beyond the end and if it is not finite."""
        if at + struct.calcsize(kind) > len(self.data):
            return 0
        number: float = struct.unpack_from(self.order + kind, self.data, at)[0]
        return number if math.isfinite(number) else 0

    def text(self, at: int, length: int) -> str:
        """Return the text at a place, without what cannot be printed."""
        raw = bytes(self.data[at : at + length]).partition(b"\0")[0].decode("latin-1")
        return "".join(c for c in raw if c.isprintable()).strip()

    @property
    def size_wh(self) -> tuple[int, int]:
        """The picture's size in a record of pixels."""
        return int(self.value("H", 2)), int(self.value("H", 4))


@dataclass(frozen=True, slots=True)
class Radiometric:
    """Thermal picture with all that its camera noted. Counts and photo are decoded on request.

    - `name`: of the file, for errors.
    - `records`: by their type.
    """

    name: str
    records: Mapping[int, Record]

    @property
    def has_pixels(self) -> bool:
        """True if there is a thermal picture."""
        return _PIXELS in self.records and 0 not in self.records[_PIXELS].size_wh

    @property
    def size_wh(self) -> tuple[int, int]:
        """Size of the thermal picture in pixels."""
        return self.records[_PIXELS].size_wh

    def counts(self) -> Image:
        """Return the counts, (H, W) uint16. Raises SourceUnreadable."""
        record = self.records[_PIXELS]
        order = _PIXEL_ORDERS.get(record.subtype, record.order)
        return decoded_counts(bytes(record.data[32:]), record.size_wh, order, self.name)

    @property
    def has_photo(self) -> bool:
        """True if the camera stored its photo of the same moment."""
        return _PHOTO in self.records

    @property
    def photo_wh(self) -> tuple[int, int] | None:
        """Size of the photo in pixels, as its own header says; None without one."""
        record = self.records.get(_PHOTO)
        return None if record is None else size_of(bytes(record.data[32:]), record.size_wh)

    def photo(self) -> Image:
        """Return the photo, (H, W, 3) uint8 RGB. Raises SourceUnreadable, also without a photo."""
        if not self.has_photo:
            raise SourceUnreadable(
                f"{self.name} holds thermal alone, without a photo; give an RGB picture of the same scene as well"
            )
        record = self.records[_PHOTO]
        return decoded_photo(bytes(record.data[32:]), record.size_wh, self.name)

    @property
    def radiometry(self) -> Radiometry | None:
        """The constants that turn counts into temperatures; None where the camera did not note plausible ones."""
        camera = self._camera
        scene = {name: camera.value("f", at) for name, at in _SCENE.items()}
        if scene["humidity"] > 2:  # in percent
            scene["humidity"] /= 100
        r1, b, f, o, r2 = (camera.value(*place) for place in _PLANCK)
        alpha1, alpha2, beta1, beta2, x = (camera.value(*place) for place in _AIR)
        shares = [scene[name] for name in ("emissivity", "window_transmission")]
        kelvins = [scene[name] for name in ("reflected_k", "air_k", "window_k")]
        known = min(r1, b, r2) > 0 and all(0 < share <= 1 for share in shares) and all(100 < k < 5000 for k in kelvins)
        if not known or scene["distance_m"] < 0 or not 0 <= scene["humidity"] <= 1:
            return None
        return Radiometry((r1, b, f, o, r2), (alpha1, alpha2, beta1, beta2, x), **scene)

    @property
    def zoom(self) -> float:
        """The display's zoom when the picture was taken; counts are never zoomed."""
        zoom = self._camera.value("f", 0x36C)
        return zoom if 1 <= zoom <= 32 else 1.0

    @property
    def pip(self) -> PictureInPicture | None:
        """Place of thermal in the photo; None where the file does not tell."""
        record = self.records.get(_PIP)
        if record is None or len(record.data) < 18:
            return None
        real_to_ir, dx, dy, *box = struct.unpack_from("<f6h", record.data)  # little-endian in all files
        if not 0.1 < real_to_ir < 100:
            return None
        return PictureInPicture(real_to_ir, (dx, dy), (box[0], box[1], box[2], box[3]))

    @property
    def H_photo_from_ir(self) -> tuple[tuple[float, float, float], ...] | None:
        """The 3x3 matrix from thermal pixels to those of the photo; None where the file has no photo or tells no place.

        A thermal pixel covers `photo width x zoom / (real_to_ir x thermal width)` pixels of the photo, and the centres
        are `offset_xy` apart. `real_to_ir` is the ratio after the display's zoom, which does not change the counts.
        """
        pip, photo_wh = self.pip, self.photo_wh
        if pip is None or photo_wh is None:
            return None
        scale = photo_wh[0] * self.zoom / (pip.real_to_ir * self.size_wh[0])
        x, y = (
            (whole - 1) / 2 + offset - scale * (part - 1) / 2
            for whole, offset, part in zip(photo_wh, pip.offset_xy, self.size_wh, strict=True)
        )
        return (scale, 0.0, x), (0.0, scale, y), (0.0, 0.0, 1.0)

    @property
    def camera(self) -> str:
        """The camera's name."""
        return self._camera.text(0xD4, 32)

    @property
    def lens(self) -> str:
        """The lens's name."""
        return self._camera.text(0x170, 32)

    @property
    def field_of_view_deg(self) -> float:
        """Horizontal field of view of the thermal camera in degrees; 0 where the file does not tell."""
        return self._camera.value("f", 0x1B4)

    @property
    def palette(self) -> str:
        """Name of the palette that the camera displayed; empty where the file does not tell."""
        record = self.records.get(_PALETTE)
        return record.text(0x50, 32) if record is not None else ""

    @property
    def taken(self) -> datetime | None:
        """Time of the picture, to a millisecond, in UTC; None where the file does not tell."""
        seconds, ms = int(self._camera.value("I", 0x384)), int(self._camera.value("I", 0x388)) & 0xFFFF
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=min(ms, 999) * 1000) if seconds else None

    @property
    def rate_hz(self) -> float:
        """Frame rate of the camera; 0 where the file does not tell."""
        return self._camera.value("H", 0x464)

    @property
    def _camera(self) -> Record:
        return self.records.get(_CAMERA, Record(memoryview(b""), 0))


def parse(data: memoryview, name: str) -> tuple[Radiometric, int]:
    """Read one FFF that begins at the first byte; return it, and its length in bytes.

    Records of other types are left out. Raises SourceUnreadable, in one line, if it is cut or damaged.
    """
    head = bytes(data[:HEADER])
    versions = {o: struct.unpack_from(f"{o}I", head, 0x14)[0] for o in "><" if len(head) == HEADER}
    order = next((o for o, version in versions.items() if 100 <= version < 200), "")
    if head[:4] not in MAGICS or not order:
        raise SourceUnreadable(f"{name}: its FLIR data has no header that is known; the file is damaged")
    at, count = struct.unpack_from(f"{order}2I", head, 0x18)
    if count > _MOST_RECORDS or at + count * _ENTRY > len(data):
        raise SourceUnreadable(f"{name}: its FLIR data is cut in its directory of {count} records; copy the file again")
    records, length = dict[int, Record](), at + count * _ENTRY
    for kind, subtype, _, _, start, size, *_ in struct.iter_unpack(f"{order}2H7I", bytes(data[at:length])):
        if not kind or not size:
            continue
        if start + size > len(data):
            raise SourceUnreadable(
                f"{name}: its FLIR data is cut, byte {start + size} of {len(data)} is missing; copy the file again"
            )
        length = max(length, start + size)
        if kind in (_PIXELS, _PHOTO, _CAMERA, _PALETTE, _PIP) and kind not in records:
            records[kind] = Record(data[start : start + size], subtype)
    return Radiometric(name, records), length
