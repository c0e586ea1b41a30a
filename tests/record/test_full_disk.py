"""A disk that becomes full under a recording: the file is whole, the line is there, the rig goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import av
import pytest

LIMIT = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), -1))
"""
COMMAND = LIMIT + "from rtfuse.__main__ import main; main()"
LIVE = (
    LIMIT
    + """
import numpy as np
from scenes import make_frame
from rtfuse.record.live import LiveRecording
from rtfuse.record.video import open_writer
from rtfuse.types import Fused, Pair
recording, rng = LiveRecording(open_writer(sys.argv[1], rate_hz=30)), np.random.default_rng(1)
for k in range(150):
    ir, rgb = (make_frame(stream, k, size_wh=(160, 120)) for stream in ("ir", "rgb"))
    image = rng.normal(rgb.image, 30).clip(0, 255).astype(np.uint8)
    recording.write(Fused(image, ir.image, Pair(ir, rgb), None, "test"))
recording.close()
print(recording.drops["record", "ended"])
"""
)
ENV = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def run(program, limit_bytes, *args):
    command = [sys.executable, "-c", program, str(limit_bytes), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, timeout=120, check=False)


@pytest.mark.parametrize(("suffix", "limit_bytes"), [("mkv", 1_200_000), ("mp4", 1_200_000), ("mov", 1_500_000)])
def test_a_live_recording_is_completed(tmp_path, suffix, limit_bytes):
    path = tmp_path / f"o.{suffix}"
    ran = run(LIVE, limit_bytes, path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("recording of fused video has ended") == 1
    assert "File too large; the file is complete up to here, and the rig goes on" in ran.stderr
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size < limit_bytes
    with av.open(str(path)) as container:
        (video,) = container.streams.video
        frames = sum(1 for _ in container.decode(video))
        assert container.duration == pytest.approx(1e6 * frames / 30, rel=0.1)
    assert frames > 5
    assert 150 - 64 <= int(ran.stdout) + frames <= 150  # some may be lost in the encoder


def test_the_room_that_is_kept_is_given_back_and_a_folder_keeps_whole_pictures_alone(tmp_path):
    ran = run(LIVE.replace("150", "5"), 500_000_000, tmp_path / "o.mp4")
    assert (ran.returncode, ran.stdout) == (0, "0\n")
    assert (tmp_path / "o.mp4").stat().st_blocks * 512 < (tmp_path / "o.mp4").stat().st_size + 100_000
    ran = run(LIVE.replace("150", "5"), 20_000, tmp_path / "pictures")
    assert "recording of fused video has ended" in ran.stderr
    assert not list((tmp_path).glob("**/.*"))


SCENE = "synthetic:?size=320x240&noise=12&live=true"


def test_the_rig_goes_on_and_a_job_on_files_ends_with_the_reason(tmp_path):
    path = tmp_path / "o.mp4"
    inputs = ("--ir", SCENE, "--rgb", SCENE, "--fuser", "pyramid", "--publish", "off")
    ran = run(COMMAND, 1_200_000, "run", *inputs, "--record", path, "--frames", "60")
    assert ran.returncode == 0, ran.stderr
    assert "the file is complete up to here, and the rig goes on" in " ".join(ran.stderr.split())
    assert "came after the recording had ended" in ran.stdout
    assert path.exists()
    scene = SCENE.replace("live=true", "duration_s=4")
    ran = run(COMMAND, 1_200_000, "fuse", scene, scene, "-o", tmp_path / "p.mp4", "--fuser", "pyramid")
    assert ran.returncode == 2
    assert "p.mp4 cannot be written: File too large" in ran.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.mp4"]
