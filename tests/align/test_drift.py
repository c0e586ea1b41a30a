"""The watch on the registration: quiet on a sound rig, one warning when the bracket is bumped, never a warped frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, Camera, matrix3
from rtfuse.align.drift import DriftMonitor
from rtfuse.capture import open_source
from rtfuse.types import Depth, Fused, Pair

SCENE = "synthetic:?seed=3&baseline_m=0&warp=0&duration_s=4&motion=2"
FLAT = Camera(size_wh=(640, 480))


def fused_frames(shift):
    """Frames of a rig whose thermal picture lies `shift` px off."""
    H = np.eye(3)
    H[:2, 2] = shift
    aligner = Aligner((480, 640), (480, 640), Calibration(ir=FLAT, rgb=FLAT, H_rgb_from_ir=matrix3(H)))
    for ir, rgb in zip(open_source(SCENE, "ir"), open_source(SCENE, "rgb"), strict=True):
        if ir.frame_id % 6 == 0:
            yield Fused(rgb.image, aligner(ir.image), Pair(ir, rgb), aligner.valid, "test")


def watched(monitor, frames, clock):
    for fused in frames:
        clock[0] += 3_000_000_000
        monitor.write(fused)


@pytest.mark.slow
def test_a_bump_is_told_once_and_its_end_too():
    clock, said = [0], []
    monitor = DriftMonitor(said.append, settle=8, recent=5, clock=lambda: clock[0])
    watched(monitor, fused_frames((0, 0)), clock)
    assert said == []
    assert np.abs(monitor.moved_px).max() < 1
    watched(monitor, fused_frames((6, -3)), clock)
    assert len(said) == 1
    assert "bumped" in said[0]
    assert np.abs(np.array(monitor.moved_px) - (6, -3)).max() < 1
    watched(monitor, fused_frames((0, 0)), clock)
    assert len(said) == 2
    assert "back" in said[1]
    monitor.close()


def test_only_every_few_seconds_is_one_frame_measured():
    clock = [0]
    monitor = DriftMonitor(lambda _: None, every_s=2.0, clock=lambda: clock[0])
    frames = list(fused_frames((0, 0)))
    measured = 0
    for k, fused in enumerate(frames):
        clock[0] = k * 500_000_000
        due = monitor.wants_aligned()
        monitor.write(fused if due else replace(fused, aligned=None))
        measured += due
        assert not monitor.wants_aligned()
    assert measured == -(-len(frames) // 4)
    monitor.close()


def test_another_distance_of_registration_is_a_new_usual_state_and_no_bump():
    clock, said = [0], []
    monitor = DriftMonitor(said.append, settle=4, recent=3, clock=lambda: clock[0])
    watched(monitor, fused_frames((0, 0)), clock)
    near = (replace(fused, depth=Depth(3.0, 3.0)) for fused in fused_frames((9, 0)))
    watched(monitor, near, clock)
    assert said == []
    bumped = (replace(fused, depth=Depth(3.0, 3.0)) for fused in fused_frames((15, 0)))
    watched(monitor, bumped, clock)
    assert len(said) == 1
