"""Look for artefacts of a fused picture that neither source has; lower is better, and noise makes each worse or equal.

EN, SD, SF, AG, and in part VIF, rise with noise, halos and stretched contrast. Read them beside these.
"""

from __future__ import annotations

import cv2
import msgspec
import numpy as np

from rtfuse.types import Image

REACH_PX = 7
"""A halo lies up to this far from its edge."""
_EDGE = 24.0
"""Sobel gradient of a strong edge, in grey levels a pixel."""
_FLAT = 1.5
"""Gradient of the smoothed source (σ = 2 px) below which a region is flat, in grey levels a pixel."""
_FLAT_SHARE = 0.01
_ROUNDING = 12**-0.5
"""Deviation that rounding to 8 bits alone makes, in grey levels."""


class Artefacts(msgspec.Struct, frozen=True):
    """Artefacts of one fused image.

    - `halo`: overshoot beside strong edges, in grey levels (`halo`).
    - `noise_gain`: ratio (`noise_gain`); NaN if less than 1 % of the picture is flat in both sources.
    - `saturated`: per cent of the pixels (`saturated`).
    - `cast`: shift of the mean chroma, in levels (`colour_cast`); NaN for grey pictures.
    """

    halo: float
    noise_gain: float
    saturated: float
    cast: float


def look(fused: Image, ir: Image, luma: Image, colours: tuple[Image, Image] | None = None) -> Artefacts:
    """Measure the artefacts of fused luma against its sources, (H, W) uint8 each.

    `colours` are the fused picture and RGB, (H, W, 3) uint8 RGB each; None if the fused picture is grey.
    """
    return Artefacts(
        halo=halo(fused, ir, luma),
        noise_gain=noise_gain(fused, ir, luma),
        saturated=saturated(fused, ir, luma),
        cast=float("nan") if colours is None else colour_cast(*colours),
    )


def halo(fused: Image, ir: Image, luma: Image) -> float:
    """Return the mean overshoot beside strong edges of either source, in grey levels.

    Beside: within 7 px of a pixel whose Sobel gradient is at least 24 grey levels a pixel in one source. Overshoot: by
    how much the fused value is above the maximum, or below the minimum, of both sources over the 15×15 pixels around.
    0 without such an edge.
    """
    window = np.ones((2 * REACH_PX + 1,) * 2, np.uint8)
    strong = np.maximum(_gradient(ir), _gradient(luma)) >= _EDGE
    band = cv2.dilate(strong.astype(np.uint8), window) > 0
    if not band.any():
        return 0.0
    top = cv2.dilate(cv2.max(ir, luma), window)
    bottom = cv2.erode(cv2.min(ir, luma), window)
    beyond = cv2.max(cv2.subtract(fused, top), cv2.subtract(bottom, fused))
    return float(beyond[band].mean())


def noise_gain(fused: Image, ir: Image, luma: Image) -> float:
    """Return the fused noise over the larger noise of both sources, where both are flat; 1 adds no noise.

    Flat: the gradient of the picture smoothed by σ = 2 px is below 1.5 grey levels a pixel, in both. Noise: the
    deviation from the 5×5 mean, as the root of its mean square over 7×7 pixels; at each pixel the larger of the
    sources' counts, at least the 0.29 levels that rounding makes. Texture finer than the
    smoothing counts as noise. NaN if less than 1 % of the picture is flat.
    """
    flat = np.maximum(*(_gradient(cv2.GaussianBlur(x.astype(np.float32), (0, 0), 2)) for x in (ir, luma))) < _FLAT
    for edge in (flat[:REACH_PX], flat[-REACH_PX:], flat[:, :REACH_PX], flat[:, -REACH_PX:]):
        edge[:] = False  # reflected there, so that each gradient looks flat
    if flat.mean() < _FLAT_SHARE:
        return float("nan")
    own, *sources = (_deviation(x) for x in (fused, ir, luma))
    return float(own[flat].mean() / np.maximum(np.maximum(*sources), _ROUNDING)[flat].mean())


def saturated(fused: Image, ir: Image, luma: Image) -> float:
    """Return the share of pixels that are 0 or 255 in the fused picture and in neither source, in per cent."""
    ends = [(x == 0) | (x == 255) for x in (fused, ir, luma)]
    return 100 * float((ends[0] & ~ends[1] & ~ends[2]).mean())


def colour_cast(fused: Image, rgb: Image) -> float:
    """Return the length of the shift of mean (Cr, Cb) from RGB to the fused picture, (H, W, 3) uint8 RGB, in levels."""
    means = [cv2.cvtColor(x, cv2.COLOR_RGB2YCrCb).reshape(-1, 3)[:, 1:].mean(axis=0) for x in (fused, rgb)]
    return float(np.hypot(*(means[0] - means[1])))


def _gradient(x: Image) -> Image:
    """Return the gradient by Sobel's kernels, (H, W) float32, in units of `x` a pixel."""
    right, down = (cv2.Sobel(x, cv2.CV_32F, *d, ksize=3, scale=1 / 8) for d in ((1, 0), (0, 1)))
    return cv2.magnitude(right, down)


def _deviation(x: Image) -> Image:
    y = x.astype(np.float32)
    rest = y - cv2.blur(y, (5, 5))
    return cv2.sqrt(cv2.blur(rest * rest, (7, 7)))
