"""A page without a pipeline: its server, frames for it, and viewers that speak like the page's own script."""

from __future__ import annotations

import json
import struct
import threading
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager, contextmanager
from types import SimpleNamespace

import aiohttp
import cv2
import numpy as np
from scenes import make_frame

from rtfuse.observe.health import Condition, State
from rtfuse.observe.stats import Stats
from rtfuse.pipeline.controls import Controls
from rtfuse.thermal.agc import Agc
from rtfuse.types import Fused, Moment, Pair
from rtfuse.web.rig_view import RigView
from rtfuse.web.server import WebServer
from rtfuse.web.settings import Web

TOKEN = "correct horse battery"
SIZE = (640, 480)


def fused(k=0, *, alone=None, spots=None, size_wh=SIZE):
    """A frame whose three planes differ: thermal's and RGB's pictures, and for fused thermal in grey."""
    t_ns = time.monotonic_ns() - 5_000_000
    ir, rgb = (make_frame(s, k, t_ns=t_ns, size_wh=size_wh) for s in ("ir", "rgb"))
    if alone == "rgb":
        nothing = np.zeros(rgb.shape_hw, np.uint8)
        return Fused(rgb.image, nothing, Moment.alone(rgb), nothing, "none", mode="rgb")
    grey = np.repeat(ir.image[..., None], 3, 2)
    return Fused(grey, ir.image, Pair(ir, rgb, skew_ns=-2_000_000), None, "pyramid", spots=spots)


@contextmanager
def moving(server, rate_hz):
    """Give the page of a server frames all the while; they repeat after four."""
    over, made = threading.Event(), [fused(k) for k in range(4)]
    server.live.write(made[0])

    def feed():
        k = 0
        while not over.wait(1 / rate_hz):
            server.live.write(made[k := (k + 1) % len(made)])

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        yield
    finally:
        over.set()
        feeding.join()


def serving():
    """Start a page; all are closed at the end. `rig.stats` may be fed, `rig.agc` and `rig.mark` changed."""
    running = []

    def begin(*, controls=True, address="127.0.0.1:0", plane=None, **options):
        rig = SimpleNamespace(agc=Agc(), mark=False, plane=plane, stats=Stats(time.monotonic_ns))
        streams = {"ir": Condition(State.STALLED, 3.2), "rgb": Condition(State.LIVE, 9, rate_hz=30.0)}
        view = RigView(
            lambda: rig.stats.snapshot(streams=streams),
            lambda: {"rig": "mast", "fuser": "pyramid", "version": "1"},
            causes={"busy": "the fuser is slow"},
            controls=Controls(rig) if controls else None,
        )
        server = WebServer(Web(address=address, **options), view)
        server.rig = rig
        running.append(server)
        return server

    yield begin
    for server in running:
        if not server._loop.is_closed():
            server.close()


def ask(server, path, *, data=None, over=None, **headers):
    """Return status, headers and body of an answer; `_` in a header's name is `-`. Redirects are not followed."""

    class Here(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    names = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = urllib.request.Request(server.url + path, data=data, headers=names)
    try:
        with urllib.request.build_opener(Here, *([over] if over else [])).open(asked, timeout=10) as got:
            return got.status, got.headers, got.read()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read()


class Watcher:
    """A viewer like the page's own."""

    def __init__(self, socket):
        self.socket, self.said = socket, []

    async def say(self, **words):
        await self.socket.send_str(json.dumps(words))

    async def want(self, *planes, quality="medium"):
        await self.say(want={"planes": planes, "quality": quality})

    async def frame(self, *, ack=True):
        """Return the next frame's header and planes; what is said before it is kept in `said`."""
        while True:
            message = await self.socket.receive(timeout=10)
            if message.type is aiohttp.WSMsgType.TEXT:
                self.said.append(json.loads(message.data))
                continue
            assert message.type is aiohttp.WSMsgType.BINARY, message
            (length,) = struct.unpack_from("<I", message.data)
            header, at, planes = json.loads(message.data[4 : 4 + length]), 4 + length, {}
            for name, size, w, h in header["planes"]:
                planes[name] = cv2.imdecode(np.frombuffer(message.data, np.uint8, size, at), cv2.IMREAD_UNCHANGED)
                assert planes[name].shape[:2] == (h, w)
                at += size
            assert at == len(message.data)
            if ack:
                await self.say(ack=header["seq"])
            return header, planes

    async def hears(self, wanted):
        """Wait until something is said for which `wanted` holds, and return it."""
        while True:
            message = await self.socket.receive(timeout=10)
            if message.type is aiohttp.WSMsgType.TEXT and wanted(said := json.loads(message.data)):
                return said


@asynccontextmanager
async def watching(server, count=1, **headers):
    async with aiohttp.ClientSession() as session:
        sockets = [
            await session.ws_connect(server.url + "/live", headers=headers, max_msg_size=0) for _ in range(count)
        ]
        yield [Watcher(s) for s in sockets]
        for socket in sockets:
            await socket.close()


def change(server, body, **headers):
    return ask(server, "/controls", data=body, **({"Content_Type": "application/json"} | headers))
