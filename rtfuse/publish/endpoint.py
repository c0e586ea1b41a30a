"""Bind a ZeroMQ socket, count the subscribers of each topic, and send without waiting."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.publish.auth import Authenticator
from rtfuse.wire.addresses import bindable, check_endpoint, check_reach
from rtfuse.wire.keepalive import keep_alive

_LINGER_MS = 200
_NONSENSE = "publish.endpoint: {!r} is not an endpoint; want for example tcp://127.0.0.1:5555 or ipc:///run/rtfuse"
_CHOOSE = "choose another with --publish"
_WAITING = 2
"""The most frames that wait for each subscriber, besides those in the system's socket buffers."""
_REQUESTS = 64
"""The most subscriptions that wait, of each subscriber; then its connection waits."""
_AT_ONCE = 1000
_LOOKS = 50
"""The number of checks for closed connections: ZeroMQ closes one only a moment after it has reported it."""


def check(endpoint: str, *, encrypted: bool, allow_remote: bool) -> None:
    """Raise ConfigError for an invalid endpoint, or an unencrypted one for other machines without `allow_remote`."""
    check_endpoint(endpoint)
    check_reach(endpoint, "publish.endpoint", encrypted=encrypted, allow_remote=allow_remote)
    if not endpoint.startswith(("ipc://", "tcp://")):
        raise ConfigError(_NONSENSE.format(endpoint))


def bound_socket(context: zmq.Context[Any], authenticator: Authenticator, endpoint: str) -> zmq.Socket[Any]:
    """Return an XPUB socket, configured and bound by the authenticator. Raises ConfigError, EndpointUnavailable.

    XPUB, not PUB, as it reports every subscription.
    """
    if endpoint.startswith("ipc://"):
        _check_path(endpoint)
    made = context.socket(zmq.XPUB)
    made.setsockopt(zmq.XPUB_VERBOSER, 1)
    made.setsockopt(zmq.SNDHWM, _WAITING)
    made.setsockopt(zmq.RCVHWM, _REQUESTS)
    made.setsockopt(zmq.LINGER, _LINGER_MS)
    keep_alive(made)
    made.setsockopt(zmq.MAXMSGSIZE, 1024)  # subscribers send only subscriptions
    address = bindable(endpoint)
    made.setsockopt(zmq.IPV6, "[" in address)
    try:
        authenticator.bind(made, address)
    except zmq.ZMQError as e:
        authenticator.release(made)
        made.close(0)
        raise _bind_error(endpoint, e) from e
    return made


class Endpoint:
    """Own a bound socket and its `topics`. Call `send` and `subscribers` from any thread.

    `name`: the real endpoint, also after a bind to port 0 or `*`.
    `sent_bytes`: the number of bytes that were handed to ZeroMQ.
    Raises ConfigError, EndpointUnavailable.
    """

    def __init__(
        self, context: zmq.Context[Any], authenticator: Authenticator, endpoint: str, topics: Sequence[str]
    ) -> None:
        self.sent_bytes = 0
        self._keys = {topic: topic.encode() + b"\0" for topic in topics}
        self._lock = threading.Lock()
        self._peers: dict[tuple[int, int | None], set[bytes]] = {}
        self._old: set[bytes] = set()
        self._looks = 0
        self._subscribers: Mapping[str, int] = dict.fromkeys(topics, 0)
        self._authenticator, self._socket = authenticator, bound_socket(context, authenticator, endpoint)
        self.name = str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def send(self, message: zmq.Frame) -> None:
        """Send one message; a subscriber with a full queue loses it. Does nothing once the endpoint is closed."""
        with self._lock:
            if self._socket.closed:
                return
            # Reading its state makes the socket notice which subscribers have read. Otherwise it looks once in a
            # millisecond at most, and drops frames of a burst for subscribers that have room again.
            self._socket.getsockopt(zmq.EVENTS)
            self._authenticator.renew(self._socket)
            self._socket.send(message, copy=False)
            self.sent_bytes += len(message)

    def subscribers(self) -> Mapping[str, int]:
        """Return the number of subscribers of each topic."""
        return self._subscribers

    def joined(self) -> set[str]:
        """Read new and ended subscriptions; return the topics with a new subscriber since the last call."""
        new: set[bytes] = set()
        changed = False
        with self._lock:
            if not self._socket.closed:
                self._authenticator.renew(self._socket)  # here too: without subscribers nothing is sent
            for _ in range(_AT_ONCE):
                if self._socket.closed or not int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                    break
                changed |= self._note(self._socket.recv(zmq.NOBLOCK, copy=False), new)
            if self._looks > 0:
                self._looks -= 1
                gone = [peer for peer in self._peers if _inode(peer[0]) != peer[1]]
                for peer in gone:
                    del self._peers[peer]
                changed |= bool(gone)
            if changed:
                self._subscribers = {topic: self._count(key) for topic, key in self._keys.items()}
        return {topic for topic, key in self._keys.items() if any(_meets(prefix, key) for prefix in new)}

    def _note(self, frame: zmq.Frame, new: set[bytes]) -> bool:
        """Note a new or an ended subscription; return True if the counts may have changed.

        The connection's file descriptor identifies a peer, which may end only its own subscriptions. ZeroMQ names no
        connection when a subscription ends because its peer is gone, or when the peer speaks a protocol from before
        2013 (ZMTP 1 and 2). Such a message only triggers a check for closed connections.
        """
        data = bytes(frame.buffer)
        prefix = self._known(data[1:])
        if data[:1] not in (b"\0", b"\1") or prefix is None:
            return False
        begins, peer = data[:1] == b"\1", _connection(frame)
        if begins:
            new.add(prefix)
            if peer is None:
                self._old.add(prefix)  # its end is never known: encoders go on working for it
            elif peer[1] is not None:
                self._peers.setdefault(peer, set()).add(prefix)
            return True
        if peer is None:
            self._looks = _LOOKS
            return False
        held = self._peers.get(peer, set())
        held.discard(prefix)
        if not held:
            self._peers.pop(peer, None)
        return True

    def _known(self, prefix: bytes) -> bytes | None:
        """Return the relevant part of a subscription, None if it matches no topic: a peer may send any number."""
        key = next((key for key in self._keys.values() if _meets(prefix, key)), None)
        return None if key is None else prefix[: len(key)]

    def _count(self, key: bytes) -> int:
        peers = (*self._peers.values(), self._old)
        return sum(any(_meets(prefix, key) for prefix in prefixes) for prefixes in peers)

    def close(self) -> None:
        """Give the last messages a moment to leave, then close."""
        with self._lock:
            self._authenticator.release(self._socket)
            self._socket.close()


def _connection(frame: zmq.Frame) -> tuple[int, int | None] | None:
    """Return the descriptor of a message's connection and the inode of its socket; None if ZeroMQ does not know it."""
    try:
        fd = int(str(frame.get("__fd")))
    except zmq.ZMQError:
        return None
    return fd, _inode(fd)


def _inode(fd: int) -> int | None:
    """Return the inode, which differs when a descriptor is used again; None if the descriptor is closed."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return None


def _meets(prefix: bytes, key: bytes) -> bool:
    """Return True if a subscription matches the topic of this key, or some messages of it."""
    return key.startswith(prefix) or prefix.startswith(key)


def _bind_error(endpoint: str, e: zmq.ZMQError) -> Exception:
    if e.errno == zmq.EADDRINUSE:
        return EndpointUnavailable(
            f"cannot publish on {endpoint}: the port is in use, perhaps by another rtfuse; end that one, or {_CHOOSE}"
        )
    if e.errno in (zmq.EPROTONOSUPPORT, errno.EINVAL, zmq.ENOCOMPATPROTO):
        return ConfigError(_NONSENSE.format(endpoint))
    return EndpointUnavailable(f"cannot publish on {endpoint}: {zmq.strerror(e.errno or 0)}; {_CHOOSE}")


def _check_path(endpoint: str) -> None:
    """Refuse an ipc path in use: ZeroMQ would delete a file, or take over another program's socket.

    The socket of a dead publisher may be replaced. Raises EndpointUnavailable.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    if not path.name or path.name == "*" or str(path).startswith("@"):
        return  # ZeroMQ refuses it, chooses a path, or uses a name without a file
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise EndpointUnavailable(f"cannot publish on {endpoint}: it exists and is not a socket; {_CHOOSE}")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(str(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # absent, or it cannot be bound: ZeroMQ reports which
    if answer != errno.ECONNREFUSED:
        raise EndpointUnavailable(
            f"cannot publish on {endpoint}: it is in use, perhaps by another rtfuse; end that one, or {_CHOOSE}"
        )
