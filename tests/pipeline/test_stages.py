"""One chain: a moment in, a fused picture out, for a pair or one frame; only the hook measures it."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from scenes import make_frame

from rtfuse.align.aligner import Aligner
from rtfuse.config import load_config
from rtfuse.errors import CalibrationError
from rtfuse.fuse import open_fuser
from rtfuse.pipeline.stages import Stages
from rtfuse.types import Moment, Pair

HW = (48, 64)
IR, RGB = make_frame("ir"), make_frame("rgb")


class Raw:
    """A fuser that takes thermal as it came and never asks for it on the RGB grid."""

    name = "raw"

    def __init__(self):
        self.prepared = []

    def fuse(self, thermal, rgb):
        assert thermal.image is not None
        return rgb

    def prepare(self, ir_hw, rgb_hw):
        self.prepared.append((ir_hw, rgb_hw))


def test_a_pair_is_what_its_parts_make_one_after_another():
    pyramid = open_fuser("pyramid")
    fused = Stages(Aligner(HW, HW), pyramid).process(Pair(IR, RGB))
    assert np.array_equal(fused.image, pyramid(IR.image, RGB.image))
    assert np.array_equal(fused.ir, IR.image)
    assert (fused.mode, fused.fuser, fused.valid) == ("fused", "pyramid", None)


@pytest.mark.parametrize("frame", [IR, RGB])
def test_a_frame_alone_is_shown_on_the_rgb_grid(frame):
    fused = Stages(Aligner(HW, HW), Raw()).process(Moment.alone(frame))
    shown = frame.image if frame.stream == "rgb" else np.repeat(frame.image[..., None], 3, -1)
    assert np.array_equal(fused.image, shown)
    assert (fused.mode, fused.fuser, fused.pair.leader) == (frame.stream, "none", frame)
    assert (fused.ir.max() == 0) == (frame.stream == "rgb")


def test_a_moment_has_a_frame():
    with pytest.raises(ValueError, match="a frame of IR or RGB"):
        Moment()


@pytest.mark.parametrize("wanted", [False, True])
def test_thermal_is_aligned_in_its_stage_and_only_where_it_is_wanted(wanted):
    calls = []

    class Counting(Aligner):
        def __call__(self, ir):
            calls.append(threading.current_thread())
            return super().__call__(ir)

    stages = Stages(Counting(HW, HW), Raw())
    fused = [stages.process(Pair(IR, make_frame("rgb", k)), aligned=wanted) for k in range(3)]
    assert calls == [threading.main_thread()] * wanted  # one thermal frame
    assert [f.aligned is not None for f in fused] == [wanted] * 3
    if not wanted:
        with pytest.raises(ValueError, match="wants_aligned"):
            _ = fused[0].ir


def test_the_hook_hears_of_each_stage_in_order():
    ended = []
    Stages(Aligner(HW, HW), Raw(), done=ended.append).process(Pair(IR, RGB))
    assert ended == ["thermal", "align", "fuse", "deflicker"]


def test_the_settings_of_each_stage_are_those_of_the_configuration():
    counts = replace(IR, content=(IR.image.astype(np.uint16) * 20 + 9000))
    steady = load_config(None, ["thermal.agc.method=linear", "thermal.agc.tau_ms=5", "fuse.steady=true"])
    stages = Stages(Aligner(HW, HW), Raw(), steady)
    assert stages.agc.settings == steady.thermal.agc
    first = stages.process(Pair(counts, RGB)).picture.luma
    noisy = replace(RGB, content=RGB.image + (RGB.image < 255), t_ns=RGB.t_ns + 33_000_000)
    assert np.array_equal(stages.process(Pair(counts, noisy)).picture.luma, first)
    bare = Stages(Aligner(HW, HW), Raw(), load_config(None, ["fuse.steady=false"]))
    bare.process(Pair(counts, RGB))
    assert bare.process(Pair(counts, noisy)).picture.luma is noisy.picture.luma


@pytest.mark.parametrize("weight", [0, 0.25, 1])
def test_thermal_counts_as_much_as_the_user_wants(weight):
    pyramid = open_fuser("pyramid")
    stages = Stages(Aligner(HW, HW), pyramid, load_config(None, [f"fuse.thermal_weight={weight}", "fuse.steady=false"]))
    shown, luma = (x.astype(float) for x in (stages.process(Pair(IR, RGB)).picture.luma, RGB.picture.luma))
    fused = Stages(Aligner(HW, HW), pyramid).process(Pair(IR, RGB)).picture.luma
    assert np.abs(fused - luma).max() > 10
    assert np.abs(shown - (luma + weight * (fused - luma))).max() <= (0.5 if weight % 1 else 0)


def test_new_sizes_are_fitted_and_told_once_and_refused_ones_once_too(caplog):
    def fit(ir_hw, rgb_hw):
        if ir_hw[0] > 100:
            raise CalibrationError("not for this size")
        return Aligner(ir_hw, rgb_hw)

    fuser = Raw()
    stages = Stages(Aligner(HW, HW), fuser, fit=fit)
    small = make_frame("ir", size_wh=(32, 24))
    for _ in range(2):
        assert stages.process(Pair(small, RGB)).ir.shape == HW
    assert fuser.prepared == [(HW, HW)]  # stretched
    for _ in range(2):
        with pytest.raises(CalibrationError, match="not for this size"):
            stages.process(Pair(make_frame("ir", size_wh=(320, 240)), RGB))
    assert [r.levelname for r in caplog.records] == ["WARNING", "ERROR"]
