"""Damage in the middle of a recording: no wrong picture is shown uncounted, and a whole file has no loss."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
import strips

from rtfuse.capture.recordings import Recording

N = 60
CODED = {
    "H.264": ("v.mkv", {"options": {"g": "20"}}),
    "H.264 with B-frames": ("v.mp4", {"options": {"g": "20"}, "b_frames": 2}),
    "H.264 with open groups": ("v.mkv", {"options": {"g": "20", "x264-params": "open-gop=1:bframes=3"}}),
    "H.264 refreshed line by line": ("v.mkv", {"options": {"g": "20", "x264-params": "intra-refresh=1"}}),
    "H.264 interlaced": ("v.mkv", {"options": {"g": "20", "flags": "+ildct+ilme"}}),
    "H.264 in Flash": ("v.flv", {"options": {"g": "20"}}),
    "H.264 in AVI": ("v.avi", {"options": {"g": "20"}, "b_frames": 2, "base": Fraction(1, 30)}),
    "H.264 in a transport stream": ("v.ts", {"options": {"g": "20"}, "b_frames": 2}),
    "MPEG-4": ("v.avi", {"codec": "mpeg4", "base": Fraction(1, 30), "options": {"g": "20"}}),
    "MPEG-2": ("v.mpg", {"codec": "mpeg2video", "options": {"g": "15"}}),
    "VP9": ("v.webm", {"codec": "libvpx-vp9", "options": {"g": "20", "deadline": "realtime", "cpu-used": "8"}}),
    "FFV1 without check sums": (
        "v.mkv",
        {"codec": "ffv1", "pix_fmt": "gray", "base": Fraction(1, 30), "options": {"level": "1", "g": "8"}},
    ),
    "JPEG": ("v.mkv", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "base": Fraction(1, 30)}),
}
SILENT = {"VP9"}
"""Neither the codec nor the container tells anything of damage."""


def shown(path):
    source = Recording(str(path), "rgb")
    return {round(f.t_ns * 30 / 1e9): f.image for f in source}, source.losses


def hit(path, picture, share=0.5, size=30):
    """Overwrite bytes inside of a picture that is not a key frame, if there are others."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    others = [p for p in packets[1:] if not p[2]] or packets
    pos, length, _ = others[picture]
    data = bytearray(path.read_bytes())
    at = pos + (150 if path.suffix == ".ts" else int(length * share))
    data[at : at + size] = np.random.default_rng(picture).bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("kind", CODED)
def test_a_whole_recording_has_no_loss(tmp_path, kind):
    name, options = CODED[kind]
    got, losses = shown(strips.write(tmp_path / name, range(N), strips.steady(N), **options))
    assert len(got) == N
    assert not losses


def test_damage_is_counted_each_time_that_a_file_is_read(tmp_path):
    """With a thread for each picture, FFmpeg forgot it in two of sixty readings."""
    name, options = CODED["H.264 with B-frames"]
    path = strips.write(tmp_path / name, range(N), strips.steady(N), **options)
    hit(path, 8)
    assert {shown(path)[1]["damaged"] for _ in range(60)} == {1}


@pytest.mark.parametrize("kind", [kind for kind in CODED if kind not in SILENT])
def test_a_wrong_picture_is_counted_and_those_coded_from_it_are_not_shown(tmp_path, kind, caplog):
    name, options = CODED[kind]
    path = strips.write(tmp_path / name, range(N), strips.steady(N), **options)
    whole, _ = shown(path)
    hit(path, 8)
    caplog.clear()
    got, losses = shown(path)
    wrong = [k for k, image in got.items() if not np.array_equal(image, whole.get(k))]
    assert sum(losses.values()) >= 1
    assert len(wrong) <= losses["damaged"], (wrong, losses)
    if losses["corrupt"] > 1:
        assert "left out, up to the next key frame" in caplog.text
    if "without check sums" in kind:
        assert "wrong check sums" in caplog.text


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
@pytest.mark.parametrize(("cut", "zeros"), [(16 * 188, 16 * 188), (5 * 188, 0), (16 * 188, 700), (1000, 0)])
def test_behind_a_hole_in_a_transport_stream_nothing_is_shown_up_to_the_next_key_frame(tmp_path, codec, cut, zeros):
    options = {"options": {"g": "20"}, "b_frames": 2 if codec == "libx264" else 0}
    path = strips.write(tmp_path / "v.ts", range(N), strips.steady(N), codec=codec, **options)
    whole, _ = shown(path)
    data = path.read_bytes()
    at = len(data) // 188 * 2 // 5 * 188
    path.write_bytes(data[:at] + bytes(zeros) + data[at + cut :])
    got, losses = shown(path)
    wrong = [k for k, image in got.items() if not np.array_equal(image, whole.get(k))]
    assert len(wrong) <= losses["damaged"] <= 2, (wrong, losses)
    assert losses["corrupt"] > 3
    assert len(got) < N - 3


def test_a_stream_that_begins_between_key_frames_shows_what_follows(tmp_path):
    path = strips.write(tmp_path / "v.ts", range(N), strips.steady(N), options={"g": "20"})
    data = path.read_bytes()
    path.write_bytes(data[: 188 * 3] + data[len(data) // 188 // 6 * 188 :])
    got, losses = shown(path)
    assert len(got) >= 40
    assert losses["damaged"] <= 1
