"""Define the planes of an output, and the offer of an endpoint: planes, encoding, topics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import get_args

import numpy as np

from rtfuse.errors import ConfigError
from rtfuse.types import Fused, Image
from rtfuse.wire.names import ABOUT_TOPIC, STATE_TOPIC, STATISTICS_TOPIC, Encoding, PixelFormat, Plane

_OWN_TOPICS = (STATISTICS_TOPIC, STATE_TOPIC, ABOUT_TOPIC)
PIXELS: dict[Plane, PixelFormat] = {
    "fused": "rgb24",
    "ir": "gray8",
    "rgb": "rgb24",
    "counts": "gray16le",
    "mask": "gray8",
}
"""The pixel format of each plane."""

LASTING: frozenset[Plane] = frozenset(("ir", "counts", "mask"))
"""Planes whose array is never written to again, so that the same array is the same picture."""

_EXACT: frozenset[Plane] = frozenset(("counts", "mask"))


@dataclass(frozen=True, slots=True)
class Offer:
    """Describe one endpoint: `planes`, each under its own topic (`topic` is the fused one's).

    `encoding` is raw, jpeg (`jpeg_quality` 1 to 100), png, or h264 (`h264_kbps`, None: constant quality). `counts` and
    `mask` are numbers, not pictures: where `encoding` would change them, they are sent as PNG. `prefix` begins all
    topics, also those of the rig's own messages.
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
            raise ConfigError(f"there is no encoding {self.encoding!r}; choose {', '.join(get_args(Encoding))}")
        wrong = [plane for plane in self.planes if plane not in PIXELS]
        if wrong or not self.planes:
            found = f"there is no plane {wrong[0]!r}" if wrong else f"{self.endpoint} has no planes"
            raise ConfigError(f"{found}; choose of {', '.join(PIXELS)}")
        names = [self.topic_of(plane) for plane in dict.fromkeys(self.planes)]
        own = [self.prefix + topic for topic in _OWN_TOPICS]
        twice = next((n for k, n in enumerate(names) if n in (*names[:k], *own)), None)
        if twice is not None:
            raise ConfigError(f"the topic {twice!r} would mean two things on {self.endpoint}; choose another")

    def topic_of(self, plane: Plane) -> str:
        """Return the topic of a plane: its name, or what was chosen for the fused one."""
        return self.prefix + (self.topic if plane == "fused" else plane)

    def encoding_of(self, plane: Plane) -> Encoding:
        """Return how a plane is sent."""
        return "png" if plane in _EXACT and self.encoding in ("jpeg", "h264") else self.encoding


class Picture:
    """Give the planes of one output; any thread may ask."""

    def __init__(self, fused: Fused) -> None:
        self.fused = fused

    def __call__(self, plane: Plane) -> Image | None:
        """Return a plane, or None where this output has none: the stream is missing, or the camera sends no counts."""
        return _MAKERS[plane](self)

    def _aligned(self) -> Image | None:
        return None if self.fused.pair.ir is None else self.fused.aligned

    def _colour(self) -> Image | None:
        rgb = self.fused.pair.rgb
        return None if rgb is None else rgb.image

    def _counts(self) -> Image | None:
        ir = self.fused.pair.ir
        return ir.image if ir is not None and ir.image.dtype == np.uint16 else None

    def _mask(self) -> Image:
        valid = self.fused.valid
        return _everywhere(*self.fused.image.shape[:2]) if valid is None else valid


_MAKERS: dict[Plane, Callable[[Picture], Image | None]] = {
    "fused": lambda picture: picture.fused.image,
    "ir": Picture._aligned,
    "rgb": Picture._colour,
    "counts": Picture._counts,
    "mask": Picture._mask,
}


@lru_cache(maxsize=4)
def _everywhere(h: int, w: int) -> Image:
    return np.full((h, w), 255, np.uint8)
