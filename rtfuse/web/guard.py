"""Control access to the page: by token, by a session in a cookie, and never for requests of another site's page."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from aiohttp import web

from rtfuse.observe.logs import event

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN = {"/login", "/healthz", "/readyz", "/static/login.js", "/static/style.css", "/static/icon.svg"}
"""Paths that are answered without the token."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "rtfuse",
}
_SESSIONS, _SESSION_S = 64, 24 * 3600
_TRIES, _TRIES_S, _PEERS = 5, 60.0, 1024
_log = logging.getLogger("rtfuse.web")


class TooManyTries(Exception):
    """An address has failed to log in too often; `wait_s` until it may try again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many tries; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class Guard:
    """Lets requests through, or says why not.

    `token` None: everybody on this machine may. The request must name this rig as an address, as `localhost`, by this
    machine's own name, or by one of `hosts`, so that no other site's name can be pointed at it; and what changes
    something, or watches, must come from the page itself. A cookie holds a session, never the token. An address that
    fails five times within a minute has to wait.
    """

    def __init__(
        self, token: str | None, *, hosts: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        own = socket.gethostname().lower()
        self._token, self._clock = token, clock
        self._hosts = {"localhost", own, f"{own.partition('.')[0]}.local", *(h.lower() for h in hosts)}
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()
        self.cookie = "rtfuse"
        """The cookie's name; sites on other ports of a host see each other's cookies, so it should say the port."""

    @property
    def locked(self) -> bool:
        """True if a token is needed."""
        return self._token is not None

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer only what passes."""
        if not self._named(request.headers.get("Host", "")):
            raise web.HTTPMisdirectedRequest(text="this rig does not go by that name; see web.hosts\n")
        if not _own(request):
            raise web.HTTPForbidden(text="another site's page may not use this rig\n")
        if request.path not in OPEN and not self.knows(request):
            if request.method == "GET" and request.path == "/":
                raise web.HTTPSeeOther("/login")
            raise web.HTTPUnauthorized(text="log in first, or send the token as Authorization: Bearer\n")
        return await handler(request)

    def knows(self, request: web.Request) -> bool:
        """Return True if the request carries the token or a session. Raises HTTPTooManyRequests."""
        if self._token is None:
            return True
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            try:
                return self.admits(given.strip(), request.remote or "")
            except TooManyTries as e:
                raise web.HTTPTooManyRequests(text=f"{e}\n", headers={"Retry-After": f"{e.wait_s:.0f}"}) from e
        now, session = self._clock(), self._session(request)
        if session is None or self._sessions.get(session, 0.0) < now:
            return False
        self._sessions[session] = now + _SESSION_S
        return True

    def admits(self, given: str, peer: str) -> bool:
        """Return True if this is the token, compared in constant time. Raises TooManyTries."""
        now, tries = self._clock(), self._failed.get(peer, deque(maxlen=_TRIES))
        if len(tries) == _TRIES and now - tries[0] < _TRIES_S:
            raise TooManyTries(max(1.0, _TRIES_S - (now - tries[0])))
        if self._token is not None and hmac.compare_digest(given.encode(), self._token.encode()):
            self._failed.pop(peer, None)
            return True
        tries.append(now)
        self._failed[peer] = tries
        self._failed.move_to_end(peer)
        if len(self._failed) > _PEERS:
            self._failed.popitem(last=False)
        event(_log, logging.WARNING, "login", "a login with a wrong token was refused", peer=peer)
        return False

    def begin(self, response: web.StreamResponse, *, secure: bool) -> None:
        """Begin a session, and put it into the response's cookie."""
        session = secrets.token_urlsafe(24)
        self._sessions[session] = self._clock() + _SESSION_S
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        response.set_cookie(self.cookie, session, httponly=True, samesite="Strict", secure=secure, path="/")

    def _session(self, request: web.Request) -> str | None:
        try:
            found = SimpleCookie(request.headers.get("Cookie", "")).get(self.cookie)
        except CookieError:
            return None
        return found.value if found is not None else None

    def _named(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True


def _own(request: web.Request) -> bool:
    """Return False for a request from another site's page; browsers name the origin of a request."""
    asks = request.headers
    origin = asks.get("Origin")
    changes = request.method not in ("GET", "HEAD") or "websocket" in asks.get("Upgrade", "").lower()
    if changes and origin is not None:
        try:
            return urlsplit(origin).netloc.lower() == asks.get("Host", "").lower()
        except ValueError:
            return False
    visits = asks.get("Sec-Fetch-Mode") == "navigate" and asks.get("Sec-Fetch-Dest") == "document"
    return visits or asks.get("Sec-Fetch-Site", "none") in ("none", "same-origin")
