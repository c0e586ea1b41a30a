"""Fuzz the decoders and sockets for seconds; `tools/fuzz_wire.py --messages 1000000` does it for minutes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rtfuse.wire.h264 import H264Decoder
from tools import fuzz_wire


@pytest.mark.parametrize("seed", [1, 2])
def test_every_decoder_returns_or_refuses(seed):
    result = fuzz_wire.fuzz_decoders(5_000, seed)
    assert all(result.accepted[name] > 5 and result.refused[name] > 3_000 for name in fuzz_wire.decoders())
    assert result.longest_ms < 2_000


def test_decoders_keep_nothing():
    fuzz_wire.fuzz_decoders(3_000, 3)  # what libraries allocate once
    before = fuzz_wire.rss_mb()
    fuzz_wire.fuzz_decoders(10_000, 4)
    assert fuzz_wire.rss_mb() - before < 20


def test_a_fault_is_seen(monkeypatch):
    """The fuzzer itself must find a fault."""
    monkeypatch.setattr(H264Decoder, "__call__", lambda *_: 1 // 0)
    with pytest.raises(AssertionError, match="h264, seed 5, message"):
        fuzz_wire.fuzz_decoders(2_000, 5)


def test_a_subscriber_goes_on_through_a_flood_of_them():
    taken, skipped = fuzz_wire.fuzz_subscriber(2_000, 6)
    assert taken > 1
    assert skipped > 500


def test_raw_bytes_at_a_publishers_socket_cost_its_listener_nothing():
    """It has a process of its own: a failed assertion inside ZeroMQ ends the whole process."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import fuzz_wire; fuzz_wire.fuzz_publisher(60, 7)"
    tools = str(Path(fuzz_wire.__file__).parent)
    done = subprocess.run([sys.executable, "-c", code, tools], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
