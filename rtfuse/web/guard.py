"""Control access to the page: by token, link token or session, and never for requests of another site's page."""

from __future__ import annotations

import binascii
import hmac
import ipaddress
import logging
import secrets
import socket
import time
from base64 import b64decode
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from aiohttp import web

from rtfuse.observe.logs import event
from rtfuse.web.visit import Role, visit

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

FREE = {"/healthz", "/favicon.ico"}
"""Paths that are answered to everybody in the same way, beside `/static/`: they hold nothing of the rig."""
OPEN = {"/login", "/readyz"}
"""Paths that are answered without the token too."""
SHOWN = {"/", "/plain", "/live", "/stream.mjpg", "/snapshot.jpg", "/state"}
"""Further paths that a link token opens."""
TOOLS = {"/plain", "/stream.mjpg", "/snapshot.jpg", "/state", "/metrics"}
"""Paths where a program is asked for its password; elsewhere browsers would ask with a window of their own."""
_SESSIONS, _SESSION_S = 64, 24 * 3600
_TRIES, _TRIES_S, _PEERS = 5, 60.0, 1024
_log = logging.getLogger("rtfuse.web")


class TooManyTries(Exception):
    """Raised if an address fails to log in too often; `wait_s` until it may try again."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many tries; wait {wait_s:.0f} s")
        self.wait_s = wait_s


class Guard:
    """Lets requests through, or says why not; it reads them as `rtfuse.web.entrance.Entrance` passes them on.

    `token` None: everybody on this machine may. The request must name this rig as an address, as `localhost`, by this
    machine's own name, or by one of `hosts`, so that no other site's name can be pointed at it; and what changes
    something, or watches, must come from the page itself, or carry the link token in its address. A cookie holds a
    session, never the token. An address that tries five wrong tokens within a minute has to wait; the same one
    again, as of a dashboard that nobody has told of a new token, is not a further try.

    link_token: secret of `?token=`, which gives `Role.VIEW`; embed: origins of pages that may frame this one.
    port: returns the port, for the cookie's name: sites on other ports of a host see each other's cookies.
    """

    def __init__(
        self,
        token: str | None,
        *,
        link_token: str | None = None,
        hosts: Iterable[str] = (),
        embed: Sequence[str] = (),
        port: Callable[[], int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        own = socket.gethostname().lower()
        self._secrets = {Role.ALL: token, Role.VIEW: link_token}
        self._clock, self._embed = clock, embed
        self._hosts = {"localhost", own, f"{own.partition('.')[0]}.local", *(h.lower() for h in hosts)}
        self._sessions: OrderedDict[str, tuple[Role, float]] = OrderedDict()
        self._failed: OrderedDict[str, deque[tuple[float, bytes]]] = OrderedDict()
        self.headers = headers_for(embed)
        self._port = port

    @property
    def cookie(self) -> str:
        """The name of the cookie."""
        return "rtfuse" if self._port is None else f"rtfuse-{self._port()}"

    @property
    def locked(self) -> bool:
        """True if a token is needed."""
        return self._secrets[Role.ALL] is not None

    @web.middleware
    async def guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer only what passes; `visit` then holds the client's rights and its link token."""
        if not (self._named(request.host) and self._named(request.headers.get("Host", ""))):
            raise web.HTTPMisdirectedRequest(text="this rig does not go by that name; see web.hosts\n")
        here, free = visit.get(), request.path in FREE or request.path.startswith("/static/")
        here.link = None if free else self._link(request)
        if not (here.link or _own(request, framed=bool(self._embed))):
            _tell_foreign(request)
            raise web.HTTPForbidden(text="another site's page may not use this rig\n")
        if free:
            return await handler(request)
        here.role = role = Role.VIEW if here.link and self.locked else self._knows(request)
        if request.path in OPEN:
            return await handler(request)
        if role is None:
            raise _refusal(request)
        if role is Role.VIEW and (request.method not in ("GET", "HEAD") or request.path not in SHOWN):
            raise web.HTTPForbidden(text="this token shows the picture and the state; it opens nothing else\n")
        return await handler(request)

    def _knows(self, request: web.Request) -> Role | None:
        """Return the rights that a request's session or token gives. Raises HTTPTooManyRequests."""
        if not self.locked:
            return Role.ALL
        now, session = self._clock(), self._session(request)
        role, until = self._sessions.get(session or "", (None, 0.0))
        if session is not None and role is not None and now <= until:
            self._sessions[session] = role, now + _SESSION_S
            return role
        # Browsers send a proxy's own password along: it must not count against somebody who logs in here.
        given = _credential(request.headers.get("Authorization", "")) if request.path != "/login" else None
        return None if given is None else self._tried(given, request, tuple(Role))

    def admits(self, given: str, peer: str, roles: Iterable[Role] = tuple(Role)) -> Role | None:
        """Return the rights that a token gives, of these `roles`; compared in constant time. Raises TooManyTries."""
        now, tries = self._clock(), self._failed.get(peer, deque(maxlen=_TRIES))
        if len(tries) == _TRIES and now - tries[0][0] < _TRIES_S:
            raise TooManyTries(max(1.0, _TRIES_S - (now - tries[0][0])))
        said = given.encode(errors="backslashreplace")
        known = [(role, secret) for role in roles if (secret := self._secrets[role]) is not None]
        matching = [role for role, secret in known if hmac.compare_digest(said, secret.encode())]
        if matching:
            if Role.ALL in matching:  # a link token must not give further tries at the token
                self._failed.pop(peer, None)
            return matching[0]
        if (digest := sha256(said).digest()) in (known for _, known in tries):
            return None
        tries.append((now, digest))
        self._failed[peer] = tries
        self._failed.move_to_end(peer)
        if len(self._failed) > _PEERS:
            self._failed.popitem(last=False)
        event(_log, logging.WARNING, "login", "a login with a wrong token was refused", peer=peer)
        return None

    def begin(
        self, response: web.StreamResponse, *, secure: bool, role: Role = Role.ALL, path: str | None = None
    ) -> None:
        """Begin a session, and put it into the response's cookie; path: None: the folder of the request's."""
        session = secrets.token_urlsafe(24)
        self._sessions[session] = role, self._clock() + _SESSION_S
        if len(self._sessions) > _SESSIONS:
            self._sessions.popitem(last=False)
        kept = [f"{self.cookie}={session}", "HttpOnly", *([f"Path={path}"] if path else []), *(["Secure"] * secure)]
        # A browser sends a strict cookie to no frame in another site's page, and others only where it is encrypted.
        framed = self._embed and secure
        response.headers.add(
            "Set-Cookie", "; ".join([*kept, "SameSite=None; Partitioned" if framed else "SameSite=Strict"])
        )

    def _link(self, request: web.Request) -> str | None:
        """Return the link token that a request carries in its address. Raises HTTPTooManyRequests."""
        given = request.query.get("token")
        if given is None or self._secrets[Role.VIEW] is None:
            return None
        return given if self._tried(given, request, (Role.VIEW,)) else None

    def _tried(self, given: str, request: web.Request, roles: Iterable[Role]) -> Role | None:
        try:
            return self.admits(given, request.remote or "", roles)
        except TooManyTries as e:
            raise web.HTTPTooManyRequests(text=f"{e}\n", headers={"Retry-After": f"{e.wait_s:.0f}"}) from e

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


def headers_for(embed: Sequence[str]) -> dict[str, str]:
    """Return the headers of every answer; pages of the origins `embed` may frame it, no others."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "manifest-src 'self'; form-action 'self'; base-uri 'self'; frame-ancestors "
    )
    return {
        "Content-Security-Policy": policy + (" ".join(embed) or "'none'"),
        "X-Content-Type-Options": "nosniff",
        **({} if embed else {"X-Frame-Options": "DENY"}),
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _credential(header: str) -> str | None:
    """Return the token of an Authorization header: a bearer's, or the password of HTTP Basic; None without one."""
    kind, _, given = header.strip().partition(" ")
    match kind.lower():
        case "bearer":
            return given.strip()
        case "basic":
            try:
                return b64decode(given.strip(), validate=True).decode(errors="replace").partition(":")[2]
            except (binascii.Error, ValueError):
                return ""
    return None


def _refusal(request: web.Request) -> web.HTTPException:
    """Return the answer to a request without a token: the login page to a browser, a challenge to a program."""
    if request.method == "GET" and request.path == "/":
        return web.HTTPSeeOther(visit.get().address("login"))
    asks = {"WWW-Authenticate": 'Basic realm="rtfuse", charset="UTF-8"'} if request.path in TOOLS else {}
    how = "log in first, or send the token as Authorization: Bearer, or as the password of HTTP Basic\n"
    return web.HTTPUnauthorized(text=how, headers=asks)


def _own(request: web.Request, *, framed: bool) -> bool:
    """Return False for a request from another site's page; browsers name the origin of a request.

    framed: another site's page may show this one in a frame.
    """
    asks = request.headers
    origin = asks.get("Origin")
    changes = request.method not in ("GET", "HEAD") or "websocket" in asks.get("Upgrade", "").lower()
    if changes and origin is not None:
        return _authority(origin) == _authority(f"{origin.partition(':')[0]}://{request.host}") is not None
    frames = ("document", "iframe", "frame") if framed else ("document",)
    visits = asks.get("Sec-Fetch-Mode") == "navigate" and asks.get("Sec-Fetch-Dest") in frames
    return visits or asks.get("Sec-Fetch-Site", "none") in ("none", "same-origin")


def _tell_foreign(request: web.Request) -> None:
    """Log a refused request of a page: behind a proxy that changes the host, it is this page's own."""
    if (origin := request.headers.get("Origin")) is not None:
        what = "a request from another site's page was refused; if it is this one behind a proxy, let that pass Host on"
        event(_log, logging.WARNING, "web", what, origin=origin[:200], host=request.host[:200])


def _authority(origin: str) -> str | None:
    """Return host and port of an origin, without the scheme's usual port; None for an origin without a host."""
    try:
        split = urlsplit(origin)
    except ValueError:
        return None
    usual = {"http": ":80", "https": ":443"}.get(split.scheme, "")
    return split.netloc.lower().removesuffix(usual) or None
