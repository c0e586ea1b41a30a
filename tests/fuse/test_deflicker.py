"""Flicker goes, and nothing else: no pixel is further than one grey level from what was fused of the very frame."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from rtfuse.config import Align, Config, Fuse, Playback, SourceSettings
from rtfuse.fuse.deflicker import LEVEL, Deflicker
from rtfuse.fuse.luma_fuser import luma
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from trainer.metrics import Flicker

PERIOD_NS = 33_000_000


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (6, 16, 24, 3)))
def test_no_pixel_leaves_what_was_fused_by_more_than_a_level(stream):
    steady, before = Deflicker(), None
    for k, image in enumerate(stream):
        shown = steady(image.copy(), k * PERIOD_NS)
        difference = shown.astype(int) - image
        assert np.abs(difference).max() <= LEVEL
        if before is not None and difference.any():  # held: as near to the last picture as that allows
            at = difference != 0
            assert (np.abs(shown.astype(int) - before)[at] <= np.abs(image.astype(int) - before)[at]).all()
        before = shown.astype(int)


def test_noise_of_a_level_stands_still_and_a_step_of_two_is_followed():
    steady, base = Deflicker(), np.full((32, 32, 3), 100, np.uint8)
    first = steady(base, 0)
    assert np.array_equal(steady(base + 1, PERIOD_NS), first)
    assert np.array_equal(steady(base - 1, 2 * PERIOD_NS), first)
    assert (steady(base + 3, 3 * PERIOD_NS) == 102).all()


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_every_channel_is_held(channel):
    steady, base = Deflicker(), np.full((32, 32, 3), 100, np.uint8)
    changed = base.copy()
    changed[..., channel] += 1
    assert np.array_equal(steady(changed, PERIOD_NS), changed)
    assert np.array_equal(steady(base, 2 * PERIOD_NS), changed)


def test_it_begins_anew_after_a_gap_a_cut_another_size_and_a_step_back_in_time():
    base = np.full((64, 64, 3), 100, np.uint8)

    def fresh(second, t_ns):
        steady = Deflicker()
        steady(base, 10 * PERIOD_NS)
        return np.array_equal(steady(second, t_ns), second)

    assert not fresh(base + 1, 11 * PERIOD_NS)
    assert fresh(base + 1, 10 * PERIOD_NS + 600_000_000)
    assert fresh(base + 1, 9 * PERIOD_NS)
    assert fresh(np.full((32, 64, 3), 101, np.uint8), 11 * PERIOD_NS)
    cut = np.full((64, 64, 3), 101, np.uint8)
    cut[:40] = 160
    assert fresh(cut, 11 * PERIOD_NS)


def test_pictures_handed_out_are_never_written_again():
    steady, rng = Deflicker(), np.random.default_rng(0)
    shown = [steady(rng.integers(100, 104, (16, 16, 3), np.uint8), k * PERIOD_NS) for k in range(8)]
    copies = [image.copy() for image in shown]
    steady(rng.integers(100, 104, (16, 16, 3), np.uint8), 8 * PERIOD_NS)
    assert all(np.array_equal(a, b) for a, b in zip(shown, copies, strict=True))


class Measured:
    """A sink that measures flicker and keeps nothing."""

    def __init__(self):
        self.flicker = Flicker()

    def write(self, fused):
        self.flicker.add(luma(fused.image), fused.ir, luma(fused.pair.rgb.image))

    def close(self):
        pass


def flicker(ir, rgb, fuser, *, steady, frames):
    config = Config(
        ir=SourceSettings(uri=ir),
        rgb=SourceSettings(uri=rgb),
        fuse=Fuse(fuser=fuser, steady=steady),
        align=Align(),
        playback=Playback(speed="max"),
    )
    rig, sink = open_rig(config), Measured()
    Pipeline(rig, {"measured": sink}).run(frames=frames)
    return sink.flicker.value


@pytest.mark.parametrize("fuser", ["student", "pyramid"])
def test_a_fused_stream_flickers_no_more_than_its_sources(fuser):
    scene = "synthetic:?duration_s=1&size=320x240&noise=2"
    assert flicker(scene, scene, fuser, steady=False, frames=20) > 0.05
    assert flicker(scene, scene, fuser, steady=True, frames=20) < 0.02


@pytest.mark.footage
@pytest.mark.parametrize("clip", ["1230_1202", "0117_1605"])
def test_real_footage_fused_by_the_student_flickers_no_more_than_its_sources(footage, clip):
    ir, rgb = (str(footage / "clips" / clip / f"{stream}.mp4") for stream in ("ir", "rgb"))
    assert flicker(ir, rgb, "student", steady=False, frames=20) > 0.05
    assert flicker(ir, rgb, "student", steady=True, frames=20) == 0.0
