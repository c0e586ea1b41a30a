"""Find out why nothing comes from an endpoint: nobody answers, the key is refused, or it has other topics."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, get_args
from urllib.parse import urlsplit

import zmq

from rtfuse.client.connection import Keys, connect, subscribed
from rtfuse.errors import WireError
from rtfuse.wire.description import decode_description
from rtfuse.wire.message import MAX_MESSAGE_BYTES, MAX_TOPIC_BYTES
from rtfuse.wire.names import ABOUT_TOPIC, Plane

_ANSWER_S, _ABOUT_S, _ALL_S = 1.5, 1.0, 1.5
"""The longest waits for a connection, for the rig's description, and for messages of any topic, in seconds."""
_TICK_MS = 50
_EVENT = struct.Struct("=HI")
_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


def silence(endpoint: str, topic: str, keys: Keys = None, *, stopped: Callable[[], bool] = lambda: False) -> str:
    """Return in one line why no message of a topic comes from an endpoint; takes up to four seconds.

    `stopped` ends the wait early. Raises KeysUnusable for the file of `keys`.
    """
    if (unknown := _unknown_host(endpoint)) is not None:
        return unknown
    with _connection(endpoint, keys) as (messages, monitor):
        answer = _answer(monitor, stopped)
        if answer == 0:
            return f"nothing answers on {endpoint}: is `rtfuse run` publishing there?"
        if answer & _REFUSED:
            which = "does not know this key" if keys else "encrypts, and wants a key (--keys)"
            return f"{endpoint} answers, but refuses the connection: it {which}, or it speaks another protocol"
        topics = _described(messages, _ABOUT_S, stopped)
        if not topics:
            messages.setsockopt(zmq.SUBSCRIBE, b"")
            topics = _described(messages, _ALL_S, stopped)
    if topic in topics:
        return f"{endpoint} has the topic {topic}, but no picture comes: is a camera away?"
    if not topics:
        return f"{endpoint} answers, but publishes nothing: a proxy without rigs, or a rig that is still starting?"
    more = f"; 'publish.planes=[fused,{topic}]' on the rig adds it" if topic in get_args(Plane) else ""
    return f"{endpoint} has no topic {topic}, only {', '.join(sorted(topics))}: choose with --topic{more}"


def _unknown_host(endpoint: str) -> str | None:
    """Return a line about a host name that nobody knows; None for any other endpoint."""
    host = urlsplit(endpoint).hostname if endpoint.startswith("tcp://") else None
    try:
        if host is not None:
            socket.getaddrinfo(host, None)
    except (OSError, UnicodeError) as e:
        return f"{endpoint}: the host {host} is unknown ({getattr(e, 'strerror', None) or 'not a name'})"
    return None


@contextmanager
def _connection(endpoint: str, keys: Keys) -> Iterator[tuple[zmq.Socket[Any], zmq.Socket[Any]]]:
    """Connect for the rig's description; yield the socket of messages, and that of the connection's events."""
    context: zmq.Context[Any] = zmq.Context()
    try:
        messages = subscribed(context, endpoint, ABOUT_TOPIC.encode() + b"\0", max_bytes=MAX_MESSAGE_BYTES, keys=keys)
        messages.setsockopt(zmq.RCVHWM, 32)
        messages.monitor("inproc://look", zmq.EVENT_HANDSHAKE_SUCCEEDED | _REFUSED)
        monitor = context.socket(zmq.PAIR)
        monitor.connect("inproc://look")
        connect(messages, endpoint)
        yield messages, monitor
    finally:
        context.destroy(linger=0)


def _answer(monitor: zmq.Socket[Any], stopped: Callable[[], bool]) -> int:
    """Return the first event of the handshake; 0 if none comes."""
    end = time.monotonic() + _ANSWER_S
    while time.monotonic() < end and not stopped():
        if monitor.poll(_TICK_MS):
            return int(_EVENT.unpack(monitor.recv_multipart()[0])[0])
    return 0


def _described(messages: zmq.Socket[Any], within_s: float, stopped: Callable[[], bool]) -> set[str]:
    """Return the topics that messages have, or that a rig's description names."""
    topics, end = set[str](), time.monotonic() + within_s
    while time.monotonic() < end and not stopped():
        if not messages.poll(_TICK_MS):
            continue
        data = messages.recv()
        name = data[: MAX_TOPIC_BYTES + 1].partition(b"\0")[0].decode(errors="replace")
        topics.add(name)
        if name.rpartition("/")[2] == ABOUT_TOPIC:
            with suppress(WireError):
                topics |= {plane.topic for plane in decode_description(data)[1].planes}
            if name == ABOUT_TOPIC:  # one rig: it has said everything
                return topics
    return topics
