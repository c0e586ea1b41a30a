"""Receive detections from the detectors' ZeroMQ endpoints and keep the newest boxes of each, while they are fresh."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import zmq

from rtfuse.client.connection import Keys, connected
from rtfuse.errors import ConfigError, KeysUnusable, WireError
from rtfuse.types import Clock
from rtfuse.wire.detections import DETECTIONS_TOPIC, MAX_DETECTIONS_BYTES, Detections, decode_detections

_DETECTORS = 8
_SHOWN = 100
_QUEUE = 4
_POLL_MS = 200


class BoxFeed:
    """Listens to detectors in a thread of its own. Waits for detectors that have not started, and reconnects.

    endpoints: endpoint of each detector, with its file of client keys, or None where nothing is encrypted.
    rig: name of this rig; boxes of another rig count in `foreign`, messages that cannot be read in `malformed`.
    fresh_s: older boxes are not shown.
    Raises ConfigError for a wrong endpoint, KeysUnusable for a wrong file of keys.
    """

    def __init__(
        self, endpoints: Mapping[str, Keys], *, rig: str, fresh_s: float = 0.5, clock: Clock = time.monotonic_ns
    ) -> None:
        self.foreign = self.malformed = 0
        self._rig, self._fresh_ns, self._clock = rig, round(fresh_s * 1e9), clock
        self._newest: dict[str, tuple[int, Detections]] = {}
        self._over = threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            sockets = [
                connected(
                    self._context, endpoint, DETECTIONS_TOPIC, max_bytes=MAX_DETECTIONS_BYTES, queue=_QUEUE, keys=keys
                )
                for endpoint, keys in endpoints.items()
            ]
        except (ConfigError, KeysUnusable) as e:
            self._context.destroy(0)
            raise type(e)(f"web.detections: {e}") from e
        self._thread = threading.Thread(target=self._listen, args=(sockets,), name="rtfuse-web-boxes", daemon=True)
        self._thread.start()

    def shown(self, rgb_t_ns: int) -> list[dict[str, Any]]:
        """Return the boxes to draw on a frame of this capture time: those of each detector, in shares of the picture.

        `age_ms` is the time since the boxes arrived, `behind_ms` how much older the detector's frame is.
        """
        now = self._clock()
        return [
            {
                "detector": said.detector,
                "age_ms": round((now - came_ns) / 1e6),
                "behind_ms": round((rgb_t_ns - said.rgb_t_ns) / 1e6),
                "boxes": [
                    [
                        round(b.x / said.frame_width, 4),
                        round(b.y / said.frame_height, 4),
                        round(b.width / said.frame_width, 4),
                        round(b.height / said.frame_height, 4),
                        b.label,
                        round(b.score, 2),
                    ]
                    for b in said.boxes[:_SHOWN]
                ],
            }
            for came_ns, said in list(self._newest.values())
            if now - came_ns < self._fresh_ns
        ]

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join(2.0)

    def _listen(self, sockets: list[zmq.Socket[Any]]) -> None:
        poller = zmq.Poller()
        for each in sockets:
            poller.register(each, zmq.POLLIN)
        while not self._over.is_set():
            for each, _ in poller.poll(_POLL_MS):
                self._take(each.recv(zmq.NOBLOCK))
        self._context.destroy(0)

    def _take(self, message: bytes) -> None:
        try:
            said = decode_detections(message)[1]
        except WireError:
            self.malformed += 1
            return
        if said.rig != self._rig:
            self.foreign += 1
        elif said.detector in self._newest or len(self._newest) < _DETECTORS:
            self._newest[said.detector] = self._clock(), said
