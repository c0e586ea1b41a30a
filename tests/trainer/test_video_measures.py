"""Video measures on moving pictures: a stream that moves with its sources is steady, flicker and trails are not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.fuse.deflicker import Deflicker
from trainer.measures.video import VideoMeter, ratios


def texture(seed):
    x = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (140, 220), np.uint8), (0, 0), 2)
    return cv2.normalize(x, None, 30, 220, cv2.NORM_MINMAX)


def moving(frames=6, step=3):
    """Yield thermal and luma of one scene that moves to the left by `step` pixels a frame."""
    wide, warm = texture(0), texture(1)
    for k in range(frames):
        yield warm[20:120, step * k : step * k + 160].copy(), wide[20:120, step * k : step * k + 160].copy()


def measured(fuse, frames=6, **single):
    meter = VideoMeter()
    for k, (ir, luma) in enumerate(moving(frames)):
        meter.add(ir, luma, fuse(k, ir, luma), single)
    return meter.result()


def test_a_fusion_that_moves_with_its_sources_is_no_worse_than_they_are():
    result = measured(lambda _k, ir, luma: {"mean": cv2.addWeighted(ir, 0.5, luma, 0.5, 0), "copy": luma})
    by = ratios(result)
    assert result["copy"].flowD == result["rgb"].flowD
    assert result["copy"].BiSWE == result["rgb"].BiSWE
    assert pytest.approx(result["rgb"].MS2R) == result["copy"].MS2R
    assert pytest.approx(result["thermal"].MS2R) == result["rgb"].MS2R
    assert by["mean"]["flowD"] < 1.05
    assert by["mean"]["BiSWE"] < 1.05
    assert result["mean"].MS2R < 0.05  # px
    assert result["rgb"].flowD < 2.5  # grey levels; without the flow it is more than ten
    assert set(by) == {"mean", "copy"}


def test_flicker_and_a_frozen_stream_are_told():
    frozen = next(moving())[1]
    result = measured(
        lambda k, _ir, luma: {"flicker": cv2.add(luma, 10 * (k % 2)), "frozen": frozen, "noise": noise(luma, k)}
    )
    by = ratios(result)
    assert result["flicker"].flowD == pytest.approx(10, abs=1.5)
    assert result["flicker"].BiSWE == pytest.approx(10, abs=1.5)
    assert by["frozen"]["MS2R"] > 2
    assert result["frozen"].flowD > 5 * result["rgb"].flowD
    assert by["noise"]["flowD"] > 2
    assert by["noise"]["BiSWE"] > 2


def noise(image, seed):
    return cv2.add(image, np.random.default_rng(seed).normal(0, 10, image.shape), dtype=cv2.CV_8U)


def test_a_steadied_stream_that_averages_frames_trails_and_the_deflicker_stage_does_not():
    steady, last = Deflicker(), []

    def fuse(k, _ir, luma):
        last.append(luma)
        averaged = np.mean(last[-3:], axis=0).astype(np.uint8)
        return {"one": luma, "steady": steady(luma, k), "averaged": averaged}

    result = measured(fuse, steady="one", averaged="one")
    assert result["steady"].trailing == pytest.approx(1, abs=0.02)
    assert result["averaged"].trailing < 0.85
    assert np.isnan(result["one"].trailing)


def test_one_frame_has_no_values():
    assert measured(lambda *_: {}, frames=1) == {}
    two = measured(lambda *_: {}, frames=2)
    assert np.isfinite(two["rgb"].flowD)
    assert np.isnan(two["rgb"].BiSWE)  # needs both neighbours
