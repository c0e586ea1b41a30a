"""Settings of the ZeroMQ output."""

from __future__ import annotations

import msgspec

from rtfuse.settings import Count, Quality, Section
from rtfuse.wire.names import ColourFormat, Encoding, Plane


class Endpoint(Section, frozen=True):
    """Configure one of several endpoints; a value that is missing is that of `Publish`."""

    endpoint: str
    encoding: Encoding | None = None
    planes: tuple[Plane, ...] | None = None
    topic: str | None = None
    pixel_format: ColourFormat | None = None
    jpeg_quality: Quality | None = None
    h264_kbps: Count | None = None


class Publish(Section, frozen=True):
    """Configure the ZeroMQ output; `endpoint: null` publishes nothing. A list of `endpoints` replaces it.

    `planes` are published each under its own topic, `topic` is the fused picture's. `pixel_format` is that of raw
    planes with colours: `yuv420p` and `nv12` take half the bytes of `rgb24`. `h264_kbps: null` keeps the quality
    constant instead of the rate. See docs/publishing.md. `keys` is a folder of `rtfuse keys`: with it TCP is encrypted,
    and for its clients alone. `rig_topics`: topics begin with the rig's name, `truck-1/fused`, so that `rtfuse proxy`
    can join several rigs.
    """

    endpoint: str | None = "tcp://127.0.0.1:5555"
    encoding: Encoding = "raw"
    planes: tuple[Plane, ...] = ("fused",)
    topic: str = "fused"
    pixel_format: ColourFormat = "rgb24"
    jpeg_quality: Quality = 90
    h264_kbps: Count | None = None
    endpoints: list[Endpoint] = msgspec.field(default_factory=list)
    rig_topics: bool = False
    keys: str | None = None
    insecure: bool = False


class Control(Section, frozen=True):
    """Configure the ZeroMQ endpoint at which other programs change settings of the running rig; see docs/live.md.

    `endpoint: null` has none. On TCP it is encrypted by `publish.keys`, as the output is, and for the same clients.
    """

    endpoint: str | None = None
