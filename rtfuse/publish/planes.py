"""Describe the output of an endpoint: its planes, their encodings and topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from rtfuse.errors import ConfigError
from rtfuse.wire.names import (
    ABOUT_TOPIC,
    STATE_TOPIC,
    STATISTICS_TOPIC,
    ColourFormat,
    Encoding,
    PixelFormat,
    Plane,
    YuvFormat,
)
from rtfuse.wire.planes import NUMERIC, PIXEL_FORMATS

_OWN_TOPICS = (STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC)


@dataclass(frozen=True, slots=True)
class Offer:
    """List what one endpoint publishes. Raises ConfigError for a combination that cannot be.

    `planes`: each has its own topic; `topic` is that of the fused plane.
    `encoding`: raw, jpeg, png or h264. The planes `counts` and `mask` are sent as PNG in place of jpeg and h264.
    `pixel_format`: that of raw planes with colours, `rgb24`, `yuv420p` or `nv12`; the latter for raw only.
    `jpeg_quality`: 1 to 100.
    `h264_kbps`: the rate; None keeps the quality constant.
    `prefix`: the beginning of all topics, also those of the rig's own messages.
    """

    endpoint: str
    encoding: Encoding = "raw"
    planes: Sequence[Plane] = ("fused",)
    topic: str = "fused"
    jpeg_quality: int = 90
    h264_kbps: int | None = None
    prefix: str = ""
    pixel_format: ColourFormat = "rgb24"

    def __post_init__(self) -> None:
        if self.encoding not in get_args(Encoding):
            raise ConfigError(f"encoding {self.encoding!r} is unknown; choose {', '.join(get_args(Encoding))}")
        wrong = [plane for plane in self.planes if plane not in PIXEL_FORMATS]
        if wrong or not self.planes:
            found = f"plane {wrong[0]!r} is unknown" if wrong else f"{self.endpoint} has no planes"
            raise ConfigError(f"{found}; choose one of {', '.join(PIXEL_FORMATS)}")
        formats = (*get_args(YuvFormat), "rgb24")
        if self.pixel_format not in formats:
            raise ConfigError(f"pixel format {self.pixel_format!r} is unknown; choose {', '.join(formats)}")
        if self.pixel_format != "rgb24" and self.encoding != "raw":
            raise ConfigError(
                f"{self.endpoint} sends {self.encoding}, which has no pixel format {self.pixel_format}; "
                "set it on endpoints with the encoding raw"
            )
        names = [self.topic_of(plane) for plane in dict.fromkeys(self.planes)]
        own = [self.prefix + topic for topic in _OWN_TOPICS]
        twice = next((n for k, n in enumerate(names) if n in (*names[:k], *own)), None)
        if twice is not None:
            raise ConfigError(
                f"the topic {twice!r} would carry two kinds of messages on {self.endpoint}; choose another"
            )

    def topic_of(self, plane: Plane) -> str:
        """Return the topic of a plane: the prefix, and `topic` for the fused one or the plane's name."""
        return self.prefix + (self.topic if plane == "fused" else plane)

    def pixel_format_of(self, plane: Plane) -> PixelFormat:
        """Return the pixel format of a plane."""
        return self.pixel_format if PIXEL_FORMATS[plane] == "rgb24" else PIXEL_FORMATS[plane]

    def encoding_of(self, plane: Plane) -> Encoding:
        """Return the encoding of a plane."""
        return "png" if plane in NUMERIC and self.encoding in ("jpeg", "h264") else self.encoding
