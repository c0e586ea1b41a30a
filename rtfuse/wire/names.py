"""Name the planes, the encodings, the pixel formats, and the topics of the rig's own messages."""

from __future__ import annotations

from typing import Literal

Plane = Literal["fused", "ir", "rgb", "counts", "mask"]
Encoding = Literal["raw", "jpeg", "png", "h264"]
PixelFormat = Literal["rgb24", "gray8", "gray16le"]

STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC = "stats", "state", "about"
