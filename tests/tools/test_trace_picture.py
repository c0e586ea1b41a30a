"""The picture of a frame's time: which spans it has, how long each is, and what is left out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from rtfuse.observe.trace import Trace
from tools.trace_picture import Row, draw, rows_of

TOOL = Path(__file__).parents[2] / "tools" / "trace_picture.py"
SPANS = {  # microseconds after the capture of RGB: thread, begin, duration
    "pair": ("pair", 300, 200),
    "thermal": ("fuse", 500, 100),
    "fuse by student": ("fuse", 600, 4000),
    "publish": ("publish", 5000, 250),
    "record": ("record", 4700, 1000),
}
WANTED = {  # the same, with the captures and the waits of both outputs for a frame of the thread `fuse`, in their order
    "capture ir": (-100, 400),
    "capture RGB": (0, 300),
    "wait for the pair": (300, 200),
    "thermal": (500, 100),
    "fuse by student": (600, 4000),
    "wait for publish": (4600, 400),
    "wait for record": (4600, 100),
    "record": (4700, 1000),
    "publish": (5000, 250),
}


@pytest.fixture
def trace(tmp_path):
    """A trace of three seconds at 30 Hz; slower in the first, and with frames of one stream alone."""
    with Trace(tmp_path / "trace.json") as trace:
        for k in range(90):
            at_us, times = k * 33_333, 50 if k < 30 else 1
            trace.span("capture", "capture ir", (at_us - 100) * 1000, (at_us + 300) * 1000, id=k)
            trace.span("capture", "capture rgb", at_us * 1000, (at_us + 300) * 1000, id=k)
            ids = {"rgb": k} if k % 10 == 5 else {"ir": k, "rgb": k}
            for name, (thread, begin_us, last_us) in SPANS.items():
                begin_us += at_us
                trace.span(name, thread, begin_us * 1000, (begin_us + last_us * times) * 1000, **ids)
    return tmp_path / "trace.json"


def test_rows_are_the_spans_and_waits_of_complete_frames_after_the_first_second(trace):
    rows = rows_of(json.loads(trace.read_text()))
    assert [row.name for row in rows] == list(WANTED)
    for row in rows:
        assert len(row.lasts_us) == 54  # of 60 after the first second, six had no thermal
        assert row.begins_us == pytest.approx(np.full(54, WANTED[row.name][0]))
        assert row.lasts_us == pytest.approx(np.full(54, WANTED[row.name][1]))


def test_bars_are_as_long_as_the_median_and_lines_as_p95():
    slow = Row("slow", "work", np.full(100, 1000.0), np.r_[np.full(90, 4000.0), np.full(10, 9000.0)])
    root = ElementTree.fromstring(draw([Row("quick", "wait", np.zeros(2), np.full(2, 1000.0)), slow], "a < b"))
    texts = ["".join(one.itertext()) for one in root.findall(".//{*}text")]
    assert "a < b" in texts
    assert "4,000 / 9,000 / 9,000" in texts
    _, quick, bar = root.findall(".//{*}rect")
    assert float(bar.get("width")) == pytest.approx(4 * float(quick.get("width")), abs=0.5)
    assert float(bar.get("x")) == pytest.approx(float(quick.get("x")) + float(quick.get("width")), abs=0.2)


def test_the_tool_draws_a_trace_and_prints_its_numbers(trace, tmp_path):
    command = [sys.executable, TOOL, tmp_path / "o.svg", "--trace", trace]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(WANTED)
    assert ElementTree.parse(tmp_path / "o.svg").getroot().tag.endswith("svg")


def test_a_trace_without_pairs_is_refused(tmp_path):
    Trace(tmp_path / "t.json").close()
    with pytest.raises(ValueError, match="no pair"):
        rows_of(json.loads((tmp_path / "t.json").read_text()))
