"""Answer programs that change settings of the running rig, over ZeroMQ, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish.auth import Authenticator
from rtfuse.wire.addresses import bindable, check_endpoint, check_reach
from rtfuse.wire.keepalive import keep_alive

_MAX_BYTES, _WAITING = 4096, 16
_TICK_MS = 200


class ControlEndpoint:
    """Bind `endpoint` for REQ and DEALER sockets: each request is a JSON object of changes, `{}` for none.

    `change` carries out a request or raises ValueError or RecursionError; `now` returns the settings. The answer is
    `{"now": {...}}`, or `{"error": "..."}`, and then nothing was changed. `keys`: as of `Publisher`. Use it as a
    context manager. Raises ConfigError, EndpointUnavailable, KeysUnusable.
    """

    def __init__(
        self,
        endpoint: str,
        change: Callable[[bytes], object],
        now: Callable[[], dict[str, Any]],
        *,
        keys: str | None = None,
        allow_remote: bool = False,
    ) -> None:
        check_endpoint(endpoint)
        if not endpoint.startswith(("ipc://", "tcp://")):
            raise ConfigError(
                f"control.endpoint: {endpoint!r} is not an endpoint; want for example tcp://127.0.0.1:5556"
            )
        check_reach(endpoint, "control.endpoint", encrypted=keys is not None, allow_remote=allow_remote)
        self._change, self._now, self._over = change, now, threading.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self._authenticator = Authenticator(self._context, keys)
        except BaseException:
            self._context.term()
            raise
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, _MAX_BYTES),
            (zmq.RCVHWM, _WAITING),
            (zmq.SNDHWM, _WAITING),
            (zmq.IPV6, "[" in endpoint),
        ):
            self._socket.setsockopt(option, value)
        keep_alive(self._socket)
        try:
            self._authenticator.bind(self._socket, bindable(endpoint))
        except zmq.ZMQError as e:
            self._end()
            why = "the port is in use" if e.errno == zmq.EADDRINUSE else zmq.strerror(e.errno or 0)
            raise EndpointUnavailable(f"cannot listen on {endpoint}: {why}; choose another control.endpoint") from e
        self.name = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))
        self._thread = threading.Thread(target=self._work, name="rtfuse-control", daemon=True)
        self._thread.start()

    def __enter__(self) -> ControlEndpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering."""
        self._over.set()
        self._thread.join()
        self._end()

    def _end(self) -> None:
        self._authenticator.release(self._socket)
        self._socket.close(0)
        self._authenticator.close()
        self._context.term()

    def _work(self) -> None:
        while not self._over.is_set():
            self._authenticator.renew(self._socket)
            if not self._socket.poll(_TICK_MS):
                continue
            *envelope, request = self._socket.recv_multipart()
            self._socket.send_multipart([*envelope, msgspec.json.encode(self._answer(request))], zmq.NOBLOCK)

    def _answer(self, request: bytes) -> dict[str, Any]:
        try:
            self._change(request)
        except (ValueError, RecursionError) as e:  # not JSON, not text, out of its limits, too deep
            return {"error": str(e)}
        return {"now": self._now()}
