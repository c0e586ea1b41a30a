"""Name the planes, the encodings, the pixel formats, and the topics of the rig's own messages."""

from __future__ import annotations

from typing import Literal

Plane = Literal["fused", "ir", "rgb", "counts", "mask"]
Encoding = Literal["raw", "jpeg", "png", "h264"]
YuvFormat = Literal["yuv420p", "nv12"]
ColourFormat = Literal["rgb24", YuvFormat]
PixelFormat = Literal["gray8", "gray16le", ColourFormat]

STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC = "stats", "state", "about"
