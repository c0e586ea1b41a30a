"""The page's server: each picture is encoded once, a slow viewer delays nothing, and controls act within limits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.request
from dataclasses import replace
from types import SimpleNamespace

import aiohttp
import cv2
import numpy as np
import pytest
from pages import SIZE, ask, change, fused, moving, serving, watching
from scenes import make_frame

from rtfuse.errors import CalibrationError
from rtfuse.thermal.agc import Agc
from rtfuse.thermal.settings import AgcSettings
from rtfuse.types import Fused, Pair, PlacedSpot, Stamp
from rtfuse.web.encode import QUALITIES


@pytest.fixture
def serve():
    """Start a page; all are closed at the end. `rig.stats` may be fed, `rig.agc` and `rig.mark` changed."""
    yield from serving()


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


@pytest.mark.parametrize(("degree", "seen", "quality"), [(0, 12, "high"), (1, 6, "medium"), (2, 2, "low")])
def test_a_page_that_is_lowered_sends_fewer_and_smaller_pictures(serve, monkeypatch, degree, seen, quality):
    monkeypatch.setattr("rtfuse.web.live._LEAST_NS", 10**12)
    server = serve()
    server.live.degree = degree

    async def watch():
        async with watching(server, 1) as (viewer,):
            await viewer.want("fused", quality="high")
            server.live.write(fused(0, size_wh=(1000, 60)))
            header, _ = await viewer.frame()
            numbers = [header["seq"]]
            for k in range(1, 12):
                server.live.write(fused(k, size_wh=(1000, 60)))
                with contextlib.suppress(TimeoutError):
                    numbers.append((await asyncio.wait_for(viewer.frame(), 0.3))[0]["seq"])
            return header, numbers

    header, numbers = asyncio.run(watch())
    assert len(numbers) == seen
    assert set(np.diff(numbers)) == {12 // seen}
    assert header["planes"][0][2] == (QUALITIES[quality].width or 1000)


def test_a_page_that_is_lowered_shows_a_slow_camera_twice_a_second(serve):
    server = serve()
    server.live.degree = 2

    async def watch():
        async with watching(server, 1) as (viewer,):
            await viewer.want("fused")
            server.live.write(fused(0))
            await viewer.frame()
            await asyncio.sleep(0.6)
            server.live.write(fused(1))
            assert (await asyncio.wait_for(viewer.frame(), 5))[0]["seq"] == 2

    asyncio.run(watch())


def test_a_stream_for_tools_is_lowered_too(serve, monkeypatch):
    monkeypatch.setattr("rtfuse.web.live._LEAST_NS", 10**12)
    server = serve()
    assert not server.live.watched
    server.live.degree = server.live.degrees
    with urllib.request.urlopen(server.url + "/stream.mjpg?quality=high", timeout=10) as stream:
        for k in range(13):
            server.live.write(fused(k, size_wh=(1000, 60)))
            time.sleep(0.05)
        assert server.live.watched
        widths = []
        for _ in range(2):
            head = b"".join(iter(stream.readline, b"\r\n"))
            size = int(head.lower().partition(b"content-length:")[2])
            widths.append(cv2.imdecode(np.frombuffer(stream.read(size), np.uint8), cv2.IMREAD_COLOR).shape[1])
            stream.readline()
    assert widths == [480, 480]
    assert server.live.encoder.made["fused"] in (2, 3)


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


def test_a_recording_has_no_age(serve):
    server, one = serve(), fused()
    ir, rgb = (replace(frame, stamp=Stamp.PLAYBACK) for frame in (one.pair.ir, one.pair.rgb))
    played = replace(one, pair=Pair(ir, rgb, skew_ns=0))

    async def watch():
        async with watching(server) as (viewer,):
            await viewer.want("fused")
            server.live.write(played)
            header, _ = await viewer.frame()
            assert header["age_ms"] is None
            assert server.live.worst_ns == 0

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
            # A new choice of planes is shown at once, also of a picture that stands still.
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
        b"\xff\xfe",
        b'{"m\x83rk": true}',
        b'{"method": "\x83"}',
        b"[" * 4000,
        b'{"mark":' * 500,
        b'{"mark": true, "plateau": "2"}',
    ],
)
def test_what_makes_no_sense_changes_nothing(serve, body):
    server = serve()
    before = server.rig.agc.settings
    assert change(server, body)[0] == 400
    assert server.rig.agc.settings is before
    assert server.rig.mark is False


class Movable:
    """A distance of registration; more than 1 km is refused."""

    def __init__(self):
        self.target_m = 15.0

    def move(self, plane_m):
        if (plane_m or 0) > 1000:
            raise CalibrationError("plane_m is far")
        self.target_m = plane_m or 15.0


def test_the_distance_of_registration_is_moved_and_a_refused_one_changes_nothing_else(serve):
    server = serve(plane=Movable())
    status, _, body = change(server, b'{"plane_m": 4.5}')
    assert status == 200
    assert json.loads(body)["plane_m"] == server.rig.plane.target_m == 4.5
    refused = change(server, b'{"plane_m": 2000, "mark": true}')
    assert (refused[0], refused[2]) == (400, b"plane_m is far\n")
    for wrong in (b'{"plane_m": 0}', b'{"plane_m": "4"}', b'{"plane_m": NaN}', b'{"plane_m": 3, "plateau": 0.5}'):
        assert change(server, wrong)[0] == 400
    assert (server.rig.plane.target_m, server.rig.mark) == (4.5, False)
    assert change(server, b'{"plane_m": null}')[0] == 200
    assert server.rig.plane.target_m == 15.0
    fixed = serve()
    assert change(fixed, b'{"plane_m": 4.5, "mark": true}')[0] == 400
    assert fixed.rig.mark is False
    assert json.loads(ask(fixed, "/state")[2])["controls"]["plane_m"] is None


def test_controls_can_be_switched_off_and_are_not_for_forms(serve):
    server = serve()
    assert change(server, b'{"mark": true}', Content_Type="text/plain")[0] == 415
    assert change(server, b" " * 5000)[0] == 413
    off = serve(controls=False)
    assert change(off, b'{"mark": true}')[0] == 403
    assert json.loads(ask(off, "/state")[2])["controls"] is None
    assert off.rig.mark is False


def test_the_gain_control_is_changed_between_frames():
    """However fast settings change, a frame is shown by one set of them, never by half of another."""
    frame = make_frame("ir", size_wh=(64, 48))
    counts = (frame.image.astype(np.uint16) * 40) + np.arange(64, dtype=np.uint16)
    frame = SimpleNamespace(image=counts, t_ns=0)
    a, b = ({"plateau": 1.0, "max_gain": 0.05, "tau_ms": 0}, {"plateau": 20.0, "max_gain": 10.0, "tau_ms": 0})
    tables = [Agc(AgcSettings(**s)).table(frame).tobytes() for s in (a, b)]
    settings = [Agc(AgcSettings(**s)).settings for s in (a, b)]
    agc, over = Agc(AgcSettings(**a)), threading.Event()

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
    agc.settings = Agc(AgcSettings(**b, freeze=True)).settings
    assert agc.table(frame).tobytes() == held
    agc.settings = Agc(AgcSettings(**b)).settings
    assert agc.table(frame).tobytes() == tables[1]


def test_a_picture_that_fails_sends_its_viewer_away_and_is_logged(serve, caplog):
    server = serve()

    async def watch():
        async with watching(server) as (viewer,):
            await viewer.want("ir")
            whole = fused()
            server.live.write(Fused(whole.image, np.empty((0, 0), np.uint8), whole.pair, None, "pyramid"))
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
    assert "a picture could not be shown: error: OpenCV" in caplog.text


def test_head_of_the_stream_gets_headers_alone_and_takes_no_place(serve):
    """A body after HEAD would be read as the next answer; some players ask with HEAD first."""
    server = serve(viewers=1)
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with moving(server, 30), socket.create_connection((host, int(port)), timeout=10) as plain:
        for path, status in {
            "/stream.mjpg": b"200",
            "/stream.mjpg?view=x": b"400",
            "/live": b"405",
            "/": b"200",
        }.items():
            plain.sendall(f"HEAD {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
            answer = b""
            while not answer.endswith(b"\r\n\r\n"):
                answer += plain.recv(1)
            assert answer.startswith(b"HTTP/1.1 " + status), path
            assert not server.live.viewers
        assert ask(server, "/stream.mjpg?view=x")[0] == 400
        with urllib.request.urlopen(server.url + "/stream.mjpg", timeout=10) as stream:
            assert stream.readline() == b"--frame\r\n"
