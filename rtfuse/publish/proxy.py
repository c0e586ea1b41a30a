"""Join many rigs behind one endpoint: ZeroMQ's own proxy between their publishers and a control room.

Messages pass unchanged, not decoded and not copied. Subscriptions pass the other way, so that a rig sends only
subscribed topics. Topics distinguish the rigs: `publish.rig_topics` puts a rig's name before its topics.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq

from rtfuse.errors import ConfigError, EndpointUnavailable, StageFailed
from rtfuse.observe.logs import event
from rtfuse.publish.auth import HANDSHAKE_MS, Authenticator, unpack_event
from rtfuse.settings import read_yaml, to_struct
from rtfuse.wire.addresses import bindable, check_endpoint, check_reach, wants_ipv6
from rtfuse.wire.keepalive import keep_alive
from rtfuse.wire.keys import curve_client
from rtfuse.wire.message import MAX_MESSAGE_BYTES, check_names

_FAILED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _FAILED
_POLL_MS = 100
_END_S = 2.0
_WAITING = 2
"""The most messages of each rig that wait for a slow subscriber."""
_log = logging.getLogger("rtfuse.proxy")


class RigLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Endpoint of a rig and, if it encrypts, its file of `rtfuse keys new client`."""

    endpoint: str
    keys: str | None = None


class ProxyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of `rtfuse proxy`.

    `rigs`: the rigs by name.
    `bind`: the endpoint to serve them on.
    `keys`: the proxy's own folder of keys.
    `insecure`: permits an endpoint for other machines without encryption.
    """

    rigs: dict[str, RigLink] = {}
    bind: str = "tcp://127.0.0.1:5560"
    keys: str | None = None
    insecure: bool = False
    log: Literal["text", "json"] = "text"


def load_proxy_config(
    file: str | Path | None, rigs: Iterable[str], rig_keys: Iterable[str], options: Mapping[str, Any]
) -> ProxyConfig:
    """Merge defaults, the YAML `file`, then NAME=ENDPOINT, NAME=FILE and options of the command line.

    Raises ConfigError.
    """
    tree = read_yaml(file) if file is not None else {}
    to_struct(tree, ProxyConfig, f"config {file}")
    links: dict[str, dict[str, Any]] = {name: dict(link) for name, link in (tree.get("rigs") or {}).items()}
    for option, items, field in (("--rig", rigs, "endpoint"), ("--rig-keys", rig_keys, "keys")):
        for item in items:
            name, separator, value = item.partition("=")
            if not (name and separator and value):
                raise ConfigError(f"{option} {item!r}: want NAME=…, for example truck-1=tcp://10.0.0.11:5555")
            links.setdefault(name, {})[field] = value
    given = {key: value for key, value in options.items() if value is not None}
    return to_struct({**tree, "rigs": links, **given}, ProxyConfig, "options")


class Proxy:
    """Join the rigs of a configuration behind one endpoint until `close`.

    A subscriber that is too slow loses messages and does not delay others; a rig may disappear and come back.
    `endpoint`: the real one, also after a bind to port 0 or `*`.
    `refused`: counts the refused subscribers by cause.
    Raises ConfigError for an invalid configuration, KeysUnusable for keys, EndpointUnavailable for an endpoint that
    cannot be bound.
    """

    def __init__(self, config: ProxyConfig) -> None:
        _check(config)
        self._context: zmq.Context[Any] = zmq.Context()
        self._authenticator: Authenticator | None = None
        try:
            self._authenticator = Authenticator(self._context, config.keys)
            self.refused = self._authenticator.refused
            self._rigs = self._context.socket(zmq.XSUB)
            self._monitor = _monitored(self._context, self._rigs)
            self._names = _connect(self._rigs, config.rigs)
            self._room = self._context.socket(zmq.XPUB)
            self.endpoint = self._serve(config)
        except BaseException:
            self.close()
            raise
        self._steer, self._steered = (self._context.socket(zmq.PAIR) for _ in range(2))
        self._steer.bind("inproc://steer")
        self._steered.connect("inproc://steer")
        self._over, self._failure = threading.Event(), list[BaseException]()
        self._up = dict.fromkeys(config.rigs, False)

    def _serve(self, config: ProxyConfig) -> str:
        s = self._room
        s.setsockopt(zmq.SNDHWM, _WAITING * max(2, len(config.rigs)))
        s.setsockopt(zmq.LINGER, 200)
        s.setsockopt(zmq.MAXMSGSIZE, 1024)  # subscribers send only subscriptions
        # Every subscription is passed on, so that a rig can greet late subscribers; so is every end of one.
        s.setsockopt(zmq.XPUB_VERBOSER, 1)
        address = bindable(config.bind)
        s.setsockopt(zmq.IPV6, "[" in address)
        keep_alive(s)
        assert self._authenticator is not None
        try:
            return self._authenticator.bind(s, address)
        except zmq.ZMQError as e:
            why = zmq.strerror(e.errno or 0)
            raise EndpointUnavailable(f"cannot serve on {config.bind}: {why}; choose another with --bind") from e

    def run(self, stop: threading.Event) -> None:
        """Forward until `stop` is set. Raises StageFailed if forwarding fails."""
        thread = threading.Thread(target=self._forward, name="rtfuse-proxy", daemon=True)
        thread.start()
        try:
            while not stop.is_set() and thread.is_alive():
                self._watch()
                assert self._authenticator is not None
                if self._authenticator.stale(self._room):
                    self._steer.send(b"TERMINATE")  # the forwarding thread renews its socket and goes on
        finally:
            self._over.set()
            self._steer.send(b"TERMINATE")
            thread.join(_END_S)
        if self._failure:
            raise StageFailed(f"proxy failed: {self._failure[0]}") from self._failure[0]

    def _forward(self) -> None:
        assert self._authenticator is not None
        try:
            while not self._over.is_set():
                self._authenticator.renew(self._room)
                zmq.proxy_steerable(self._rigs, self._room, None, self._steered)
        except BaseException as e:  # noqa: BLE001 - raised again in the calling thread
            self._failure.append(e)

    def _watch(self) -> None:
        """Log which rigs come and go."""
        if not self._monitor.poll(_POLL_MS):
            return
        head, address = self._monitor.recv_multipart()
        what, _ = unpack_event(head)
        name = self._names.get(address.decode(errors="replace"), address.decode(errors="replace"))
        was = self._up.get(name, False)
        self._up[name] = what == zmq.EVENT_HANDSHAKE_SUCCEEDED
        if self._up[name]:
            event(_log, logging.INFO, "rig", f"{name} is connected", stream=name)
        elif what & _FAILED:
            why = "it does not know this proxy's key, its own key differs, or only one of both encrypts"
            event(_log, logging.WARNING, "rig_refuses", f"{name} refuses the connection: {why}", stream=name)
        elif was:
            event(_log, logging.WARNING, "rig", f"{name} is lost", stream=name)

    def close(self) -> None:
        """Close all connections; a second call does nothing."""
        if self._context.closed:
            return
        if hasattr(self, "_monitor"):
            self._rigs.monitor(None, 0)
        if self._authenticator is not None:
            self._authenticator.close()
        self._context.destroy()


def _check(config: ProxyConfig) -> None:
    """Raise ConfigError for an invalid configuration, before anything is opened."""
    if not config.rigs:
        raise ConfigError("no rigs are named; name them with --rig NAME=ENDPOINT, or in the configuration")
    if not config.bind.startswith("tcp://"):
        raise ConfigError(f"bind: {config.bind!r} is not a TCP endpoint; want for example tcp://127.0.0.1:5560")
    check_endpoint(config.bind)
    check_reach(config.bind, "bind", encrypted=config.keys is not None, allow_remote=config.insecure)
    for name, link in config.rigs.items():
        check_names(name, "raw", name)
        check_endpoint(link.endpoint)


def _monitored(context: zmq.Context[Any], socket: zmq.Socket[Any]) -> zmq.Socket[Any]:
    socket.monitor("inproc://rigs", _EVENTS)
    monitor = context.socket(zmq.PAIR)
    monitor.connect("inproc://rigs")
    return monitor


def _connect(socket: zmq.Socket[Any], rigs: Mapping[str, RigLink]) -> dict[str, str]:
    """Connect to every rig, with its own key; return the rigs' names by their endpoint in the monitor."""
    socket.setsockopt(zmq.RCVHWM, 8)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.RECONNECT_IVL, 100)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    keep_alive(socket)
    names = {}
    # A connection has the options of its moment; plain ones come first, as keys cannot be taken off a socket again.
    for name, link in sorted(rigs.items(), key=lambda item: item[1].keys is not None):
        for option, value in curve_client(link.keys, link.endpoint).items() if link.keys else ():
            socket.setsockopt(option, value)
        socket.setsockopt(zmq.IPV6, wants_ipv6(link.endpoint))
        try:
            socket.connect(link.endpoint)
        except zmq.ZMQError as e:
            raise ConfigError(
                f"rigs.{name}.endpoint: {link.endpoint!r} cannot be connected to ({zmq.strerror(e.errno or 0)}); "
                "want for example tcp://10.0.0.11:5555"
            ) from e
        names[link.endpoint] = name
    return names
