"""Define the message of a detector: the boxes found in one frame, published on the detector's own endpoint.

It is built like a statistics message (`docs/wire.md`): topic, a zero byte, the length, one JSON object.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from rtfuse.wire.message import VERSION, Buffer, NotNegative, Side, alone, framed

DETECTIONS_TOPIC = "boxes"
MAX_DETECTIONS_BYTES = 256 << 10
Score = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """Locate one object: the top left corner (x right, y down) and size of an upright rectangle, in pixels."""

    x: float
    y: float
    width: Annotated[float, msgspec.Meta(ge=0)]
    height: Annotated[float, msgspec.Meta(ge=0)]
    label: Annotated[str, msgspec.Meta(max_length=100)]
    score: Score


class Detections(msgspec.Struct, frozen=True, kw_only=True):
    """List the boxes of one frame, highest score first.

    `session`, `seq`: number the detector's messages, as a header numbers frames.
    `detector`: its name.
    `frame_session`, `frame_seq`, `rgb_t_ns`: those of the frame that was searched.
    `frame_width`, `frame_height`: its size in pixels.
    `published_ns`: time of publishing, on the detector's monotonic clock.
    `spent_ms`: duration of the detection.
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
    """Encode the boxes of one frame as a message without payload."""
    return framed(topic, msgspec.json.encode(detections))


def decode_detections(message: Buffer) -> tuple[str, Detections]:
    """Decode a message of detections into topic and content. Raises WireError."""
    return alone(message, _decoder, "detections")
