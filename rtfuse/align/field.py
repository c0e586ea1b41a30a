"""Interpolate the smooth correction of a calibration: a regular grid over the RGB image, cubics between its points."""

from __future__ import annotations

import numpy as np

from rtfuse.types import Image


def field_at(field: Image, pixels: Image, size_wh: tuple[int, int]) -> Image:
    """Return the correction (N, 2) at pixels (N, 2) of an image of this size.

    `field`: (rows, columns, 2), the corrections at places spread evenly from the first pixel to the last.
    """
    steps = (np.array(field.shape[1::-1]) - 1) / np.maximum(np.array(size_wh) - 1, 1)
    # Padded, so that the cubics go on to the edge.
    padded = np.pad(field, ((2, 2), (2, 2), (0, 0)), mode="reflect", reflect_type="odd")
    places = np.clip(pixels * steps, 0, np.array(field.shape[1::-1]) - 1) + 2
    whole = np.floor(places).astype(int)
    across, down = (_cubic(places[:, k] - whole[:, k]) for k in (0, 1))
    moved = np.zeros((len(pixels), 2))
    for j in range(4):
        for i in range(4):
            weight = (across[i] * down[j])[:, None]
            moved += weight * padded[whole[:, 1] + j - 1, whole[:, 0] + i - 1]
    return moved


def cubic_weights(length: int, step: int, nodes: int) -> Image:
    """Return (length, nodes) float64: the weights of nodes at pixels -step, 0, step, 2 step … for each pixel.

    The nodes must reach beyond the second one after the last pixel.
    """
    pixels = np.arange(length)
    weights = np.zeros((length, nodes))
    for k, weight in enumerate(_cubic(pixels % step / step)):
        weights[pixels, pixels // step + k] = weight
    return weights


def _cubic(u: Image) -> list[Image]:
    """Return the weights of the points at -1, 0, 1 and 2 for places `u` between 0 and 1 (Keys, 1981, a = -1/2)."""
    return [
        ((-0.5 * u + 1.0) * u - 0.5) * u,
        (1.5 * u - 2.5) * u * u + 1.0,
        ((-1.5 * u + 2.0) * u + 0.5) * u,
        (0.5 * u - 0.5) * u * u,
    ]
