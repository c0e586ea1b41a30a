"""Settings of one camera or recording, and of playback."""

from __future__ import annotations

from typing import Literal

import msgspec

from rtfuse.settings import Count, Positive, Section


class Camera(Section, frozen=True):
    """One stream.

    - `uri`: the source; see `rtfuse.capture.sources`.
    - `offset_ms`: added to its capture times.
    - `fps`, `size` (w, h), `format`: asked of the camera.
    - `controls`: values of a V4L2 camera's controls by their names (`rtfuse probe` lists them).
    - `timeout_ms`: a live source without a frame for this long is opened again.
    - `freeze`: take pictures repeated bit for bit for those of a frozen camera; null: only from a camera or with 16
      bits, as a compressed stream may repeat a scene at rest.
    - `transport`: RTSP's.
    """

    uri: str | None = None
    offset_ms: float = 0.0
    fps: Positive | None = None
    size: tuple[Count, Count] | None = None
    format: str | None = None
    controls: dict[str, int | bool | str] = msgspec.field(default_factory=dict)
    timeout_ms: Positive = 5000.0
    freeze: bool | None = None
    transport: Literal["tcp", "udp"] = "tcp"


class Playback(Section, frozen=True):
    """Playback of recordings: `speed` is times real time, or `max`; `loop` starts them again at their end."""

    speed: Positive | Literal["max"] = 1.0
    loop: bool = False
