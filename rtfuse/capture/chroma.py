"""Tell whether a decoded frame has colour, from its chroma planes, before it is converted."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

_FLAT, _SHARE = 8, 0.003
"""A frame has colour if more than this share of its chroma is further from grey than this, of 8-bit levels."""
_EVERY = 4


def coloured(frame: VideoFrame) -> bool:
    """Return True if a frame has more colour than a grey one that was coded with loss; True if it cannot be told."""
    components, planes = frame.format.components, frame.planes
    if len(components) < 3 and not frame.format.has_palette:
        return False
    if frame.format.is_rgb or frame.format.has_palette or len(planes) < 2:
        return True
    deeper = components[1].bits - 8
    grey, flat, shares = 128 << deeper, _FLAT << deeper, []
    for plane in planes[1:3]:
        values = np.frombuffer(memoryview(plane), np.uint16 if deeper else np.uint8).reshape(plane.height, -1)
        width = plane.width * (2 if len(planes) == 2 else 1)  # with two planes, both chroma values side by side
        part = values[:: min(_EVERY, plane.height), : width : _EVERY - 1].astype(np.int32)
        shares.append(float((np.abs(part - grey) > flat).mean()))
    return max(shares) > _SHARE
