"""Traces: every frame's stages, in order, and in agreement with what the statistics count."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import defaultdict

import pytest

from rtfuse.config import Config, Fuse, Playback, SourceSettings
from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.observe.trace import Trace
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline

STAGES = ("thermal", "align", "fuse", "deflicker")
SCENE = "synthetic:?size=160x120&duration_s=1"


class Nowhere:
    def write(self, fused):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A run of 30 pairs: its events, and what it counted."""
    path = tmp_path_factory.mktemp("trace") / "t.json"
    scene = SourceSettings(uri=SCENE)
    config = Config(ir=scene, rgb=scene, fuse=Fuse(fuser="pyramid"), playback=Playback(speed="max"))
    with Trace(path) as trace, open_rig(config, trace=trace) as rig:
        snapshot = Pipeline(rig, {"publish": Nowhere()}, age_at="publish").run()
    return json.loads(path.read_text()), snapshot


def spans(events, name=None):
    return [e for e in events if e["ph"] == "X" and (name is None or e["name"].startswith(name))]


def test_every_frame_is_there_in_every_stage_and_in_order(traced):
    events, snapshot = traced
    assert len(spans(events, "capture")) == 2 * snapshot.frames == 60
    at = {
        stage: {e["args"]["rgb"]: (e["ts"], e["ts"] + e["dur"]) for e in spans(events, stage)}
        for stage in ("pair", "thermal", "fuse", "publish")
    }
    arrived = {e["args"]["id"]: e["ts"] + e["dur"] for e in spans(events, "capture") if e["tid"] == tid(events, "rgb")}
    for frame, (begun, ended) in at["fuse"].items():
        assert arrived[frame] <= at["pair"][frame][1] + 1
        assert at["thermal"][frame][1] <= begun + 1
        assert begun < ended <= at["publish"][frame][0] + 1
    assert set(at["publish"]) == set(at["fuse"]) == set(range(30))


def tid(events, stream):
    (found,) = [e["tid"] for e in events if e["ph"] == "M" and e["args"]["name"] == f"capture {stream}"]
    return found


def test_within_a_thread_nothing_overlaps(traced):
    threads = defaultdict(list)
    for e in spans(traced[0]):
        threads[e["tid"]].append((e["ts"], e["ts"] + e["dur"]))
    names = {e["tid"]: e["args"]["name"] for e in traced[0] if e["ph"] == "M" and e["name"] == "thread_name"}
    assert set(names.values()) >= {"capture ir", "capture rgb", "pair", "fuse", "publish"}
    for number, parts in threads.items():
        if names[number] in ("fuse", "publish"):
            ordered = sorted(parts)
            assert all(a[1] <= b[0] + 1 for a, b in itertools.pairwise(ordered))


def test_the_sums_are_those_of_the_statistics(traced):
    events, snapshot = traced
    fuse = sum(e["dur"] for stage in STAGES for e in spans(events, stage)) / 1e3
    assert fuse == pytest.approx(snapshot.stages["fuse"].sum_ms, rel=0.02)
    assert sum(e["dur"] for e in spans(events, "publish")) / 1e3 == pytest.approx(
        snapshot.stages["publish"].sum_ms, rel=0.05, abs=0.5
    )


def test_drops_are_told_once_and_the_file_is_whole_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setattr("rtfuse.observe.trace._FLUSH_NS", 0)
    trace = Trace(tmp_path / "t.json")
    trace.drops({("rgb", "busy"): 2}, {("rgb", "busy"): 1, ("ir", "late"): 0})
    trace.drops({("rgb", "busy"): 3})
    trace.drops({("rgb", "busy"): 4})
    events = json.loads((tmp_path / "t.json").read_text())  # a kill would leave this
    assert [e["args"]["frames"] for e in events if e["ph"] == "i"] == [3, 1]
    trace.close()
    trace.close()
    assert json.loads((tmp_path / "t.json").read_text()) == events


FULL = """
import resource, signal, sys
from rtfuse.observe.trace import Trace
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
trace = Trace(sys.argv[1])
for k in range(200):
    trace._flushed_ns = 0
    trace.span("fuse", "fuse", 1000 * k, 1000 * k + 500, rgb=k)
trace.close()
"""


@pytest.mark.parametrize("limit_bytes", [0, 2, 5, 3000, 4096, 5001])
def test_a_disk_that_becomes_full_leaves_whole_events_and_a_line(tmp_path, limit_bytes):
    path = tmp_path / "t.json"
    ran = subprocess.run([sys.executable, "-c", FULL, path, str(limit_bytes)], capture_output=True, text=True)
    assert ran.returncode == 0
    assert ran.stderr.count("has ended, the run goes on: File too large") == 1
    text = path.read_text()
    assert len(text) <= limit_bytes
    if limit_bytes > 100:
        numbers = [e["args"]["rgb"] for e in json.loads(text) if e["ph"] == "X"]
        assert numbers == list(range(len(numbers)))
        assert 0.8 * limit_bytes < len(text)


def test_a_pipe_gets_one_array(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    with Trace(pipe, force=True) as trace:
        for k in range(5):
            trace._flushed_ns = 0
            trace.span("fuse", "fuse", k, k + 1)
    events = json.loads(reader.communicate(timeout=10)[0])
    assert [e["ph"] for e in events] == ["M", "M", *"XXXXX"]


def test_a_file_that_is_there_and_one_that_cannot_be(tmp_path):
    (tmp_path / "t.json").write_text("mine")
    with pytest.raises(OutputExists, match=r"t\.json exists"):
        Trace(tmp_path / "t.json")
    with pytest.raises(OutputUnwritable, match="cannot be written"):
        Trace(tmp_path / "no" / "t.json")
    assert (tmp_path / "t.json").read_text() == "mine"
