"""An encrypted publisher admits listed clients and survives attacks: all on loopback, with limits of time."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import live
import msgspec
import pytest
import zmq
from live import fused, wait_until
from scenes import picture

from rtfuse import StatisticsSubscriber, Subscriber
from rtfuse.errors import ConfigError, KeysUnusable
from rtfuse.publish import auth
from rtfuse.publish.auth import Authenticator
from rtfuse.publish.publisher import Publisher
from rtfuse.wire.keys import client_keys, new_client, new_rig, revoke

ROOT = Path(__file__).parents[2]
PERIOD_S = 0.01
GAP = 30
"""Frames: less than a third of a second. A machine that is busy with other things loses one or two at times."""


@pytest.fixture
def folder(tmp_path):
    new_rig(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def client(folder, tmp_path):
    """A client's key file."""
    new_client(folder, "desk", tmp_path / "desk.key")
    return tmp_path / "desk.key"


def publishing(keys, endpoint="tcp://127.0.0.1:*", **options):
    """A publisher that publishes all the time, in a thread of its own."""
    return live.publishing(Publisher(endpoint, keys=keys, **options), fused(), every_s=PERIOD_S)


@pytest.fixture
def playing(folder, client):
    with publishing(folder) as publisher:
        yield publisher


def address(endpoint):
    host, port = endpoint.removeprefix("tcp://").rsplit(":", 1)
    return host, int(port)


def test_an_authorised_client_receives(playing, client):
    with Subscriber(playing.endpoint, keys=client, latest=False) as stream:
        assert [stream.recv(10).gap for _ in range(5)] == [0] * 5
    assert not any(playing.refused.values())


def test_statistics_are_encrypted_too(folder, client):
    def fields():
        return {
            "frames": 1, "pair_rate_hz": 30.0, "reused": 0, "age_ms": [1.0] * 3, "skew_ms": [1.0] * 3,
            "skew_histogram": [], "modes": {}, "drops": {}, "streams": {},
        }  # fmt: skip

    with publishing(folder, statistics=fields) as publisher:
        with StatisticsSubscriber(publisher.endpoint) as plain:
            assert plain.recv(1.5) is None
        with StatisticsSubscriber(publisher.endpoint, keys=client_keys(client)) as stream:
            assert stream.recv(10).frames == 1


@pytest.mark.parametrize(
    ("who", "cause"), [("plain", "hung_up"), ("unknown", "unknown_key"), ("impostor", "wrong_server_key")]
)
def test_others_receive_nothing_and_are_counted(playing, client, tmp_path, who, cause):
    keys = None
    if who == "unknown":
        keys = msgspec.structs.replace(_foreign(tmp_path), server=client_keys(client).server)
    elif who == "impostor":  # the right key of its own, but it takes another for the rig
        keys = msgspec.structs.replace(client_keys(client), server=_foreign(tmp_path).server)
    with Subscriber(playing.endpoint, keys=client) as good, Subscriber(playing.endpoint, keys=keys) as stream:
        wait_until(lambda: playing.refused[cause] or (who == "plain" and playing.refused["malformed"]))
        assert stream.recv(0) is None
        assert good.recv(10) is not None
    assert {name for name, count in playing.refused.items() if count} <= {cause, "malformed" if who == "plain" else ""}


def _foreign(tmp_path):
    new_rig(tmp_path / "foreign")
    return new_client(tmp_path / "foreign", "stranger", tmp_path / "stranger.key")


def test_a_client_can_be_authorised_while_the_publisher_runs(playing, folder, tmp_path):
    new_client(folder, "late", tmp_path / "late.key")
    with Subscriber(playing.endpoint, keys=tmp_path / "late.key") as stream:
        assert stream.recv(20) is not None


def test_a_revoked_client_is_cut_off_within_seconds_and_the_others_go_on(playing, folder, client, tmp_path, caplog):
    new_client(folder, "lost", tmp_path / "lost.key")
    with (
        Subscriber(playing.endpoint, keys=client, latest=False, queue=1000) as good,
        Subscriber(playing.endpoint, keys=tmp_path / "lost.key", latest=False, queue=1000) as lost,
    ):
        assert good.recv(10) is not None
        assert lost.recv(10) is not None
        revoke(folder, "lost")
        revoked = playing.sent
        wait_until(lambda: playing.refused["revoked_key"])  # it was cut off, tried to come back, and was refused
        last, after = -1, playing.sent
        while received := lost.recv(0.2):
            last = received.header.seq
        assert last < after
        assert (last - revoked) * PERIOD_S < 5
        while good.recv(10).header.seq <= after + 10:
            pass
        assert good.restarts == 0
        for _ in range(100):
            assert good.recv(10) is not None
        assert lost.recv(0) is None
        assert caplog.text.count("no longer authorised: lost") == 1


def test_a_revoked_client_that_does_not_read_is_cut_off_too(playing, folder, tmp_path):
    keys = new_client(folder, "stuck", tmp_path / "stuck.key")
    with Subscriber(playing.endpoint, keys=keys, latest=False, queue=1) as stuck:
        assert stuck.recv(10) is not None
        revoke(folder, "stuck")
        # Its last messages were under way; when it has read them it tries to come back.
        wait_until(lambda: stuck.recv(0.1) is None and playing.refused["revoked_key"])
        assert stuck.recv(0.1) is None


def test_a_folder_that_others_can_write_authorises_nobody_until_it_is_mended(playing, folder, client, caplog):
    with Subscriber(playing.endpoint, keys=client) as stream:
        assert stream.recv(10) is not None
        (folder / "clients").chmod(0o777)
        wait_until(lambda: playing.refused["unknown_key"])
        wait_until(lambda: "chmod go-w" in caplog.text)
        (folder / "clients").chmod(0o700)
        wait_until(lambda: stream.recv(0.1) is not None)


def test_without_a_rigs_key_nothing_is_bound(tmp_path):
    with pytest.raises(KeysUnusable, match="rtfuse keys new rig"):
        Publisher("tcp://127.0.0.1:*", keys=tmp_path)


def test_beyond_this_machine_keys_are_enough(folder):
    with pytest.raises(ConfigError, match=r"--keys DIR.*--insecure"):
        Publisher("tcp://0.0.0.0:*")
    Publisher("tcp://0.0.0.0:*", keys=folder).close()


def test_ipc_stays_plain_and_is_its_owners_alone(folder, tmp_path, client):
    with publishing(folder, f"ipc://{tmp_path}/s") as publisher:
        for keys in (None, client):
            with Subscriber(publisher.endpoint, keys=keys) as stream:
                assert stream.recv(10) is not None
        assert not (tmp_path / "s").stat().st_mode & 0o022


def test_the_pictures_cross_the_network_encrypted(folder, client):
    """Read off the wire by a relay between publisher and client: pixels in plain text without keys, none with."""
    marker = bytes(picture(0, (64, 48))[0, :8].tobytes())
    for keys, seen in ((None, True), (folder, False)):
        with publishing(keys) as publisher, relay(publisher.endpoint) as (endpoint, passed):
            with Subscriber(endpoint, keys=client if keys else None) as stream:
                assert stream.recv(10) is not None
            assert (marker in bytes(passed)) is seen
            assert (b"rgb24" in bytes(passed)) is seen


@contextlib.contextmanager
def relay(endpoint):
    """A TCP relay for one connection; yields its endpoint and what the server sent through it."""
    passed = bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, target, kept):
        try:
            while data := source.recv(65536):
                kept += data
                target.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, target):
                end.close()

    def serve():
        try:
            near = listener.accept()[0]
        except OSError:
            return
        far = socket.create_connection(address(endpoint))
        threading.Thread(target=pump, args=(near, far, bytearray()), daemon=True).start()
        pump(far, near, passed)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", passed
    listener.close()
    thread.join(10)


def _greeting(mechanism):
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


GARBAGE = {
    "http": b"GET / HTTP/1.0\r\n\r\n" * 10,
    "zeros": bytes(500),
    "an old ZeroMQ": b"\x01\x00",
    "no hello": _greeting(b"CURVE") + b"\x04\x20" + bytes(32),
    "a huge frame": _greeting(b"CURVE") + b"\x06" + b"\x7f" + b"\xff" * 7 + bytes(64),
}


# A plain socket takes what is no greeting for a client of ZeroMQ 2, which had none.
@pytest.mark.parametrize(("what", "keys"), [*((what, True) for what in GARBAGE), ("zeros", False), ("no hello", False)])
def test_garbage_is_counted_as_malformed(folder, what, keys):
    with publishing(folder if keys else None) as publisher:
        with socket.create_connection(address(publisher.endpoint)) as peer:
            peer.sendall(GARBAGE[what])
            peer.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1000):  # until we are thrown out
                    pass
        wait_until(lambda: sum(publisher.refused.values()))
        assert {c: n for c, n in publisher.refused.items() if n} == {"malformed": 1}


def _connect(endpoint, data=b""):
    """Connect, send, and hang up with a reset, so that the flood leaves no ports waiting."""
    with socket.create_connection(address(endpoint), timeout=10) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        if data:
            peer.sendall(data)


def longest_gap(stream, last):
    """Read up to frame number `last`; returns the most frames that were missed at once."""
    gaps = [0]
    while (received := stream.recv(10)).header.seq < last:
        gaps.append(received.gap)
    return max(gaps)


def _open_files():
    return len(os.listdir("/proc/self/fd"))


def _resident_mb():
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def test_a_flood_of_garbage_disturbs_nobody(playing, client, caplog):
    with Subscriber(playing.endpoint, keys=client, latest=False, queue=10_000) as stream:
        assert stream.recv(10) is not None
        for k in range(300):
            _connect(playing.endpoint, os.urandom(k % 100))
        while stream.recv(0.05) is not None and stream.received < 100:
            pass
        files, memory, logged = _open_files(), _resident_mb(), len(caplog.records)
        begun, first = time.monotonic(), playing.sent
        for k in range(3000):
            _connect(playing.endpoint, os.urandom(k % 100))
        took_s, last = time.monotonic() - begun, playing.sent
        assert last > first
        assert longest_gap(stream, last) < GAP
        assert _resident_mb() - memory < 20
        wait_until(lambda: sum(playing.refused.values()) >= 3000)
        wait_until(lambda: _open_files() <= files + 2)
        # Two causes at most once a second.
        assert len(caplog.records) - logged <= 2 * (took_s + 4)


def test_connections_that_never_introduce_themselves_are_ended(folder, client, monkeypatch):
    monkeypatch.setattr(auth, "HANDSHAKE_MS", 500)
    with (
        publishing(folder) as publisher,
        Subscriber(publisher.endpoint, keys=client, latest=False, queue=10_000) as stream,
    ):
        assert stream.recv(10) is not None
        files = _open_files()
        slow = [socket.create_connection(address(publisher.endpoint)) for _ in range(200)]
        for k, peer in enumerate(slow):
            peer.sendall(_greeting(b"CURVE")[: k % 64])
        wait_until(lambda: publisher.refused["timed_out"] >= 190)
        for peer in slow:
            peer.close()
        assert longest_gap(stream, publisher.sent) < GAP
        wait_until(lambda: _open_files() <= files + 2)


STARVED = """
import resource, sys, time
from tests.publish.test_auth import fused
from rtfuse.publish import auth
from rtfuse.publish.publisher import Publisher

auth.HANDSHAKE_MS = 1000
publisher, frame = Publisher("tcp://127.0.0.1:*", keys=sys.argv[1]), fused()
print(publisher.endpoint, flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
while True:
    publisher.write(frame)
    time.sleep(0.01)
"""


def test_when_file_descriptors_run_out_those_who_are_connected_go_on(folder, client):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", STARVED, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        endpoint = process.stdout.readline().strip()
        with Subscriber(endpoint, keys=client, latest=False, queue=1000) as stream:
            assert stream.recv(20) is not None
            peers = [socket.socket() for _ in range(200)]
            for peer in peers:
                peer.setblocking(False)
                peer.connect_ex(address(endpoint))
            seen = stream.received
            while stream.received < seen + 100:
                assert stream.recv(10) is not None
            assert stream.restarts == 0
            for peer in peers:
                peer.close()
            with Subscriber(endpoint, keys=client) as late:
                assert late.recv(30) is not None
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


def test_refusals_are_logged_as_sentences_without_keys(playing, client, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    keys = msgspec.structs.replace(_foreign(tmp_path), server=client_keys(client).server)
    with Subscriber(playing.endpoint, keys=keys):
        wait_until(lambda: "not authorised" in caplog.text)
    text = caplog.text + repr([r.__dict__ for r in caplog.records])
    for secret in (keys.secret, client_keys(client).secret):
        assert secret not in text


def test_a_gate_closes_with_peers_at_the_door(folder):
    """Nothing waits for ever: not for peers in the middle of their handshake, nor for unread events."""
    context = zmq.Context()
    authenticator, server = Authenticator(context, folder), context.socket(zmq.PUB)
    endpoint = authenticator.bind(server, "tcp://127.0.0.1:*")
    peers = [socket.create_connection(address(endpoint)) for _ in range(20)]
    for peer in peers:
        peer.sendall(GARBAGE["http"])
    authenticator.close()
    authenticator.close()
    server.close(0)
    context.term()
    for peer in peers:
        peer.close()


def test_nothing_is_ever_unpickled():
    """Neither in the runtime nor in the tools beside it; weights of the trainer's are loaded as tensors alone."""
    wrong = re.compile(
        r"import pickle|pickle\.|Unpickler|recv_pyobj|send_pyobj|\bmarshal\b|\bshelve\b|\bdill\b|"
        r"(?<![\w.])(?:eval|exec)\(|allow_pickle=True|yaml\.(?:unsafe_|full_)?load\("
    )
    for path in sorted(p for d in ("rtfuse", "trainer", "calib", "tools") for p in (ROOT / d).rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("#")[0]
            assert not wrong.search(code), f"{path}:{number}: {line}"
            if "torch.load(" in code:
                assert "weights_only=True" in code, f"{path}:{number}: {line}"


def test_a_subscriber_with_keys_loads_no_image_library(playing, client):
    code = (
        "import sys; from rtfuse.client.subscriber import Subscriber; s = Subscriber(sys.argv[1], keys=sys.argv[2]); "
        "print(s.recv(20).image.shape, {'cv2', 'torch', 'av', 'typer', 'rich', 'yaml'} & set(sys.modules)); s.close()"
    )
    command = [sys.executable, "-c", code, playing.endpoint, str(client)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "(48, 64, 3) set()\n", done.stderr


ATTACKS = {
    # Each makes the other side stop reading, and then resets the connection: with ZeroMQ's own heartbeats, libzmq
    # 4.3.5 ends the process within a second.
    "a publisher": """
import socket, time
from rtfuse.publish.publisher import Publisher
publisher = Publisher("tcp://127.0.0.1:*")
peer = socket.create_connection(("127.0.0.1", int(publisher.endpoint.rsplit(":", 1)[1])), timeout=1)
peer.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03\\0NULL" + bytes(48))
peer.sendall(b"\\x04\\x19\\5READY\\x0bSocket-Type\\0\\0\\0\\3SUB")
seen = b""
while b"Socket-Type" not in seen:
    seen += peer.recv(1000)
try:
    for k in range(200_000):
        peer.sendall(b"\\0\\xff\\1" + k.to_bytes(254, "big"))
except TimeoutError:
    pass  # it does not read any more
else:
    raise SystemExit("it read everything")
""",
    "a subscriber": """
import socket, time
from rtfuse.client.subscriber import Subscriber
listener = socket.create_server(("127.0.0.1", 0))
subscriber = Subscriber(f"tcp://127.0.0.1:{listener.getsockname()[1]}", latest=False, queue=1)
peer = listener.accept()[0]
peer.settimeout(1)
peer.sendall(b"\\xff" + bytes(8) + b"\\x7f\\x03\\0NULL" + bytes(48))
peer.sendall(b"\\x04\\x19\\5READY\\x0bSocket-Type\\0\\0\\0\\3PUB")
seen = b""
while b"Socket-Type" not in seen:
    seen += peer.recv(1000)
try:
    while True:
        peer.sendall(b"\\0\\xfafused\\0" + bytes(244))
except TimeoutError:
    pass
""",
}


@pytest.mark.parametrize("whom", ATTACKS)
def test_a_peer_cannot_end_the_process(whom):
    code = ATTACKS[whom] + (
        "peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b'\\1\\0\\0\\0\\0\\0\\0\\0')\n"
        "peer.close()\ntime.sleep(1.5)\nprint('alive')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "alive\n", done.stderr


@pytest.mark.timeout(30)
def test_closing_never_waits_for_a_thread_that_has_just_ended(monkeypatch):
    """It may see the end before the message that was to wake it is sent; nobody would ever read that message."""
    context = zmq.Context()
    authenticator = Authenticator(context)
    over = authenticator._over
    monkeypatch.setattr(over, "set", lambda: (threading.Event.set(over), authenticator._thread.join()))
    closing = threading.Thread(target=authenticator.close, daemon=True)
    closing.start()
    closing.join(5)
    assert not closing.is_alive()
    context.term()
