"""Outputs that cannot be written are errors before a fuser, an address or a camera is opened, and a line printed."""

from __future__ import annotations

import io
import os
import re
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from rtfuse.cli.commands import fuse_recordings, record_raw, run_live
from rtfuse.config import load_config
from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.pipeline.outputs import check_outputs

ABSENT = ("ir.uri=/dev/video98", "rgb.uri=/dev/video99", "fuse.weights=/nowhere/no.xml", "publish.endpoint=null")
"""Sources and weights that are not there: opening them would be another error."""

WRONG = {
    "record.path={tmp}/out.xyz": (OutputUnwritable, "unknown format .xyz"),
    "record.path={tmp}/no/out.mp4": (OutputUnwritable, "no/out.mp4 cannot be written"),
    "record.path={tmp}/there.mkv": (OutputExists, "there.mkv exists"),
    "raw.path={tmp}/out.mp4": (OutputUnwritable, "must end in .mkv"),
    "raw.path={tmp}/no/raw.mkv": (OutputUnwritable, "does not exist"),
    "raw.path={tmp}/there.mkv": (OutputExists, "there.mkv exists"),
    "trace={tmp}/there.mkv": (OutputExists, "already exists"),
    "trace={tmp}": (OutputUnwritable, "is a folder"),
    "trace={tmp}/no/trace.json": (OutputUnwritable, "cannot be written"),
}


@pytest.fixture
def there(tmp_path):
    (tmp_path / "there.mkv").write_bytes(b"kept")
    return tmp_path


@pytest.mark.parametrize("setting", WRONG)
def test_run_checks_its_files_first(there, setting):
    error, words = WRONG[setting]
    settings = load_config(None, [*ABSENT, setting.format(tmp=there)])
    with pytest.raises(error, match=re.escape(words)):
        run_live(settings, SimpleNamespace(stop=threading.Event(), fired=False), Console(quiet=True))
    assert [path.name for path in there.iterdir()] == ["there.mkv"]


def test_record_checks_its_file_first(there):
    for name, error in (("there.mkv", OutputExists), ("no/raw.mkv", OutputUnwritable), ("out.mp4", OutputUnwritable)):
        settings = load_config(None, [*ABSENT, f"raw.path={there / name}"])
        with pytest.raises(error):
            record_raw(settings, SimpleNamespace(stop=threading.Event()), Console(quiet=True))
    assert (there / "there.mkv").read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("output", "picture", "error"),
    [
        ("there.mkv", None, OutputExists),
        ("out.xyz", None, OutputUnwritable),
        ("no/out.mp4", None, OutputUnwritable),
        ("out.mp4", "there.mkv", OutputUnwritable),
        ("out.mp4", "no/picture.png", OutputUnwritable),
        ("out.png", "out.png", OutputUnwritable),
    ],
)
def test_fuse_checks_its_files_before_it_prints(there, output, picture, error):
    settings, text = load_config(None, [*ABSENT, "playback.speed=max"]), io.StringIO()
    signals = SimpleNamespace(stop=threading.Event(), fired=False)
    with pytest.raises(error):
        fuse_recordings(
            settings, signals, Console(file=text), there / output, picture=None if picture is None else there / picture
        )
    assert text.getvalue() == ""
    assert [path.name for path in there.iterdir()] == ["there.mkv"]


def test_two_outputs_of_one_file_are_refused(tmp_path):
    os.symlink(tmp_path / "one.mkv", tmp_path / "two.mkv")
    settings = load_config(None, [f"record.path={tmp_path}/one.mkv", f"raw.path={tmp_path}/two.mkv"])
    with pytest.raises(OutputUnwritable, match="name the same file"):
        check_outputs(settings)


def test_a_disk_with_too_little_room_is_told(tmp_path):
    settings = load_config(None, [f"raw.path={tmp_path}/raw.mkv", "raw.reserve_mb=1e12"])
    with pytest.raises(OutputUnwritable, match=r"MB are free, raw\.reserve_mb keeps 1000000000000"):
        check_outputs(settings)


def test_outputs_that_can_be_written_leave_nothing(there):
    forced = [
        f"record.path={there}/there.mkv",
        "record.force=true",
        f"raw.path={there}/raw.mkv",
        f"trace={there}/t.json",
    ]
    check_outputs(load_config(None, forced))
    assert [path.name for path in there.iterdir()] == ["there.mkv"]
