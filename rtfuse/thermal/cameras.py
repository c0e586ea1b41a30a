"""Describe the frames of thermal cameras: telemetry rows, counts hidden in YUYV, scales.

Sources: Boson telemetry, FLIR Boson software IDD (status in word 38, counter in 42 and 43, camera temperature in 47);
Lepton telemetry, FLIR Lepton engineering datasheet (rows A and C); TC001, P2 Pro and TC002C: what their users have
published. None of these cameras was at hand: telemetry is used only where it is plausible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.types import Image, Shutter, Thermal

Telemetry = Callable[[Image], Thermal | None]

_SHUTTER: dict[int, Shutter] = {0: "open", 1: "imminent", 2: "closed", 3: "open"}
_PLAUSIBLE_K = (213.0, 398.0)
"""Plausible temperatures of a camera itself: -60 to 125 °C."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Describe the frame of one size of a camera.

    The thermal picture is rows `top` to `bottom`; with `folded`, each of those rows holds two of the picture's. The
    other rows hold telemetry, which `telemetry` reads. `k_per_count` turns counts into kelvin.
    """

    top: int
    bottom: int
    folded: bool = False
    k_per_count: float | None = None
    telemetry: Telemetry | None = None

    def picture(self, image: Image) -> Image:
        """Return the thermal picture inside a frame as sent, uncopied."""
        if self.top == 0 and self.bottom == image.shape[0]:
            return image
        rows = image[self.top : self.bottom]
        return rows.reshape(2 * rows.shape[0], -1) if self.folded else rows

    def size_wh(self, sent_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the thermal picture in a frame of that size."""
        rows = self.bottom - self.top
        return (sent_wh[0] // 2, 2 * rows) if self.folded else (sent_wh[0], rows)

    def read(self, image: Image) -> Thermal | None:
        """Return what the telemetry says, None if it says nothing plausible."""
        if self.telemetry is None or image.dtype != np.uint16:
            return None
        for rows in (image[: self.top], image[self.bottom :]):
            if rows.size and (said := self.telemetry(rows.reshape(-1))) is not None:
                return said
        return None


@dataclass(frozen=True, slots=True)
class CameraLayouts:
    """Kind of camera: its layouts by size (w, h) and depth, and whether its YUYV holds 16-bit words.

    Other sizes are plain pictures, unless it is `fixed`.
    """

    layouts: dict[tuple[int, int, str], Layout]
    words: bool = False
    fixed: bool = False


def _boson(words: Image) -> Thermal | None:
    """Read the first telemetry row of a Boson."""
    housing_k = float(words[47]) / 10
    if not _PLAUSIBLE_K[0] <= housing_k <= _PLAUSIBLE_K[1]:
        return None
    counter = int(words[42]) << 16 | int(words[43])
    return Thermal(housing_k=housing_k, counter=counter, shutter=_SHUTTER[int(words[38]) & 3])


def _lepton(words: Image) -> Thermal | None:
    """Read the telemetry rows A and C of a Lepton, 80 words each."""
    housing_k, core_k = float(words[26]) / 100, float(words[24]) / 100
    if not all(_PLAUSIBLE_K[0] <= k <= _PLAUSIBLE_K[1] for k in (housing_k, core_k)):
        return None
    status = int(words[3]) | int(words[4]) << 16
    counter = int(words[20]) | int(words[21]) << 16
    scale = None
    if words.size > 209 and int(words[208]) == 1:
        scale = 0.01 if int(words[209]) == 1 else 0.1
    return Thermal(scale, housing_k=housing_k, counter=counter, shutter=_SHUTTER[status >> 4 & 3])


def _lepton_layouts() -> dict[tuple[int, int, str], Layout]:
    return {(w, h + rows, "uint16"): Layout(0, h, telemetry=_lepton) for w, h, rows in ((160, 120, 2), (80, 60, 3))}


def _boson_layouts() -> dict[tuple[int, int, str], Layout]:
    return {(w, h + 2, "uint16"): Layout(2, h + 2, telemetry=_boson) for w, h in ((640, 512), (320, 256))}


_TC001 = CameraLayouts(
    {(256, 384, "uint16"): Layout(192, 384, k_per_count=1 / 64), (256, 384, "uint8"): Layout(0, 192)},
    words=True,
    fixed=True,
)
_TC002C = CameraLayouts(
    {
        (512, 484, "uint16"): Layout(0, 96, folded=True, k_per_count=1 / 16),
        (512, 484, "uint8"): Layout(98, 482),
    },
    words=True,
    fixed=True,
)

CAMERAS: dict[str, CameraLayouts] = {
    "plain": CameraLayouts({}),
    "boson": CameraLayouts(_boson_layouts()),
    "lepton": CameraLayouts(_lepton_layouts()),
    "tc001": _TC001,
    "p2pro": _TC001,
    "tc002c": _TC002C,
}


def camera_named(name: str) -> CameraLayouts | None:
    """Return a kind of camera; None for `auto`. Raises ConfigError for a name that is not known."""
    if name != "auto" and name not in CAMERAS:
        raise ConfigError(f"thermal.camera: {name!r} is not known; want auto, {', '.join(CAMERAS)}")
    return CAMERAS.get(name)


def layout_of(name: str, size_wh: tuple[int, int], dtype: str) -> Layout:
    """Return the layout of a frame of this size and depth; `auto` goes by those two.

    Raises ConfigError for an unknown name, or a size that the named camera does not send.
    """
    named, key = camera_named(name), (*size_wh, dtype)
    for camera in CAMERAS.values() if named is None else (named,):
        if key in camera.layouts:
            return camera.layouts[key]
    if named is not None and named.fixed:
        known = " or ".join(sorted({f"{w}x{h}" for w, h, _ in named.layouts}))
        raise ConfigError(f"thermal.camera: {name} sends {known}, this source has {size_wh[0]}x{size_wh[1]} {dtype}")
    return Layout(0, size_wh[1])
