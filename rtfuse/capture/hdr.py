"""Map HDR pictures (PQ, HLG; BT.2020) to SDR (BT.709 primaries), for which everything behind is made."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from rtfuse.types import Image

HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics by their number in ITU-T H.273."""
_PEAK = 1000.0
"""cd/m² of the brightest colour that is told from white."""
_WHITE = 203.0
"""cd/m² of diffuse white (BT.2408): the brightest of SDR."""
_LUMA_2020 = np.array([0.2627, 0.6780, 0.0593], np.float32)
_M_2020_FROM_709 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""BT.2087, table 4."""
_M_709_FROM_2020 = np.linalg.inv(_M_2020_FROM_709).astype(np.float32)
_STEPS = 4095
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
_Floats = npt.NDArray[np.float64]


def to_sdr(image: Image, transfer: int) -> Image:
    """Return (H, W, 3) uint8 RGB of an (H, W, 3) uint16 BT.2020 picture with one of the transfers of `HDR`."""
    light = _light(transfer)[image]
    if HDR[transfer] == "HLG":  # the display's own gamma of 1.2 on luminance, BT.2100 table 5
        luma = light @ _LUMA_2020
        light *= _system_gain()[_index(luma)][..., None]
    brightest = light.max(axis=2) * np.float32(_WHITE / _PEAK)
    light *= _tone_gain()[_index(brightest)][..., None]
    return _encoded()[_index(cv2.transform(light, _M_709_FROM_2020))]


def _index(values: Image) -> Image:
    """Return indices of tables over 0 to 1 whose steps are finer in the dark."""
    return (np.sqrt(values.clip(0, 1)) * _STEPS + 0.5).astype(np.uint16)


def _axis() -> _Floats:
    return (np.arange(_STEPS + 1) / _STEPS) ** 2


@cache
def _light(transfer: int) -> Image:
    """Return light by 16-bit signal, float32: of PQ on the display, 1 is diffuse white; of HLG in the scene, 0 to 1."""
    signal = np.arange(65536) / 65535
    if HDR[transfer] == "PQ":
        return (_pq_light(signal) / _WHITE).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # BT.2100 table 5
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)


@cache
def _system_gain() -> Image:
    """Return the factor from light in the scene to light on the display, by luminance of the scene."""
    return (_axis().clip(1e-6) ** 0.2 * _PEAK / _WHITE).astype(np.float32)


@cache
def _tone_gain() -> Image:
    """Return the factor of the tone curve by light in parts of the peak: that of BT.2390 5.4.1, to diffuse white."""
    light = _axis().clip(1e-6) * _PEAK
    white, top = _pq_signal(np.array([_WHITE, _PEAK]))
    signal, most = _pq_signal(light) / top, white / top
    knee = 1.5 * most - 0.5
    t = ((signal - knee) / (1 - knee)).clip(0, 1)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return (_pq_light(np.where(signal < knee, signal, bent) * top) / light).astype(np.float32)


@cache
def _encoded() -> Image:
    """Return 8-bit values by light: gamma 2.2."""
    return (_axis() ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def _pq_light(signal: _Floats) -> _Floats:
    """Return cd/m² by signal (SMPTE ST 2084)."""
    root = signal ** (1 / _M2)
    found: _Floats = 10000 * ((root - _C1).clip(0) / (_C2 - _C3 * root)) ** (1 / _M1)
    return found


def _pq_signal(light: _Floats) -> _Floats:
    """Return the signal by cd/m² (SMPTE ST 2084)."""
    power = (light / 10000) ** _M1
    found: _Floats = ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2
    return found
