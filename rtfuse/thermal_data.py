"""Hold the data of a thermal frame in addition to its picture: temperatures, telemetry and the shutter's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Shutter = Literal["open", "imminent", "closed"]
"""State of a thermal camera's shutter event (FFC): none, about to come, or going on."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Pixel of a thermal image, x right and y down from the centre of the top-left one, and its temperature."""

    x: int
    y: int
    k: float


@dataclass(frozen=True, slots=True)
class PlacedSpot:
    """Point of the fused picture, x right and y down in pixels, and the temperature there."""

    x: float
    y: float
    k: float


@dataclass(frozen=True, slots=True)
class Radiometry:
    """Constants by which FLIR's counts become temperatures; `rtfuse.thermal.planck` has the formulas.

    - `planck`: r1, b, f, o and r2 of the camera's curve; `air`: alpha1, alpha2, beta1, beta2 and x.
    - `emissivity`, `window_transmission`, `humidity`: from 0 to 1; `distance_m`: to the object.
    - `reflected_k`, `air_k`, `window_k`: temperatures in kelvin.
    """

    planck: tuple[float, float, float, float, float]
    air: tuple[float, float, float, float, float]
    emissivity: float
    distance_m: float
    reflected_k: float
    air_k: float
    window_k: float
    window_transmission: float
    humidity: float


@dataclass(frozen=True, slots=True)
class Thermal:
    """Data of a thermal frame in addition to its picture; None means unknown.

    - `k_per_count`: kelvin per count of a radiometric camera; `radiometry`: the constants of one that is not linear.
    - `H_photo_from_ir`: 3x3, from its pixels to those of the photo in the same file, by the camera's own numbers.
    - `hot`, `cold`: the extreme pixels of radiometric frames.
    - `housing_k`, `counter`, `shutter`: the camera's own temperature in kelvin, its frame number and its shutter event,
      from telemetry.
    """

    k_per_count: float | None = None
    radiometry: Radiometry | None = None
    H_photo_from_ir: tuple[tuple[float, float, float], ...] | None = None
    hot: Spot | None = None
    cold: Spot | None = None
    housing_k: float | None = None
    counter: int | None = None
    shutter: Shutter | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """Distance for which thermal is registered on RGB, where it was set or can change.

    - `plane_m`: distance along the RGB camera's axis, in metres, at which this frame is exact.
    - `target_m`: the distance to which it moves; equal to `plane_m` at rest.
    - `mode`: `plane`, one distance for the whole picture; `ground`, the ground's nearer than that, and this beyond;
      `source`, each pixel's own by a depth camera, and this where that is unknown.
    - `known`: the share of the picture whose depth was measured, in mode `source`.
    """

    plane_m: float
    target_m: float
    mode: Literal["plane", "ground", "source"] = "plane"
    known: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class DepthFrame:
    """Picture of a depth camera, of RGB's pixels at any scale.

    `counts`: (h, w) uint16, distance along the axis, 0: unknown. `t_ns`: its time, on RGB's axis of times.
    """

    counts: npt.NDArray[np.uint16]
    t_ns: int
