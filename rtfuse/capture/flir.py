"""Find and read radiometric JPEG: FLIR's as counts and photo; DJI's is only recognised.

FLIR cameras split one FFF (see `rtfuse.capture.fff`) over APP1 segments of at most 64 KiB. The JPEG itself is what the
display showed: false colours with text on them, never to be taken for thermal data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from rtfuse.capture import fff, jpeg
from rtfuse.capture.fff import Radiometric
from rtfuse.capture.paths import matches
from rtfuse.errors import SourceUnreadable
from rtfuse.types import Image, Stream, Thermal

_MARK = b"FLIR\0"
_MOST_BYTES = 1 << 25
"""More than 256 segments of 64 KiB, and those of other makers."""
_DJI_COUNTS_BYTES = 30_000
"""Fewer bytes in APP3 cannot be a thermal picture."""


def read(path: str | Path) -> Radiometric | None:
    """Read a radiometric JPEG of FLIR; None for any other file.

    Raises SourceUnreadable, in one line, if the radiometric data is cut or damaged.
    """
    data = _flir_data(_begin_of(Path(path)), str(path))
    if data is None:
        return None
    found, _ = fff.parse(memoryview(data), str(path))
    return found if found.has_pixels else None  # a photo by the same camera


def is_radiometric(path: str | Path) -> bool:
    """Return True if the file is a radiometric JPEG of FLIR, be it damaged."""
    try:
        return read(path) is not None
    except SourceUnreadable:
        return True


def picture(path: str | Path, stream: Stream) -> Image | None:
    """Return the content of a radiometric JPEG for a stream; None if the file is another one, or has only a screenshot.

    Thermal is (H, W) uint16 counts, RGB the embedded photo, (H, W, 3) uint8. Raises SourceUnreadable if the data is
    cut or damaged, or holds no photo.
    """
    found = read(path)
    if found is None:
        return None
    return found.counts() if stream == "ir" else found.photo()


def thermal_data(path: str | Path, stream: Stream) -> Thermal | None:
    """Return the thermal camera's notes on its picture; None for other files, and for RGB."""
    found = read(path) if stream == "ir" else None
    if found is None:
        return None
    return Thermal(radiometry=found.radiometry, H_photo_from_ir=found.H_photo_from_ir)


def is_cut(path: str | Path) -> bool:
    """Return True for a JPEG that ends before its picture begins, radiometric or not."""
    data = _begin_of(Path(path))
    return 0 < len(data) < _MOST_BYTES and jpeg.fault(data)[0] == "cut"


def is_dji(path: str | Path) -> bool:
    """Return True for a radiometric JPEG of DJI: thermal data in APP3 that only DJI's own library reads."""
    data = _begin_of(Path(path))
    parts = list(jpeg.segments(data))
    made = any(marker == jpeg.APP1 and b"DJI" in data[at:end].upper() for marker, at, end in parts)
    return made and sum(end - at for marker, at, end in parts if marker == jpeg.APP3) >= _DJI_COUNTS_BYTES


def files_in(uri: str, kind: Callable[[Path], bool] = is_radiometric) -> Iterator[Path]:
    """Yield the files of a kind, as FLIR's radiometric JPEG, that a path, a folder or a pattern names."""
    path = Path(uri)
    found = path.rglob("*") if path.is_dir() else [path] if path.exists() else map(Path, matches(uri))
    return filter(kind, found)


def _begin_of(path: Path) -> bytes:
    """Return the first bytes of a JPEG; nothing of another file, or of a pipe, which can be read once only."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            start = file.read(2)
            return start + file.read(_MOST_BYTES) if start == jpeg.START else b""
    except (OSError, ValueError):
        return b""


def _flir_data(data: bytes, name: str) -> bytes | None:
    """Return the FFF of a JPEG, put together from its segments; None without one. Raises SourceUnreadable if one lacks.

    A segment has the mark, a 1, its number from 0, and the number of the last one.
    """
    parts, last = dict[int, bytes](), 0
    for marker, at, end in jpeg.segments(data):
        if marker == jpeg.APP1 and data[at : at + 5] == _MARK and end - at > 8:
            parts.setdefault(data[at + 6], data[at + 8 : end])
            last = max(last, data[at + 7])
    fault, at = jpeg.fault(data)
    lost = bool(fault) and _MARK + b"\1" in data  # the walk ended before it, or went over it
    if not parts and not lost:
        return None
    missing = sorted(set(range(last + 1)) - parts.keys())
    if parts and missing:
        raise SourceUnreadable(
            f"{name}: part {missing[0] + 1} of the {last + 1} parts of its FLIR data is missing; copy the file again"
        )
    if not parts or fault == "damaged":
        raise SourceUnreadable(f"{name}: its FLIR data is {fault}, behind byte {at} of the file; copy the file again")
    return b"".join(parts[number] for number in range(last + 1))
