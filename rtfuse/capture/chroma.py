"""Tell whether a decoded frame has colour, from its chroma planes, before it is converted."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame

_FLAT, _SHARE = 8, 0.01
"""A frame has colour if more than this share of its chroma is further from grey than this, of 8-bit levels."""
_EVERY = 4


def coloured(frame: VideoFrame) -> bool:
    """Return True if a frame has more colour than a grey one that was coded with loss; True if it cannot be told."""
    components = frame.format.components
    if len(components) < 3 and not frame.format.has_palette:
        return False
    if frame.format.is_rgb or frame.format.has_palette or len(frame.planes) < 3:
        return True
    wide = components[1].bits > 8
    grey, flat = 128 << (components[1].bits - 8), _FLAT << (components[1].bits - 8)
    far = []
    for plane in frame.planes[1:3]:
        row = np.frombuffer(plane, np.uint16 if wide else np.uint8).reshape(plane.height, -1)
        part = row[_EVERY // 2 :: _EVERY, : plane.width : _EVERY].astype(np.int32)
        far.append(float((np.abs(part - grey) > flat).mean()) if part.size else 1.0)
    return max(far) > _SHARE
