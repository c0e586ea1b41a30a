"""Settings of one camera or recording, and of playback."""

from __future__ import annotations

from typing import Literal

import msgspec

from rtfuse.settings import Count, Positive, Section


class Camera(Section, frozen=True):
    """One stream. `offset_ms` is added to its capture times; `fps`, `size` (w, h) and `format` are asked of it.

    `controls` are set on a V4L2 camera by their names (`rtfuse probe` lists them). `timeout_ms` without a frame makes a
    live source be opened again. `freeze`: take pictures repeated bit for bit for a frozen camera's; null: where the
    source is a camera or has 16 bits, as a compressed stream may repeat a scene at rest. `transport` is RTSP's.
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
    """How recordings are played: times real time, or `max`; and whether they start again at their end."""

    speed: Positive | Literal["max"] = 1.0
    loop: bool = False
