"""Where two recordings meet: their own times, metadata that both have and that are credible, or their first frames."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import strips
from scenes import list_source

from rtfuse.pipeline.origins import placed, shifted
from rtfuse.types import SourceInfo

S = 1_000_000_000
NOON = 1_714_564_800 * S


def info(stream, start_s=0.0, length_s=60.0, **more):
    start_ns = round(start_s * S)
    end_ns = None if length_s is None else start_ns + round(length_s * S)
    exact = bool(more.get("utc_ns", 0) % S)
    given = {"uri": f"{stream}.mp4", "rate_hz": 30.0, "live": False, "utc_exact": exact} | more
    return SourceInfo(stream=stream, size_wh=(64, 48), dtype="uint8", start_ns=start_ns, end_ns=end_ns, **given)


CODED = {"coding": "h264", "time_base": Fraction(1, 90_000)}
CASES = {
    # name: (thermal, RGB, how, shift of thermal in s, words of the remark; none: no remark)
    "nothing known": ({}, {}, "auto", 0, ""),
    "half a step apart": ({"start_s": 0.016}, {}, "auto", 0, ""),
    "two steps apart": ({}, {"start_s": 0.067}, "auto", 0, "thermal began 0.067 s before RGB"),
    "apart in one file": ({"uri": f"{__file__}?track=1"}, {"uri": f"{__file__}#2", "start_s": 1}, "auto", 0, ""),
    "first frames": ({"start_s": 5}, {"start_s": 36_001.4}, "same", 35_996.4, "move by +35996.400 s"),
    "a camera": ({"live": True, "start_s": 3}, {}, "same", 0, ""),
    "creation times": (
        {"utc_ns": NOON + 3 * S // 4}, {"utc_ns": NOON + S // 4}, "auto", 0.5, "thermal began 0.500 s after RGB",
    ),
    "a whole second of a file that keeps fractions": (
        {"utc_ns": NOON + S // 2}, {"utc_ns": NOON, "utc_exact": True}, "auto", 0.5, "thermal began 0.500 s after RGB",
    ),
    "a fraction beside whole seconds": ({"utc_ns": NOON}, {"utc_ns": NOON + 9 * S // 10}, "auto", 0, ""),
    "a fraction beside whole seconds, far": (
        {"utc_ns": NOON}, {"utc_ns": NOON + 59 * S // 10}, "auto", -5.9, "up to 1 s off",
    ),
    "creation times, not wanted": ({"utc_ns": NOON + S // 2}, {"utc_ns": NOON}, "own", 0, ""),
    "one creation time": ({"utc_ns": NOON + S // 2}, {}, "auto", 0, ""),
    "whole seconds": ({"utc_ns": NOON}, {"utc_ns": NOON + 5 * S}, "auto", -5, "up to 1 s off"),
    "the same second": ({"utc_ns": NOON}, {"utc_ns": NOON, "start_s": 0.5}, "auto", 0, "--align-starts"),
    "confirmed": ({"utc_ns": NOON + 9 * S, "start_s": 9}, {"utc_ns": NOON}, "auto", 0, ""),
    "another hour": ({"utc_ns": NOON}, {"utc_ns": NOON + 3600 * S}, "auto", 0, "hardly overlap"),
    "one unknown length": ({"utc_ns": NOON, "length_s": None}, {"utc_ns": NOON + 5 * S}, "auto", -5, "up to 1 s off"),
    "no known length": (
        {"utc_ns": NOON, "length_s": None}, {"utc_ns": NOON + 5 * S, "length_s": None}, "auto", 0, "hardly overlap",
    ),
    "time codes win": (
        {"timecode_ns": 2 * S, "utc_ns": NOON}, {"timecode_ns": S, "utc_ns": NOON + 5 * S}, "auto", 1, "time codes",
    ),
    "equal counts, rates apart": (
        {"frames": 1300, **CODED}, {"frames": 1300, "rate_hz": 29.97, **CODED}, "auto", 0, "both have 1300 frames",
    ),
    "equal counts, half the rate": (
        {"frames": 60, "rate_hz": 60, **CODED}, {"frames": 60, **CODED}, "same", 0, "frame k is not paired",
    ),
    "equal counts, one rate": ({"frames": 1300, **CODED}, {"frames": 1300, "rate_hz": 30.0001, **CODED}, "auto", 0, ""),
    "other counts, rates apart": ({"frames": 1300, **CODED}, {"frames": 1299, "rate_hz": 25, **CODED}, "auto", 0, ""),
    "time codes over midnight": ({"timecode_ns": S}, {"timecode_ns": 86_399 * S}, "auto", 2, "began 2.000 s after"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_thermal_is_placed_where_the_evidence_says_and_it_is_told(name):
    ir, rgb, how, shift_s, words = CASES[name]
    placement = placed({"ir": info("ir", **ir), "rgb": info("rgb", **rgb)}, how)
    assert placement.shift_ns == round(shift_s * S)
    assert bool(placement.remark) == bool(words)
    assert words in (placement.remark or "")


def test_one_track_as_both_streams_is_told(tmp_path):
    one = str(strips.write(tmp_path / "one.mp4", range(3), strips.steady(3)))
    two = str(strips.write(tmp_path / "two.mkv", range(3), strips.steady(3), more=[{"gray": True}]))
    cases = [(one, one, True), (one, two, False), (two, two, False), (f"{two}#1", f"{two}?track=1", True)]
    cases += [(f"{two}#1", f"{two}#2", False), (f"{tmp_path}/../{tmp_path.name}/one.mp4", one, True)]
    for ir, rgb, same in cases:
        infos = {"ir": info("ir", uri=ir, **CODED), "rgb": info("rgb", uri=rgb, **CODED)}
        assert ("the same video" in (placed(infos, "auto").remark or "")) == same, (ir, rgb)


def test_a_shifted_source_has_shifted_frames_and_ends():
    source = list_source("ir", 5, start_ms=100)
    moved = shifted(source, -2 * S)
    assert [f.t_ns for f in moved] == [f.t_ns - 2 * S for f in source.frames]
    assert moved.info == replace(source.info, start_ns=source.info.start_ns - 2 * S, end_ns=source.info.end_ns - 2 * S)
