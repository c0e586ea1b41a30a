"""A file is cut if its own structure says so: cut anywhere it is, whole never, whatever follows or is left open."""

from __future__ import annotations

import pytest
from strips import steady, write

from rtfuse.capture.completeness import is_cut
from rtfuse.capture.recordings import Recording

N = 24
KINDS = {
    "MP4": ("v.mp4", {"mux": {"movflags": "faststart"}}),
    "fragmented MP4": ("v.mp4", {"mux": {"movflags": "frag_keyframe+empty_moov"}}),
    "MOV": ("v.mov", {"mux": {"movflags": "faststart"}}),
    "Matroska": ("v.mkv", {}),
    "Matroska as it is streamed": ("v.mkv", {"mux": {"live": "1"}}),
    "AVI": ("v.avi", {"codec": "mpeg4"}),
    "Flash": ("v.flv", {}),
    "transport stream": ("v.ts", {}),
    "program stream": ("v.mpg", {"codec": "mpeg2video"}),
    "row of JPEG": ("v.mjpeg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
    "YUV4MPEG": ("v.y4m", {"codec": "rawvideo"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_file_is_whole_and_a_cut_one_is_cut(tmp_path, kind):
    name, options = KINDS[kind]
    path = write(tmp_path / name, range(N), steady(N), **options)
    assert not is_cut(path)
    source = Recording(str(path), "rgb")
    assert len(list(source)) == N
    assert not source.losses
    whole = path.read_bytes()
    for share in (0.55, 0.75, 0.95):
        size = int(len(whole) * share)
        path.write_bytes(whole[: size - (size % 188 == 0)])  # a transport stream may end between two packets
        assert is_cut(path), share
        source = Recording(str(path), "rgb")
        seen = len(list(source))
        assert seen <= N
        assert source.losses["truncated"] >= 1


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "YUV4MPEG"])
@pytest.mark.parametrize("zeros", [3, 500, 70_000])
def test_zero_bytes_behind_the_end_are_no_loss(tmp_path, kind, zeros):
    name, options = KINDS[kind]
    path = write(tmp_path / name, range(N), steady(N), **options)
    path.write_bytes(path.read_bytes() + bytes(zeros))
    assert not is_cut(path)
    source = Recording(str(path), "rgb")
    assert len(list(source)) == N
    assert not source.losses


@pytest.mark.parametrize("take", [0, 188, 700])
def test_what_a_hole_took_from_a_transport_stream_is_counted(tmp_path, take):
    """The counter of the packets has four bits: FFmpeg finds no loss where a multiple of 16 is missing."""
    path = write(tmp_path / "v.ts", range(90), steady(90), b_frames=2)
    data = path.read_bytes()
    at = len(data) // 376 * 188
    path.write_bytes(data[:at] + bytes(16 * 188 - take) + data[at + 16 * 188 :])
    source = Recording(str(path), "rgb")
    seen = len(list(source))
    assert sum(source.losses.values()) >= 1
    assert seen + source.losses["corrupt"] == 90


def test_bytes_behind_the_end_are_no_cut(tmp_path):
    for name, options in (KINDS["MP4"], KINDS["AVI"]):
        path = write(tmp_path / name, range(N), steady(N), **options)
        for more in (bytes(1000), b"\xff\x00\x13\x37" * 50):
            path.write_bytes(path.read_bytes() + more)
            assert not is_cut(path)


def test_other_files_and_pipes_are_not_judged(tmp_path):
    (tmp_path / "text").write_text("RGB")
    (tmp_path / "empty").touch()
    assert not any(is_cut(path) for path in (tmp_path, tmp_path / "text", tmp_path / "empty", tmp_path / "none"))


def test_the_missing_frames_are_those_of_the_header(tmp_path):
    path = write(tmp_path / "v.mp4", range(90), steady(90), mux={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = Recording(str(path), "rgb")
    seen = len(list(source))
    assert seen + sum(source.losses.values()) - source.losses["damaged"] == 90
