"""The proxy between rigs and a control room: what passes, what does not, and who waits for whom."""

from __future__ import annotations

import contextlib
import re
import socket
import threading

import pytest
import zmq
from live import fused, publishing, wait_until
from scenes import picture

from rtfuse import StatisticsSubscriber, Subscriber, describe
from rtfuse.errors import ConfigError, EndpointUnavailable, KeysUnusable
from rtfuse.publish.planes import Offer
from rtfuse.publish.proxy import Proxy, ProxyConfig, RigLink, load_proxy_config
from rtfuse.publish.publisher import About, Publisher
from rtfuse.wire.description import CameraAbout
from rtfuse.wire.keys import new_client, new_rig, revoke

PERIOD_S = 0.01
GAP = 30
"""Frames: less than a third of a second. A machine that is busy with other things loses one or two at times."""
FIELDS = {
    "frames": 1, "pair_rate_hz": 30.0, "reused": 0, "age_ms": [1.0] * 3, "skew_ms": [1.0] * 3,
    "skew_histogram": [], "modes": {}, "drops": {}, "streams": {},
}  # fmt: skip


def rig(name, endpoint="tcp://127.0.0.1:*", size_wh=(64, 48), **options):
    """A rig that publishes all the time under its own name."""
    publisher = Publisher([Offer(endpoint, prefix=f"{name}/")], rig=name, statistics=lambda: FIELDS, **options)
    return publishing(publisher, fused(size_wh=size_wh), every_s=PERIOD_S)


@contextlib.contextmanager
def proxy(rigs, **options):
    """A running proxy."""
    links = {name: link if isinstance(link, RigLink) else RigLink(endpoint=link) for name, link in rigs.items()}
    joined, stop = Proxy(ProxyConfig(rigs=links, **{"bind": "tcp://127.0.0.1:*"} | options)), threading.Event()
    thread = threading.Thread(target=joined.run, args=(stop,))
    thread.start()
    try:
        yield joined
    finally:
        stop.set()
        thread.join(10)
        assert not thread.is_alive()
        joined.close()


@contextlib.contextmanager
def counted(endpoint):
    """A TCP relay to `endpoint`: yields its own endpoint and a list whose sum is the bytes that came from there."""
    listener, passed = socket.create_server(("127.0.0.1", 0)), [0]
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)

    def pump(source, target, count):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                passed[0] += len(data) * count
                target.sendall(data)
        for end in (source, target):
            end.close()

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, far = listener.accept()[0], socket.create_connection((host, int(port)))
                threading.Thread(target=pump, args=(near, far, 0), daemon=True).start()
                threading.Thread(target=pump, args=(far, near, 1), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", passed
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_control_room_watches_each_rig_under_its_name():
    with (
        rig("truck-1") as one,
        rig("truck-2") as two,
        proxy({"truck-1": one.endpoint, "truck-2": two.endpoint}) as joined,
    ):
        for name in ("truck-1", "truck-2"):
            with Subscriber(joined.endpoint, topic=f"{name}/fused", latest=False, queue=1000) as stream:
                received = [stream.recv(10) for _ in range(30)]
                assert {r.header.rig for r in received} == {name}
                assert len({r.header.session for r in received}) == 1
                assert stream.malformed == 0
                assert (received[0].image == picture(0)).all()
            with StatisticsSubscriber(joined.endpoint, topic=f"{name}/stats") as stream:
                assert stream.recv(10).rig == name
        with Subscriber(joined.endpoint) as nobody:  # `fused` alone is no rig's
            assert nobody.recv(0.3) is None


def test_a_rig_that_nobody_watches_sends_nothing_over_its_link():
    with (
        rig("near") as near,
        rig("far") as far,
        counted(far.endpoint) as (link, passed),
        proxy({"near": near.endpoint, "far": link}) as joined,
    ):
        with Subscriber(joined.endpoint, topic="near/fused", latest=False, queue=1000) as stream:
            assert stream.recv(10) is not None
            wait_until(lambda: passed[0])  # the handshake
            before, sent = passed[0], far.sent
            while far.sent < sent + 50:
                assert stream.recv(10) is not None
            assert passed[0] - before < 1000
        watchers = [Subscriber(joined.endpoint, topic="far/fused", latest=False, queue=1000) for _ in range(2)]
        assert all(w.recv(10) for w in watchers)
        assert passed[0] > 9000
        watchers[0].close()
        seen = watchers[1].received
        while watchers[1].received < seen + 20:  # one of two leaves: the other goes on
            assert watchers[1].recv(10) is not None
        watchers[1].close()
        calm = [-1, 0]

        def quiet():
            calm[:] = calm[1], passed[0]
            sent = far.sent
            wait_until(lambda: far.sent > sent + 5)
            return passed[0] == calm[1]

        wait_until(quiet)  # and when the last leaves, the rig falls silent


def test_the_link_carries_one_copy_however_many_watch():
    with rig("far") as far, counted(far.endpoint) as (link, passed), proxy({"far": link}) as joined:
        streams = [Subscriber(joined.endpoint, topic="far/fused", latest=False, queue=1000) for _ in range(5)]
        assert all(s.recv(10) for s in streams)
        first, before = streams[0].recv(10).header.seq, passed[0]
        while (last := streams[0].recv(10).header.seq) < first + 50:
            pass
        assert passed[0] - before < 1.5 * (last - first) * (64 * 48 * 3 + 1000)
        for s in streams:
            s.close()


def test_a_late_watcher_is_announced_to_the_rig():
    """A rig that greets every subscriber hears of each one, and of the end of the last."""
    context = zmq.Context()
    source = context.socket(zmq.XPUB)
    source.setsockopt(zmq.XPUB_VERBOSE, 1)
    source.bind("tcp://127.0.0.1:*")
    with proxy({"far": source.getsockopt_string(zmq.LAST_ENDPOINT)}) as joined:
        streams = []
        for _ in range(3):
            streams.append(Subscriber(joined.endpoint, topic="far/fused"))
            assert source.poll(10_000)
            assert source.recv() == b"\1far/fused\0"
        for s in streams:
            s.close()
        assert source.poll(10_000)
        assert source.recv() == b"\0far/fused\0"
    source.close(0)
    context.term()


def test_a_slow_watcher_delays_nobody():
    with (
        rig("truck-1", size_wh=(640, 480)) as one,
        proxy({"truck-1": one.endpoint}) as joined,
        Subscriber(joined.endpoint, topic="truck-1/fused", latest=False, queue=1) as stuck,
        Subscriber(joined.endpoint, topic="truck-1/fused", latest=False, queue=100) as reader,
    ):
        assert stuck.recv(10) is not None
        assert reader.recv(10) is not None
        first, gaps = one.sent, []
        while (received := reader.recv(10)).header.seq < first + 200:
            assert one.sent - received.header.seq < 100  # never old, while the other does not read
            gaps.append(received.gap)
        assert max(gaps) < GAP
        waiting = 0
        while stuck.recv(0) is not None:
            waiting += 1
        assert waiting < 40  # what sockets hold; no queue grew


def test_rigs_come_and_go(caplog):
    caplog.set_level("INFO")
    port = socket.create_server(("127.0.0.1", 0))
    endpoint = f"tcp://127.0.0.1:{port.getsockname()[1]}"
    port.close()
    with (
        rig("stays") as stays,
        proxy({"stays": stays.endpoint, "goes": endpoint}) as joined,
        Subscriber(joined.endpoint, topic="stays/fused", latest=False, queue=10_000) as steady,
        Subscriber(joined.endpoint, topic="goes/fused", latest=False) as stream,
    ):
        assert steady.recv(10) is not None
        assert stream.recv(0.1) is None
        for restarts in range(2):  # one that is not there yet; then one that was away
            with rig("goes", endpoint):
                assert stream.recv(20) is not None
                assert stream.restarts == restarts
            while stream.recv(0.2) is not None:
                pass
        wait_until(lambda: caplog.text.count("goes is lost") == 2)
        assert caplog.text.count("goes is connected") == 2
        last = stays.sent
        gaps = [0]
        while (received := steady.recv(10)).header.seq < last:
            gaps.append(received.gap)
        assert max(gaps) < GAP
        assert steady.restarts == 0


def test_encrypted_on_both_sides(tmp_path):
    """Rigs of which one encrypts, with keys of their own, and a control room whose clients come and are revoked."""
    new_rig(tmp_path / "truck")
    new_client(tmp_path / "truck", "proxy", tmp_path / "truck.key")
    new_rig(tmp_path / "proxy")
    for name in ("desk", "lost"):
        new_client(tmp_path / "proxy", name, tmp_path / f"{name}.key")
    with rig("truck", keys=tmp_path / "truck") as truck, rig("mast") as mast:
        links = {
            "truck": RigLink(endpoint=truck.endpoint, keys=str(tmp_path / "truck.key")),
            "mast": RigLink(endpoint=mast.endpoint),
        }
        with proxy(links, keys=str(tmp_path / "proxy")) as joined:
            for name in links:
                topic = f"{name}/fused"
                with Subscriber(joined.endpoint, topic=topic, keys=tmp_path / "desk.key") as stream:
                    assert stream.recv(10).header.rig == name
            with Subscriber(joined.endpoint, topic="mast/fused") as plain:
                assert plain.recv(0.5) is None
            wait_until(lambda: sum(joined.refused.values()))
            with (
                Subscriber(joined.endpoint, topic="truck/fused", keys=tmp_path / "lost.key") as lost,
                Subscriber(joined.endpoint, topic="truck/fused", keys=tmp_path / "desk.key") as desk,
            ):
                assert lost.recv(10) is not None
                revoke(tmp_path / "proxy", "lost")
                wait_until(lambda: joined.refused["revoked_key"])
                while lost.recv(0.2) is not None:
                    pass
                wait_until(lambda: desk.recv(0.1) is not None)
                assert lost.recv(0.2) is None


def test_a_rig_that_does_not_know_the_proxy_is_named(tmp_path, caplog):
    new_rig(tmp_path / "truck")
    with rig("truck", keys=tmp_path / "truck") as truck, proxy({"truck": truck.endpoint}):
        wait_until(lambda: "truck does not let us in" in caplog.text)


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({}, ConfigError, "--rig NAME=ENDPOINT"),
        ({"bind": "ipc:///tmp/x"}, ConfigError, "no TCP endpoint"),
        ({"bind": "tcp://0.0.0.0:0"}, ConfigError, r"--keys DIR.*--insecure"),
        ({"bind": "tcp://127.0.0.1:99999"}, ConfigError, "there is no port"),
        ({"bind": "tcp://192.0.2.1:5560", "insecure": True}, EndpointUnavailable, "--bind"),
        ({"keys": "/nowhere"}, KeysUnusable, "rtfuse keys new rig"),
        ({"rigs": {"a": RigLink(endpoint="pigeon://x")}}, ConfigError, r"rigs\.a\.endpoint"),
        ({"rigs": {"a": RigLink(endpoint="tcp://127.0.0.1:1", keys="/nowhere")}}, KeysUnusable, "/nowhere"),
    ],
)
def test_what_cannot_be_is_refused(config, error, says):
    rigs = {} if not config else {"truck": RigLink(endpoint="tcp://127.0.0.1:9")}
    with pytest.raises(error, match=says):
        Proxy(ProxyConfig(**{"rigs": rigs} | config))


def test_the_configuration_is_read_and_the_command_line_wins(tmp_path):
    file = tmp_path / "proxy.yaml"
    file.write_text("bind: tcp://127.0.0.1:7\nrigs:\n  a: {endpoint: tcp://127.0.0.1:1}\n  b: {endpoint: tcp://b:2}\n")
    config = load_proxy_config(file, ["a=tcp://127.0.0.1:3"], ["b=b.key"], {"bind": None, "log": "json"})
    assert (config.bind, config.log) == ("tcp://127.0.0.1:7", "json")
    assert config.rigs == {
        "a": RigLink(endpoint="tcp://127.0.0.1:3"),
        "b": RigLink(endpoint="tcp://b:2", keys="b.key"),
    }
    for wrong in (["a"], ["=x"], ["a="]):
        with pytest.raises(ConfigError, match="NAME=…"):
            load_proxy_config(file, wrong, [], {})
    with pytest.raises(ConfigError, match=re.escape("endpoint")):
        load_proxy_config(None, [], ["a=a.key"], {})
    file.write_text("rigs: {a: {endpiont: x}}")
    with pytest.raises(ConfigError, match="endpiont"):
        load_proxy_config(file, [], [], {})


def test_what_a_rig_is_and_does_passes_too():
    w, h = 64, 48
    camera = CameraAbout(uri="synthetic:", width=w, height=h, dtype="uint8", live=True, rate_hz=30.0, coding=None)
    abouts = [About("1", fuser, {"ir": camera}) for fuser in ("one", "two")]
    with (
        rig("truck-1", about=lambda: abouts[0]) as one,
        rig("truck-2", about=lambda: abouts[1]) as two,
        proxy({"truck-1": one.endpoint, "truck-2": two.endpoint}) as joined,
    ):
        for name, fuser in (("truck-2", "two"), ("truck-1", "one"), ("truck-1", "one")):
            told = describe(joined.endpoint, 10, topic=f"{name}/about")
            assert (told.about.rig, told.about.fuser) == (name, fuser)
            assert [plane.topic for plane in told.about.planes] == [f"{name}/fused"]
