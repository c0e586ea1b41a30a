"""What a publisher says of itself beside its statistics: what the rig is, and what its streams have begun to do."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rtfuse.errors import WireError
from rtfuse.wire.message import MAX_MESSAGE_BYTES, VERSION, Buffer, alone, checked, framed, parts
from rtfuse.wire.names import Encoding, PixelFormat

MAX_CALIBRATION_BYTES = 1 << 20
Side = Annotated[int, msgspec.Meta(ge=0)]


class CameraAbout(msgspec.Struct, frozen=True, kw_only=True):
    """One stream's source: where it is (without credentials), its size in pixels, its nominal rate, its coding."""

    uri: str
    width: Side
    height: Side
    dtype: str
    live: bool
    rate_hz: float | None = None
    coding: str | None = None


class PlaneAbout(msgspec.Struct, frozen=True, kw_only=True):
    """One plane that an endpoint publishes, under which topic and how."""

    topic: str
    plane: str
    pixel_format: PixelFormat
    encoding: Encoding
    jpeg_quality: int | None = None
    h264_kbps: int | None = None


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a rig is: `software` its version, `fuser` the method, `streams` its sources, `planes` those of the endpoint.

    It is sent to whoever subscribes to it, and when it changes.
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
    """What a stream is doing (see `rtfuse.observe.health`), and, of a lost one, why."""

    state: str
    why: str | None = None


class StateChange(msgspec.Struct, frozen=True, kw_only=True):
    """Sent the moment a stream begins to do something else: `stream` did `before`; `streams` are all of them, now.

    Whoever subscribes gets the present states at once, with `stream` and `before` null.
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
    """Encode what a rig is; the payload is the text of its calibration file."""
    return framed(topic, msgspec.json.encode(description)) + calibration.encode()


def decode_description(message: Buffer) -> tuple[str, Description, str]:
    """Decode what a rig is into topic, content, and the text of its calibration file. Raises WireError."""
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
