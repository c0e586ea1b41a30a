"""`rtfuse fuse` on recordings of every kind of time: right pairs, read back from the pixels, or a word and a count."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import chain

import av
import pytest
from strips import pairs_in, steady, write
from typer.testing import CliRunner

from rtfuse.cli.main import app

N = 40
TICKS = 90_000
SAME = [(k, k) for k in range(N)]


@dataclass
class Case:
    """Options of `strips.write` for both recordings (`name`, `n`, `times`), and the expected output."""

    ir: dict = field(default_factory=dict)
    rgb: dict = field(default_factory=dict)
    options: tuple = ()
    pairs: list = field(default_factory=lambda: SAME)
    said: tuple = ()
    unsaid: tuple = ("superseded", "late", "corrupt", "truncated", "repaired")
    status: int = 0
    after: object = None
    """Changes the RGB file once it is written."""


def shifted(ticks, *, wrap=None):
    """Move every packet's times; `wrap`: modulo so many ticks."""

    def change(packet):
        by = round(ticks / TICKS / packet.time_base)
        for name in ("pts", "dts"):
            t = getattr(packet, name) + by
            setattr(packet, name, t if wrap is None else t % wrap)

    return change


def reordered(places):
    """Give the k-th packet the time of another, its order stays: MJPEG takes any times."""
    count = iter(range(1000))

    def change(packet):
        k = next(count)
        packet.pts, packet.dts = (round(t / 30 / packet.time_base) for t in (places.get(k, k), k - 10))

    return change


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def joined(path):
    """Append the recording to itself: two transport streams, one behind the other."""
    path.write_bytes(path.read_bytes() * 2)


BEHIND = [(k - 15, k) for k in range(15, N)]
MJPEG = {"codec": "mjpeg", "pix_fmt": "yuvj420p"}
PAUSED = [*steady(20), *steady(20, start_s=600)]
FASTSTART = {"movflags": "faststart"}
CASES = {
    "B-frames": Case(rgb={"b_frames": 3}),
    "B-frames in AVI": Case(rgb={"name": "v.avi", "b_frames": 3, "muxed": shifted(6000)}),
    "joined transport streams": Case(
        ir={"n": 2 * N},
        rgb={"name": "v.ts"},
        options=("--align-starts",),
        after=joined,
        pairs=[(k, k % N) for k in range(2 * N)],
        said=("the clock began again once",),
        unsaid=("late", "no_ir", "damaged"),
    ),
    "a clock that overflows": Case(
        rgb={"name": "v.ts", "muxed": shifted(2**33 - 60_000)}, options=("--align-starts",), unsaid=("late", "no_ir")
    ),
    "times turned round": Case(
        rgb={"name": "v.mkv", **MJPEG, "muxed": reordered({20: 23, 21: 22, 22: 21, 23: 20})},
        said=("4 frames had a time out of order",),
        unsaid=("late", "no_ir"),
    ),
    "times twice": Case(
        rgb={"name": "v.mkv", **MJPEG, "muxed": reordered({11: 10, 31: 30})},
        said=("2 frames had a time out of order",),
        unsaid=("late", "no_ir"),
    ),
    "another origin": Case(
        rgb={"name": "v.mkv", "start_s": 0.5},
        pairs=[(k + 15, k) for k in range(25)] + [(39, k) for k in range(25, 29)],
        said=("thermal began 0.500 s before RGB", "--align-starts"),
        unsaid=(),
    ),
    "another origin, aligned": Case(rgb={"name": "v.mkv", "start_s": 36_000.5}, options=("--align-starts",)),
    "a transport stream's origin, aligned": Case(
        ir={"b_frames": 2}, rgb={"name": "v.ts", "b_frames": 3}, options=("--align-starts",)
    ),
    "Flash": Case(rgb={"name": "v.flv"}),
    "the last picture lasts": Case(rgb={"last_s": 1.0}),
    "both paused": Case(ir={"times": PAUSED}, rgb={"times": PAUSED}, said=("paired within 16.7 ms",)),
    "thermal paused": Case(
        ir={"times": PAUSED},
        rgb={"n": 60, "times": [*steady(20), *(1.0 + k for k in range(20)), *steady(20, start_s=600)]},
        pairs=[(k, k) for k in range(20)] + [(k, k + 20) for k in range(20, 40)],
        said=("20 rgb: no thermal frame",),
    ),
    "a slow thermal camera": Case(
        ir={"n": 3, "times": steady(3, rate=1)},
        rgb={"n": 61},
        said=("thermal has 1 Hz", "sync.tolerance_ms=500"),
        pairs=[(0, k) for k in range(5)] + [(1, k) for k in range(29, 35)] + [(2, 59), (2, 60)],
        unsaid=("late",),
    ),
    "bursts": Case(
        rgb={"times": [(k // 5) / 6 + (k % 5) * 2e-4 for k in range(N)]}, pairs=[(k // 5 * 5, k) for k in range(N)]
    ),
    "a raw stream with a rate": Case(rgb={"name": "v.mjpeg", **MJPEG}, options=("rgb.fps=30",), unsaid=("no effect",)),
    "a raw stream without a rate": Case(
        ir={"times": steady(N, rate=25)},
        rgb={"name": "v.mjpeg", **MJPEG},
        said=("has no times: 25 Hz is assumed; rgb.fps= sets another",),
    ),
    "thermal goes on": Case(ir={"n": 100}, said=("60 ir: no RGB frame near enough (no_rgb)",)),
    "a repeated thermal picture": Case(
        ir={
            "name": "t.mkv",
            "codec": "ffv1",
            "pix_fmt": "gray16le",
            "deep": True,
            "numbers": [*range(10), *[9] * 20, *range(30, N)],
        },
        pairs=[(9 if 10 <= k < 30 else k, k) for k in range(N)],
        said=("20 of 40 thermal pictures repeat",),
        unsaid=("frozen", "no_ir"),
    ),
    "creation times": Case(
        ir={"name": "t.mkv", "metadata": {"creation_time": "2024-05-01T12:00:00.500000Z"}},
        rgb={"name": "v.mkv", "metadata": {"creation_time": "2024-05-01T12:00:00.000000Z"}},
        pairs=BEHIND,
        said=("by their creation times, thermal began 0.500 s after RGB",),
        unsaid=(),
    ),
    "creation times of whole seconds": Case(
        ir={"n": 90, "metadata": {"creation_time": "2024-05-01T12:00:00Z"}},
        rgb={"n": 60, "metadata": {"creation_time": "2024-05-01T12:00:01Z"}},
        pairs=[(k + 30, k) for k in range(60)],
        said=("up to 1 s off", "sync.starts=own"),
        unsaid=("no_ir",),
    ),
    "creation times that do not overlap": Case(
        ir={"metadata": {"creation_time": "2024-05-01T12:00:00Z"}},
        rgb={"metadata": {"creation_time": "2024-05-01T13:00:00Z"}},
        said=("not used", "hardly overlap"),
    ),
    "time codes": Case(
        ir={"name": "t.mov", "metadata": {"timecode": "10:00:00:15"}},
        rgb={"name": "v.mov", "metadata": {"timecode": "10:00:00:00"}},
        pairs=BEHIND,
        said=("by their time codes",),
        unsaid=(),
    ),
    "time codes, but by first frames": Case(
        ir={"name": "t.mov", "metadata": {"timecode": "10:00:00:15"}},
        rgb={"name": "v.mov", "metadata": {"timecode": "10:00:00:00"}},
        options=("--align-starts",),
    ),
}
CUT = {
    "MP4": {"name": "v.mp4", "mux": FASTSTART},
    "fragmented MP4": {"name": "v.mp4", "mux": {"movflags": "frag_keyframe+empty_moov"}},
    "Matroska": {"name": "v.mkv"},
    "AVI": {"name": "v.avi", "codec": "mpeg4"},
    "Flash": {"name": "v.flv"},
    "transport stream": {"name": "v.ts"},
}


def recorded(path, *, n=N, numbers=None, times=None, name=None, **options):
    count = len(times) if times else n
    return write(
        path if name is None else path.with_name(name), numbers or range(count), times or steady(count), **options
    )


@pytest.fixture
def fused(tmp_path, caplog):
    """Run the command; returns its status, the pairs, their times, and everything that it said."""
    caplog.set_level(logging.INFO, logger="rtfuse")

    def run(*args):
        output = tmp_path / "fused.mkv"
        command = ["fuse", *map(str, args), "-o", str(output), "--side-by-side", "--fuser", "pyramid"]
        done = CliRunner(env={"COLUMNS": "300"}).invoke(app, command)
        said = " ".join((done.output + caplog.text + str(done.exception or "")).split())
        return done.exit_code, *(pairs_in(output) if output.exists() else ([], [])), said

    return run


@pytest.mark.parametrize("name", CASES)
def test_every_frame_is_paired_with_its_own_or_counted(fused, tmp_path, name):
    case = CASES[name]
    ir = recorded(tmp_path / "t.mp4", gray=True, **case.ir)
    rgb = recorded(tmp_path / "v.mp4", **case.rgb)
    if case.after is not None:
        case.after(rgb)
    status, pairs, times, said = fused(ir, rgb, *case.options)
    assert status == case.status, said
    assert pairs == case.pairs, said
    assert times[0] == 0
    assert not [word for word in case.said if word not in said], said
    assert not [word for word in case.unsaid if word in said], said


@pytest.mark.parametrize("name", CUT)
def test_a_recording_that_was_cut_is_never_complete_and_a_whole_one_always(fused, tmp_path, name):
    ir, rgb = recorded(tmp_path / "t.mp4", gray=True), recorded(tmp_path / "v.mp4", **CUT[name])
    align = () if name != "transport stream" else ("--align-starts",)
    status, pairs, _, said = fused(ir, rgb, *align)
    assert (status, pairs) == (0, SAME), said
    cut(0.7)(rgb)
    status, pairs, _, said = fused(ir, rgb, "--force", *align)
    assert status == 2, said
    assert "incomplete input" in said
    assert "truncated" in said
    whole = pairs[:-1] if "damaged" in said else pairs
    assert whole == SAME[: len(whole)]
    assert len(whole) > 10


def test_the_output_begins_at_zero_and_keeps_the_absolute_time(fused, tmp_path):
    began = {"creation_time": "2024-05-01T12:00:00.250000Z"}
    ir = recorded(tmp_path / "t.mkv", gray=True, start_s=36_000.0)
    rgb = recorded(tmp_path / "v.mkv", start_s=36_000.0, metadata=began)
    _, pairs, times, _ = fused(ir, rgb)
    assert pairs == SAME
    assert times == pytest.approx(steady(N), abs=1e-3)
    with av.open(str(tmp_path / "fused.mkv")) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert float(tags["rtfuse_start_s"]) == pytest.approx(36_000, abs=1e-3)
    assert tags["creation_time"].startswith("2024-05-01T12:00:00.250")


TRACKS = {
    # name: (options of the file, arguments, pairs, said)
    "told apart by colour": ({"more": [{"gray": True}]}, ["f.mkv"], "thermal is 2, RGB is 1"),
    "told apart by titles": ({"more": [{}], "titles": ["Thermal", "Visible"]}, ["f.mkv"], "thermal is 1, RGB is 2"),
    "one of them named": ({"more": [{}]}, ["f.mkv?track=2"], "thermal is 2, RGB is 1"),
    "both named": ({"more": [{}]}, ["f.mkv#2", "f.mkv?track=1"], ""),
    "an override follows": ({"more": [{"gray": True}]}, ["f.mkv", "sync.tolerance_ms=5"], "paired within 5.0 ms"),
}


@pytest.mark.parametrize("name", TRACKS)
def test_one_file_of_both_tracks_is_a_pair(fused, tmp_path, monkeypatch, name):
    options, arguments, word = TRACKS[name]
    recorded(tmp_path / "f.mkv", **options)
    monkeypatch.chdir(tmp_path)
    status, pairs, _, said = fused(*arguments)
    assert (status, pairs) == (0, SAME), said
    assert word in said


def test_tracks_that_cannot_be_told_apart_or_are_not_there_are_refused(fused, tmp_path):
    both, one = recorded(tmp_path / "f.mkv", more=[{}]), recorded(tmp_path / "g.mkv")
    for arguments, words in [
        ((both,), ("unclear", "?track=1")),
        ((one,), ("second file",)),
        ((f"{both}?track=3", one), ("track 3", "1: h264 128x64, 2: h264 128x64")),
        ((tmp_path / "no.mkv",), ("no.mkv",)),
    ]:
        status, pairs, _, said = fused(*arguments)
        assert status != 0
        assert not pairs
        assert not [word for word in words if word not in said], said


def test_a_name_with_a_question_mark_is_a_name(fused, tmp_path):
    ir, rgb = (
        recorded(tmp_path / "t.mkv#2", gray=True, form="matroska"),
        recorded(tmp_path / "v.mkv?track=1", form="matroska"),
    )
    recorded(tmp_path / "t.mkv", numbers=range(100, 140), gray=True)
    recorded(tmp_path / "v.mkv", numbers=range(100, 140))
    status, pairs, _, said = fused(ir, rgb)
    assert (status, pairs) == (0, SAME), said


def test_an_attached_picture_is_never_the_video(fused, tmp_path):
    ir, rgb = recorded(tmp_path / "t.mp4", gray=True), recorded(tmp_path / "v.mp4")
    with av.open(str(rgb)) as source, av.open(str(tmp_path / "cover.mp4"), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = target.add_stream_from_template(source.streams.video[0])
        picture = av.VideoFrame(64, 48, "yuvj420p")
        packets = [(cover, cover.encode(picture) + cover.encode(None)), (video, source.demux(source.streams.video[0]))]
        for stream, packet in chain.from_iterable(((s, p) for p in ps) for s, ps in packets):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    status, pairs, _, said = fused(ir, tmp_path / "cover.mp4")
    assert (status, pairs) == (0, SAME), said
