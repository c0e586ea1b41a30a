"""What a detector says of a frame: boxes as a message without payload, on the detector's own endpoint.

Built like a statistics message (`docs/wire.md`): topic, a zero byte, the length, one JSON object.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rtfuse.wire.message import VERSION, Buffer, NotNegative, Side, alone, framed

DETECTIONS_TOPIC = "boxes"
MAX_DETECTIONS_BYTES = 256 << 10
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """An upright rectangle in pixels of the frame: its left top corner (x right, y down), its size, what it is."""

    x: float
    y: float
    width: Annotated[float, msgspec.Meta(ge=0)]
    height: Annotated[float, msgspec.Meta(ge=0)]
    label: Annotated[str, msgspec.Meta(max_length=100)]
    score: Score


class Detections(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in one frame.

    `session` and `seq` count the detector's messages, as a frame's header does its frames; `detector` names it.
    `frame_session`, `frame_seq` and `rgb_t_ns` are those of the frame that was looked at, `frame_width` and
    `frame_height` its size in pixels. `published_ns` is the detector's monotonic clock, `spent_ms` what the detector
    took. Boxes have the highest score first.
    """

    version: int = VERSION
    kind: Literal["detections"] = "detections"
    session: str
    seq: NotNegative
    rig: str
    detector: str
    frame_session: str
    frame_seq: NotNegative
    frame_width: Side
    frame_height: Side
    rgb_t_ns: int
    published_ns: int
    spent_ms: float
    boxes: Annotated[list[Box], msgspec.Meta(max_length=400)]


_decoder = msgspec.json.Decoder(Detections)


def encode_detections(topic: str, detections: Detections) -> bytes:
    """Encode what was found in one frame as a message without payload."""
    return framed(topic, msgspec.json.encode(detections))


def decode_detections(message: Buffer) -> tuple[str, Detections]:
    """Decode a message of detections into topic and content. Raises WireError."""
    return alone(message, _decoder, "detections")
