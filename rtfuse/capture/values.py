"""Turn pixel values of any type into those of the pipeline: counts of thermal, and 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from rtfuse.capture.settings import Unit
from rtfuse.errors import SourceUnreadable
from rtfuse.types import Image

Say = Callable[[str, str], None]
"""Take a name and a sentence; each name is said once."""

ZERO_CELSIUS_K = 273.15
COUNTS_PER_K = 100
_LIVING_C, _LIVING_K = (-100.0, 180.0), (190.0, 420.0)
"""Ranges of scenes that are nearly always one unit."""
_SCENE_C, _SCENE_K = (-60.0, 100.0), (213.0, 373.0)
"""Ranges of the median of a scene that has something very hot in it."""
_HOTTEST = 2000.0
_DEPTHS = (8, 10, 12, 14, 16)
_LIFT = 1 << 15
_NODATA = (-999.0, -9999.0, -10000.0, -32767.0, -32768.0, float(-(1 << 31)))
"""Values that programs write into pixels without one; so is any beyond the next."""
_BEYOND, _APART = 9e19, 1 / 8
"""Such a value is known by its distance from all others, as a share of their range."""


def without_nodata(image: Image, nodata: float | None, path: str, say: Say) -> Image:
    """Return thermal values, (H, W), with those that stand for none replaced by the coldest of the others.

    `nodata` is the value that the file names; others are known by themselves.
    """
    if nodata is None and image.dtype in (np.uint8, np.uint16):
        return image
    empty = image == nodata if nodata is not None else np.zeros(image.shape, bool)
    if image.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            empty |= (np.abs(image) > _BEYOND) & np.isfinite(image)
    rest = image[~empty & np.isfinite(image)]
    while rest.size and float(low := rest.min()) in _NODATA:
        above = rest[rest > low]
        if not above.size or float(above.min()) - float(low) <= _APART * (float(above.max()) - float(above.min())):
            break
        empty |= image == low
        rest = above
    if not empty.any() or not rest.size:
        return image
    values = ", ".join(f"{value:g}" for value in np.unique(image[empty])[:3])
    share = f"{int(empty.sum())} of {image.size} pixels of {path}"
    say("nodata", f"{share} have no thermal value ({values} stands for none); they are read as the coldest")
    return np.where(empty, rest.min(), image)


class Counts:
    """Turn thermal values of any type into counts, (H, W) uint8 or uint16, alike for all pictures of a source.

    Temperatures become centikelvin. `unit` is the given one, or decided by the first picture's range and said.
    """

    def __init__(self, unit: Unit | None, say: Say) -> None:
        self._unit, self._say = unit, say
        self._scale: float | None = None
        self._lift, self._shift = 0, 0

    def __call__(self, image: Image, path: str) -> Image:
        """Return the counts. Raises SourceUnreadable where the unit is in doubt, naming the setting."""
        if image.dtype.kind == "f":
            return self._measured(image, path)
        if image.dtype in (np.uint8, np.uint16):
            return image if self._unit in (None, "counts") else self._temperatures(image.astype(np.float32), self._unit)
        return self._whole(image)

    def _measured(self, image: Image, path: str) -> Image:
        """Return the counts of fractional values."""
        finite = np.isfinite(image)
        if not finite.any():
            self._say("empty", f"thermal image {path} has no finite value; it is read as black")
            return np.zeros(image.shape, np.uint16)
        if not finite.all():
            share = f"{image.size - int(finite.sum())} of {image.size} pixels of {path}"
            self._say(
                "finite", f"{share} have no finite thermal value; they are read as the coldest (inf: the hottest)"
            )
            low, high = float(image[finite].min()), float(image[finite].max())
            image = np.nan_to_num(image, nan=low, neginf=low, posinf=high)
        if self._unit is None:
            self._unit = _unit_of(image, path)
            text = f"thermal values of {path} ({_span(image)}) are read as {_PROSE[self._unit]}"
            if self._unit != "counts":
                text += "; a count of the frames is 0.01 K (thermal.k_per_count=0.01)"
            self._say(f"unit-{self._unit}", text + "; ir.unit=counts, kelvin or celsius says otherwise")
        if self._unit != "counts":
            return self._temperatures(image, self._unit)
        if self._scale is None:
            self._scale = 65535.0 if image.max() <= 1.01 else 1.0
        return _clipped(image * self._scale)

    def _temperatures(self, image: Image, unit: Unit) -> Image:
        """Return temperatures as centikelvin."""
        zero = ZERO_CELSIUS_K if unit == "celsius" else 0.0
        counts = (image + np.float64(zero)) * COUNTS_PER_K
        if counts.max() > 65535:
            self._say(
                "hot", f"thermal values above 655 K are read as 655 K (the hottest here: {counts.max() / 100:.0f} K)"
            )
        return _clipped(counts)

    def _whole(self, image: Image) -> Image:
        """Return the counts of whole numbers that are signed or have more than 16 bits."""
        if self._unit in ("kelvin", "celsius"):
            return self._temperatures(image.astype(np.float64), self._unit)
        low, high = int(image.min()), int(image.max())
        if low + self._lift < 0:
            self._lift = -(low // _LIFT) * _LIFT
            self._say(f"lift-{self._lift}", f"thermal has negative counts (from {low}); {self._lift} is added to all")
        wide = image.astype(np.int64) + self._lift
        while (int(wide.max()) >> self._shift) > 65535:
            self._shift += 1
            self._say(
                "shift", f"thermal counts of {low} to {high} need more than 16 bits; their lowest bits are dropped"
            )
        return np.clip(wide >> self._shift, 0, 65535).astype(np.uint16)


_PROSE: dict[Unit, str] = {"celsius": "°C", "kelvin": "kelvin", "counts": "counts"}


def _unit_of(image: Image, path: str) -> Unit:
    """Decide the unit of fractional thermal values by their range. Raises SourceUnreadable where it is in doubt."""
    low, mid, high = (float(v) for v in np.percentile(image, (0.5, 50, 99.5)))
    whole = bool(np.all(image[::4, ::4] == np.rint(image[::4, ::4])))
    share = low >= -0.01 and high <= 1.01
    if low >= 0 and (high > _HOTTEST or (whole and _LIVING_C[1] < high <= 255 and low < _LIVING_K[0])):
        return "counts"
    if _LIVING_K[0] <= low and high <= _LIVING_K[1]:
        return "kelvin"
    if not share and _LIVING_C[0] <= low and high <= _LIVING_C[1]:
        return "celsius"
    if high <= _HOTTEST and _SCENE_K[0] <= mid <= _SCENE_K[1] and low >= _LIVING_K[0]:
        return "kelvin"
    if not (share or whole) and high <= _HOTTEST and _SCENE_C[0] <= mid <= _SCENE_C[1] and low >= _LIVING_C[0]:
        return "celsius"
    raise SourceUnreadable(
        f"thermal image {path} holds the values {_span(image)}, which may be temperatures or not: "
        "set their unit: ir.unit=celsius, ir.unit=kelvin or ir.unit=counts"
    )


def _span(image: Image) -> str:
    return f"{image.min():.6g} to {image.max():.6g}, {image.dtype}"


def _clipped(values: Image) -> Image:
    return np.clip(np.rint(values), 0, 65535).astype(np.uint16)


class Bytes:
    """Turn colour values of any type into 8 bits, by the depth of the largest value that the source has had."""

    def __init__(self, say: Say) -> None:
        self._say, self._top = say, 0.0

    def __call__(self, image: Image, path: str) -> Image:
        """Return the values as uint8, in the shape of `image`."""
        if image.dtype == np.uint8:
            return image
        if image.dtype.kind == "f":
            image = np.nan_to_num(image, nan=0.0, neginf=0.0, posinf=0.0)
        largest = float(image.max())
        if image.dtype.kind == "f" and largest <= 1.01:
            self._top = max(self._top, 1.0)
        else:
            bits = next((d for d in _DEPTHS if largest < 1 << d), 16)
            self._top = max(self._top, float((1 << bits) - 1), largest)
        if image.dtype != np.uint16 or self._top != 65535:
            depth = "0 to 1" if self._top == 1 else f"{int(self._top).bit_length()} bits"
            text = f"RGB image {path} is {image.dtype} up to {largest:g}; its values are read as {depth}"
            self._say(f"depth-{depth}", text)
        if image.dtype == np.uint16 and self._top == 65535:
            return (image >> 8).astype(np.uint8)
        return cv2.convertScaleAbs(np.maximum(image, 0).astype(np.float32), alpha=255 / self._top)
