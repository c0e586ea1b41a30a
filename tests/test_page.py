"""The page's server: each picture is encoded once, a slow viewer delays nothing, and nobody else gets in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import asynccontextmanager
from types import SimpleNamespace

import aiohttp
import cv2
import numpy as np
import pytest
import zmq
from scenes import make_frame

from rtfuse.errors import ConfigError
from rtfuse.health import Condition, State
from rtfuse.publish.detections import Box, Detections, encode_detections
from rtfuse.stats import Stats
from rtfuse.thermal.agc import Agc
from rtfuse.types import Alone, Fused, Pair, PlacedSpot
from rtfuse.web.boxes import BoxFeed
from rtfuse.web.guard import Guard, TooManyTries
from rtfuse.web.server import RigView, WebServer
from rtfuse.web.state import Chronicle, in_words

TOKEN = "correct horse battery"
SIZE = (640, 480)


def fused(k=0, *, alone=None, spots=None, size_wh=SIZE):
    """A frame whose three planes differ: thermal's and RGB's pictures, and for fused thermal in grey."""
    t_ns = time.monotonic_ns() - 5_000_000
    ir, rgb = (make_frame(s, k, t_ns=t_ns, size_wh=size_wh) for s in ("ir", "rgb"))
    if alone == "rgb":
        nothing = np.zeros(rgb.shape_hw, np.uint8)
        return Fused(rgb.image, lambda: nothing, Alone(rgb), nothing, "none", mode="rgb")
    grey = np.repeat(ir.image[..., None], 3, 2)
    return Fused(grey, lambda: ir.image, Pair(ir, rgb, skew_ns=-2_000_000), None, "pyramid", spots=spots)


@pytest.fixture
def serve():
    """Start a page; all are closed at the end. `rig.stats` may be fed, `rig.agc` and `rig.mark` changed."""
    running = []

    def begin(*, controls=True, address="127.0.0.1:0", **options):
        rig = SimpleNamespace(agc=Agc(), mark=False, stats=Stats(time.monotonic_ns))
        streams = {"ir": Condition(State.STALLED, 3.2), "rgb": Condition(State.LIVE, 9, rate_hz=30.0)}
        view = RigView(
            lambda: rig.stats.snapshot(streams=streams),
            {"rig": "mast", "fuser": "pyramid", "version": "1"},
            causes={"busy": "the fuser is slow"},
            adjustable=rig if controls else None,
        )
        server = WebServer(address, view, **options)
        server.rig = rig
        running.append(server)
        return server

    yield begin
    for server in running:
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


def test_each_frame_is_encoded_once_however_many_watch_and_never_for_nobody(serve):
    server = serve()
    for k in range(5):
        server.live.write(fused(k))
    assert not server.live.encoder.made

    async def watch():
        async with watching(server, 5) as viewers:
            for viewer in viewers:
                await viewer.want("fused")
            first = {(await viewer.frame())[0]["seq"] for viewer in viewers}
            for k in range(20):
                server.live.write(fused(k))
                seen = {(await viewer.frame())[0]["seq"] for viewer in viewers}
                assert seen == {max(first) + k + 1}

    asyncio.run(watch())
    assert server.live.encoder.made == {"fused": 21}


def test_a_viewer_that_does_not_take_its_frame_gets_no_other_and_then_the_newest(serve):
    server = serve()

    async def watch():
        async with watching(server, 2) as (slow, quick):
            await slow.want("fused")
            await quick.want("fused")
            server.live.write(fused(0))
            taken, _ = await slow.frame(ack=False)
            await quick.frame()
            for k in range(30):
                server.live.write(fused(k))
                await quick.frame()
            with pytest.raises(TimeoutError):  # only words come
                async with asyncio.timeout(0.6):
                    await slow.frame()
            await slow.say(ack=taken["seq"])
            header, _ = await slow.frame()
            assert header["seq"] == server.live.shot.seq == taken["seq"] + 30
            assert header["trip_ms"] > 500

    asyncio.run(watch())


def test_a_stuck_viewer_costs_the_pipeline_nothing(serve):
    server = serve()

    async def watch():
        async with watching(server, 3) as viewers:
            for viewer in viewers:
                await viewer.want("fused", "ir", "rgb", quality="high")
            server.live.write(fused(0))
            for viewer in viewers:
                await viewer.frame(ack=False)
            for k in range(500):
                server.live.write(fused(k, size_wh=(64, 48)))
            await asyncio.sleep(0)
            assert server.live.encoder.made == {"fused": 1, "ir": 1, "rgb": 1}

    asyncio.run(watch())


def test_the_planes_are_those_of_the_frame(serve):
    server = serve()

    async def watch():
        async with watching(server) as (viewer,):
            await viewer.want("fused", "ir", "rgb", quality="high")
            one = fused(3, spots=(PlacedSpot(10, 20, 310.155), PlacedSpot(0, 0, 270)))
            server.live.write(one)
            header, planes = await viewer.frame()
            assert planes["ir"].ndim == 2
            for name, true in (("ir", one.ir), ("fused", one.image), ("rgb", one.pair.rgb.image)):
                shown = planes[name] if name == "ir" else planes[name][..., ::-1]
                assert np.abs(shown.astype(int) - true).mean() < 3, name
            assert header["mode"] == "fused"
            assert header["size"] == list(SIZE)
            assert header["skew_ms"] == -2
            assert 5 <= header["age_ms"] < 5000
            assert header["spots"][0] == {"x": 10, "y": 20, "k": 310.15}
            # What is wanted anew is shown at once, also of a picture that stands still.
            await viewer.want("rgb", quality="low")
            again, planes = await viewer.frame()
            assert again["seq"] == header["seq"]
            assert list(planes) == ["rgb"]
            assert planes["rgb"].shape == (360, 480, 3)
            server.live.write(fused(4, alone="rgb"))
            await viewer.want("ir", "rgb")
            header, planes = await viewer.frame()
            if header["mode"] != "rgb":
                header, planes = await viewer.frame()
            assert list(planes) == ["rgb"]
            assert header["skew_ms"] is None

    asyncio.run(watch())


def test_what_is_said_first_is_the_state_in_words_and_numbers(serve):
    server = serve()
    server.rig.stats.drops["ir", "busy"] = 3

    async def watch():
        async with watching(server) as (viewer,):
            said = await viewer.hears(lambda said: "hello" in said)
            assert set(said["hello"]["palettes"]) >= {"white-hot", "iron"}
            assert len(bytes.fromhex(said["hello"]["palettes"]["iron"])) == 768
            state = said["state"]
            assert state["streams"]["ir"]["words"] == "Thermal: no frame for 3.2 s"
            assert state["drops"] == {"ir.busy": 3}
            assert state["causes"] == {"ir.busy": "Thermal: the fuser is slow"}
            assert state["about"]["rig"] == "mast"
            assert (await viewer.hears(lambda said: "sample" in said))["sample"]["rates"]["rgb"] == 30

    asyncio.run(watch())
    status, _, body = ask(server, "/state")
    assert status == 200
    assert json.loads(body)["drops"] == {"ir.busy": 3}


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        b"\0\1",
        '{"want": {"planes": ["depth"]}}',
        '{"want": {"planes": ["ir"], "quality": "best"}}',
        '{"want": {"planes": ["ir", "ir", "ir", "ir"]}}',
        '{"set": 1}',
        '{"ack": "1"}',
        " " * 5000,
        "[" * 4000,
    ],
)
def test_a_viewer_that_talks_nonsense_is_sent_away(serve, message):
    server = serve()

    async def watch():
        async with watching(server) as (viewer,):
            await (viewer.socket.send_str if isinstance(message, str) else viewer.socket.send_bytes)(message)
            async with asyncio.timeout(10):
                while not viewer.socket.closed:
                    await viewer.socket.receive()
            assert viewer.socket.close_code in (1008, 1009)

    asyncio.run(watch())
    assert ask(server, "/healthz")[0] == 200
    assert not server.live.viewers


def test_no_more_may_watch_than_the_rig_allows(serve):
    server = serve(viewers=2)

    async def watch():
        async with aiohttp.ClientSession() as session:
            first, second = [await session.ws_connect(server.url + "/live") for _ in range(2)]
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(server.url + "/live")
            assert refused.value.status == 503
            async with session.get(server.url + "/stream.mjpg") as answer:
                assert answer.status == 503
                assert "2 are watching" in await answer.text()
            await first.close()
            for _ in range(200):  # its place is free a moment later
                with contextlib.suppress(aiohttp.WSServerHandshakeError):
                    await (await session.ws_connect(server.url + "/live")).close()
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("the place of a viewer that left stays taken")
            await second.close()

    asyncio.run(watch())


def test_when_the_rig_ends_the_viewers_are_told(serve):
    server = serve()

    async def watch():
        async with watching(server) as (viewer,):
            await viewer.hears(lambda said: "hello" in said)
            leaving = asyncio.run_coroutine_threadsafe(server.live.leave(), server._loop)
            while (message := await viewer.socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert viewer.socket.close_code == 1001
            leaving.result(5)

    asyncio.run(watch())


def test_mjpeg_for_tools(serve):
    server = serve()
    server.live.write(fused(0))

    def picture(query):
        with urllib.request.urlopen(server.url + "/stream.mjpg" + query, timeout=10) as stream:
            assert stream.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
            pictures = []
            for k in range(1, 3):
                assert stream.readline() == b"--frame\r\n"
                assert stream.readline() == b"Content-Type: image/jpeg\r\n"
                size = int(stream.readline().removeprefix(b"Content-Length: "))
                assert stream.readline() == b"\r\n"
                pictures.append(cv2.imdecode(np.frombuffer(stream.read(size), np.uint8), cv2.IMREAD_COLOR))
                assert stream.readline() == b"\r\n"
                server.live.write(fused(7 * k))
        assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 2
        return pictures[0]

    assert picture("").shape == (480, 640, 3)
    grey, iron = picture("?view=thermal"), picture("?view=thermal&palette=iron")
    assert np.ptp(grey, axis=2).max() <= 2
    assert np.ptp(iron, axis=2).max() > 100
    assert picture("?view=rgb&quality=low").shape == (360, 480, 3)
    for wrong in ("?view=depth", "?quality=best", "?palette=mud"):
        status, _, body = ask(server, "/stream.mjpg" + wrong)
        assert status == 400
        assert b"want" in body
    status, headers, body = ask(server, "/snapshot.jpg?view=rgb")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR).shape == (480, 640, 3)


def test_snapshots_of_what_is_not_there(serve):
    server = serve()
    assert ask(server, "/snapshot.jpg")[0] == 503
    server.live.write(fused(0, alone="rgb"))
    assert ask(server, "/snapshot.jpg?view=thermal")[0] == 503


def change(server, body, **headers):
    return ask(server, "/controls", data=body, **({"Content_Type": "application/json"} | headers))


def test_a_change_acts_on_the_rig_and_every_viewer_sees_it(serve):
    server = serve()

    async def watch():
        async with watching(server, 2) as viewers:
            answer = await asyncio.to_thread(change, server, b'{"method": "linear", "tails": [0.01, 0], "mark": true}')
            assert answer[0] == 200
            for viewer in viewers:
                heard = await viewer.hears(lambda said: said["state"]["controls"]["method"] == "linear")
                assert heard["state"]["controls"]["mark"] is True

    asyncio.run(watch())
    settings = server.rig.agc.settings
    assert (settings.method, settings.tails, settings.plateau) == ("linear", (0.01, 0.0), 2.0)
    assert server.rig.mark is True


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"plateau": 0.5}',
        b'{"plateau": 1e9}',
        b'{"max_gain": NaN}',
        b'{"tails": [0.001]}',
        b'{"tails": [0.2, 0]}',
        b'{"tau_ms": -1}',
        b'{"freeze": 1}',
        b'{"method": "magic"}',
        b'{"mark": true, "unknown": 1}',
        b'{"region": [0, 0, 1, 1]}',
        b'{"mark": true, "plateau": "2"}',
    ],
)
def test_what_makes_no_sense_changes_nothing(serve, body):
    server = serve()
    before = server.rig.agc.settings
    assert change(server, body)[0] == 400
    assert server.rig.agc.settings is before
    assert server.rig.mark is False


def test_controls_can_be_switched_off_and_are_not_for_forms(serve):
    server = serve()
    assert change(server, b'{"mark": true}', Content_Type="text/plain")[0] == 415
    assert change(server, b" " * 5000)[0] == 413
    off = serve(controls=False)
    assert change(off, b'{"mark": true}')[0] == 403
    assert json.loads(ask(off, "/state")[2])["controls"] is None
    assert off.rig.mark is False


def test_the_gain_control_is_changed_between_frames():
    """Whoever changes it how fast: a frame is shown by one set of settings, never by half of another."""
    frame = make_frame("ir", size_wh=(64, 48))
    counts = (frame.image.astype(np.uint16) * 40) + np.arange(64, dtype=np.uint16)
    frame = SimpleNamespace(image=counts, t_ns=0)
    a, b = ({"plateau": 1.0, "max_gain": 0.05, "tau_ms": 0}, {"plateau": 20.0, "max_gain": 10.0, "tau_ms": 0})
    tables = [Agc(**s).table(frame).tobytes() for s in (a, b)]
    settings = [Agc(**s).settings for s in (a, b)]
    agc, over = Agc(**a), threading.Event()

    def flip():
        while not over.is_set():
            for one in settings:
                agc.settings = one

    flipping = threading.Thread(target=flip)
    flipping.start()
    seen = {agc.table(frame).tobytes() for _ in range(300)}
    over.set()
    flipping.join()
    assert seen <= set(tables)
    agc.settings = settings[0]
    held = agc.table(frame).tobytes()
    agc.settings = Agc(**b, freeze=True).settings
    assert agc.table(frame).tobytes() == held
    agc.settings = Agc(**b).settings
    assert agc.table(frame).tobytes() == tables[1]


def upgrade(server, **headers):
    """Ask for a WebSocket as a browser does, and return the status."""
    key = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
    return ask(server, "/live", Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ==", **key, **headers)[0]


def test_another_sites_page_gets_nothing(serve):
    server = serve(hosts=["mast.example"])
    server.live.write(fused())
    own, port = server.url, server.url.rpartition(":")[2]
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost:" + port, "http://[", ""):
        assert upgrade(server, Origin=origin) == 403, origin
        assert change(server, b'{"mark": true}', Origin=origin)[0] == 403, origin
    assert change(server, b'{"mark": false}', Origin=own)[0] == 200
    # A name that leads here without being the rig's: DNS rebinding.
    for host in ("evil.example", "evil.example:" + port, "localhost.evil.example", "127.0.0.1.evil.example", "[", ""):
        assert ask(server, "/state", Host=host)[0] in (400, 421), host
    for host in ("localhost:" + port, "mast.example", "192.168.1.7:80", "[::1]:8080", "LOCALHOST"):
        assert ask(server, "/state", Host=host)[0] == 200, host
    # A picture that another page, also one of this machine, puts into itself.
    for site in ("cross-site", "same-site"):
        assert ask(server, "/snapshot.jpg", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
    assert ask(server, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")[0] == 200
    framed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}
    assert ask(server, "/", **framed)[0] == 403


def test_every_answer_carries_the_policy(serve):
    server = serve(token=TOKEN)
    for path in ("/", "/login", "/healthz", "/nothing", "/state", "/static/style.css"):
        _, headers, _ = ask(server, path)
        assert "default-src 'none'; script-src 'self'" in headers["Content-Security-Policy"], path
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_files_are_those_of_the_page_alone(serve):
    server = serve()
    for path in (
        "/static/../page.py",
        "/static/%2e%2e/page.py",
        "/static/..%2fpage.py",
        "/static/",
        "/static/main.js/",
    ):
        assert ask(server, path)[0] == 404
    assert ask(server, "/static/main.js")[1]["Content-Type"] == "text/javascript; charset=utf-8"
    for path in ("/", "/plain", "/login"):
        page = ask(server, path)[2].decode()
        assert "//" not in page.replace("<!doctype html>", ""), "no asset from elsewhere"


def test_without_the_token_there_is_nothing_to_see(serve):
    server = serve(token=TOKEN)
    assert server.login.endswith("/login#" + TOKEN)
    status, headers, _ = ask(server, "/")
    assert (status, headers["Location"]) == (303, "/login")
    for path in (
        "/state",
        "/live",
        "/stream.mjpg",
        "/snapshot.jpg",
        "/metrics",
        "/plain",
        "/static/main.js",
        "/nothing",
    ):
        assert ask(server, path)[0] == 401, path
    assert change(server, b'{"mark": true}')[0] == 401
    assert upgrade(server) == 401
    assert ask(server, "/healthz")[0] == 200
    assert ask(server, "/readyz")[::2] == (503, b"not ready\n")
    assert (
        ask(server, "/readyz", Authorization=f"Bearer {TOKEN}")[2]
        == b"nothing was published yet\nir is stalled for 3.2 s\n"
    )
    assert ask(server, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert ask(server, "/metrics", Authorization="Bearer wrong")[0] == 401


def log_in(server, token):
    return ask(server, "/login", data=f"token={token.replace(' ', '+')}".encode())


def test_the_login_gives_a_session_that_is_not_the_token(serve, caplog):
    server = serve(token=TOKEN)
    with caplog.at_level(logging.DEBUG):
        status, headers, _ = log_in(server, TOKEN)
        assert (status, headers["Location"]) == (303, "/")
        name, _, cookie = headers["Set-Cookie"].partition("=")
        assert name == "rtfuse-" + server.url.rpartition(":")[2]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKEN not in cookie
        kept = f"{name}={cookie.partition(';')[0]}"
        assert ask(server, "/", Cookie=kept)[0] == 200
        assert ask(server, "/login", Cookie=kept)[0] == 303
        assert json.loads(ask(server, "/state", Cookie="other=1; " + kept)[2])["about"]["rig"] == "mast"
        assert ask(server, "/state", Cookie=f"{name}=guess")[0] == 401
        assert ask(server, "/state", Cookie="\x01;;=")[0] in (400, 401)
        assert log_in(server, "wrong " + TOKEN)[0] == 401
    assert "a wrong token was refused" in caplog.text
    assert TOKEN not in caplog.text


def test_who_guesses_has_to_wait(serve):
    server = serve(token=TOKEN)
    for _ in range(5):
        status, _, body = log_in(server, "wrong")
        assert status == 401
        assert b"That is not the token" in body
    for path in ("/login", "/metrics"):
        asked = log_in(server, TOKEN) if path == "/login" else ask(server, path, Authorization=f"Bearer {TOKEN}")
        assert asked[0] == 429
        assert 0 < int(asked[1]["Retry-After"]) <= 60


def test_the_wait_ends_and_memory_is_bounded():
    now = [0.0]
    guard = Guard(TOKEN, clock=lambda: now[0])
    for k in range(5):
        assert not guard.admits(f"guess {k}", "10.0.0.1")
    with pytest.raises(TooManyTries):
        guard.admits(TOKEN, "10.0.0.1")
    assert guard.admits(TOKEN, "10.0.0.2")
    now[0] = 61
    assert guard.admits(TOKEN, "10.0.0.1")
    for k in range(5000):
        guard.admits("wrong", f"peer {k}")
    assert len(guard._failed) <= 1024
    for _ in range(200):
        guard.begin(aiohttp.web.Response(), secure=False)
    assert len(guard._sessions) <= 64


def test_beyond_this_machine_there_is_always_a_token(serve):
    first, second = (serve(address="0.0.0.0:0", allow_remote=True) for _ in range(2))
    tokens = {server.login.partition("#")[2] for server in (first, second)}
    assert len(tokens) == 2
    assert all(len(token) >= 20 for token in tokens)
    first.url = first.url.replace("0.0.0.0", "127.0.0.1")
    assert ask(first, "/state")[0] == 401
    assert first.plain


def test_wrong_certificates_are_named(serve, tmp_path):
    for options in ({"cert": str(tmp_path / "none.pem")}, {"key": "key.pem"}, {"cert": __file__}):
        with pytest.raises(ConfigError, match=r"web\.(cert|key)"):
            serve(address="0.0.0.0:0", **options)


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        (Condition(State.LIVE, 5, rate_hz=8.96), "Thermal: live, 9.0 Hz"),
        (Condition(State.LIVE, 5), "Thermal: live"),
        (Condition(State.STALLED, 3.21), "Thermal: no frame for 3.2 s"),
        (Condition(State.LOST, 600, why="unplugged"), "Thermal: lost for 10 min, trying again"),
        (Condition(State.FROZEN, 1), "Thermal: picture frozen for 1.0 s"),
        (Condition(State.SHUTTER, 0.4), "Thermal: shutter closed for 0.4 s"),
        (Condition(State.STARTING, 1), "Thermal: no frame yet"),
        (Condition(State.ENDED, 1), "Thermal: has ended"),
    ],
)
def test_a_stream_in_words(condition, words):
    assert in_words("ir", condition) == words


def test_the_last_minutes_are_differences_between_snapshots():
    now = [10**9]
    stats, chronicle = Stats(lambda: now[0]), Chronicle()
    for second in range(400):
        for _ in range(2):
            now[0] += 500_000_000
            frame = fused(size_wh=(16, 16))
            late = make_frame("rgb", t_ns=now[0] - (second + 1) * 1_000_000, size_wh=(16, 16))
            stats.delivered(Fused(frame.image, frame.aligned, Pair(frame.pair.ir, late, skew_ns=4_000_000), None, "x"))
        stats.drops["ir", "busy"] += 3
        sample = chronicle.add(stats.snapshot(), worst_age_ms=9.0, unix_s=second)
        if second:
            assert sample["age"] == pytest.approx(second + 1)
            assert sample["skew"] == 4
            assert sample["drops"] == {"ir.busy": 3}
    assert len(chronicle.samples) == 300
    idle = chronicle.add(stats.snapshot(), worst_age_ms=0.0, unix_s=500)
    assert (idle["age"], idle["worst"], idle["skew"], idle["drops"]) == (None, None, None, {})


def said(k=0, *, rig="mast", detector="hog", boxes=1, rgb_t_ns=0):
    box = Box(x=64, y=48, width=128, height=96, label="person <b>", score=0.876)
    return encode_detections(
        "boxes",
        Detections(
            session="d",
            seq=k,
            rig=rig,
            detector=detector,
            frame_session="f",
            frame_seq=k,
            frame_width=640,
            frame_height=480,
            rgb_t_ns=rgb_t_ns,
            published_ns=0,
            spent_ms=1.0,
            boxes=[box] * boxes,
        ),
    )


def test_boxes_come_with_the_frames_and_go_when_they_are_old(serve, tmp_path):
    endpoint = f"ipc://{tmp_path}/boxes"
    server = serve(detections=[endpoint])
    feed = server._page._boxes
    one = fused()

    async def watch(publisher):
        async with watching(server) as (viewer,):
            await viewer.want("fused")
            for k in range(500):
                for message in (
                    said(k, rgb_t_ns=one.pair.rgb.t_ns - 40_000_000),
                    b"boxes\0nonsense",
                    said(k, rig="other"),
                ):
                    publisher.send(message)
                server.live.write(one)
                header, _ = await viewer.frame()
                if header["boxes"] and feed.foreign and feed.malformed:
                    break
                await asyncio.sleep(0.02)
            (shown,) = header["boxes"]
            assert shown["boxes"] == [[0.1, 0.1, 0.2, 0.2, "person <b>", 0.88]]
            assert shown["detector"] == "hog"
            assert shown["behind_ms"] == 40
            assert 0 <= shown["age_ms"] < 500
            for _ in range(200):  # the detector falls silent
                server.live.write(one)
                header, _ = await viewer.frame()
                if not header["boxes"]:
                    return
                await asyncio.sleep(0.05)
            pytest.fail("old boxes stay")

    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        publisher.bind(endpoint)
        asyncio.run(watch(publisher))


def test_detectors_cannot_fill_the_memory():
    feed = BoxFeed([], rig="mast", fresh_s=60)
    for k in range(100):
        feed._take(said(detector=f"detector {k}", boxes=400))
    assert len(feed.shown(0)) == 8
    assert len(feed.shown(0)[0]["boxes"]) == 100
    feed.close()
    with pytest.raises(ConfigError, match=r"web\.detections"):
        BoxFeed(["nonsense"], rig="mast")


def test_with_a_certificate_it_is_encrypted(serve, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=mast", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*made, *name], check=True, capture_output=True)
    server = serve(address="127.0.0.1:0", cert=str(cert), key=str(key), token=TOKEN)
    assert server.url.startswith("https://")
    assert not server.plain
    trusting = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(cert)))
    status, _, body = ask(server, "/state", over=trusting, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert json.loads(body)["about"]["rig"] == "mast"
    status, headers, _ = ask(server, "/login", over=trusting, data=b"token=" + TOKEN.replace(" ", "+").encode())
    assert status == 303
    assert "Secure" in headers["Set-Cookie"]


def test_a_picture_that_fails_sends_its_viewer_away_and_is_logged(serve, caplog):
    server = serve()

    async def watch():
        async with watching(server) as (viewer,):
            await viewer.want("ir")
            whole = fused()
            server.live.write(Fused(whole.image, lambda: 1 / 0, whole.pair, None, "pyramid"))
            while (message := await viewer.socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
                pass
            assert message.type is aiohttp.WSMsgType.CLOSE
            assert viewer.socket.close_code == 1011
            server.live.write(whole)
        async with watching(server) as (viewer,):
            await viewer.want("ir")
            assert (await viewer.frame())[1].keys() == {"ir"}

    with caplog.at_level("ERROR", "rtfuse.web"):
        asyncio.run(watch())
    assert "a picture could not be shown: ZeroDivisionError" in caplog.text
