"""FLIR's recordings: frames, their times, and what is damaged in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtfuse.capture import open_source
from rtfuse.errors import SourceUnreadable
from tests import flirs

W, H = 32, 24
COUNTS = [(16000 + 10 * k + np.arange(W * H).reshape(H, W)).astype(np.uint16) for k in range(6)]


def frame(k, *, how="raw<", order="<", at_ms=None):
    seconds, ms = divmod(1_700_000_000_000 + (k * 40 if at_ms is None else at_ms), 1000)
    camera = flirs.camera((W, H), order=order, seconds=seconds, ms=ms)
    return flirs.fff(camera, flirs.pixels(COUNTS[k], how, order), order=order)


def read(path, **how):
    source = open_source(str(path), "ir", **how)
    return source, list(source)


@pytest.mark.parametrize(
    ("name", "how", "order", "gap"),
    [("a.seq", "raw<", "<", 0), ("a.seq", "raw>", ">", 0), ("a.csq", "jpegls", "<", 0), ("a.seq", "png", "<", 37)],
)
def test_frames_in_order_with_their_times(tmp_path, name, how, order, gap):
    path = tmp_path / name
    path.write_bytes(b"".join(frame(k, how=how, order=order) + bytes(gap) for k in range(6)))
    source, frames = read(path)
    assert [np.array_equal(f.image, COUNTS[k]) for k, f in enumerate(frames)] == [True] * 6
    assert [f.t_ns for f in frames] == [k * 40_000_000 for k in range(6)]
    assert (source.info.rate_hz, source.info.frames, source.info.size_wh) == (25, 6, (W, H))
    assert frames[0].thermal.radiometry.emissivity == pytest.approx(0.95)
    assert not source.losses


@pytest.mark.parametrize(
    ("times_ms", "fps", "expected_ms"), [([0, 0, 0], None, [0, 33, 67]), ([0, 9, 5], 10, [0, 100, 200])]
)
def test_times_that_do_not_rise_are_made_of_the_rate(tmp_path, times_ms, fps, expected_ms):
    (tmp_path / "a.seq").write_bytes(b"".join(frame(k, at_ms=ms) for k, ms in enumerate(times_ms)))
    _, frames = read(tmp_path / "a.seq", fps=fps)
    assert [round(f.t_ns / 1e6) for f in frames] == expected_ms


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), st.sampled_from(["header", "directory", "pixels", "cut"]))
def test_a_damaged_frame_costs_itself_alone(tmp_path, damaged, kind):
    parts = [bytearray(frame(k, how="png")) for k in range(6)]
    if kind == "header":
        parts[damaged][0x14:0x18] = b"\xff" * 4
    elif kind == "directory":
        parts[damaged][0x1C:0x20] = b"\xff" * 4
    elif kind == "pixels":
        at = parts[damaged].index(b"IDAT")
        parts[damaged][at + 8 : at + 40] = bytes(32)
    else:
        parts[damaged] = parts[damaged][: len(parts[damaged]) // 2]
    (tmp_path / "a.seq").write_bytes(b"".join(parts))
    source, frames = read(tmp_path / "a.seq")
    kept = [next(k for k in range(6) if np.array_equal(f.image, COUNTS[k])) for f in frames]
    assert damaged not in kept
    lost = {damaged}
    if kind == "cut" and damaged < 5:  # its directory reaches into the next one, which then cannot be told from it
        assert set(range(6)) - set(kept) <= {damaged, damaged + 1}
        lost = set(range(6)) - set(kept)
    assert sorted(set(kept) | lost) == list(range(6))
    assert source.losses.total() >= 1


def test_what_cannot_be_read(tmp_path):
    (tmp_path / "a.seq").write_bytes(frame(0)[:-10])
    with pytest.raises(SourceUnreadable, match="no frame that can be read"):
        open_source(str(tmp_path / "a.seq"), "ir")
    (tmp_path / "b.seq").write_bytes(frame(0))
    with pytest.raises(SourceUnreadable, match="holds thermal alone"):
        open_source(str(tmp_path / "b.seq"), "rgb")
