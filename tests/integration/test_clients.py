"""The clients in other languages, written from docs/wire.md, beside a real publisher: built, run, and fed nonsense."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from itertools import cycle
from pathlib import Path

import pytest
import zmq
from live import fused
from scenes import picture

from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.wire.yuv import padded_i420

ROOT = Path(__file__).parents[2]
BAD = (b"fused\0", b"fused\0\xff\xff\xff\xff{}", b"fused\0\2\0\0\0{}", b"fused\0\2\0\0\0[]", b"fused\0\1\0\0\0{")


def absent(what):
    if os.environ.get("RTFUSE_REQUIRE_CLIENTS"):
        pytest.fail(f"RTFUSE_REQUIRE_CLIENTS is set, but there is no {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def cpp(tmp_path_factory):
    """The C++ client, built by the command in its first lines."""
    source = ROOT / "tools" / "clients" / "subscriber.cpp"
    command = re.search(r"//\s+(g\+\+ .*)", source.read_text())[1]
    compiler = shutil.which("g++")
    headers = "#include <zmq.h>\n#include <nlohmann/json.hpp>\n"
    check = [str(compiler), "-x", "c++", "-std=c++17", "-E", "-"]
    if compiler is None or subprocess.run(check, input=headers.encode(), capture_output=True).returncode:
        absent("g++, libzmq3-dev and nlohmann-json3-dev")
    target = tmp_path_factory.mktemp("cpp") / "subscriber"
    built = subprocess.run(
        command.replace("-o subscriber", f"-o {target}").split(), cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return [str(target)]


@pytest.fixture(scope="session")
def javascript(tmp_path_factory):
    """The JavaScript client of the page."""
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('zeromq')"], capture_output=True).returncode:
        absent("Node.js with the package zeromq on NODE_PATH")
    page = (ROOT / "docs" / "wire.md").read_text()
    client = tmp_path_factory.mktemp("js") / "client.js"
    client.write_text(re.search(r"```javascript\n(.*?)```", page, re.DOTALL)[1])
    return [node, str(client)]


@pytest.fixture(params=["cpp", "javascript"])
def client(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def play():
    """Call a function again and again in a thread until the test is over."""
    over, threads = threading.Event(), []

    def begin(do):
        def work():
            while not over.wait(0.005):
                do()

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield begin
    over.set()
    for thread in threads:
        thread.join(10)


@pytest.mark.parametrize("pixel_format", ["rgb24", "yuv420p", "nv12"])
@pytest.mark.parametrize("size_wh", [(64, 48), (63, 47)])
def test_a_client_receives_ten_frames(client, play, open_, pixel_format, size_wh):
    publisher = open_(Publisher, [Offer("tcp://127.0.0.1:*", pixel_format=pixel_format)])
    play(lambda: publisher.write(fused(1, size_wh)))
    done = subprocess.run([*client, publisher.endpoint], capture_output=True, text=True, timeout=60)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    seqs = [int(seq) for _, seq, _ in lines]
    assert (done.returncode, len(seqs), done.stderr) == (0, 10, "")
    assert seqs == sorted(set(seqs))
    shown = picture(1, size_wh)
    first = shown[0, 0] if pixel_format == "rgb24" else padded_i420(shown)[0, :3]
    assert {tuple(map(int, re.findall(r"\d+", rest))) for _, _, rest in lines} == {(*size_wh, *first.tolist())}


@pytest.fixture
def nonsense():
    """A socket that publishes no frames, closed after the threads that use it."""
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.bind("tcp://127.0.0.1:*")
    yield socket
    context.destroy(0)


def test_a_client_skips_what_it_cannot_read(client, nonsense, play):
    turn = cycle(BAD)
    play(lambda: nonsense.send(next(turn)))
    endpoint = nonsense.getsockopt_string(zmq.LAST_ENDPOINT)
    process = subprocess.Popen([*client, endpoint], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        reasons = set()
        for line in process.stderr:
            assert line.startswith("skipped: "), line
            reasons.add(line)
            if len(reasons) >= 3:
                break
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate(timeout=10)
