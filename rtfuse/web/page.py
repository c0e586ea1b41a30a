"""Serve the page: its files, the live picture, the rig's state, its controls, and the login."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import msgspec
from aiohttp import web

from rtfuse.observe.logs import event
from rtfuse.observe.stats import Snapshot
from rtfuse.thermal.palettes import PALETTES, palette
from rtfuse.types import Fused
from rtfuse.web.boxes import BoxFeed
from rtfuse.web.encode import PagePlane, QualityName
from rtfuse.web.guard import Guard, TooManyTries
from rtfuse.web.live import MAX_SAID_BYTES, Live, spots_of
from rtfuse.web.patience import HEARTBEAT_S, Patient, end_when_gone, hold_little
from rtfuse.web.rig_view import RigView
from rtfuse.web.state import Chronicle, plain_causes, state_of
from rtfuse.web.visit import Role, visit

_STATIC = Path(__file__).parent / "static"
_KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".ico": "image/vnd.microsoft.icon",
}
_TICK_S = 0.25
_TICKS_PER_SAMPLE = 4
_VIEWS: dict[str, PagePlane] = {"fused": "fused", "thermal": "ir", "rgb": "rgb"}
_log = logging.getLogger("rtfuse.web")
_WRONG = "That is not the token."


class Page:
    """Everything behind `/`. `live` is the sink; `add_to` gives an application its routes.

    Further viewers than `viewers` get status 503.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, rig: RigView, guard: Guard, *, viewers: int, boxes: BoxFeed | None
    ) -> None:
        self._rig, self._guard, self._boxes = rig, guard, boxes
        self._most = self._seats = viewers
        self.live = Live(loop, clock=rig.clock, extras=self._boxes_on if boxes else None)
        self._controls = rig.controls
        self._chronicle = Chronicle()
        self._files = {path.name: path.read_bytes() for path in _STATIC.iterdir() if path.suffix in _KINDS}
        self._pulse: asyncio.Task[None] | None = None

    def add_to(self, app: web.Application) -> None:
        """Add the page's routes, and the task that tells viewers the rig's state."""
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/plain", self._plain),
                web.get("/static/{name}", self._static),
                web.get("/favicon.ico", self._icon),
                web.get("/login", self._login_page),
                web.post("/login", self._login),
                web.get("/live", self._watch, allow_head=False),
                web.get("/stream.mjpg", self._stream),
                web.get("/snapshot.jpg", self._snapshot),
                web.get("/state", self._state),
                web.post("/controls", self._change),
            ]
        )
        app.on_startup.append(self._begin)
        app.on_shutdown.append(self._end)

    def close(self) -> None:
        """Let go of what lies outside of the event loop."""
        self.live.close()
        if self._boxes is not None:
            self._boxes.close()

    async def _begin(self, _: web.Application) -> None:
        self._pulse = asyncio.create_task(self._beat())

    async def _end(self, _: web.Application) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            with suppress(asyncio.CancelledError):
                await self._pulse
        await self.live.leave()

    async def _beat(self) -> None:
        """Tell the viewers how the rig is four times a second, and note every second; noted also if nobody looks."""
        loop = asyncio.get_running_loop()
        due, tick = loop.time(), 0
        while True:
            samples = tick % _TICKS_PER_SAMPLE == 0
            if samples or self.live.viewers:
                try:
                    self._tell(self._rig.snapshot(), samples)
                except Exception as e:  # noqa: BLE001 - the next beat may do better
                    event(_log, logging.ERROR, "web", f"the rig's state cannot be told: {type(e).__name__}: {e}")
            due, tick = max(due + _TICK_S, loop.time()), tick + 1
            await asyncio.sleep(due - loop.time())

    def _tell(self, s: Snapshot, samples: bool) -> None:
        said: dict[str, Any] = {"state": self._now(s)}
        if samples:
            worst_ms, self.live.worst_ns = self.live.worst_ns / 1e6, 0
            said["sample"] = self._chronicle.add(s, worst_age_ms=worst_ms, unix_s=time.time())
        if self.live.viewers:
            self.live.tell(msgspec.json.encode(said).decode())

    def _now(self, s: Snapshot) -> dict[str, Any]:
        shot, state = self.live.shot, state_of(s)
        return state | {
            "about": dict(self._rig.about()),
            "size": None if shot is None else list(shot.fused.shape_hw[::-1]),
            "counts": shot is not None and _has_counts(shot.fused),
            "recorded": shot is not None and shot.fused.pair.leader.stamp.recorded,
            "viewers": len(self.live.viewers),
            "causes": plain_causes(state["drops"], self._rig.causes),
            "spots": spots_of(s.spots),
            "controls": self._controls.now() if self._controls is not None else None,
        }

    def _boxes_on(self, fused: Fused) -> dict[str, Any]:
        assert self._boxes is not None
        return {"boxes": self._boxes.shown(fused.pair.leader.t_ns)}

    async def _index(self, _: web.Request) -> web.Response:
        return self._file("index.html")

    async def _plain(self, _: web.Request) -> web.Response:
        return self._file("plain.html")

    async def _static(self, request: web.Request) -> web.Response:
        return self._file(request.path.removeprefix("/static/"))

    async def _icon(self, _: web.Request) -> web.Response:
        return self._file("favicon.ico")

    def _file(self, name: str, *, said: str = "", status: int = 200) -> web.Response:
        """Answer with a file, a page completed: what is said, the prefix of its links, and the link token in them."""
        if name not in self._files:
            raise web.HTTPNotFound(text="this page does not exist\n")
        body, kind = self._files[name], _KINDS[Path(name).suffix]
        if kind == "text/html":
            base = f'<base href="{prefix}/">' if (prefix := visit.get().prefix) else ""
            link = f"token={quote(link)}&amp;" if (link := visit.get().link) else ""
            for mark, text in (("<!--said-->", said), ("<!--base-->", base), ("@link@", link)):
                body = body.replace(mark.encode(), text.encode())
        charset = None if kind.startswith("image/vnd") else "utf-8"
        return web.Response(body=body, status=status, content_type=kind, charset=charset)

    async def _login_page(self, _: web.Request) -> web.StreamResponse:
        if visit.get().role:
            # Without a fragment of its own, a browser would keep that of the printed address: the token.
            return web.Response(status=303, headers={"Location": visit.get().address("#")})
        return self._file("login.html")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        given = (await request.post()).get("token")
        try:
            if isinstance(given, str) and (role := self._guard.admits(given.strip(), request.remote or "")):
                response = web.Response(status=303, headers={"Location": visit.get().address("")})
                self._guard.begin(response, secure=request.secure, role=role, path=visit.get().prefix or None)
                return response
        except TooManyTries as e:
            said = f"Too many tries. Wait {e.wait_s:.0f} s."
            refused = self._file("login.html", said=said, status=429)
            refused.headers["Retry-After"] = f"{e.wait_s:.0f}"
            return refused
        return self._file("login.html", said=_WRONG, status=401)

    @contextmanager
    def _seat(self) -> Iterator[None]:
        """Take one of the viewers' places while the block runs. Raises HTTPServiceUnavailable."""
        if self._seats == 0:
            text = f"{self._most} are watching already, no more may; see web.viewers\n"
            raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "5"})
        self._seats -= 1
        try:
            yield
        finally:
            self._seats += 1

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        with self._seat():
            return await self._watched(request)

    async def _watched(self, request: web.Request) -> web.StreamResponse:
        page = web.WebSocketResponse(max_msg_size=MAX_SAID_BYTES, heartbeat=HEARTBEAT_S, compress=False)
        if not page.can_prepare(request).ok:
            raise web.HTTPBadRequest(text="this is for WebSocket; MJPEG is at /stream.mjpg\n")
        await page.prepare(request)
        end_when_gone(request.transport)
        hello = {
            "hello": {
                "palettes": {name: palette(name).tobytes().hex() for name in PALETTES},
                "history": list(self._chronicle.samples),
                "boxes": self._boxes is not None,
                "view_only": visit.get().role is Role.VIEW,
            },
            "state": self._now(self._rig.snapshot()),
        }
        await self.live.watch(page, msgspec.json.encode(hello).decode())
        return page

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        plane, quality, colours = _asked(request)
        kind = "multipart/x-mixed-replace; boundary=frame"
        unbuffered = {"X-Accel-Buffering": "no"}  # nginx would read on for a player that is paused
        response = web.StreamResponse(headers={"Content-Type": kind} | unbuffered | _shared())
        if request.method == "HEAD":  # asks for the headers alone, and watches nothing
            return response
        with self._seat(), suppress(ConnectionError):
            await response.prepare(request)
            hold_little(request.transport)
            await self.live.stream(Patient(response, request.transport), plane, quality, colours)
        return response

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        plane, quality, colours = _asked(request, "high")
        shot = self.live.shot
        made = await self.live.encoder.plane(shot, plane, quality, colours) if shot is not None else None
        if made is None:
            missing = f"the newest frame has no {plane} picture: wait until that stream is back, see /state\n"
            text = missing if shot is not None else "no frame yet: wait for the first one, /readyz tells of it\n"
            raise web.HTTPServiceUnavailable(text=text, headers={"Retry-After": "1"})
        return web.Response(body=made.data, content_type="image/jpeg", headers=_shared())

    async def _state(self, _: web.Request) -> web.Response:
        text = msgspec.json.encode(self._now(self._rig.snapshot()))
        return web.Response(body=text, content_type="application/json")

    async def _change(self, request: web.Request) -> web.Response:
        if self._controls is None:
            raise web.HTTPForbidden(text="controls are switched off on this rig (web.controls)\n")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="want application/json\n")
        try:
            self._controls.change(await request.read())
        except (ValueError, RecursionError) as e:  # not JSON, not text, out of its limits, too deep
            raise web.HTTPBadRequest(text=f"{e}\n") from e
        self._tell(self._rig.snapshot(), samples=False)
        return web.Response(body=msgspec.json.encode(self._controls.now()), content_type="application/json")


def _shared() -> dict[str, str]:
    """Return the header that lets pages of other origins show a picture whose address carries the link token."""
    return {"Cross-Origin-Resource-Policy": "cross-origin"} if visit.get().link else {}


def _has_counts(fused: Fused) -> bool:
    """Return True if thermal has more than 8 bits, so that gain control has an effect."""
    ir = fused.pair.ir
    return ir is not None and ir.image.dtype != "uint8"


def _asked(request: web.Request, quality: str = "medium") -> tuple[PagePlane, QualityName, str]:
    """Return plane, quality and palette of a query. Raises HTTPBadRequest."""
    ask = request.query
    view, quality, colours = ask.get("view", "fused"), ask.get("quality", quality), ask.get("palette", "white-hot")
    known = {"view": (view, tuple(_VIEWS)), "quality": (quality, get_args(QualityName)), "palette": (colours, PALETTES)}
    for name, (value, choices) in known.items():
        if value not in choices:
            raise web.HTTPBadRequest(text=f"{name}: want {', '.join(choices)}\n")
    return _VIEWS[view], msgspec.convert(quality, QualityName), colours
