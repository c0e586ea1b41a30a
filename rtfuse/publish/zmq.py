"""Fused frames onto a ZeroMQ PUB socket."""

from __future__ import annotations

import errno
import re
import secrets
import time
from typing import Any

import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish import check_endpoint
from rtfuse.publish.wire import MAX_SIDE_PX, Encoding, Header, encode
from rtfuse.types import Clock, Fused

_LOOPBACK = re.compile(r"tcp://(127(\.\d+){3}|localhost|\[::1\]|lo):", re.IGNORECASE)
_HEARTBEAT_MS = 1000
_LINGER_MS = 200
_WAITING = 4
"""Frames that wait for a subscriber. ZeroMQ notices up to 1 ms late that some have left: fewer would cost bursts."""


class Publisher:
    """A sink that publishes every frame as one message part; see `rtfuse.publish.wire`.

    A slow, stuck or dead subscriber loses frames and delays nothing: a few frames wait for each, no more. `encoding`
    is raw, jpeg (with `jpeg_quality` 1 to 100) or png. A bind beyond this machine is not encrypted and needs
    `allow_remote`. `endpoint` is the real one, also after a bind to port 0 or `*`.
    Raises ConfigError for an endpoint that makes no sense, EndpointUnavailable for one that cannot be bound.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        topic: str = "fused",
        encoding: Encoding = "raw",
        jpeg_quality: int = 90,
        rig: str = "rig",
        allow_remote: bool = False,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        check_endpoint(endpoint)
        if endpoint.startswith("tcp://") and not _LOOPBACK.match(endpoint) and not allow_remote:
            raise ConfigError(
                f"publish.endpoint: {endpoint} reaches beyond this machine and the stream is not encrypted; "
                "bind to 127.0.0.1, or say that you want it with --insecure"
            )
        self.sent = 0
        self._topic, self._encoding, self._quality, self._rig = topic, encoding, jpeg_quality, rig
        self._clock, self._session = clock, secrets.token_hex(8)
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3 * _HEARTBEAT_MS)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 1024)  # subscribers send nothing but subscriptions
        self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as e:
            self.close()
            raise _bind_error(endpoint, e) from e
        self.endpoint = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def write(self, fused: Fused) -> None:
        """Publish one frame; never waits for a subscriber."""
        if max(fused.image.shape[:2]) > MAX_SIDE_PX:
            h, w = fused.image.shape[:2]
            raise ConfigError(f"images of {w}x{h} cannot be published; the limit is {MAX_SIDE_PX} a side")
        message = encode(self._topic, self.header(fused), fused.image, jpeg_quality=self._quality)
        self._socket.send(message, copy=False)
        self.sent += 1

    def header(self, fused: Fused) -> Header:
        """Return the header that the frame would be published with now."""
        pair = fused.pair
        return Header(
            session=self._session,
            seq=self.sent,
            rig=self._rig,
            mode=fused.mode,
            fuser=fused.fuser,
            ir_id=pair.ir.frame_id,
            rgb_id=pair.rgb.frame_id,
            ir_t_ns=pair.ir.t_ns,
            rgb_t_ns=pair.rgb.t_ns,
            stamp=pair.rgb.stamp.value,
            ir_reused=pair.reused,
            skew_ns=pair.skew_ns,
            age_ns=pair.rgb.age_ns(self._clock()),
            published_unix_ms=time.time_ns() // 1_000_000,
            width=fused.image.shape[1],
            height=fused.image.shape[0],
            encoding=self._encoding,
        )

    def close(self) -> None:
        """Give the last frames a moment to leave, then close."""
        self._socket.close()
        self._context.term()


def _bind_error(endpoint: str, e: zmq.ZMQError) -> Exception:
    if e.errno == zmq.EADDRINUSE:
        return EndpointUnavailable(
            f"cannot publish on {endpoint}: the port is in use, perhaps by another rtfuse; "
            "end that one or choose another with --publish"
        )
    if e.errno in (zmq.EPROTONOSUPPORT, errno.EINVAL, zmq.ENOCOMPATPROTO):
        return ConfigError(f"publish.endpoint: {endpoint!r} is no endpoint; want for example tcp://127.0.0.1:5555")
    return EndpointUnavailable(f"cannot publish on {endpoint}: {zmq.strerror(e.errno or 0)}")
