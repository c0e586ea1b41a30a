"""Receive messages without a picture: statistics, changes of state, boxes, and a rig's description.

Importing it loads neither torch nor OpenCV nor FFmpeg, nor asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rtfuse.client.base import BaseSubscriber
from rtfuse.client.connection import Keys
from rtfuse.errors import EndpointUnavailable
from rtfuse.wire.description import MAX_CALIBRATION_BYTES, Description, StateChange, decode_description, decode_state
from rtfuse.wire.detections import DETECTIONS_TOPIC, MAX_DETECTIONS_BYTES, Detections, decode_detections
from rtfuse.wire.message import MAX_HEADER_BYTES, Buffer
from rtfuse.wire.names import ABOUT_TOPIC, STATE_TOPIC, STATISTICS_TOPIC
from rtfuse.wire.statistics import Statistics, decode_statistics

_QUEUE = 32
_ABOUT_BYTES = MAX_CALIBRATION_BYTES + 2 * MAX_HEADER_BYTES
T = TypeVar("T")


class _MessageSubscriber(BaseSubscriber[T]):
    """Receive messages that a function of `rtfuse.wire` decodes whole."""

    def __init__(
        self,
        endpoint: str,
        topic: str,
        decode: Callable[[Buffer], tuple[str, T]],
        *,
        max_bytes: int,
        queue: int | None,
        keys: Keys,
    ) -> None:
        self._decoder = decode
        super().__init__(endpoint, topic, max_bytes=max_bytes, queue=queue, keys=keys)

    def _decode(self, message: memoryview) -> T | None:
        return self._decoder(message)[1]


class StatisticsSubscriber(_MessageSubscriber[Statistics]):
    """Receive a publisher's statistics, once a second: rates, ages, drops, the state of each stream.

    Iterate over it, or call `recv`, or `recv_async` with `await`. It returns the newest message. `malformed` counts
    skipped messages. `keys` are as for `Subscriber`. Use it from one thread, or one task; it is a context manager.
    Raises ConfigError for an invalid endpoint.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = STATISTICS_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, decode_statistics, max_bytes=MAX_HEADER_BYTES, queue=None, keys=keys)


class StateSubscriber(_MessageSubscriber[StateChange]):
    """Receive the states of a rig's streams: the present ones at once, then every change.

    Use it as `StatisticsSubscriber`, but it returns every message in order; at most 32 wait, later ones are lost.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5555",
        *,
        topic: str = STATE_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, decode_state, max_bytes=MAX_HEADER_BYTES, queue=_QUEUE, keys=keys)


class DetectionsSubscriber(_MessageSubscriber[Detections]):
    """Receive a detector's boxes, frame by frame, with labels and scores, from the detector's own endpoint.

    Use it as `StatisticsSubscriber`, but it returns every message in order; at most 32 wait, later ones are lost.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        *,
        topic: str = DETECTIONS_TOPIC,
        keys: Keys = None,
    ) -> None:
        super().__init__(endpoint, topic, decode_detections, max_bytes=MAX_DETECTIONS_BYTES, queue=_QUEUE, keys=keys)


@dataclass(frozen=True, slots=True)
class Described:
    """Rig's description, and the text of its calibration file (YAML), None if it has none."""

    about: Description
    calibration: str | None


def describe(
    endpoint: str = "tcp://127.0.0.1:5555",
    timeout_s: float = 5.0,
    *,
    topic: str = ABOUT_TOPIC,
    keys: Keys = None,
) -> Described:
    """Return the description of the rig that publishes on an endpoint: cameras, fuser, planes and calibration.

    `topic` is `RIG/about` behind a proxy; `keys` are as for `Subscriber`. Raises ConfigError for an
    invalid endpoint, KeysUnusable for the file, EndpointUnavailable if no answer came within `timeout_s`.
    """
    with _MessageSubscriber(endpoint, topic, _described, max_bytes=_ABOUT_BYTES, queue=None, keys=keys) as subscriber:
        described = subscriber.recv(timeout_s)
    if described is None:
        raise EndpointUnavailable(
            f"{endpoint} has not described itself within {timeout_s:g} s; is `rtfuse run` publishing there?"
        )
    return described


def _described(message: Buffer) -> tuple[str, Described]:
    topic, about, calibration = decode_description(message)
    return topic, Described(about, calibration or None)
