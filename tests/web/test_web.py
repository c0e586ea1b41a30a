"""The rig over HTTP: what Prometheus reads is what was counted, and readiness says why not."""

from __future__ import annotations

import math
import socket
import urllib.error
import urllib.request
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from scenes import make_frame

from rtfuse.cli.app import _completed
from rtfuse.cli.status import one_line
from rtfuse.errors import ConfigError, EndpointUnavailable
from rtfuse.observe.health import Condition, State
from rtfuse.observe.stats import Histogram, Stats
from rtfuse.types import Fused, Moment, Pair, Picture, PlacedSpot, Stamp
from rtfuse.web import address_of
from rtfuse.web.metrics import exposition
from rtfuse.web.rig_view import RigView
from rtfuse.web.server import WebServer, not_ready
from rtfuse.web.settings import Web

ABOUT = {"rig": 'mast "7"\n', "fuser": "pyramid", "version": "1"}


class Ticks:
    ms = 0

    def __call__(self):
        return self.ms * 1_000_000


def at(stream, ms):
    return make_frame(stream, t_ns=ms * 1_000_000)


def counted(*, skews_ms=(0, 3, -3), age_ms=8):
    """Statistics of a few fused frames and one of RGB alone, and the clock that they were counted by."""
    clock = Ticks()
    stats = Stats(clock)
    for k, skew in enumerate(skews_ms):
        clock.ms = 1000 + 100 * k
        ir, rgb = at("ir", clock.ms - age_ms + skew), at("rgb", clock.ms - age_ms)
        spots = PlacedSpot(1, 2, 310.5), PlacedSpot(3, 4, 270.25)
        stats.delivered(
            Fused(
                rgb.image,
                None,
                Pair(ir, rgb, skew_ns=skew * 1_000_000, reused=k == 1),
                None,
                "pyramid",
                spots=spots,
            )
        )
        stats.took("fuse", 4_000_000)
    clock.ms += 100
    rgb = at("rgb", clock.ms - age_ms)
    stats.delivered(Fused(rgb.image, None, Moment.alone(rgb), None, "none", mode="rgb"))
    stats.drops["ir", "busy"] += 5
    return stats, clock


def parsed(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("stamp", list(Stamp))
def test_only_cameras_have_an_age(stamp):
    clock = Ticks()
    stats = Stats(clock)
    ir, rgb = (replace(at(stream, -8), stamp=stamp) for stream in ("ir", "rgb"))
    stats.delivered(Fused(rgb.image, None, Pair(ir, rgb, skew_ns=0), None, "pyramid"))
    found = stats.snapshot()
    live = stamp not in (Stamp.PLAYBACK, Stamp.MEDIA)
    assert found.recorded is not live
    assert [ms is not None for ms in found.fields()["age_ms"]] == [live] * 3
    assert all(ms is not None for ms in found.fields()["skew_ms"])
    assert sum(count for _, count in found.age.bins) == live
    assert not any(math.isnan(ms) for ms in found.delay_ms)
    assert ("age" in one_line(found)) is live
    assert ("rtfuse_age_seconds_count" in exposition(found, {}, None, 0).decode()) is live


def test_what_prometheus_reads_is_what_was_counted():
    stats, _ = counted()
    streams = {
        "ir": Condition(State.LOST, 1.5, latency_ms=20, drift_ppm=-12.5, clock_steps=1, reconnects=2),
        "rgb": Condition(State.LIVE, 3, rate_hz=29.9),
    }
    snapshot = stats.snapshot(streams=streams, queues={"fuse": 3})
    found = parsed(exposition(snapshot, ABOUT))

    def of(name, **labels):
        return found[(f"rtfuse_{name}", *sorted(labels.items()))]

    assert of("info", **ABOUT) == 1
    assert of("frames_total", mode="fused") == 3
    assert of("frames_total", mode="rgb") == 1
    assert of("frames_reused_total") == 1
    assert of("dropped_frames_total", where="ir", cause="busy") == 5
    assert of("age_seconds_count") == 4
    assert of("age_seconds_sum") == pytest.approx(4 * 0.008)
    assert of("age_seconds_bucket", le="0.005") == 0
    assert of("age_seconds_bucket", le="0.01") == of("age_seconds_bucket", le="+Inf") == 4
    assert of("skew_seconds_bucket", le="-0.005") == 0
    assert of("skew_seconds_bucket", le="-0.002") == 1
    assert of("skew_seconds_bucket", le="0.0") == 2
    assert of("skew_seconds_bucket", le="+Inf") == 3
    assert of("stage_seconds_sum", stage="fuse") == pytest.approx(0.012)
    assert of("queue_depth", stage="fuse") == 3
    assert of("stream_state", stream="ir", state="lost") == 1
    assert sum(of("stream_state", stream="ir", state=state.value) for state in State) == 1
    assert of("stream_drift_ppm", stream="ir") == -12.5
    assert ("rtfuse_stream_drift_ppm", ("stream", "rgb")) not in found
    assert of("stream_latency_seconds", stream="ir") == 0.02
    assert of("stream_reconnects_total", stream="ir") == 2
    assert not any(math.isnan(value) for value in found.values())


def test_temperatures_are_those_of_the_newest_frame():
    stats, clock = counted()
    assert not any("temperature" in key[0] for key in parsed(exposition(stats.snapshot(), ABOUT)))
    ir = at("ir", clock.ms)
    spots = PlacedSpot(0, 0, 400.0), PlacedSpot(0, 0, 200.0)
    stats.delivered(Fused(Picture.of_luma(ir.image), None, Moment.alone(ir), None, "none", mode="ir", spots=spots))
    assert parsed(exposition(stats.snapshot(), ABOUT))[("rtfuse_temperature_kelvin", ("spot", "hot"))] == 400


def test_before_the_first_frame_the_numbers_are_there_and_zero():
    found = parsed(exposition(Stats(Ticks()).snapshot(), ABOUT))
    assert found["rtfuse_age_seconds_count",] == 0
    assert found[("rtfuse_skew_seconds_bucket", ("le", "+Inf"))] == 0


def test_a_histogram_looks_only_where_something_was_counted():
    spent = Histogram()
    for ms in (-20_000, 5, 5, 7, 20_000):
        spent.add(ms * 1_000_000)
    spread = spent.spread([-1.0, 5.0, 6.0, 10.0])
    assert [n for _, n in spread.bins] == [1, 2, 0, 1, 1]
    assert spread.sum_ms == 17
    assert spent.percentiles_ms(50) == (5.0,)
    assert Histogram().spread([0.0]).bins == ((0.0, 0), (math.inf, 0))
    few = Histogram()
    few.add(3_000_000)
    assert [n for _, n in few.spread([1.0, 2.0, 3.0, 4.0]).bins] == [0, 0, 1, 0, 0]


def test_ready_means_that_frames_come_out():
    stats, clock = counted()
    assert not_ready(stats.snapshot()) == []
    clock.ms += 5000
    lost = {"rgb": Condition(State.LOST, 4.0), "ir": Condition(State.LIVE, 9.0)}
    assert not_ready(stats.snapshot(streams=lost)) == ["nothing was published for 5.0 s", "rgb is lost for 4.0 s"]
    assert not_ready(Stats(Ticks()).snapshot()) == ["nothing was published yet"]


def answer(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as got:
            return got.status, got.headers["Content-Type"], got.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers["Content-Type"], e.read().decode()


@pytest.fixture
def serve():
    """Start a server for a snapshot; all are closed at the end."""
    running = []

    def begin(snapshot, address="127.0.0.1:0", **options):
        running.append(WebServer(Web(address=address, **options), RigView(snapshot, lambda: ABOUT)))
        return running[-1]

    yield begin
    for server in running:
        server.close()


def test_the_server_answers(serve):
    stats, clock = counted()
    server = serve(stats.snapshot)
    assert answer(server.url + "/healthz")[0] == 200
    status, kind, text = answer(server.url + "/metrics")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'rtfuse_frames_total{mode="fused"} 3.0' in text
    assert answer(server.url + "/readyz")[0] == 200
    clock.ms += 3000
    assert answer(server.url + "/readyz")[0] == 503
    assert answer(server.url + "/nothing")[0] == 404


def test_what_fails_is_answered_logged_and_survived(serve, caplog):
    broken = serve(lambda: 1 / 0)
    with caplog.at_level("ERROR", "rtfuse.web"):
        assert answer(broken.url + "/metrics?token=secret")[0] == 500
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text
    assert answer(broken.url + "/healthz")[0] == 200


def test_a_port_in_use_is_named(serve):
    stats, _ = counted()
    taken = serve(stats.snapshot).url.rpartition(":")[2]
    with pytest.raises(EndpointUnavailable, match=rf"cannot listen on 127.0.0.1:{taken}.*choose another"):
        serve(stats.snapshot, f"127.0.0.1:{taken}")


def test_beyond_this_machine_only_when_it_was_asked_for(serve):
    for address in ("0.0.0.0:0", "[::]:0", "example.org:80"):
        with pytest.raises(ConfigError, match=r"beyond this machine.*--insecure"):
            serve(counted()[0].snapshot, address)
    server = serve(counted()[0].snapshot, "0.0.0.0:0", insecure=True)
    assert answer(server.url.replace("0.0.0.0", "127.0.0.1") + "/healthz")[0] == 200


def test_connections_that_say_nothing_hold_nobody_up(serve):
    stats, _ = counted()
    server = serve(stats.snapshot)
    host, port = server.url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    silent[0].sendall(b"\0\xff garbage\r\n\r\n")
    assert answer(server.url + "/readyz")[0] == 200
    for each in silent:
        each.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9", ("::1", 9)),
        ("host-1:80", ("host-1", 80)),
    ],
)
def test_addresses(text, expected):
    assert address_of(text) == expected


@pytest.mark.parametrize("text", ["", "host", "a b:80", "127.0.0.1:70000", "http://a:80", ":80", "::1:80"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match=r"web.address: .* want for example 127.0.0.1:8080"):
        address_of(text)


def test_web_alone_takes_the_default():
    assert _completed(["run", "--web"]) == ["run", "--web=127.0.0.1:8080"]
    assert _completed(["run", "--web", "--publish", "off"]) == ["run", "--web=127.0.0.1:8080", "--publish", "off"]
    assert _completed(["run", "--web", "log=json"]) == ["run", "--web=127.0.0.1:8080", "log=json"]
    assert _completed(["run", "--web", "9000", "x=1"]) == ["run", "--web", "9000", "x=1"]
