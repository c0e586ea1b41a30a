"""Turn the counts of FLIR's radiometric cameras into temperatures.

The model is that of FLIR's ThermoVision toolkit as G. Tattersall published it (Thermimage, function `raw2temp`,
doi:10.5281/zenodo.1069704): the signal of a black body at T kelvin is

    S(T) = r1 / (r2 (exp(b / T) - f)) - o

and the camera, behind air of transmission t, a window of transmission w and air of transmission t again, counts

    t w t (e S(object) + (1 - e) S(reflected)) + t w (1 - t) S(air) + t (1 - w) S(window) + (1 - t) S(air).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from rtfuse.types import Image, Radiometry, Thermal

_LEVELS = 65536
_ZERO_C = 273.15


def kelvin_of_counts(how: Radiometry) -> Image:
    """Return the temperature of every count, (65536,) float32 in kelvin; NaN where the formulas give none."""
    signal = object_signal(np.arange(_LEVELS, dtype=np.float64), how)
    with np.errstate(all="ignore"):
        r1, b, f, o, r2 = how.planck
        kelvin = b / np.log(r1 / (r2 * (signal + o)) + f)
    return np.where(np.isfinite(kelvin) & (kelvin > 0), kelvin, np.nan).astype(np.float32)


def count_at(said: Thermal, kelvin: float) -> int | None:
    """Return the smallest count of a frame that is at least this temperature; None if its counts have none.

    65536 if every count is colder.
    """
    if said.k_per_count is not None:
        return min(max(math.ceil(kelvin / said.k_per_count - 1e-9), 0), _LEVELS)
    return None if said.radiometry is None else _first_at(said.radiometry, kelvin)


@lru_cache(maxsize=8)
def _first_at(how: Radiometry, kelvin: float) -> int:
    hot = np.flatnonzero(kelvin_of_counts(how) >= kelvin)  # NaN is not
    return int(hot[0]) if len(hot) else _LEVELS


def object_signal(counts: Image, how: Radiometry) -> Image:
    """Return the signal that the object itself emits, as if it were a black body without air or window in between.

    counts: float64 of any shape; the result has the same one.
    """
    e, w, t = how.emissivity, how.window_transmission, air_transmission(how)
    reflected, air, window = (_signal(k, how) for k in (how.reflected_k, how.air_k, how.window_k))
    seen = counts / (e * t * w * t)
    added = (1 - t) / (e * t) * air + (1 - t) / (e * t * w * t) * air
    added += (1 - w) / (e * t * w) * window + (1 - e) / e * reflected
    return np.asarray(seen - added)


def air_transmission(how: Radiometry) -> float:
    """Return the transmission of half of the air between object and camera, 0 to 1."""
    alpha1, alpha2, beta1, beta2, x = how.air
    celsius = how.air_k - _ZERO_C
    water = how.humidity * np.exp(1.5587 + 6.939e-2 * celsius - 2.7816e-4 * celsius**2 + 6.8455e-7 * celsius**3)
    root, half = np.sqrt(water), np.sqrt(how.distance_m / 2)
    first, second = (np.exp(-half * (a + b * root)) for a, b in ((alpha1, beta1), (alpha2, beta2)))
    return float(x * first + (1 - x) * second)


def _signal(kelvin: float, how: Radiometry) -> float:
    """Return the signal of a black body at a temperature in kelvin."""
    r1, b, f, o, r2 = how.planck
    return float(r1 / (r2 * (np.exp(b / kelvin) - f)) - o)
