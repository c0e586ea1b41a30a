"""docs/wire.md is true: its example is what the encoder makes, its client runs, its table names every field."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scenes import make_frame, picture

from rtfuse.publish import wire
from rtfuse.publish.zmq import Publisher
from rtfuse.types import Fused, Pair

PAGE = (Path(__file__).parents[1] / "docs" / "wire.md").read_text(encoding="utf-8")

EXAMPLE = wire.Header(
    session="9f1c2b7a4d5e6f00",
    seq=41,
    rig="truck",
    mode="fused",
    fuser="pyramid",
    ir_id=41,
    rgb_id=43,
    ir_t_ns=7_204_116_000_000,
    rgb_t_ns=7_204_118_500_000,
    stamp="start-of-exposure",
    skew_ns=-2_500_000,
    age_ns=9_300_000,
    published_ns=7_204_127_800_000,
    published_unix_ms=1_790_000_000_000,
    width=2,
    height=1,
    encoding="raw",
)


def dump(data):
    """Bytes as hexadecimal and text, sixteen to a line."""
    lines = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{at:04x}  {part.hex(' '):47}  {text}")
    return "\n".join(lines)


def test_the_example_is_what_the_encoder_makes():
    pixels = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    want = dump(bytes(wire.encode("fused", EXAMPLE, pixels)))
    assert want in PAGE, f"docs/wire.md should show:\n{want}"


def test_every_field_and_limit_is_in_the_page():
    documented = set(re.findall(r"`(\w+)`", " ".join(line for line in PAGE.splitlines() if line.startswith("| `"))))
    assert {f.name for f in msgspec.structs.fields(wire.Header)} <= documented
    for limit in (wire.MAX_TOPIC_BYTES, wire.MAX_HEADER_BYTES, wire.MAX_SIDE_PX, wire.MAX_MESSAGE_BYTES):
        assert f"{limit:,}" in PAGE


@pytest.fixture
def published(tmp_path):
    """An endpoint on which raw frames are being published."""
    publisher, over = Publisher("tcp://127.0.0.1:*"), threading.Event()
    ir, rgb = make_frame("ir"), make_frame("rgb")
    fused = Fused(picture(0), ir.image, Pair(ir, rgb), None, "test")

    def publish():
        while not over.wait(0.01):
            publisher.write(fused)

    thread = threading.Thread(target=publish)
    thread.start()
    yield publisher.endpoint
    over.set()
    thread.join()
    publisher.close()


def client(language):
    return re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_python_client_runs(published):
    done = subprocess.run(
        [sys.executable, "-c", client("python"), published], capture_output=True, text=True, timeout=60, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 10
    assert all(f"(48, 64, 3) {picture(0).mean()}" in line for line in lines)


def test_the_javascript_client_runs(published, tmp_path):
    """Where Node.js and its package `zeromq` are installed (NODE_PATH)."""
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require('zeromq')"], capture_output=True).returncode:
        pytest.skip("needs Node.js with the package zeromq")
    (tmp_path / "client.js").write_text(client("javascript"))
    done = subprocess.run([node, tmp_path / "client.js", published], capture_output=True, text=True, timeout=60)
    assert done.stdout.count("64 48") == 10, done.stderr
