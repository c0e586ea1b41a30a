"""An endpoint without frames: no publisher, another key or another topic, each with its own message."""

from __future__ import annotations

import socket
import threading

import pytest
from live import free_port, fused, publishing

from rtfuse.client.look import silence
from rtfuse.publish.planes import Offer
from rtfuse.publish.proxy import Proxy, ProxyConfig, RigLink
from rtfuse.publish.publisher import About, Publisher
from rtfuse.wire.keys import new_client, new_rig


def publisher(endpoint, *, prefix="", keys=None):
    offer = Offer(endpoint, planes=("fused", "mask"), prefix=prefix)
    return Publisher([offer], keys=keys, about=lambda: About("0", "test", {}))


@pytest.fixture
def endpoint():
    return f"tcp://127.0.0.1:{free_port()}"


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        (
            "ir",
            "no topic ir, only about, fused, mask: choose with --topic; 'publish.planes=[fused,ir]' on the rig adds it",
        ),
        ("fussed", "no topic fussed, only about, fused, mask: choose with --topic"),
        ("fused", "has the topic fused, but no picture comes"),
    ],
)
def test_a_wrong_topic_gets_the_right_ones(endpoint, topic, said):
    with publishing(publisher(endpoint), fused()):
        assert said in silence(endpoint, topic)


def test_topics_behind_a_proxy_are_found(endpoint):
    room = f"tcp://127.0.0.1:{free_port()}"
    proxy, stop = Proxy(ProxyConfig(rigs={"truck": RigLink(endpoint=endpoint)}, bind=room)), threading.Event()
    thread = threading.Thread(target=proxy.run, args=(stop,))
    thread.start()
    try:
        assert "publishes nothing" in silence(room, "fused")
        with publishing(publisher(endpoint, prefix="truck/"), fused()):
            assert "no topic fused, only truck/about, truck/fused, truck/mask" in silence(room, "fused")
    finally:
        stop.set()
        thread.join()
        proxy.close()


def test_who_does_not_answer_and_who_refuses(endpoint, tmp_path):
    assert "nothing answers on tcp://127.0.0.1" in silence(endpoint, "fused")
    assert "the host no-such.invalid is unknown" in silence("tcp://no-such.invalid:5555", "fused")
    assert "nothing answers" in silence(f"ipc://{tmp_path}/none", "fused")
    for name in ("a", "b"):
        new_rig(tmp_path / name)
        new_client(tmp_path / name, "me", tmp_path / f"{name}.key")
    with publishing(publisher(endpoint, keys=tmp_path / "a"), fused()):
        assert "has the topic fused" in silence(endpoint, "fused", tmp_path / "a.key")
        assert "refuses the connection: it does not know this key" in silence(endpoint, "fused", tmp_path / "b.key")
        assert "encrypts, and wants a key (--keys)" in silence(endpoint, "fused")


def test_a_program_that_is_no_rig():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def reply():
            try:
                while True:
                    listening.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 5)
            except OSError:
                return

        threading.Thread(target=reply, daemon=True).start()
        assert "or it speaks another protocol" in silence(f"tcp://127.0.0.1:{listening.getsockname()[1]}", "fused")
