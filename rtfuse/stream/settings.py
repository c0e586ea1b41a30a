"""Settings of video streams to media servers and players, and their addresses."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from rtfuse.errors import ConfigError
from rtfuse.settings import Count, Section

TIMEOUT_S = 5.0
"""The longest time that opening a stream, or sending one picture, may take."""
FORMATS = {"rtsp": "rtsp", "udp": "mpegts", "tcp": "mpegts"}
"""FFmpeg's muxer for each scheme of an address."""


class Streaming(Section, frozen=True):
    """Configure the video streams to servers and players; see docs/streaming.md.

    - `uris`: the addresses, each with an encoder and a connection of its own.
    - `encoder`: FFmpeg's encoder; `auto` takes the first of the hardware that works, else libx264.
    - `kbps`: the rate, kept over a fifth of a second.
    - `key_s`: the seconds from one key frame to the next.
    """

    uris: tuple[str, ...] = ()
    encoder: Literal["auto", "h264_nvenc", "h264_v4l2m2m", "libx264"] = "auto"
    kbps: Count = 4000
    key_s: Annotated[float, msgspec.Meta(ge=0.1, le=60)] = 1.0


def format_of(uri: str) -> str:
    """Return FFmpeg's muxer for an address. Raises ConfigError for one that cannot be streamed to."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as e:
        raise ConfigError(f"stream {uri}: the address cannot be read; write a / in a password as %2F") from e
    if parts.scheme not in FORMATS:
        known = ", ".join(f"{scheme}://" for scheme in FORMATS)
        raise ConfigError(f"stream {uri}: cannot stream to {parts.scheme or 'a file'}; want one of {known}")
    if not parts.hostname or (port is None and parts.scheme in ("udp", "tcp")):
        raise ConfigError(f"stream {uri}: want a host and a port, for example {parts.scheme}://192.0.2.1:9000")
    return FORMATS[parts.scheme]


def check_streams(settings: Streaming) -> None:
    """Raise ConfigError for an address that cannot be streamed to, or that is named twice."""
    for uri in settings.uris:
        format_of(uri)
    if len(set(settings.uris)) != len(settings.uris):
        raise ConfigError("stream.uris: an address occurs twice; give each stream its own")
