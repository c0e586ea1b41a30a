"""Publish the boxes of a detector, frame by frame."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from rtfuse.errors import ConfigError, RtfuseError
from rtfuse.publish.auth import Authenticator
from rtfuse.publish.endpoint import Endpoint, check
from rtfuse.wire.detections import DETECTIONS_TOPIC, Box, Detections, encode_detections
from rtfuse.wire.message import Header

MAX_BOXES = 400
_MAX_NAME = 100


class DetectionsPublisher:
    """Publish the boxes of one detector on its own endpoint, for `DetectionsSubscriber` and the rig's page.

    `detector`: its name (1 to 100 characters).
    `keys`: a folder of `rtfuse keys`; TCP is then encrypted.
    `allow_remote`: permits an endpoint for other machines without `keys`.
    `endpoint`: the real one, also after a bind to port 0 or `*`.
    It never waits for a subscriber. Use it from one thread; it is a context manager.
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
        self._authenticator: Authenticator | None = None
        try:
            self._authenticator = Authenticator(self._context, keys)
            self._endpoint = Endpoint(self._context, self._authenticator, endpoint, [DETECTIONS_TOPIC])
        except RtfuseError:
            self._end()
            raise
        self.endpoint = self._endpoint.name

    def write(self, header: Header, boxes: Sequence[Box], spent_ms: float) -> Detections:
        """Publish the boxes of the frame with this header, best first and 400 at most; return the message."""
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
        self._endpoint.joined()  # reads subscriptions, or the connections would halt
        self._endpoint.send(zmq.Frame(encode_detections(DETECTIONS_TOPIC, said)))
        self.sent += 1
        return said

    def close(self) -> None:
        """Give the last message a moment to leave, then close; a second call does nothing."""
        if not self._context.closed:
            self._endpoint.close()
            self._end()

    def _end(self) -> None:
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.term()

    def __enter__(self) -> DetectionsPublisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
