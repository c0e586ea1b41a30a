"""An HTTP server beside the pipeline, in a thread of its own: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiohttp import web

from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.health import State
from rtfuse.logs import event
from rtfuse.stats import Snapshot
from rtfuse.web import address_of
from rtfuse.web.metrics import exposition

_FRESH_S = 2.0
"""A rig whose newest frame is older is not ready."""
_START_S = 10.0
_log = logging.getLogger("rtfuse.web")


@dataclass(frozen=True, slots=True)
class RigView:
    """What the server may ask of the rig: its counts now, and what it is (the labels of `rtfuse_info`)."""

    snapshot: Callable[[], Snapshot]
    about: Mapping[str, str]


class WebServer:
    """Serves a rig over HTTP until closed.

    `address` is `ADDR:PORT` or a port on the loopback device; port 0 takes a free one, and `url` says which. Beyond the
    loopback device it needs `allow_remote`. A request that fails is answered with 500 and logged; none delays the
    pipeline. Raises ConfigError for an address that makes no sense, EndpointUnavailable for one that cannot be bound.
    """

    def __init__(self, address: str, rig: RigView, *, allow_remote: bool = False) -> None:
        host, port = address_of(address)
        if not allow_remote and not _loopback(host):
            raise ConfigError(
                f"web.address: {address} reaches beyond this machine and nothing is encrypted; "
                "listen on 127.0.0.1, or say that you want it with --insecure"
            )
        self._rig = rig
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rtfuse-web", daemon=True)
        self._thread.start()
        self._runner = web.AppRunner(self._app(), access_log=None, handle_signals=False, shutdown_timeout=0.5)
        try:
            bound = asyncio.run_coroutine_threadsafe(self._listen(host, port), self._loop).result(_START_S)
        except OSError as e:
            self.close()
            raise EndpointUnavailable(
                f"web.address: cannot listen on {address}: {e.strerror or e}; choose another with --web"
            ) from e
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"

    def close(self) -> None:
        """Stop listening, and end what is being answered."""
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(1.0)
        self._loop.close()

    async def _listen(self, host: str, port: int) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        return int(self._runner.addresses[0][1])

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[_logged])
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
            ]
        )
        return app

    async def _metrics(self, _: web.Request) -> web.Response:
        text = exposition(self._rig.snapshot(), self._rig.about)
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="the process is alive\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        problems = not_ready(self._rig.snapshot())
        return web.Response(text="".join(f"{p}\n" for p in problems) or "ready\n", status=503 if problems else 200)


def not_ready(s: Snapshot) -> list[str]:
    """Return why the rig is not publishing what it should, in sentences; none if it is.

    A rig that publishes one stream alone is ready, and says so: it does what it is there for.
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


@web.middleware
async def _logged(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Log what fails, without the path's query: it may hold a token."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as e:
        event(_log, logging.ERROR, "web", f"{request.path} failed: {type(e).__name__}: {e}")
        raise web.HTTPInternalServerError(text="this failed; the log says why\n") from e
