"""Recording both streams and replaying them: the same counts, times and pairs; kills, splits, full disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import av
import numpy as np
import pytest
from msgspec.structs import replace as replace_setting

from rtfuse.config import Config, Fuse, Playback, Publish, Raw, SourceSettings, Sync
from rtfuse.errors import OutputExists, OutputUnwritable, SourceNotFound, SourceUnreadable
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.outputs import open_raw
from rtfuse.pipeline.run import Pipeline
from rtfuse.record.format import FrameTimes, part_path
from rtfuse.record.raw import RawRecorder
from rtfuse.record.replay import Replay
from rtfuse.record.session import record
from rtfuse.types import Frame, SourceInfo, Stamp

MS = 1_000_000
W, H = 64, 48


def infos(dtype="uint16"):
    return {
        "ir": SourceInfo("ir", "ir", (W, H), dtype, live=True, rate_hz=30.0),
        "rgb": SourceInfo("rgb", "rgb", (W, H), "uint8", live=True, rate_hz=30.0),
    }


def frames(count=30, seed=0, dtype=np.uint16, shape=(H, W)):
    """Frames of both streams with times that milliseconds cannot hold."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        t_ns = 7_000_000_000_000 + k * 33_333_333 + int(rng.integers(0, 999_999))
        ir = rng.integers(0, np.iinfo(dtype).max, shape, dtype)
        rgb = np.clip(np.add.outer(np.arange(shape[0]), np.arange(shape[1]))[..., None] + [0, 40, k], 0, 255)
        made.append(Frame("ir", ir, 2 * k, t_ns, Stamp.END, t_ns + 4_000_001, frozen=k % 7 == 3))
        made.append(Frame("rgb", rgb.astype(np.uint8), k, t_ns - 1_234_567, Stamp.EXPOSURE, t_ns + 5_000_003))
    return made


def write(path, made, **options):
    given = options.pop("given", infos())
    recorder = RawRecorder(path, given, reserve_bytes=0, **options)
    for frame in made:
        recorder.write(frame)
        while recorder._waiting.full():
            time.sleep(0.001)
    recorder.close()
    assert not recorder.losses
    return recorder


def facts(frame):
    return frame.frame_id, frame.t_ns, frame.stamp, frame.arrival_ns, frame.frozen


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("codec", ["h264", "ffv1", "mjpeg"])
def test_a_recording_gives_back_what_was_recorded(tmp_path, codec, dtype):
    made = frames(dtype=dtype)
    write(tmp_path / "a.mkv", made, rgb_codec=codec, given=infos(np.dtype(dtype).name))
    for stream in ("ir", "rgb"):
        source = Replay(str(tmp_path / "a.mkv"), stream)
        want, got = [f for f in made if f.stream == stream], list(source)
        assert [facts(f) for f in got] == [facts(f) for f in want]
        assert source.info.size_wh == (W, H)
        assert source.info.dtype == want[0].image.dtype.name
        assert source.info.start_ns == want[0].t_ns
        assert not source.losses
        for a, b in zip(got, want, strict=True):
            if stream == "ir" or codec == "ffv1":
                assert np.array_equal(a.image, b.image)
            else:
                assert np.abs(a.image.astype(int) - b.image).mean() < 6


def test_any_player_opens_it_and_finds_the_settings(tmp_path):
    write(tmp_path / "a.mkv", frames(), metadata={"config": "rig: van", "calibration": ""})
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert [v.metadata["title"] for v in container.streams.video] == ["thermal", "RGB"]
        assert [v.codec_context.name for v in container.streams.video] == ["ffv1", "h264"]
        assert container.metadata["RTFUSE_CONFIG"] == "rig: van"
        assert json.loads(container.metadata["RTFUSE_SOURCES"])["ir"]["size"] == [W, H]
        pts = [p.pts for p in container.demux(container.streams.video[1]) if p.size]
        assert np.abs(np.diff(pts) - 33.3).max() <= 2  # milliseconds: it plays at the right speed


def test_odd_sizes(tmp_path):
    given = {s: replace(i, size_wh=(33, 21)) for s, i in infos().items()}
    made = frames(5, shape=(21, 33))
    write(tmp_path / "a.mkv", made, given=given)
    assert [f.image.shape for f in Replay(str(tmp_path / "a.mkv"), "rgb")] == [(21, 33, 3)] * 5


def test_splits_by_time_and_replays_all_parts(tmp_path):
    made = frames(90)
    recorder = write(tmp_path / "a.mkv", made, split_s=1.0)
    assert recorder.parts == [part_path(tmp_path / "a.mkv", k) for k in (1, 2, 3)]
    assert recorder.parts[1].name == "a-0002.mkv"
    for stream in ("ir", "rgb"):
        got = list(Replay(str(tmp_path / "a.mkv"), stream))
        assert [facts(f) for f in got] == [facts(f) for f in made if f.stream == stream]


def test_splits_by_size(tmp_path):
    recorder = write(tmp_path / "a.mkv", frames(60), split_bytes=100_000)
    sizes = [part.stat().st_size for part in recorder.parts]
    assert len(sizes) > 2
    assert all(80_000 < size < 180_000 for size in sizes[:-1])


def test_a_camera_that_comes_back_with_another_size_begins_a_new_part(tmp_path):
    first, second = frames(10), [replace(f, t_ns=f.t_ns + 10**9) for f in frames(10, shape=(24, 32))]
    second = [f if f.stream == "ir" else replace(f, content=first[1].image) for f in second]  # only thermal has changed
    recorder = write(tmp_path / "a.mkv", first + second)
    assert len(recorder.parts) == 2
    assert [f.image.shape for f in Replay(str(tmp_path / "a.mkv"), "ir")] == [(48, 64)] * 10 + [(24, 32)] * 10
    assert len(list(Replay(str(tmp_path / "a.mkv"), "rgb"))) == 20


def test_one_stream_may_be_silent(tmp_path):
    made = [f for f in frames(60) if f.stream == "rgb" or f.frame_id < 20]
    write(tmp_path / "a.mkv", made)
    assert len(list(Replay(str(tmp_path / "a.mkv"), "ir"))) == 10
    assert len(list(Replay(str(tmp_path / "a.mkv"), "rgb"))) == 60


def test_a_recording_is_not_overwritten_without_a_word(tmp_path):
    path = tmp_path / "a.mkv"
    write(path, frames(90), split_s=1.0)
    with pytest.raises(OutputExists, match="exists; choose another name or give --force"):
        RawRecorder(path, infos())
    path.unlink()
    with pytest.raises(OutputExists, match=r"a-0002\.mkv exists"):
        RawRecorder(path, infos())
    write(path, frames(5), force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mkv"]


@pytest.mark.parametrize(
    ("name", "fault"), [("a.mp4", "must end in .mkv"), ("none/a.mkv", "does not exist"), ("dir.mkv", "exists")]
)
def test_a_wrong_name_is_an_error(tmp_path, name, fault):
    (tmp_path / "dir.mkv").mkdir()
    with pytest.raises((OutputUnwritable, OutputExists), match=fault):
        RawRecorder(tmp_path / name, infos(), reserve_bytes=0)


def test_nothing_recorded_leaves_nothing(tmp_path):
    RawRecorder(tmp_path / "a.mkv", infos(), reserve_bytes=0).close()
    assert list(tmp_path.iterdir()) == []


def test_without_room_it_does_not_begin(tmp_path):
    with pytest.raises(OutputUnwritable, match=r"MB are free, raw\.reserve_mb keeps"):
        RawRecorder(tmp_path / "a.mkv", infos(), reserve_bytes=10**18)
    assert list(tmp_path.iterdir()) == []


def test_it_ends_cleanly_before_the_disk_is_full(tmp_path, caplog):
    """The reserve is set so that this very recording uses it up."""
    free = shutil.disk_usage(tmp_path).free
    recorder = RawRecorder(tmp_path / "a.mkv", infos(), reserve_bytes=free - 4_000_000)
    made, start = frames(30, shape=(H, W)), time.monotonic()
    while recorder.stopped is None and time.monotonic() < start + 30:
        (tmp_path / f"other-{time.monotonic()}").write_bytes(bytes(200_000))
        for frame in made:
            recorder.write(frame)
        time.sleep(0.05)
    assert "MB are free on the disk" in recorder.stopped
    recorder.close()
    with av.open(str(tmp_path / "a.mkv")) as container:
        assert container.duration  # it is complete
    assert "recording to" in caplog.text
    assert len(list(Replay(str(tmp_path / "a.mkv"), "ir"))) == recorder.frames["ir"] > 0


def test_a_disk_that_fails_ends_the_recording_not_the_run(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    path = tmp_path / "a.mkv"
    recorder = RawRecorder(path, infos(), reserve_bytes=0)
    path.unlink()
    path.symlink_to("/dev/full")
    for _ in range(20):
        for frame in frames(20):
            recorder.write(frame)
        time.sleep(0.02)
    recorder.close()
    assert recorder.stopped
    recorder.write(frames(1)[0])


RECORD_FOREVER = """
import sys, time, numpy as np
sys.path.insert(0, "tests")
from tests.record.test_raw import infos, frames
from rtfuse.record.raw import RawRecorder
from dataclasses import replace
recorder = RawRecorder(sys.argv[1], infos(), reserve_bytes=0)
made, k = frames(30), 0
while True:
    for stream in made[2 * (k % 30) : 2 * (k % 30) + 2]:
        now = time.monotonic_ns()
        recorder.write(replace(stream, frame_id=k, t_ns=now, arrival_ns=now))
    print(now, flush=True)
    k += 1
    time.sleep(1 / 30)
"""


def test_a_kill_costs_the_last_second_at_most(tmp_path):
    path = tmp_path / "a.mkv"
    process = subprocess.Popen([sys.executable, "-c", RECORD_FOREVER, str(path)], stdout=subprocess.PIPE, text=True)
    last_ns = [int(process.stdout.readline()) for _ in range(120)][-1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for stream in ("ir", "rgb"):
        got = list(Replay(str(path), stream))
        assert [f.frame_id for f in got] == list(range(len(got)))
        assert last_ns - got[-1].t_ns < 1_000 * MS
        assert np.array_equal(got[3].image, frames(30)[6].image) or stream == "rgb"


@pytest.mark.parametrize("cut", [0.999, 0.7, 0.31])
def test_a_file_that_was_cut_off_gives_what_is_left(tmp_path, cut):
    made = frames(60)
    write(tmp_path / "a.mkv", made)
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: round(cut * len(data))])
    for stream in ("ir", "rgb"):
        want, got = [f for f in made if f.stream == stream], list(Replay(str(tmp_path / "b.mkv"), stream))
        assert [facts(f) for f in got] == [facts(f) for f in want[: len(got)]]
        assert len(got) >= (cut - 0.3) * len(want)


def test_damaged_packets_cost_only_their_own_frames(tmp_path):
    made = frames(60)
    write(tmp_path / "a.mkv", made, rgb_codec="ffv1")
    data = bytearray((tmp_path / "a.mkv").read_bytes())
    for at in np.linspace(0.3, 0.8, 4) * len(data):
        data[int(at) : int(at) + 40] = bytes(40)
    (tmp_path / "b.mkv").write_bytes(data)
    source = Replay(str(tmp_path / "b.mkv"), "ir")
    got, want = list(source), {f.frame_id: f for f in made if f.stream == "ir"}
    assert all(facts(f) == facts(want[f.frame_id]) for f in got)
    assert len(got) > 30


def test_what_is_no_recording_is_an_error(tmp_path):
    with pytest.raises(SourceNotFound, match="recording not found"):
        Replay(str(tmp_path / "none.mkv"), "ir")
    (tmp_path / "text.mkv").write_text("hello")
    with pytest.raises(SourceUnreadable, match="cannot be read"):
        Replay(str(tmp_path / "text.mkv"), "ir")
    with av.open(str(tmp_path / "plain.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=30)
        video.width, video.height, video.pix_fmt = W, H, "gray"
        container.mux(video.encode(av.VideoFrame(W, H, "gray")))
        container.mux(video.encode())
    with pytest.raises(SourceUnreadable, match="is not a recording of `rtfuse record`"):
        Replay(str(tmp_path / "plain.mkv"), "ir")


# ------------------------------------------------------------------------------------------------- the same pairs again


class Noted:
    """A sink that notes what came out."""

    def __init__(self):
        self.seen = []

    def write(self, fused):
        pair = fused.pair
        frames = [(frame.stream, frame.frame_id, frame.t_ns) for frame in pair.frames]
        self.seen.append((fused.mode, frames, pair.reused))

    def close(self):
        pass


SCENE = "synthetic:?live=1&size=64x48&ir_size=48x32&bits=16&jitter_ms=4&drop=0.08&ffc_every_s=1.6&ffc_s=1.4&ir_fps=25"


@pytest.mark.parametrize(("policy", "speed"), [("lead", 1.0), ("lead", "max"), ("strict", 4.0)])
def test_a_replay_pairs_as_the_live_run_did(tmp_path, policy, speed):
    settings = Config(
        ir=SourceSettings(uri=SCENE),
        rgb=SourceSettings(uri=SCENE),
        fuse=Fuse(fuser="pyramid"),
        publish=Publish(endpoint=None),
        raw=Raw(path=str(tmp_path / "live.mkv"), reserve_mb=0),
        sync=Sync(policy=policy),
    )
    rig, live = open_rig(settings), Noted()
    recorder = open_raw(settings, rig.sources)
    taps = [lambda frame: recorder.write(frame.sent)]
    assert not Pipeline(rig, {"noted": live}, age_at="noted", taps=taps).run(duration_s=3.0).recorded
    recorder.close()
    assert not recorder.losses

    settings, start = replace_setting(settings, playback=Playback(speed=speed)), time.monotonic()
    rig, replayed = open_rig(settings, replay=str(tmp_path / "live.mkv")), Noted()
    result = Pipeline(rig, {"noted": replayed}, age_at="noted").run()
    assert len(live.seen) > 45
    both = min(len(live.seen), len(replayed.seen))
    assert both >= len(live.seen) - 1  # the run was cut off at its end
    assert replayed.seen[:both] == live.seen[:both]
    assert {"fused", "rgb"} == set(result.modes)
    assert result.recorded
    assert speed == 1.0 or time.monotonic() - start < 3.0


def test_record_ends_after_so_many_frames_and_sums_up(tmp_path):
    from rtfuse.pipeline.sources import open_lasting

    settings = Config(
        ir=SourceSettings(uri=SCENE), rgb=SourceSettings(uri=SCENE), raw=Raw(path=str(tmp_path / "a.mkv"), reserve_mb=0)
    )
    sources = {stream: open_lasting(settings, stream) for stream in ("ir", "rgb")}
    summary = record(sources, open_raw(settings, sources), threading.Event(), frames=40)
    assert summary.frames["rgb"] >= 40
    assert 20 < summary.frames["ir"] < 60
    assert summary.stopped is None
    assert [f.frozen for f in Replay(str(tmp_path / "a.mkv"), "ir")].count(True) >= 0
    assert summary.table().row_count >= 3


def test_a_damaged_line_of_times_costs_its_own_frame(tmp_path):
    made = frames(30)
    write(tmp_path / "a.mkv", made)
    data = (tmp_path / "a.mkv").read_bytes()
    line = FrameTimes.of(made[20], 10).encode()
    assert made[20].stream == "ir"
    assert data.count(line) == 1
    (tmp_path / "b.mkv").write_bytes(data.replace(line, b"\xff" * len(line)))
    source = Replay(str(tmp_path / "b.mkv"), "ir")
    assert [f.frame_id for f in source] == [f.frame_id for k, f in enumerate(made) if f.stream == "ir" and k != 20]
    assert source.losses == {"corrupt": 1}


def test_a_line_of_times_is_documented_byte_by_byte():
    image = np.zeros((H, W), np.uint8)
    frame = Frame("ir", image, 18, 7123456789012, Stamp.END, 7123461234567)
    assert FrameTimes.of(frame, 17).encode() == b"ir 17 7123456789012 7123461234567 18 end-of-frame 0"
    assert FrameTimes.decode(FrameTimes.of(frame, 17).encode()) == FrameTimes.of(frame, 17)
    for wrong in (b"", b"ir 1 2", b"uv 17 1 1 18 end-of-frame 0", b"ir 17 1 1 18 never 0"):
        with pytest.raises(ValueError, match=r"."):
            FrameTimes.decode(wrong)


@pytest.mark.parametrize(("ir_hz", "tolerance_ms"), [(30.0, 500 / 30), (9.0, 500 / 9), (2.0, 250.0), (None, 20.0)])
def test_a_recording_is_fused_and_replayed_within_the_same_tolerance(tmp_path, ir_hz, tolerance_ms):
    """Pauses make the times of a recording tell another rate than the camera's."""
    made = [frame for k, frame in enumerate(frames(40)) if frame.stream == "rgb" or k % 8 in (0, 2)]
    given = infos() | {"ir": replace(infos()["ir"], rate_hz=ir_hz)}
    path = str(tmp_path / "gaps.mkv")
    write(tmp_path / "gaps.mkv", made, given=given)
    tracks = Config(
        ir=SourceSettings(uri=f"{path}?track=1"), rgb=SourceSettings(uri=f"{path}?track=2"), fuse=Fuse(fuser="pyramid"),
        playback=Playback(speed="max"),
    )  # fmt: skip
    for settings, replay in ((tracks, None), (Config(fuse=Fuse(fuser="pyramid")), path)):
        with open_rig(settings, replay=replay) as rig:
            assert rig.pairer.tolerance_ns / MS == pytest.approx(tolerance_ms, abs=1e-3)
