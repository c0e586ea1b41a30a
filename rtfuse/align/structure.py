"""Compute the structure that a thermal and an RGB picture share: the direction of edges, not their sign.

Edges are held as double-angle vectors, the same for a gradient and its opposite, and locally normalised.
"""

from __future__ import annotations

import cv2
import numpy as np

from rtfuse.types import Image

_NEIGHBOURHOOD = 33


def structure(image: Image, mask: Image | None = None) -> Image:
    """Compute the edges of a picture (H, W) or (H, W, C) float32 as channels (5, H, W) float32 of about -1 to 1.

    Channels: cosine and sine of twice the edge's angle, the same of four times the angle, and the strength less its
    local mean. Colours add up as in Di Zenzo's tensor (CVGIP 33, 1986), for which doubling the angle is natural.
    `mask` (H, W) float32, 0 to 1, weighs the edges.
    """
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    gx, gy = (cv2.Scharr(smooth, cv2.CV_32F, *d, scale=1 / 32) for d in ((1, 0), (0, 1)))
    cos2, sin2, power = gx * gx - gy * gy, 2 * gx * gy, gx * gx + gy * gy
    if image.ndim == 3:
        cos2, sin2, power = cos2.sum(-1), sin2.sum(-1), power.sum(-1)
    strength = np.sqrt(power)
    if mask is not None:
        strength *= mask
    box = (_NEIGHBOURHOOD, _NEIGHBOURHOOD)
    local = cv2.blur(strength, box)
    floor = 0.5 + 0.25 * float(strength.mean())
    strength = np.maximum(strength - 0.5 * local, 0) / (strength + local + floor)
    per = strength / np.maximum(np.hypot(cos2, sin2), 1e-6)
    cos2, sin2 = cos2 * per, sin2 * per
    again = 1 / np.maximum(strength, 1e-6)
    out = np.stack([cos2, sin2, (cos2 * cos2 - sin2 * sin2) * again, 2 * cos2 * sin2 * again, strength])
    out[4] -= cv2.blur(strength, box)
    if mask is not None:
        out[4] *= mask
    for channel in out:
        cv2.GaussianBlur(channel, (0, 0), 0.8, dst=channel)
    return out
