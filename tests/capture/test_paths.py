"""Paths are paths, whatever their characters; patterns, pipes and lists of recordings are told apart from them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import list_source, write_video

from rtfuse.capture import is_live, open_source
from rtfuse.capture.paths import is_device, is_network, is_pattern, is_pipe, matches
from rtfuse.config import Config
from rtfuse.errors import ConfigError, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.pipeline.sources import SourceOpener
from rtfuse.record.raw import RawRecorder
from rtfuse.record.replay import Replay
from rtfuse.record.video import VideoWriter, open_writer
from rtfuse.settings import to_struct
from rtfuse.types import Fused, Pair

NAMES = [
    "2024-05-01T12:30:45_ir",
    "http:x",
    "concat:a|b",
    "-dash",
    "--force",
    "ir[1] 熱 100%",
    "%04d",
    "50%d",
    "a b\tc",
    "key=value",
    "a?b*c",
    'it\'s "so"',
    "#2",
    ".hidden",
    "pipe|2",
    "ümlaut\udcff",
]
"""A name is a name, also one that FFmpeg takes for a protocol, a pattern or an option."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "v.mkv", 6, codec="libx264")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder is the working folder: relative names have no slash that helps."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fused(k):
    ir, rgb = (list(list_source(stream, 3))[k] for stream in ("ir", "rgb"))
    return Fused(rgb.image, ir.image, Pair(ir, rgb), None, "test")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_of_any_name_is_read_and_written(here, clip, name):
    try:
        (here / f"{name}.mkv").write_bytes(clip.read_bytes())
    except UnicodeEncodeError:
        pytest.skip("the file system takes no such name")
    assert len(list(open_source(f"{name}.mkv", "rgb"))) == 6
    with closing(open_writer(f"{name}_fused.mp4", rate_hz=30)) as writer:
        for k in range(3):
            writer.write(fused(k))
    assert len(list(open_source(f"{name}_fused.mp4", "rgb"))) == 3
    sources = {stream: list_source(stream, 3) for stream in ("ir", "rgb")}
    with closing(RawRecorder(f"{name}_raw.mkv", {s: x.info for s, x in sources.items()}, reserve_bytes=0)) as recorder:
        for frames in zip(*sources.values(), strict=True):
            for frame in frames:
                recorder.write(frame)
    assert recorder.stopped is None
    assert len(list(Replay(f"{name}_raw.mkv", "ir"))) == 3


@pytest.mark.parametrize("name", [name for name in NAMES if "\udcff" not in name])
def test_an_image_of_any_name_is_one_image(here, name):
    for other in ("one", "two"):
        (here / f"{other}.png").write_bytes(cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    (here / f"{name}.png").write_bytes((here / "one.png").read_bytes())
    assert open_source(f"{name}.png", "rgb").info.frames == 1
    (here / f"[{name}]").mkdir()
    (here / "one.png").rename(here / f"[{name}]" / "one.png")
    assert open_source(f"[{name}]", "rgb").info.frames == 1
    assert open_source(f"[{name}]/*.png", "rgb").info.frames == 1
    assert open_source(f"[{name}]/o?[e]*.png", "rgb").info.frames == 1


def test_numbered_patterns_take_the_numbers_that_fit(here):
    for name in ("f1", "f02", "f0003", "f0010", "f12345", "fx", "g0001", "100%_7"):
        (here / f"{name}.png").touch()
    assert sorted(matches("f%04d.png")) == ["f0003.png", "f0010.png", "f12345.png"]
    assert sorted(matches("f%d.png")) == ["f0003.png", "f0010.png", "f02.png", "f1.png", "f12345.png"]
    assert sorted(matches(f"{here}/%c0001.png".replace("%c", "?"))) == [str(here / "g0001.png")]
    assert matches("100%%_%d.png") == ["100%_7.png"]
    with pytest.raises(SourceNotFound, match=r"h%04d\.png"):
        open_source("h%04d.png", "ir")


@pytest.mark.parametrize(
    ("uri", "network", "device", "pattern"),
    [
        ("rtsp://cam/x", True, False, False),
        ("http://cam/x?y=1", True, False, True),
        ("12:30.mp4", False, False, False),
        ("file:x.mp4", False, False, False),
        ("/dev/video0", False, True, False),
        ("/dev/v4l/by-id/usb-x", False, True, False),
        ("/dev/null", False, True, False),
        ("a/%04d.png", False, False, True),
        ("a/100%.png", False, False, False),
        ("a/50%%.png", False, False, False),
        ("a/*.png", False, False, True),
        ("x" * 5000, False, False, False),
        ("zero\0byte", False, False, False),
    ],
)
def test_addresses_devices_and_patterns_are_told_apart(uri, network, device, pattern):
    assert (is_network(uri), is_device(uri), is_pattern(uri)) == (network, device, pattern)
    assert is_live(uri) == (network or device)


def test_a_file_named_like_an_address_is_a_file(here, clip):
    (here / "http:").mkdir()
    (here / "http:" / "v.mkv").write_bytes(clip.read_bytes())
    assert not is_live("http://v.mkv")
    assert len(list(open_source("http://v.mkv", "rgb"))) == 6


def test_a_pipe_is_read_once(clip):
    reading, writing = os.pipe()
    uri = f"/dev/fd/{reading}"
    assert is_pipe(uri)
    assert not is_live(uri)
    threading.Thread(target=lambda: (os.write(writing, clip.read_bytes()), os.close(writing)), daemon=True).start()
    assert len(list(open_source(uri, "rgb"))) == 6
    os.close(reading)


def test_where_a_pipe_cannot_work_it_is_said(here, clip):
    os.mkfifo("pipe.mkv")
    opener = SourceOpener(to_struct({"ir": {"uri": "pipe.mkv"}, "rgb": {"uri": "./pipe.mkv"}}, Config, "test"))
    with pytest.raises(ConfigError, match="both streams name the pipe"):
        opener.check()
    looped = {"ir": {"uri": "pipe.mkv"}, "rgb": {"uri": str(clip)}, "playback": {"loop": True}}
    with pytest.raises(ConfigError, match="is a pipe, which can be read once"):
        SourceOpener(to_struct(looped, Config, "test")).check()
    with pytest.raises(SourceUnreadable, match="is a pipe: a replay"):
        Replay("pipe.mkv", "ir")
    infos = {stream: list_source(stream, 1).info for stream in ("ir", "rgb")}
    with pytest.raises(OutputUnwritable, match="is a pipe"):
        RawRecorder("pipe.mkv", infos, force=True)
    os.mkfifo("pipe.png")
    with pytest.raises(OutputUnwritable, match=r"for a video: want \.mp4"):
        open_writer("pipe.png", force=True)
    mp4 = write_video(here / "whole.mp4", 60, size_wh=(320, 240))
    reading, writing = os.pipe()
    threading.Thread(target=lambda: (os.write(writing, mp4.read_bytes()), os.close(writing)), daemon=True).start()
    with pytest.raises(SourceUnreadable, match="through a pipe, send Matroska"):
        list(open_source(f"/dev/fd/{reading}", "rgb"))
    os.close(reading)


@pytest.mark.parametrize("name", ["out.mp4", "out", "out.webm"])
def test_a_pipe_takes_fused_video(here, name):
    os.mkfifo(name)
    taken = []
    reader = threading.Thread(target=lambda: taken.append(Path(name).read_bytes()))
    reader.start()
    with closing(open_writer(name, rate_hz=30)) as writer:
        assert isinstance(writer, VideoWriter)
        for k in range(3):
            writer.write(fused(k))
    reader.join(20)
    assert is_pipe(name)
    (here / "taken.bin").write_bytes(taken[0])
    assert len(list(open_source("taken.bin", "rgb"))) == 3


def test_a_list_of_recordings_is_one_recording_and_only_under_its_name(here, clip):
    (here / "12:30 [1].mkv").write_bytes(clip.read_bytes())
    text = f"ffconcat version 1.0\nfile '12:30 [1].mkv'\nfile '{clip}'\n"
    (here / "both.ffconcat").write_text(text)
    assert len(list(open_source("both.ffconcat", "rgb"))) == 12
    (here / "innocent.mp4").write_text(text)
    with pytest.raises(SourceUnreadable, match=r"suffix \.ffconcat"):
        open_source("innocent.mp4", "rgb")
    (here / "net.ffconcat").write_text("ffconcat version 1.0\nfile 'http://127.0.0.1:9/x.mp4'\n")
    with pytest.raises(SourceUnreadable):
        open_source("net.ffconcat", "rgb")
    (here / "lost.ffconcat").write_text("ffconcat version 1.0\nfile 'absent.mkv'\n")
    with pytest.raises(SourceUnreadable):
        open_source("lost.ffconcat", "rgb")
    (here / "later.ffconcat").write_text(f"ffconcat version 1.0\nfile '{clip}'\nfile 'absent.mkv'\n")
    with pytest.raises(SourceUnreadable, match="cannot be read to its end: No such file"):
        list(open_source("later.ffconcat", "rgb"))


def test_a_recording_that_never_opened_is_an_error(here):
    infos = {stream: list_source(stream, 1).info for stream in ("ir", "rgb")}
    recorder = RawRecorder("x.mkv", infos, reserve_bytes=0)
    Path("x.mkv").unlink()
    Path("x.mkv").mkdir()
    recorder.write(next(iter(list_source("ir", 1))))
    with pytest.raises(OutputUnwritable, match=r"x\.mkv"):
        recorder.close()


def test_the_command_takes_such_names_and_process_substitution(here, clip):
    colon = here / "2024-05-01T12:30:45_ir.mkv"
    colon.write_bytes(clip.read_bytes())
    script = (
        f"{sys.executable} -m rtfuse fuse {colon.name} <(cat {clip}) -o >(cat > got.mkv) --fuser pyramid;"
        "status=$?; sleep 0.3; exit $status"
    )
    env = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(open_source("got.mkv", "rgb"))) == 6
