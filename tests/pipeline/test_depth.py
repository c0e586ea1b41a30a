"""A third stream of depth: recordings, folders and stills; RGB frames without depth are counted and told."""

from __future__ import annotations

import logging

import cv2
import numpy as np
import pytest

from rtfuse.align.calibration import save_calibration
from rtfuse.capture.synthetic.solids import Yard
from rtfuse.config import load_config
from rtfuse.errors import ConfigError, RtfuseError, SourceUnreadable
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.scenes import Scenes
from tools.depth_cases import calibration_of, counts_of, record

YARD = Yard(size_wh=(160, 120), ir_size_wh=(160, 120))
FRAMES = 6


class Kept:
    def __init__(self):
        self.fused = []

    def write(self, fused):
        self.fused.append(fused)

    def close(self):
        pass


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yard")
    record(YARD, FRAMES, folder)
    save_calibration(calibration_of(YARD, 15.0), folder / "c.yaml")
    for name in ("ir", "rgb", "depth"):
        (folder / name).mkdir()
    for k in range(FRAMES):
        world, rgb = YARD.world(k / 30), YARD.camera("rgb")
        cv2.imwrite(str(folder / f"depth/{k:02}.png"), counts_of(world.seen(rgb)[0]))
        cv2.imwrite(str(folder / f"ir/{k:02}.png"), world.picture(YARD.camera("ir"), "ir"))
        cv2.imwrite(str(folder / f"rgb/{k:02}.png"), world.picture(rgb, "rgb")[..., ::-1])
    return folder


def fused_of(yard, depth, *more, ir="ir.mkv", rgb="rgb.mkv", speed="max", scenes=None):
    given = [
        f"ir.uri={yard}/{ir}",
        f"rgb.uri={yard}/{rgb}",
        f"align.depth.source.uri={depth}",
        f"playback.speed={speed}",
    ]
    config = load_config(None, [*given, f"align.calib={yard}/c.yaml", "fuse.fuser=pyramid", *more])
    kept = Kept()
    with open_rig(config, scenes=scenes) as rig:
        result = Pipeline(rig, {"kept": kept}).run()
    return kept.fused, result


def test_every_frame_of_a_recording_is_registered_by_the_depth_of_its_time(yard):
    for depth in (f"{yard}/depth.mkv", f"{yard}/depth"):
        fused, result = fused_of(yard, depth)
        assert [f.depth.mode for f in fused] == ["source"] * FRAMES
        assert not result.drops
        for k, one in enumerate(fused):
            truth = YARD.truth(k / 30)
            person = (truth.name == "person at 3 m") & truth.visible & (one.valid == 255)
            warm = one.aligned[person]  # a box of 196 ± 25 levels on a ground of 78
            assert (warm > 140).mean() > 0.95


def test_played_at_its_pace_it_is_the_same(yard):
    fused, _ = fused_of(yard, f"{yard}/depth.mkv", speed="4")
    assert {f.depth.mode for f in fused} == {"source"}


def test_stills_are_paired_by_name(yard):
    fused, result = fused_of(yard, f"{yard}/depth", ir="ir", rgb="rgb", scenes=Scenes(mixed=True))
    assert [f.depth.mode for f in fused] == ["source"] * FRAMES
    assert not result.drops
    one, _ = fused_of(yard, f"{yard}/depth/02.png", ir="ir/02.png", rgb="rgb/02.png", scenes=Scenes(mixed=True))
    assert np.array_equal(one[0].aligned, fused[2].aligned)
    with pytest.raises(ConfigError, match=r"RGB is stills, found .*depth\.mkv"):
        fused_of(yard, f"{yard}/depth.mkv", ir="ir", rgb="rgb")


def test_frames_without_depth_lie_at_the_plane_and_are_counted_and_told_once(yard, caplog):
    with caplog.at_level(logging.WARNING):
        fused, result = fused_of(yard, f"{yard}/depth.mkv", "align.depth.source.offset_ms=100")
    assert [f.depth.mode for f in fused] == ["plane"] * 3 + ["source"] * 3
    assert fused[0].depth.plane_m == 15.0
    assert result.drops == {("rgb", "no_depth"): 3}
    lines = [r.getMessage() for r in caplog.records if "depth" in r.getMessage()]
    assert len(lines) == 2
    assert "no depth for RGB frame 0" in lines[0]
    assert "3 of 6 RGB frames had no depth" in lines[1]


def test_a_unit_that_cannot_be_is_doubted(yard, caplog):
    with caplog.at_level(logging.WARNING):
        fused_of(yard, f"{yard}/depth.mkv", "align.depth.source.unit_mm=0.001")
    assert sum("align.depth.source.unit_mm" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize(
    ("depth", "more", "error", "text"),
    [
        ("{}/ir.mkv", (), SourceUnreadable, "has 8 bits; want 16-bit"),
        ("{}/none.mkv", (), RtfuseError, "depth recording not found"),
        ("synthetic:", (), ConfigError, "street has no depth"),
        ("/dev/video9", (), ConfigError, "needs recordings or pictures"),
        ("{}/depth.mkv", ("rgb.flip=both",), ConfigError, r"leave out rgb\.flip"),
    ],
)
def test_what_cannot_be_used_is_refused(yard, depth, more, error, text):
    with pytest.raises(error, match=text):
        fused_of(yard, depth.format(yard), *more)
