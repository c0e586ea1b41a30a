"""Authenticate clients by CURVE and ZAP (ZeroMQ RFC 27), and count those that were refused, by cause.

One `Authenticator` serves all sockets of one ZeroMQ context with one thread. It answers ZAP's requests, reads the
sockets' monitors, and reads the authorised keys several times a second. pyzmq's own authenticator does the first of the
three; it runs an event loop in its thread, counts nothing, and would need a second thread for the rest.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import zmq
from zmq.utils import z85

from rtfuse.errors import KeysUnusable
from rtfuse.observe.logs import event
from rtfuse.wire.keys import authorised, changed_ns, folder_state, readable, revoked, rig_keys

CAUSES = {
    "unknown_key": "its key is not authorised",
    "revoked_key": "its key was revoked",
    "wrong_server_key": "it has a wrong public key of this rig",
    "malformed": "it does not speak ZeroMQ, or breaks its rules",
    "hung_up": "it left before the end of the handshake, or it does not encrypt and this rig does",
    "timed_out": "it did not end the handshake in time",
}
"""Causes of refusals, in words."""

HANDSHAKE_MS = 5000
"""The limit of a handshake, which takes three round trips, also over a poor link."""

_LOOK_S = 0.1
_WAIT_MS = 300
_LOG_S = 1.0
_WARN_S = 10.0
_END_S = 5.0
_AT_ONCE = 200
_TELL_TRIES = 100
_MONITORED = 20_000
"""The most events that wait for the thread; beyond them ZeroMQ's own thread would wait too."""
_ZAP = "inproc://zeromq.zap.01"
_EVENT = struct.Struct("=HI")  # zmq.utils.monitor takes 17 times as long, and imports asyncio
# Not ACCEPT_FAILED: without file descriptors left it comes a hundred thousand times a second.
_EVENTS = (
    zmq.EVENT_ACCEPTED
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
)
_log = logging.getLogger("rtfuse.publish")


class Authenticator:
    """Bind sockets of `context` that accept only authorised clients, and count all others.

    `keys`: a folder of `rtfuse.wire.keys`. TCP endpoints are encrypted, and only clients with a key in it may connect;
    the permissions of the file system protect ipc endpoints. Without `keys` all endpoints are plain.
    `refused`: counts malformed and refused peers by the names of `CAUSES`, from any thread.
    Raises KeysUnusable if the rig's key or the folder cannot be trusted.
    """

    def __init__(self, context: zmq.Context[Any], keys: str | Path | None = None) -> None:
        self._context, self._folder = context, None if keys is None else Path(keys)
        self.counts, self.denied = dict.fromkeys(CAUSES, 0), 0
        self.refused: Mapping[str, int] = MappingProxyType(self.counts)
        self._state: object = None
        self._authorised: dict[str, str] = {}
        self._revoked: dict[str, str] = {}
        self._generation, self._looked_s, self._changed_ns, self._warned_s = 0, -_LOOK_S, 0, -_WARN_S
        self._bound: dict[zmq.Socket[Any], _Bound] = {}
        self._zap: zmq.Socket[Any] | None = None
        if self._folder is not None:
            self._pair = rig_keys(self._folder)
            with readable(self._folder):
                self._state = folder_state(self._folder)
                self._authorised, self._revoked = authorised(self._folder), revoked(self._folder)
            self._zap = context.socket(zmq.REP)
            self._zap.setsockopt(zmq.LINGER, 0)
            self._zap.bind(_ZAP)
        self._wake, self._wake_lock = _pair(context, f"inproc://authenticator-{id(self)}"), threading.Lock()
        self._given: queue.SimpleQueue[tuple[zmq.Socket[Any], bool]] = queue.SimpleQueue()
        self._watches: dict[zmq.Socket[Any], _Watch] = {}
        self._logged = dict.fromkeys(CAUSES, (0, -_LOG_S))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rtfuse-authenticator", daemon=True)
        self._thread.start()

    def bind(self, socket: zmq.Socket[Any], endpoint: str) -> str:
        """Bind a socket, encrypted if it must be, and return the real endpoint. Raises zmq.ZMQError.

        Call `release` before the socket is closed.
        """
        socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        encrypted = self._folder is not None and endpoint.startswith("tcp://")
        if encrypted:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret.encode())
            socket.setsockopt(zmq.ZAP_DOMAIN, b"rtfuse")
        address = f"inproc://authenticator-{id(self)}-{id(socket)}"
        socket.monitor(address, _EVENTS)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.RCVHWM, _MONITORED)
        monitor.connect(address)
        self._give(monitor, watch=True)
        bound = self._bound[socket] = _Bound(encrypted, self._generation, monitor)
        socket.bind(endpoint)
        bound.endpoint = str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
        return bound.endpoint

    def stale(self, socket: zmq.Socket[Any]) -> bool:
        """Return True if a client of this socket has lost its authorisation since `renew`; from any thread."""
        bound = self._bound[socket]
        return bound.encrypted and (bound.generation != self._generation or bound.unbound)

    def renew(self, socket: zmq.Socket[Any]) -> None:
        """End the sessions of clients that are no longer authorised; call it before sending, from the socket's thread.

        ZeroMQ asks for authorisation when a client connects, never again, and cannot drop a single one. So the endpoint
        is taken down, which ends all its sessions, and put up again: the others are back within a reconnection, the
        revoked one is refused. It does nothing while no key was revoked, and never waits.
        """
        if not self.stale(socket):
            return
        bound = self._bound[socket]
        if not bound.unbound:
            bound.generation = self._generation
            socket.unbind(bound.endpoint)
            bound.unbound, bound.tries = True, 0
        try:
            socket.bind(bound.endpoint)
            bound.unbound = False
        except zmq.ZMQError as e:
            # ZeroMQ gives the port free in its own thread, milliseconds later; then the next call succeeds.
            bound.tries += 1
            if bound.tries % _TELL_TRIES == 0:
                why = zmq.strerror(e.errno or 0)
                event(
                    _log, logging.ERROR, "rebind", f"{bound.endpoint} cannot be bound again, no client receives: {why}"
                )

    def release(self, socket: zmq.Socket[Any]) -> None:
        """Forget a socket before it is closed, from its own thread; ignore an unknown one."""
        bound = self._bound.pop(socket, None)
        if bound is not None:
            socket.monitor(None, 0)
            self._give(bound.monitor, watch=False)

    def close(self) -> None:
        """End the thread, once the sockets are released and before the context ends; a second call does nothing."""
        if self._over.is_set():
            return
        for socket in list(self._bound):
            self.release(socket)
        self._over.set()
        self._rouse()
        self._thread.join(_END_S)
        self._wake[0].close(0)

    def _give(self, monitor: zmq.Socket[Any], *, watch: bool) -> None:
        """Hand a monitor to the thread, to be watched or closed."""
        self._given.put((monitor, watch))
        self._rouse()

    def _rouse(self) -> None:
        """Make the thread look now; never waits, since the thread may have ended or not read earlier calls."""
        with self._wake_lock, contextlib.suppress(zmq.Again):
            self._wake[0].send(b"", zmq.NOBLOCK)

    def _work(self) -> None:
        try:
            while not self._over.is_set():
                self._serve()
                self._look()
                self._report()
        finally:
            self._take()
            for socket in (*self._watches, self._zap, self._wake[1]):
                if socket is not None:
                    socket.close(0)

    def _serve(self) -> None:
        """Wait for events, and handle a bounded number of them."""
        poller = zmq.Poller()
        for socket in (self._wake[1], self._zap, *self._watches):
            if socket is not None:
                poller.register(socket, zmq.POLLIN)
        ready = dict(poller.poll(_WAIT_MS))
        if self._wake[1] in ready:
            self._wake[1].recv()
            self._take()
        if self._zap is not None and self._zap in ready:
            self._answer(self._zap)
        for monitor, watch in self._watches.items():
            if monitor in ready:
                for what, value in _received(monitor):
                    watch(what, value)

    def _take(self) -> None:
        """Accept the monitors from `_give`."""
        with contextlib.suppress(queue.Empty):
            while True:
                monitor, watch = self._given.get_nowait()
                if watch:
                    self._watches[monitor] = _Watch(self)
                else:
                    del self._watches[monitor]
                    monitor.close(0)

    def _answer(self, zap: zmq.Socket[Any]) -> None:
        """Answer requests of ZAP: version, request, domain, address, identity, mechanism, key (RFC 27)."""
        for _ in range(_AT_ONCE):
            try:
                request = zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            name = None
            if len(request) == 7 and request[5] == b"CURVE" and len(request[6]) == 32:
                key = z85.encode(request[6]).decode()
                if key not in self._authorised:
                    self._look(asked=True)  # it may have been authorised just now
                name = self._authorised.get(key)
                if name is None:
                    self.counts["revoked_key" if key in self._revoked else "unknown_key"] += 1
                    self.denied += 1
            # 300, a failure for now: a client that is told 400 never tries again, also once it is authorised.
            status, text = (b"200", b"OK") if name is not None else (b"300", b"not authorised")
            zap.send_multipart([b"1.0", request[1], status, text, (name or "").encode(), b""])

    def _look(self, *, asked: bool = False) -> None:
        """Read the authorised keys. An untrusted folder authorises no client; a failed read changes nothing."""
        folder, now_s = self._folder, time.monotonic()
        if folder is None or (
            now_s - self._looked_s < _LOOK_S and not (asked and changed_ns(folder) != self._changed_ns)
        ):
            return
        self._looked_s, self._changed_ns = now_s, changed_ns(folder)
        try:
            state: object = folder_state(folder)
            if state == self._state:
                return
            now, gone = authorised(folder), revoked(folder)
        except (KeysUnusable, FileNotFoundError) as e:
            state, now, gone = str(e), {}, self._revoked
            if state != self._state:
                event(_log, logging.ERROR, "keys", f"no client is authorised any more: {e}")
        except OSError as e:  # no file descriptors, for example: all clients stay connected
            if now_s - self._warned_s >= _WARN_S:
                self._warned_s = now_s
                event(_log, logging.WARNING, "keys", f"the authorised keys cannot be read: {e.strerror or e}")
            return
        lost = sorted(name for key, name in self._authorised.items() if key not in now)
        self._state, self._authorised, self._revoked = state, now, gone
        if lost:
            self._generation += 1
            event(_log, logging.WARNING, "revoked", f"no longer authorised: {', '.join(lost)}")

    def _report(self) -> None:
        """Log the refused peers: at most one line a second for each cause."""
        now = time.monotonic()
        for cause, count in self.counts.items():
            told, when = self._logged[cause]
            if count > told and now - when >= _LOG_S:
                self._logged[cause] = count, now
                what = f"{count - told} connections refused: {CAUSES[cause]}"
                event(_log, logging.WARNING, f"refused_{cause}", what, cause=cause, total=count)


class _Bound:
    """State of a bound socket; `generation` numbers the revocations that its sessions have seen."""

    def __init__(self, encrypted: bool, generation: int, monitor: zmq.Socket[Any]) -> None:
        self.encrypted, self.generation, self.monitor = encrypted, generation, monitor
        self.endpoint, self.unbound, self.tries = "", False, 0


class _Watch:
    """Count failed connections by cause, from the events of a socket's monitor.

    Events of a handshake do not name their connection. A failure is followed by its own disconnection. A peer that does
    not speak ZeroMQ is disconnected without a failure: no client was accepted since it connected. A peer whose key was
    denied is counted already, and ends some time later without a reason.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator, self._counts, self._failed, self._let_in = authenticator, authenticator.counts, False, 0
        self._accepted: dict[int, int] = {}

    def __call__(self, what: int, value: int) -> None:
        if what == zmq.EVENT_ACCEPTED:
            self._accepted[value] = self._let_in
        elif what == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._let_in += 1
        elif what == zmq.EVENT_DISCONNECTED:
            if self._accepted.pop(value, None) == self._let_in and not self._failed:
                self._counts["malformed"] += 1
        elif what == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            wrong_key = value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC
            self._counts["wrong_server_key" if wrong_key else "malformed"] += 1
        elif what == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and self._authenticator.denied:
            self._authenticator.denied -= 1
        elif what == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._counts["timed_out" if value in (errno.EAGAIN, errno.ETIMEDOUT) else "hung_up"] += 1
        self._failed = what in _FAILURES


def unpack_event(head: bytes) -> tuple[int, int]:
    """Return event and value of a monitor's message, from its first part."""
    what, value = _EVENT.unpack(head)
    return what, value


def _received(monitor: zmq.Socket[Any]) -> list[tuple[int, int]]:
    """Return the waiting events with their values, a bounded number of them."""
    events = []
    for _ in range(_AT_ONCE):
        try:
            head, *_ = monitor.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            break
        events.append(unpack_event(head))
    return events


def _pair(context: zmq.Context[Any], address: str) -> tuple[zmq.Socket[Any], zmq.Socket[Any]]:
    ends = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    for end in ends:
        end.setsockopt(zmq.LINGER, 0)
    ends[0].bind(address)
    ends[1].connect(address)
    return ends
