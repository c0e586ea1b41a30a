"""Where a detector publishes what it finds, frame by frame."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from rtfuse.errors import ConfigError, RtfuseError
from rtfuse.publish.auth import Gate
from rtfuse.publish.endpoint import Endpoint, check
from rtfuse.wire.detections import DETECTIONS_TOPIC, Box, Detections, encode_detections
from rtfuse.wire.message import Header

MAX_BOXES = 400
_MAX_NAME = 100


class DetectionsPublisher:
    """Publishes the boxes of one detector on its own endpoint, for `DetectionsSubscriber` and the rig's page.

    `detector` is its name (1 to 100 characters). `keys` is a folder of `rtfuse keys`, which encrypts; a bind beyond
    this machine needs it, or `allow_remote`. `endpoint` is the real one, also after a bind to port 0 or `*`. It never
    waits for a subscriber. Use it from one thread; it is a context manager.
    Raises ConfigError, EndpointUnavailable, KeysUnusable.
    """

    def __init__(
        self,
        endpoint: str = "tcp://127.0.0.1:5556",
        *,
        detector: str,
        keys: str | Path | None = None,
        allow_remote: bool = False,
    ) -> None:
        if not 0 < len(detector) <= _MAX_NAME:
            raise ConfigError(f"the name of a detector has 1 to {_MAX_NAME} characters, not {len(detector)}")
        check(endpoint, encrypted=keys is not None, allow_remote=allow_remote)
        self.sent = 0
        self._detector, self._session = detector, secrets.token_hex(8)
        self._context: zmq.Context[Any] = zmq.Context()
        self._gate: Gate | None = None
        try:
            self._gate = Gate(self._context, keys)
            self._endpoint = Endpoint(self._context, self._gate, endpoint, [DETECTIONS_TOPIC])
        except RtfuseError:
            self._end()
            raise
        self.endpoint = self._endpoint.name

    def write(self, header: Header, boxes: Sequence[Box], spent_ms: float) -> Detections:
        """Publish what was found in the frame with this header, best first and 400 at most; returns the message."""
        said = Detections(
            session=self._session,
            seq=self.sent,
            rig=header.rig,
            detector=self._detector,
            frame_session=header.session,
            frame_seq=header.seq,
            frame_width=header.width,
            frame_height=header.height,
            rgb_t_ns=header.rgb_t_ns,
            published_ns=time.monotonic_ns(),
            spent_ms=spent_ms,
            boxes=sorted(boxes, key=lambda box: -box.score)[:MAX_BOXES],
        )
        self._endpoint.joined()  # what subscribers ask for is read here, or their connections would come to a halt
        self._endpoint.send(zmq.Frame(encode_detections(DETECTIONS_TOPIC, said)))
        self.sent += 1
        return said

    def close(self) -> None:
        """Give the last message a moment to leave, then close; a second call does nothing."""
        if not self._context.closed:
            self._endpoint.close()
            self._end()

    def _end(self) -> None:
        if self._gate is not None:
            self._gate.close()
        self._context.term()

    def __enter__(self) -> DetectionsPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
