"""Change settings of a running rig over ZeroMQ."""

from __future__ import annotations

from typing import Any

import msgspec
import zmq

from rtfuse.client.connection import Keys, connect
from rtfuse.errors import SourceLost
from rtfuse.wire.addresses import check_endpoint, wants_ipv6
from rtfuse.wire.keepalive import keep_alive
from rtfuse.wire.keys import curve_client

_MAX_BYTES = 65_536


class Control:
    """Connect to the `control.endpoint` of a rig, from one thread; use it as a context manager.

    `keys`: as of `Subscriber`. Raises ConfigError for an invalid endpoint, KeysUnusable.
    """

    def __init__(self, endpoint: str = "tcp://127.0.0.1:5556", *, keys: Keys = None) -> None:
        check_endpoint(endpoint)
        options = {} if keys is None else curve_client(keys, endpoint)
        self._endpoint = endpoint
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.REQ)
        for flag in (zmq.REQ_RELAXED, zmq.REQ_CORRELATE):
            self._socket.setsockopt(flag, 1)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, _MAX_BYTES)
        self._socket.setsockopt(zmq.IPV6, wants_ipv6(endpoint))
        for option, value in options.items():
            self._socket.setsockopt(option, value)
        keep_alive(self._socket)
        connect(self._socket, endpoint)

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def change(self, timeout_s: float = 2.0, **settings: Any) -> dict[str, Any]:
        """Change settings, wholly or not at all, and return all of them as they are now; without any, only return them.

        docs/live.md lists them. Raises ValueError for one that the rig refuses, SourceLost if it does not answer.
        """
        self._socket.send(msgspec.json.encode(settings))
        if not self._socket.poll(round(timeout_s * 1000)):
            raise SourceLost(f"{self._endpoint} does not answer within {timeout_s:g} s: is control.endpoint set there?")
        answer: dict[str, Any] = msgspec.json.decode(self._socket.recv())
        if "error" in answer:
            raise ValueError(answer["error"])
        return dict(answer["now"])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close(0)
        self._context.term()
