"""The table of errors at each distance, against the formula of parallax, and the files that come with it."""

from __future__ import annotations

import pytest

from rtfuse.align.calibration import load_calibration, save_calibration
from rtfuse.capture import open_source
from rtfuse.capture.synthetic.solids import Yard
from tools.depth_cases import calibration_of, counts_of, overlays, record, table

YARD = Yard(size_wh=(160, 120), ir_size_wh=(160, 120), baseline_m=0.2, toe_deg=0.5)


def test_errors_are_those_of_the_baseline_and_none_at_the_plane():
    rows, f_b = dict(table(YARD, [2.85, 15.0])), YARD.camera("rgb").K[0, 0] * 0.2
    for name, z_m in (("person at 3 m", 2.85), ("person at 8 m", 7.85), ("back wall", 60.0)):
        for (median, _), plane_m in zip(rows[name], (2.85, 15.0), strict=False):
            assert median == pytest.approx(f_b * abs(1 / z_m - 1 / plane_m), abs=0.05), (name, plane_m)
    assert rows["ground"][-2][0] < 0.01
    assert all(pairs[-1][1] < 0.5 for pairs in rows.values())  # by depth, 95 % of each
    assert rows["ground"][0][1] > rows["ground"][0][0] > 1


def test_recordings_and_calibration_are_those_of_the_yard(tmp_path):
    record(YARD, 3, tmp_path)
    save_calibration(calibration_of(YARD, 5.0), tmp_path / "c.yaml")
    assert load_calibration(tmp_path / "c.yaml").plane_m == 5.0
    counts = [frame.image for frame in open_source(str(tmp_path / "depth.mkv"), "ir")]
    assert (counts[2] == counts_of(YARD.world(2 / 30).seen(YARD.camera("rgb"))[0])).all()
    for stream in ("ir", "rgb"):
        with_frames = open_source(str(tmp_path / f"{stream}.mkv"), stream)
        frames = [frame.image for frame in with_frames]
        with_frames.close()
        assert len(frames) == 3
        assert (frames[2] == YARD.world(2 / 30).picture(YARD.camera(stream), stream)).all()
    assert overlays(YARD, [3.0, 15.0]).shape == (120, 640, 3)
