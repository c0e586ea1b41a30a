"""The subscriber, and the client of docs/wire.md, as processes of their own beside a real publisher."""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from live import fused, programs, publishing
from messages import header
from scenes import picture

from rtfuse.client.subscriber import Subscriber
from rtfuse.picture import Picture
from rtfuse.publish.publisher import Publisher
from rtfuse.wire.message import decode, encode

DOC = Path(__file__).parents[2] / "docs" / "wire.md"

PUBLISH = """
import sys, time
import numpy as np
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Frame, Fused, Pair, Stamp

image = np.zeros((48, 64, 3), np.uint8)
ir = Frame("ir", image[..., 0], 0, 0, Stamp.ARRIVAL, 0)
rgb = Frame("rgb", image, 0, 0, Stamp.ARRIVAL, 0)
publisher = Publisher(sys.argv[1])
print(publisher.endpoint, flush=True)
while True:
    publisher.write(Fused(image, image[..., 0], Pair(ir, rgb), None, "test"))
    time.sleep(0.005)
"""

SUBSCRIBE = """
import signal, sys
from rtfuse.client.subscriber import Subscriber

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell has it ignored
with Subscriber(sys.argv[1], latest=False) as stream:
    print("ready", flush=True)
    for received in stream:
        print(received.header.seq, flush=True)
"""


@pytest.fixture
def python():
    """Start `python -c PROGRAM ARGS…`; whatever still runs at the end of the test is killed."""
    for start in programs():
        yield partial(start, "-c")


@pytest.fixture
def publisher():
    publisher = Publisher("tcp://127.0.0.1:*")
    yield publisher
    publisher.close()


@pytest.fixture
def playing(publisher):
    """A publisher that publishes all the time."""
    with publishing(publisher, fused(1)):
        yield publisher


def test_the_documented_python_client_receives_what_is_published(python, playing):
    client = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]
    assert "rtfuse" not in client.replace("not rtfuse", "")
    output, errors = python(client, playing.endpoint).communicate(timeout=30)
    lines = [line.split(maxsplit=2) for line in output.splitlines()]
    seqs = [int(seq) for _, seq, _ in lines]
    assert len(seqs) == 10, errors
    assert seqs == sorted(set(seqs))
    assert {shown for _, _, shown in lines} == {f"(48, 64, 3) {picture(1).mean()}"}


@pytest.mark.parametrize("pixel_format", ["yuv420p", "nv12"])
def test_the_documented_python_client_reads_planes(pixel_format):
    client = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]
    namespace = {"json": json, "np": np}
    exec(re.search(r"def parse.*?\n\n\n", client, re.DOTALL)[0], namespace)
    shown = Picture.of_rgb(picture(1, (63, 47)))
    message = bytes(encode("fused", header((63, 47), pixel_format=pixel_format), shown))
    head, planes = namespace["parse"](message)
    y, *chroma = decode(message)[2].planes
    assert head["pixel_format"] == pixel_format
    assert np.array_equal(planes[0], y)
    assert [plane.tobytes() for plane in planes[1:]] == [plane.tobytes() for plane in chroma]
    with pytest.raises(ValueError, match="wrong payload"):
        namespace["parse"](message[:-1])


def test_the_documented_python_client_refuses_what_it_cannot_read():
    client = re.search(r"```python\n(.*?)```", DOC.read_text(), re.DOTALL)[1]
    namespace = {"json": json, "np": np}
    exec(re.search(r"def parse.*?\n\n\n", client, re.DOTALL)[0], namespace)
    for message in (b"", b"fused\0", b"fused\0\xff\xff\xff\xff{}", b"fused\0\2\0\0\0{}", b"fused\0\2\0\0\0[]"):
        with pytest.raises((ValueError, KeyError, TypeError)):
            namespace["parse"](message)


def test_a_killed_publisher_is_found_again_on_its_port(python):
    first = python(PUBLISH, "tcp://127.0.0.1:*")
    endpoint = first.stdout.readline().strip()
    with Subscriber(endpoint, latest=False) as subscriber:
        session = subscriber.recv(20).header.session
        first.kill()
        first.wait(10)
        while subscriber.recv(0) is not None:
            pass
        received, lost = subscriber.received, subscriber.lost
        python(PUBLISH, endpoint)
        again = subscriber.recv(20)
        assert again is not None
        assert again.header.session != session
        assert (again.gap, subscriber.restarts, subscriber.lost) == (0, 1, lost)
        assert subscriber.received == received + 1


def test_a_stopped_and_then_dead_subscriber_process_costs_the_others_nothing(python, publisher):
    stuck = python(SUBSCRIBE, publisher.endpoint)
    assert stuck.stdout.readline() == "ready\n"
    with Subscriber(publisher.endpoint, latest=False) as reader:
        deadline = time.monotonic() + 20
        seen = threading.Event()
        threading.Thread(target=lambda: (stuck.stdout.readline(), seen.set()), daemon=True).start()
        while not (seen.is_set() and reader.received):
            publisher.write(fused(1))
            reader.recv(0.01)
            assert time.monotonic() < deadline
        while reader.recv(0.1) is not None:
            pass
        stuck.send_signal(signal.SIGSTOP)
        big, before = fused(1, (640, 480)), reader.received
        for k in range(60):
            if k == 40:
                stuck.kill()
            publisher.write(big)
            reader.recv(5)
        assert reader.received - before == 60
        assert reader.lost == 0


def test_ctrl_c_ends_a_subscriber_that_waits(python):
    process = python(SUBSCRIBE, "tcp://127.0.0.1:9")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors


def test_a_subscriber_that_nobody_closes_does_not_hold_its_process(python, playing):
    code = "import sys, rtfuse; s = rtfuse.Subscriber(sys.argv[1]); print(s.recv(20).header.rig)"
    output, errors = python(code, playing.endpoint).communicate(timeout=30)
    assert (output, errors) == ("rig\n", "")


def test_receiving_raw_frames_loads_no_image_library(python, playing):
    code = (
        "import sys; from rtfuse.client.subscriber import Subscriber; s = Subscriber(sys.argv[1]); "
        "print(s.recv(20).image.shape, {'cv2', 'torch', 'av', 'typer', 'rich'} & set(sys.modules)); s.close()"
    )
    output, errors = python(code, playing.endpoint).communicate(timeout=30)
    assert output == "(48, 64, 3) set()\n", errors


def test_the_colours_arrive_in_order(playing):
    with Subscriber(playing.endpoint) as stream:
        received = next(iter(stream))
        assert np.array_equal(received.image, picture(1))
        assert not received.image.flags.writeable
