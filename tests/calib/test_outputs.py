"""Outputs of `calib` are checked before the work begins, written whole or not at all; each fault is one line."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

import rtfuse.outputs
from calib.cli.main import app
from calib.overlay import write_picture
from calib.pattern import write_pattern
from calib.session import Session, save_camera, save_session
from calib.targets import parse_board
from rtfuse.align.calibration import Calibration, Camera, matrix3, save_calibration
from rtfuse.errors import ConfigError, OutputExists, OutputUnwritable
from rtfuse.outputs import check_folder, check_output, write_whole

COMMANDS = {
    "pattern": ("pattern", "checkerboard:9x6:25mm", "-o", "OUT.svg"),
    "boards": ("boards", "--board", "checkerboard:9x6:25mm", "--ir", "absent.mkv", "-o", "OUT"),
    "stereo": ("stereo", "absent", "-o", "OUT.yaml"),
    "homography": ("homography", "absent.yaml", "-o", "OUT.yaml"),
    "register": ("register", "--ir", "absent.mkv", "--rgb", "absent.mkv", "-o", "OUT.yaml"),
    "overlay": ("register", "--ir", "absent.mkv", "--rgb", "absent.mkv", "-o", "c.yaml", "--overlay", "OUT.jpg"),
    "report": ("report", "absent.yaml", "-o", "OUT.html"),
    "convert": ("convert", "absent.yaml", "--to", "rtfuse", "-o", "OUT.yaml"),
}
FLAT = Calibration(ir=Camera(size_wh=(64, 48)), rgb=Camera(size_wh=(64, 48)), H_rgb_from_ir=matrix3(np.eye(3)))


def run(*arguments):
    typer.main.get_command(app)(list(arguments), standalone_mode=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_is_checked_before_the_work_begins(tmp_path, monkeypatch, name):
    """None of the inputs exists: an error about the output is one that came first."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    places = {"file/OUT": OutputUnwritable, "y" * 300: OutputUnwritable}
    if name != "boards":  # which makes its folder
        places["missing/OUT"] = OutputUnwritable
        taken = tmp_path / next(a for a in COMMANDS[name] if "OUT" in a).replace("OUT", "taken")
        taken.touch()
        places["taken"] = OutputExists
        taken.with_stem("folder").mkdir()
        places["folder"] = OutputUnwritable
    for place, error in places.items():
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(error):
            run(*(a.replace("OUT", place) for a in COMMANDS[name]))
        assert sorted(tmp_path.rglob("*")) == before
    if name in ("pattern", "overlay"):
        with pytest.raises(OutputUnwritable, match="has no suffix; want one of"):
            run(*(a.partition(".")[0] if "OUT" in a else a for a in COMMANDS[name]))


def test_a_calibration_that_gets_an_offset_is_read_before_the_recordings(tmp_path):
    from rtfuse.errors import CalibrationError

    with pytest.raises(CalibrationError, match="absent"):
        run("timing", "--ir", "a.mkv", "--rgb", "b.mkv", "--into", str(tmp_path / "absent.yaml"))


WRITERS = {
    "calibration": lambda path: save_calibration(FLAT, path),
    "camera": lambda path: save_camera(Camera(size_wh=(64, 48)), path),
    "pattern": lambda path: write_pattern(parse_board("checkerboard:5x4:25mm"), path),
    "picture": lambda path: write_picture(path, np.zeros((8, 8, 3), np.uint8)),
    "session": lambda path: save_session(Session(board="checkerboard:9x6:25mm"), path.parent),
}
NAMES = {"pattern": "x.svg", "picture": "x.png", "session": "boards.json"}


@pytest.mark.parametrize("name", WRITERS)
def test_on_a_full_disk_the_old_file_stays(tmp_path, monkeypatch, name):
    """A write that the disk does not take leaves the file as it was, and nothing beside it."""
    path = tmp_path / NAMES.get(name, "x.yaml")
    path.write_text("old")

    def full(descriptor):
        os.ftruncate(descriptor, 1)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rtfuse.outputs.os, "fsync", full)
    with pytest.raises(OutputUnwritable, match="No space left"):
        WRITERS[name](path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_links_modes_and_devices_stay_what_they_are(tmp_path):
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode & 0o777 == 0o640
    write_whole("/dev/null", b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OutputUnwritable, match="No space left"):
        write_whole("/dev/full", b"gone")
    assert Path("/dev/full").is_char_device()
    assert check_output(Path("/dev/null")) == Path("/dev/null")
    with pytest.raises(OutputUnwritable, match="is a file; name a folder"):
        check_folder(target / "in" / "it")
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("board", "why"),
    [
        ("checkerboard:2x2:25mm", "is too small; want 3x3"),
        ("checkerboard:2x7:25mm", "is too small; want 3x3"),
        ("charuco:3x3:30mm:22mm", "is too small; want 4x4"),
        ("charuco:40x40:5mm:3mm", "more than 250 different markers"),
    ],
)
def test_a_board_that_cannot_be_found_is_refused(board, why):
    with pytest.raises(ConfigError, match=why):
        parse_board(board)


def calib(*arguments, env=None, **how):
    return subprocess.run(
        [sys.executable, "-m", "calib", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=100,
        env=os.environ | (env or {}),
        check=False,
        **how,
    )


def test_no_stream_and_no_locale_ends_in_a_traceback(tmp_path):
    """ASCII alone, names that look like markup, and a standard output that is full or closed."""
    (tmp_path / "[").mkdir()
    save_calibration(FLAT, tmp_path / "[/b] ±.yaml")
    report = ("report", tmp_path / "[/b] ±.yaml", "--force", "-o")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = calib(*report, tmp_path / "[red]é.html", env=ascii_only, stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[red]" in done.stdout
    assert (tmp_path / "[red]é.html").exists()
    with open("/dev/full", "w") as full:
        done = calib(*report, tmp_path / "r.html", stdout=full)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
    assert (tmp_path / "r.html").exists()
    command = f'"{sys.executable}" -m calib report "{report[1]}" -o "{tmp_path}/s.html" >&-'
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "s.html").exists()
