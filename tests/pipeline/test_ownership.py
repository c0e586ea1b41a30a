"""Opened parts are closed when a later one fails to open; age is measured at the sink that is named."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from scenes import Memory, list_source, write_video

from rtfuse.cli.commands import fuse_recordings, run_live
from rtfuse.config import load_config
from rtfuse.errors import ConfigError, EndpointUnavailable, OutputExists, OutputUnwritable, RtfuseError, WeightsMissing
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline

needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks at the open files in /proc")


def open_files(folder):
    """Return the names of the files of a folder that this process has open."""
    there = []
    for fd in Path("/proc/self/fd").iterdir():
        try:
            there.append(os.readlink(fd))
        except OSError:
            continue
    return [Path(name).name for name in there if name.startswith(str(folder))]


def can_bind(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture
def port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def recorded(tmp_path):
    return {s: str(write_video(tmp_path / f"{s}.mp4", 10, gray=s == "ir")) for s in ("ir", "rgb")}


FAILS = {
    "fused recording": ("record.path={tmp}/no/out.mp4", OutputUnwritable),
    "raw recording": ("raw.path={tmp}/no/raw.mkv", OutputUnwritable),
    "trace": ("trace={tmp}/no/trace.json", OutputUnwritable),
    "trace that is there": ("trace={tmp}/ir.mp4", OutputExists),
    "calibration": ("align.calib={tmp}/no/calibration.yaml", RtfuseError),
    "page": ("web.address=192.0.2.1:1", RtfuseError),
    "camera": ("rgb.uri={tmp}/no.mp4", RtfuseError),
}


@needs_proc
@pytest.mark.parametrize("part", FAILS)
def test_a_part_that_cannot_be_opened_leaves_nothing_open(recorded, port, tmp_path, part):
    setting, error = FAILS[part]
    given = [f"ir.uri={recorded['ir']}", f"rgb.uri={recorded['rgb']}", "fuse.fuser=pyramid"]
    given += [f"publish.endpoint=tcp://127.0.0.1:{port}", f"record.path={tmp_path}/fused.mp4", "web.insecure=true"]
    settings = load_config(None, [*given, setting.format(tmp=tmp_path)])
    signals, before = SimpleNamespace(stop=threading.Event(), fired=False), set(threading.enumerate())
    with pytest.raises(error):
        run_live(settings, signals, Console(quiet=True))
    assert open_files(tmp_path) == []
    assert can_bind(port)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ir.mp4", "rgb.mp4"]
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("rtfuse-")]


@needs_proc
def test_an_endpoint_in_use_is_found_before_anything_is_opened(recorded, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"publish.endpoint=tcp://127.0.0.1:{other.getsockname()[1]}"
        settings = load_config(None, [f"ir.uri={recorded['ir']}", f"rgb.uri={recorded['rgb']}", taken])
        with pytest.raises(EndpointUnavailable):
            run_live(settings, SimpleNamespace(stop=threading.Event(), fired=False), Console(quiet=True))
    assert open_files(tmp_path) == []


@needs_proc
@pytest.mark.parametrize("output", ["no/fused.mp4", "ir.mp4"])
def test_fuse_closes_its_recordings_when_the_output_cannot_be_opened(recorded, tmp_path, output):
    settings = load_config(
        None, [f"ir.uri={recorded['ir']}", f"rgb.uri={recorded['rgb']}", "fuse.fuser=pyramid", "playback.speed=max"]
    )
    with pytest.raises((OutputUnwritable, OutputExists)):
        fuse_recordings(settings, SimpleNamespace(stop=threading.Event()), Console(quiet=True), tmp_path / output)
    assert open_files(tmp_path) == []


def test_sources_are_closed_when_the_rig_cannot_be_fitted():
    sources = {s: list_source(s, 3, live=True) for s in ("ir", "rgb")}
    settings = load_config(None, ["playback.speed=max", "fuse.fuser=pyramid", "ir.uri=x", "rgb.uri=x"])
    with pytest.raises(ConfigError, match="is for recordings"):
        open_rig(settings, sources={s: lambda s=s: sources[s] for s in sources})
    assert [source.closed for source in sources.values()] == [True, True]


def test_the_error_of_a_fuser_comes_first_and_leaves_no_source_open(tmp_path):
    there, missing = list_source("ir", 3), tmp_path / "no.mp4"
    settings = load_config(None, [f"fuse.weights={tmp_path}/no.xml", "ir.uri=x", f"rgb.uri={missing}"])
    with pytest.raises(WeightsMissing, match=r"no\.xml"):
        open_rig(settings, sources={"ir": lambda: there})
    assert there.closed


def test_a_rig_closes_its_sources():
    sources = {s: list_source(s, 3) for s in ("ir", "rgb")}
    settings = load_config(None, ["fuse.fuser=pyramid", "ir.uri=x", "rgb.uri=x"])
    with open_rig(settings, sources={s: lambda s=s: sources[s] for s in sources}):
        assert [source.closed for source in sources.values()] == [False, False]
    assert [source.closed for source in sources.values()] == [True, True]


def test_age_is_measured_at_the_sink_that_is_named():
    settings = load_config(None, ["fuse.fuser=pyramid", "ir.uri=x", "rgb.uri=x", "playback.speed=max"])

    def rig():
        sources, begun_ns = {s: list_source(s, 10) for s in ("ir", "rgb")}, time.monotonic_ns()
        opened = {s: lambda s=s: sources[s] for s in sources}
        return open_rig(settings, sources=opened, clock=lambda: time.monotonic_ns() - begun_ns)

    class Late(Memory):
        def write(self, fused):
            time.sleep(0.05)
            super().write(fused)

    sinks, ages = {"first": Memory(), "second": Late()}, {}
    for name in sinks:
        with rig() as opened:
            ages[name] = Pipeline(opened, sinks, age_at=name).run().delay_ms[0]
    assert ages["second"] > ages["first"] + 40
    with rig() as opened, pytest.raises(ValueError, match="no sink is called 'third'; want one of first, second"):
        Pipeline(opened, sinks, age_at="third")
