"""Define the messages that describe a rig and the states of its streams."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rtfuse.errors import WireError
from rtfuse.wire.message import MAX_MESSAGE_BYTES, VERSION, Buffer, alone, checked, framed, parts
from rtfuse.wire.names import Encoding, PixelFormat

MAX_CALIBRATION_BYTES = 1 << 20
Side = Annotated[int, msgspec.Meta(ge=0)]


class CameraAbout(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one stream's source. `uri` has no credentials, `width` and `height` are in pixels."""

    uri: str
    width: Side
    height: Side
    dtype: str
    live: bool
    rate_hz: float | None = None
    coding: str | None = None


class PlaneAbout(msgspec.Struct, frozen=True, kw_only=True):
    """Describe one plane that an endpoint publishes: its topic and encoding."""

    topic: str
    plane: str
    pixel_format: PixelFormat
    encoding: Encoding
    jpeg_quality: int | None = None
    h264_kbps: int | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """Describe a rig. It is sent to each new subscriber of the topic, and when it changes.

    `software`: the version of rtfuse.
    `fuser`: the method.
    `streams`: the sources.
    `planes`: the planes of this endpoint.
    """

    version: int = VERSION
    kind: Literal["description"] = "description"
    session: str
    rig: str
    published_ns: int
    published_unix_ms: int
    software: str
    fuser: str
    streams: dict[str, CameraAbout]
    planes: list[PlaneAbout]


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """State of a stream (see `rtfuse.observe.health`); `why` is the newest reason if it is lost."""

    state: str
    why: str | None = None


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """Report that a stream has changed its state, or the reason why it is lost.

    `stream`: the stream that changed.
    `before`: its previous state.
    `streams`: the present states of all streams.
    A new subscriber gets the present states at once, with `stream` and `before` null.
    """

    version: int = VERSION
    kind: Literal["state"] = "state"
    session: str
    rig: str
    published_ns: int
    published_unix_ms: int
    stream: str | None = None
    before: str | None = None
    streams: dict[str, StreamState]


_description_decoder = msgspec.json.Decoder(Description)
_state_decoder = msgspec.json.Decoder(StateChange)


def encode_description(topic: str, description: Description, calibration: str = "") -> bytes:
    """Encode a rig's description; the payload is the text of its calibration file."""
    return framed(topic, msgspec.json.encode(description)) + calibration.encode()


def decode_description(message: Buffer) -> tuple[str, Description, str]:
    """Decode a rig's description into topic, content, and the text of its calibration file. Raises WireError."""
    topic, text, payload = parts(message, MAX_MESSAGE_BYTES)
    if len(payload) > MAX_CALIBRATION_BYTES:
        raise WireError(f"a calibration of {len(payload)} bytes; at most {MAX_CALIBRATION_BYTES} are allowed")
    try:
        return topic, checked(text, _description_decoder), str(payload, "utf-8")
    except UnicodeDecodeError as e:
        raise WireError("the calibration is not UTF-8") from e


def encode_state(topic: str, change: StateChange) -> bytes:
    """Encode a change of a stream's state as a message without payload."""
    return framed(topic, msgspec.json.encode(change))


def decode_state(message: Buffer) -> tuple[str, StateChange]:
    """Decode a change of a stream's state into topic and content. Raises WireError."""
    return alone(message, _state_decoder, "state")
