"""Fused frames onto a ZeroMQ PUB socket."""

from __future__ import annotations

import errno
import secrets
import socket
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish import check_endpoint, check_reach
from rtfuse.publish.alive import keep_alive
from rtfuse.publish.curve import Gate
from rtfuse.publish.wire import Encoding, Header, Spot, Statistics, check_names, encode, encode_statistics
from rtfuse.types import Clock, Fused, Pair, Stream

_LINGER_MS = 200
_STATISTICS_NS = 1_000_000_000
STATISTICS_TOPIC = "stats"
_NONSENSE = "publish.endpoint: {!r} is no endpoint; want for example tcp://127.0.0.1:5555 or ipc:///run/rtfuse"
_CHOOSE = "choose another with --publish"
_WAITING = 2
"""Frames that wait for each subscriber, beside those that the system's socket buffers hold."""


class Publisher:
    """A sink that publishes every frame as one message part; see `rtfuse.publish.wire`.

    A slow, stuck or dead subscriber loses frames and delays nothing: a few frames wait for each, no more. `encoding` is
    raw, jpeg (with `jpeg_quality` 1 to 100) or png. `prefix` begins every topic, `topic` says the whole one of the
    frames. With `keys`, a folder of `rtfuse.keys`, TCP is encrypted and for authorised clients alone; without, a bind
    beyond this machine needs `allow_remote`. `refused` counts by cause the peers that were not let in. `endpoint` is
    the real one, also after a bind to port 0 or `*`. `statistics` gives the fields of `wire.Statistics` that the
    publisher does not know itself; `tick` publishes them once a second under the topic `stats`. `sent` counts frames
    and `sent_bytes` their bytes, whether anyone listens or not. Use it from one thread. Raises ConfigError for an
    argument that makes no sense, EndpointUnavailable for an endpoint that cannot be bound.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        topic: str = "fused",
        prefix: str = "",
        encoding: Encoding = "raw",
        jpeg_quality: int = 90,
        rig: str = "rig",
        statistics: Callable[[], Mapping[str, Any]] | None = None,
        allow_remote: bool = False,
        keys: str | Path | None = None,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        check_endpoint(endpoint)
        topic = self.topic = prefix + topic
        self._statistics_topic = prefix + STATISTICS_TOPIC
        check_names(topic, encoding, rig)
        check_reach(endpoint, "publish.endpoint", encrypted=keys is not None, allow_remote=allow_remote)
        if endpoint.startswith("ipc://"):
            _check_path(endpoint)
        elif not endpoint.startswith("tcp://"):
            raise ConfigError(_NONSENSE.format(endpoint))
        self.sent = self.sent_bytes = 0
        self._topic, self._encoding, self._quality, self._rig = topic, encoding, jpeg_quality, rig
        self.clock, self._session = clock, secrets.token_hex(8)
        self.statistics, self._next_statistics_ns = statistics, 0
        self._shown: dict[Stream, tuple[int, int]] = {}
        self._context: zmq.Context[Any] = zmq.Context()
        self._gate = Gate(self._context, keys)
        self.refused = self._gate.refused
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, _WAITING)
        self._socket.setsockopt(zmq.LINGER, _LINGER_MS)
        keep_alive(self._socket)
        self._socket.setsockopt(zmq.MAXMSGSIZE, 1024)  # subscribers send nothing but subscriptions
        self._socket.setsockopt(zmq.IPV6, "[" in endpoint)
        try:
            self.endpoint = self._gate.bind(self._socket, endpoint)
        except zmq.ZMQError as e:
            self.close()
            raise _bind_error(endpoint, e) from e

    def write(self, fused: Fused) -> None:
        """Publish one frame; never waits for a subscriber. Raises ConfigError if the image is too large."""
        message = encode(self._topic, self.header(fused), fused.image, jpeg_quality=self._quality)
        self._send(message)
        self.sent += 1
        self.sent_bytes += len(message)

    def tick(self) -> None:
        """Publish the statistics if it is time, also while no frame comes."""
        now = self.clock()
        if self.statistics is None or now < self._next_statistics_ns:
            return
        self._next_statistics_ns = now + _STATISTICS_NS
        fields = {"session": self._session, "rig": self._rig, "published_ns": now}
        fields["published_unix_ms"] = time.time_ns() // 1_000_000
        self._send(
            encode_statistics(self._statistics_topic, msgspec.convert({**self.statistics(), **fields}, Statistics))
        )

    def _send(self, message: memoryview | bytes) -> None:
        # Asked for its state, the socket learns which subscribers have read: on its own it looks once in a millisecond
        # at most, and would drop frames of a burst for subscribers that have long had room again.
        self._socket.getsockopt(zmq.EVENTS)
        self._gate.renew(self._socket)
        self._socket.send(message, copy=False)

    def header(self, fused: Fused) -> Header:
        """Return the header that the frame would be published with now."""
        pair, now = fused.pair, self.clock()
        for frame in (pair.ir, pair.rgb) if isinstance(pair, Pair) else (pair.frame,):
            self._shown[frame.stream] = frame.frame_id, frame.t_ns
        (ir_id, ir_t_ns), (rgb_id, rgb_t_ns) = (self._shown.get(stream, (0, 0)) for stream in ("ir", "rgb"))
        hot, cold = [Spot(round(s.x, 1), round(s.y, 1), round(s.k, 2)) for s in fused.spots or ()] or (None, None)
        return Header(
            session=self._session,
            seq=self.sent,
            rig=self._rig,
            mode=fused.mode,
            fuser=fused.fuser,
            ir_id=ir_id,
            rgb_id=rgb_id,
            ir_t_ns=ir_t_ns,
            rgb_t_ns=rgb_t_ns,
            stamp=pair.leader.stamp.value,
            ir_reused=isinstance(pair, Pair) and pair.reused,
            skew_ns=pair.skew_ns if isinstance(pair, Pair) else ir_t_ns - rgb_t_ns,
            ir_state=fused.states.get("ir", "live"),
            rgb_state=fused.states.get("rgb", "live"),
            hot=hot,
            cold=cold,
            age_ns=pair.leader.age_ns(now),
            published_ns=now,
            published_unix_ms=time.time_ns() // 1_000_000,
            width=fused.image.shape[1],
            height=fused.image.shape[0],
            encoding=self._encoding,
        )

    def close(self) -> None:
        """Give the last frames a moment to leave, then close."""
        self._gate.close()
        self._socket.close()
        self._context.term()


def _bind_error(endpoint: str, e: zmq.ZMQError) -> Exception:
    if e.errno == zmq.EADDRINUSE:
        return EndpointUnavailable(
            f"cannot publish on {endpoint}: the port is in use, perhaps by another rtfuse; end that one, or {_CHOOSE}"
        )
    if e.errno in (zmq.EPROTONOSUPPORT, errno.EINVAL, zmq.ENOCOMPATPROTO):
        return ConfigError(_NONSENSE.format(endpoint))
    return EndpointUnavailable(f"cannot publish on {endpoint}: {zmq.strerror(e.errno or 0)}; {_CHOOSE}")


def _check_path(endpoint: str) -> None:
    """Refuse an ipc path that something else owns: ZeroMQ would delete a file, or take over a socket in use.

    The socket that a dead publisher left behind is free to take. Raises EndpointUnavailable.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.name or path.name == "*" or str(path).startswith("@"):
        return  # ZeroMQ refuses it, chooses a path, or uses a name that is no file
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise EndpointUnavailable(f"cannot publish on {endpoint}: it is there and is no socket; {_CHOOSE}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(str(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # nothing there, or nothing that can be bound: ZeroMQ says which
    if answer != errno.ECONNREFUSED:
        raise EndpointUnavailable(
            f"cannot publish on {endpoint}: it is in use, perhaps by another rtfuse; end that one, or {_CHOOSE}"
        )
