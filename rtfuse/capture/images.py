"""Read image files as the frames of a stream: `pages(path)`, `read_image(path, stream, page)`."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from rtfuse.types import Image, Stream

SUFFIXES = frozenset(
    [".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".webp", ".pgm", ".ppm", ".pnm", ".jp2"]
)
_PAGED = (".tif", ".tiff")


def is_image(path: str | Path) -> bool:
    """Return True if the file name is that of a still image."""
    return Path(path).suffix.lower() in SUFFIXES


def pages(path: str | Path) -> int:
    """Return the number of pictures in an image file: the pages of a TIFF, otherwise 1, also if it cannot be read."""
    return max(cv2.imcount(str(path)), 1) if Path(path).suffix.lower() in _PAGED else 1


def read_image(path: str | Path, stream: Stream, page: int = 0) -> Image | None:
    """Read one image: thermal as (H, W) uint8 or uint16, RGB as (H, W, 3) uint8; None if it cannot be read."""
    # imdecode, not imread: it does not print to the terminal and takes any path that Python takes.
    flags = cv2.IMREAD_COLOR if stream == "rgb" else cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
    image: Image | None
    try:
        data = np.fromfile(path, np.uint8)
        if page:
            found = cv2.imdecodemulti(data, flags, range=(page, page + 1))[1] if data.size else ()
            image = found[0] if found else None
        else:
            image = cv2.imdecode(data, flags) if data.size else None
    except (OSError, cv2.error):
        return None
    if image is None:
        return None
    if stream == "rgb":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image if image.dtype in (np.uint8, np.uint16) else None
