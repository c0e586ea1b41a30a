"""Compute bands of details in 8-bit integers: a picture less its blurred self, and the stronger of two bands.

    h = pyrDown(x), u = pyrUp(h), band = x − u

Burt and Adelson, "The Laplacian pyramid as a compact image code", 1983. `networks/bands.py` computes the same
integers in torch. An operation on bytes takes some 10 µs for 640×480 pixels, a tenth of one on 16 bits or on floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from rtfuse.types import Image

UNIT_WEIGHT, UNIT_GAIN = 32, 128
"""The bytes that stand for a weight, and for a gain, of 1."""
LOUDER = 8
"""Energies are those of the bands times this: where thermal and luma are quiet, one grey level matters."""
Guide = Callable[[Image], Image]
"""Rests and energies, (2 + 2 L, h, w) uint8, to the fused rest, L weights and L gains, (1 + 2 L, h, w) uint8; see
`networks.student.Guide`."""


class Band(NamedTuple):
    """Details of one size, (H, W) uint8 each: x − u where it is positive, u − x where that is, and |x − u|."""

    above: Image
    below: Image
    size: Image


def split(image: Image, levels: int) -> tuple[list[Band], Image]:
    """Return the bands of an (H, W) uint8 picture, from fine to coarse, and the rest.

    Each band has half the sides of the one before; the rest a 2^`levels`th of the picture's, rounded up.
    """
    bands = []
    for _ in range(levels):
        coarse = cv2.pyrDown(image)
        blurred = cv2.pyrUp(coarse, dstsize=image.shape[::-1])
        above, below = cv2.subtract(image, blurred), cv2.subtract(blurred, image)
        bands.append(Band(above, below, cv2.bitwise_or(above, below)))
        image = coarse
    return bands, image


def add_stronger(
    coarse: Image, one: Band, other: Band, weight: Image | None = None, gain: Image | int = UNIT_GAIN
) -> Image:
    """Return the picture of which `coarse` is the next smaller one: blurred, and with the stronger band at each pixel.

    Stronger is the band whose `strength` is larger: the sign of a band changes along each edge, and where it is 0 the
    other source must not show through. A tie takes `other`. Then each pixel follows the majority of the 3×3 around it
    (the consistency check of Li, Manjunath and Mitra, "Multisensor image fusion using the wavelet transform", 1995):
    a pixel of the other source, alone among its neighbours, would be a speck. `weight` multiplies `one` for the
    comparison, `gain` the chosen band: (H, W) uint8 each, see `UNIT_WEIGHT`, or one gain for all pixels. Sums are cut
    off at 0 and 255. The chosen details overwrite those of `other`.
    """
    size = strength(one) if weight is None else cv2.multiply(strength(one), weight, scale=1 / UNIT_WEIGHT)
    first = cv2.medianBlur(cv2.compare(size, strength(other), cv2.CMP_GT), 3)
    above, below = cv2.copyTo(one.above, first, other.above), cv2.copyTo(one.below, first, other.below)
    if isinstance(gain, np.ndarray):
        cv2.multiply(above, gain, dst=above, scale=1 / UNIT_GAIN)
        cv2.multiply(below, gain, dst=below, scale=1 / UNIT_GAIN)
    elif gain != UNIT_GAIN:
        cv2.convertScaleAbs(above, dst=above, alpha=gain / UNIT_GAIN)
        cv2.convertScaleAbs(below, dst=below, alpha=gain / UNIT_GAIN)
    fused = cv2.pyrUp(coarse, dstsize=size.shape[::-1])
    cv2.add(fused, above, dst=fused)
    return cv2.subtract(fused, below, dst=fused)


def strength(band: Band) -> Image:
    """Return the mean of |band| around each pixel, with the weights 1 2 1 both ways, as (H, W) uint8.

    A salience over a window: Burt and Kolczynski, "Enhanced image capture through fusion", 1993.
    """
    return cv2.GaussianBlur(band.size, (3, 3), 0)


def fuse_guided(ir: Image, luma: Image, levels: int, guide: Guide) -> Image:
    """Fuse two (H, W) uint8 pictures by the stronger band of each of `levels`, as a guide says; (H, W) uint8.

    H and W are multiples of 2^`levels`.
    """
    (bands_ir, rest_ir), (bands_rgb, rest_rgb) = split(ir, levels), split(luma, levels)
    energies = [energy(x[k], levels - k) for k in range(levels) for x in (bands_ir, bands_rgb)]
    fused, *controls = guide(np.stack([rest_ir, rest_rgb, *energies]))
    for level in reversed(range(levels)):
        weight, gain = (_enlarged(controls[k], levels - level) for k in (level, levels + level))
        fused = add_stronger(fused, bands_ir[level], bands_rgb[level], weight, gain)
    return fused


def fuse_below(ir: Image, luma: Image, gains: Sequence[int], fuse: Callable[[Image, Image], Image]) -> Image:
    """Fuse two (H, W) uint8 pictures: `fuse` their rests, and add the stronger band of each level, times its gain.

    `gains` are in bytes, from fine to coarse (`UNIT_GAIN`); H and W multiples of 2^L for L gains. `fuse` takes and
    returns (h, w) uint8.
    """
    (bands_ir, rest_ir), (bands_rgb, rest_rgb) = split(ir, len(gains)), split(luma, len(gains))
    fused = fuse(rest_ir, rest_rgb)
    for level in reversed(range(len(gains))):
        fused = add_stronger(fused, bands_ir[level], bands_rgb[level], gain=gains[level])
    return fused


def energy(band: Band, halvings: int) -> Image:
    """Return the mean of `LOUDER` · |band|, cut off at 255, over squares of 2^`halvings` pixels, as uint8."""
    loud = cv2.convertScaleAbs(band.size, alpha=LOUDER)
    for _ in range(halvings):
        loud = cv2.resize(loud, (loud.shape[1] // 2, loud.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return loud


def _enlarged(control: Image, doublings: int) -> Image:
    for _ in range(doublings):
        control = cv2.pyrUp(control)
    return control
