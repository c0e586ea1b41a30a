"""Serve HTTP in a thread of its own: the page, and `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import socket
import ssl
import stat
import threading
from pathlib import Path

from aiohttp import web

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.observe.health import State
from rtfuse.observe.logs import event
from rtfuse.observe.stats import Snapshot
from rtfuse.web.addresses import address_of, names_of, networks_of, origins_of, prefix_of
from rtfuse.web.boxes import BoxFeed
from rtfuse.web.entrance import Entrance
from rtfuse.web.guard import Guard, Handler
from rtfuse.web.metrics import exposition
from rtfuse.web.page import Page
from rtfuse.web.rig_view import RigView
from rtfuse.web.settings import Web
from rtfuse.web.visit import Role, visit

_FRESH_S = 2.0
"""A rig whose newest frame is older is not ready."""
_START_S = 10.0
_MAX_ASKED_BYTES = 4096
_log = logging.getLogger("rtfuse.web")


class WebServer:
    """Serves a rig over HTTP until closed.

    `settings`: the section `web`, with an address; port 0 takes a free one, and `url` names it. `login` is the address
    to log in. Pages beyond the loopback device, or behind proxies, have a random token if the settings name none.

    `live` is the sink that takes the frames. A request that fails is answered with 500 and logged; none delays the
    pipeline. Raises ConfigError for a wrong address, certificate or endpoint, EndpointUnavailable for an address that
    cannot be bound.
    """

    def __init__(self, settings: Web, rig: RigView) -> None:
        how, address = settings, settings.address or "127.0.0.1:0"
        host, port = address_of(address)
        self._tls = _tls(how.cert, how.key)
        remote = not _loopback(host)
        if remote and self._tls is None and not how.insecure:
            raise ConfigError(
                f"web.address: {address} reaches beyond this machine and nothing is encrypted; listen on 127.0.0.1, "
                "give a certificate (web.cert, web.key), or allow plain text with --insecure"
            )
        self._rig = rig
        self._plain = remote and self._tls is None
        self._token = how.token or (secrets.token_urlsafe(16) if remote or how.proxies else None)
        self._entrance = Entrance(prefix_of(how.prefix), networks_of(how.proxies))
        hosts, embed = [*names_of(how.hosts), host], origins_of(how.embed)
        self._guard = Guard(self._token, link_token=how.link_token, hosts=hosts, embed=embed, port=lambda: self._port)
        self._port = 0  # unknown until it is bound
        boxes = BoxFeed(keyed, rig=rig.about().get("rig", "rig")) if (keyed := how.keyed()) else None
        self._loop = asyncio.new_event_loop()
        self._page = Page(self._loop, rig, self._guard, viewers=how.viewers, boxes=boxes)
        self.live = self._page.live
        self._thread = threading.Thread(target=self._loop.run_forever, name="rtfuse-web", daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
        try:
            self._port = asyncio.run_coroutine_threadsafe(self._listen(host, port), self._loop).result(_START_S)
        except OSError as e:
            self.close()
            raise EndpointUnavailable(
                f"web.address: cannot listen on {address}: {e.strerror or e}; choose another with --web"
            ) from e
        scheme = "https" if self._tls else "http"
        self.url = f"{scheme}://{_in_url(host)}:{self._port}"
        page = f"login#{self._token}" if self._token else ""
        self.login = f"{scheme}://{_in_url(_reached(host))}:{self._port}/{page}"

    @property
    def token_needed(self) -> bool:
        """True if a browser has to log in."""
        return self._guard.locked

    @property
    def plain(self) -> bool:
        """True if pictures and token leave this machine unencrypted."""
        return self._plain

    def close(self) -> None:
        """Stop listening, and end the requests in progress."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(_START_S)
        self._page.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        self._loop.close()

    async def _listen(self, host: str, port: int) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._tls).start()
        return int(self._runner.addresses[0][1])

    def _app(self) -> web.Application:
        order = [_logged, self._entrance.passed, self._guard.guarded, _placed]
        app = web.Application(middlewares=order, client_max_size=_MAX_ASKED_BYTES)
        app.on_response_prepare.append(self._headed)
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        self._page.add_to(app)
        return app

    async def _headed(self, _: web.Request, response: web.StreamResponse) -> None:
        for name, value in self._guard.headers.items():
            response.headers.setdefault(name, value)
        response.headers["Server"] = "rtfuse"  # in place of the library's name and version

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(self._rig.snapshot(), self._rig.about(), self._rig.audience, len(self.live.viewers))
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="the process is alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = not_ready(self._rig.snapshot())
        said = problems if visit.get().role is Role.ALL else ["not ready"][: len(problems)]
        return web.Response(text="".join(f"{p}\n" for p in said) or "ready\n", status=503 if problems else 200)


def not_ready(s: Snapshot) -> list[str]:
    """Return the reasons why the rig does not publish as it should, in sentences; none if it does.

    A rig that publishes one stream alone is ready, and says so: it publishes all that it can.
    """
    if s.quiet_s is None:
        return ["nothing was published yet", *_troubles(s)]
    if s.quiet_s > _FRESH_S:
        return [f"nothing was published for {s.quiet_s:.1f} s", *_troubles(s)]
    return []


def _troubles(s: Snapshot) -> list[str]:
    fine = (State.LIVE, State.STARTING)
    return [f"{name} is {c.state.value} for {c.for_s:.1f} s" for name, c in s.streams.items() if c.state not in fine]


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reached(host: str) -> str:
    """Return the address by which others reach a server on this one: for all addresses, the one towards the network."""
    if host not in ("0.0.0.0", "::"):
        return host
    family, far = (socket.AF_INET, "192.0.2.1") if host == "0.0.0.0" else (socket.AF_INET6, "2001:db8::1")
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((far, 9))  # of a datagram socket this sends nothing: it asks for the route
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls(cert: str | None, key: str | None) -> ssl.SSLContext | None:
    if cert is None:
        if key is not None:
            raise ConfigError("web.key: a key without a certificate; give web.cert too")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        if Path(key or cert).stat().st_mode & stat.S_IROTH:
            raise ConfigError(f"web.key: everybody on this machine can read {key or cert}; chmod o-r it")
        context.load_cert_chain(cert, key, password="")  # of a key with a password it would ask the terminal
    except ConfigError:
        raise
    except (OSError, ssl.SSLError) as e:
        raise ConfigError(f"web.cert: {cert} cannot be used: {e.strerror or type(e).__name__}; want PEM files") from e
    return context


@web.middleware
async def _placed(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer by the path that is left without its prefix: `handler` was looked up by the whole path."""
    del handler
    return await (await request.app.router.resolve(request)).handler(request)


@web.middleware
async def _logged(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log what fails, without the path's query: it may hold a token."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as e:
        event(_log, logging.ERROR, "web", f"{request.path} failed: {type(e).__name__}: {e}")
        raise web.HTTPInternalServerError(text="the rig failed to answer; see its log\n") from e
