"""Define the message with a publisher's statistics."""

from __future__ import annotations

from typing import Literal

import msgspec

from rtfuse.wire.message import VERSION, Buffer, NotNegative, alone, framed


class StreamStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Report one stream.

    `state`, `for_s`: its state, and for how many seconds.
    `rate_hz`: the measured rate.
    `latency_ms`: the delay from capture to arrival.
    `drift_ppm`: how much faster than the publisher's its clock runs.
    `clock_steps`: the number of jumps of that clock.
    `reconnects`: how often the source came back.
    """

    state: str
    for_s: float
    rate_hz: float | None = None
    latency_ms: float | None = None
    drift_ppm: float | None = None
    clock_steps: NotNegative = 0
    reconnects: NotNegative = 0


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Report the statistics of a publisher, once a second, under their own topic.

    `pair_rate_hz`: the rate of frames of any mode, over the last seconds.
    `age_ms`, `skew_ms`: p50, p95 and p99 of the session, of skews without their sign; null where nothing was counted.
    `skew_histogram`: the upper edge of each bin in ms (null: no edge) and its count.
    `modes`: frames by mode.
    `drops`: lost frames by `where.cause`.
    `lowered`: the parts that are lowered for lack of processor, in words.
    `overload`: why frames stay late although lowering parts does not help, with the remedy; null if they do not.
    """

    version: int = VERSION
    kind: Literal["statistics"] = "statistics"
    session: str
    rig: str
    published_ns: int
    published_unix_ms: int
    frames: NotNegative
    pair_rate_hz: float
    reused: NotNegative
    age_ms: list[float | None]
    skew_ms: list[float | None]
    skew_histogram: list[tuple[float | None, int]]
    modes: dict[str, int]
    drops: dict[str, int]
    streams: dict[str, StreamStatistics]
    lowered: list[str] = []
    overload: str | None = None


_statistics_decoder = msgspec.json.Decoder(Statistics)


def encode_statistics(topic: str, statistics: Statistics) -> bytes:
    """Encode a publisher's statistics as a message without payload."""
    return framed(topic, msgspec.json.encode(statistics))


def decode_statistics(message: Buffer) -> tuple[str, Statistics]:
    """Decode a statistics message into topic and content. Raises WireError."""
    return alone(message, _statistics_decoder, "statistics")
