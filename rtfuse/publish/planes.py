"""Say what an endpoint publishes: which planes, in which encodings, under which topics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from rtfuse.errors import ConfigError
from rtfuse.wire.names import ABOUT_TOPIC, STATE_TOPIC, STATISTICS_TOPIC, Encoding, Plane
from rtfuse.wire.planes import NUMERIC, PIXEL_FORMATS

_OWN_TOPICS = (STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC)


@dataclass(frozen=True, slots=True)
class Offer:
    """List what one endpoint publishes. Raises ConfigError for a combination that cannot be.

    `planes`: each has its own topic; `topic` is that of the fused plane.
    `encoding`: raw, jpeg, png or h264. The planes `counts` and `mask` are sent as PNG in place of jpeg and h264.
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

    def __post_init__(self) -> None:
        if self.encoding not in get_args(Encoding):
            raise ConfigError(f"encoding {self.encoding!r} is unknown; choose {', '.join(get_args(Encoding))}")
        wrong = [plane for plane in self.planes if plane not in PIXEL_FORMATS]
        if wrong or not self.planes:
            found = f"plane {wrong[0]!r} is unknown" if wrong else f"{self.endpoint} has no planes"
            raise ConfigError(f"{found}; choose of {', '.join(PIXEL_FORMATS)}")
        names = [self.topic_of(plane) for plane in dict.fromkeys(self.planes)]
        own = [self.prefix + topic for topic in _OWN_TOPICS]
        twice = next((n for k, n in enumerate(names) if n in (*names[:k], *own)), None)
        if twice is not None:
            raise ConfigError(f"the topic {twice!r} would mean two things on {self.endpoint}; choose another")

    def topic_of(self, plane: Plane) -> str:
        """Return the topic of a plane: the prefix, and `topic` for the fused one or the plane's name."""
        return self.prefix + (self.topic if plane == "fused" else plane)

    def encoding_of(self, plane: Plane) -> Encoding:
        """Return the encoding of a plane."""
        return "png" if plane in NUMERIC and self.encoding in ("jpeg", "h264") else self.encoding
