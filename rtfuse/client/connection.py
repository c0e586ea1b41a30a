"""Connect SUB sockets that wait for their publisher, reconnect to it, and refuse long messages unread."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import zmq

from rtfuse.errors import ConfigError
from rtfuse.wire.addresses import check_endpoint, wants_ipv6
from rtfuse.wire.keepalive import keep_alive
from rtfuse.wire.keys import KeyPair, curve_client

Keys = str | Path | KeyPair | None
"""The file of `rtfuse keys new client`, or its content; None for a publisher that does not encrypt."""


def connected(
    context: zmq.Context[Any], endpoint: str, topic: str, *, max_bytes: int, queue: int | None, keys: Keys = None
) -> zmq.Socket[Any]:
    """Return a SUB socket on `endpoint`; `queue` None keeps the newest message only.

    Raises ConfigError for an invalid endpoint, KeysUnusable for the file of `keys`.
    """
    s = subscribed(context, endpoint, topic.encode() + b"\0", max_bytes=max_bytes, keys=keys)
    if queue is None:
        s.setsockopt(zmq.CONFLATE, 1)
    else:
        s.setsockopt(zmq.RCVHWM, queue)
    connect(s, endpoint)
    return s


def subscribed(
    context: zmq.Context[Any], endpoint: str, prefix: bytes, *, max_bytes: int, keys: Keys
) -> zmq.Socket[Any]:
    """Return a SUB socket for messages that begin with `prefix`, not yet connected to `endpoint`.

    Raises ConfigError for an invalid endpoint, KeysUnusable for the file of `keys`.
    """
    check_endpoint(endpoint)
    options = {} if keys is None else curve_client(keys, endpoint)
    s = context.socket(zmq.SUB)
    s.setsockopt(zmq.IPV6, wants_ipv6(endpoint))
    s.setsockopt(zmq.LINGER, 0)
    s.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    keep_alive(s)
    s.setsockopt(zmq.RECONNECT_IVL, 100)
    s.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    for option, value in options.items():
        s.setsockopt(option, value)
    s.setsockopt(zmq.SUBSCRIBE, prefix)
    return s


def connect(s: zmq.Socket[Any], endpoint: str) -> None:
    """Connect a socket; closes it and raises ConfigError for an invalid endpoint."""
    try:
        s.connect(endpoint)
    except zmq.ZMQError as e:
        s.close()
        raise ConfigError(
            f"{endpoint!r} is not an endpoint to connect to ({zmq.strerror(e.errno or 0)}); "
            "want for example tcp://127.0.0.1:5555"
        ) from e


async def readable(socket: zmq.Socket[Any], timeout_s: float) -> None:
    """Wait until the socket has a message, or for `timeout_s`.

    ZeroMQ's descriptor becomes readable when the socket's state may have changed, and stays readable until the state is
    read. So this reads the state before it waits.
    """
    import asyncio

    if int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        return
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    descriptor = int(socket.getsockopt(zmq.FD))
    loop.add_reader(descriptor, changed.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), timeout_s)
    finally:
        loop.remove_reader(descriptor)
