"""The pipeline's promises: complete and ordered when lossless, fresh when live, and honest when something fails."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from scenes import ListSource, Memory, list_source, make_frame

from rtfuse.align.aligner import Aligner
from rtfuse.capture.pacing import Playback
from rtfuse.config import load_config
from rtfuse.errors import NoOverlap, SourceLost, StageFailed
from rtfuse.fuse import open_fuser
from rtfuse.observe.health import Health
from rtfuse.pipeline.queues import LivePairQueue
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.stages import Stages
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Stamp

MS = 1_000_000
PLAIN = load_config(None, ["fuse.steady=false"])


class Ticks:
    """A clock that stands where it is put."""

    ns = 0

    def __call__(self):
        return self.ns


def paced(ir, rgb, *, stages=None, sinks=None, stop=None, **options):
    """A pipeline of two sources at their own pace, into memory or other sinks; frames are counted at the first."""
    options.setdefault("pairer", Pairer(tolerance_ns=17 * MS, max_reuse_ns=150 * MS, wait_ns=20 * MS))
    sizes = ir.info.size_wh[::-1], rgb.info.size_wh[::-1]
    rig = Rig({"ir": ir, "rgb": rgb}, stages=stages or Stages(Aligner(*sizes), open_fuser("pyramid"), PLAIN), **options)
    sinks = sinks or {"memory": Memory()}
    return Pipeline(rig, sinks, age_at=next(iter(sinks)), stop=stop)


def lossless(ir, rgb, **options):
    options.setdefault("pairer", Pairer(tolerance_ns=17 * MS, max_reuse_ns=150 * MS))
    return paced(ir, rgb, **{"playback": Playback(None), "order": "lossless"} | options)


def fused_by(fuser):
    return Stages(Aligner((48, 64), (48, 64)), fuser, PLAIN)


def out(pipeline):
    return pipeline.sinks["memory"].fused


class Slow:
    """A fuser that holds each pair until it is let go, or for a number of seconds."""

    name = "slow"

    def __init__(self, seconds):
        self.seconds = seconds

    def fuse(self, thermal, rgb):
        time.sleep(self.seconds)
        return rgb


@pytest.mark.parametrize("ir_ms", [100 / 3, 1000 / 9, 1000 / 60])
def test_lossless_gives_every_rgb_frame_once_in_order(ir_ms):
    r = lossless(list_source("ir", round(4000 / ir_ms) + 1, period_ms=ir_ms), list_source("rgb", 120))
    result = r.run()
    assert [f.pair.rgb.frame_id for f in out(r)] == list(range(120))
    assert result.frames == 120
    assert not [k for k in result.drops if k[0] == "rgb"]


def test_lossless_waits_for_a_slow_sink_and_loses_nothing():
    class Lagging(Memory):
        def write(self, fused):
            time.sleep(0.003)
            super().write(fused)

    r = lossless(list_source("ir", 50), list_source("rgb", 50), sinks={"memory": Lagging()})
    assert r.run().frames == 50
    assert len(out(r)) == 50


def test_the_nearest_thermal_frame_is_taken_even_at_the_very_end():
    r = lossless(list_source("ir", 20, start_ms=5), list_source("rgb", 20))
    r.run()
    assert {f.pair.skew_ns for f in out(r)} <= {5 * MS - 1, 5 * MS, 5 * MS + 1}


def test_frames_and_duration_end_the_run():
    r = lossless(list_source("ir", 100), list_source("rgb", 100))
    assert r.run(frames=7).frames == 7
    assert len(out(r)) == 7
    r = paced(list_source("ir", 300), list_source("rgb", 300))
    result = r.run(duration_s=0.5)
    assert 1 <= result.frames <= 17
    assert r.rig.sources["ir"].closed


def test_recordings_are_paced_by_their_times_and_speed():
    r = paced(list_source("ir", 31), list_source("rgb", 31), playback=Playback(speed=2.0))
    start = time.monotonic()
    result = r.run()
    assert time.monotonic() - start >= 0.49
    frames = out(r)
    assert result.frames > 10
    assert all(f.pair.rgb.stamp is Stamp.PLAYBACK for f in frames)
    gaps = np.diff([f.pair.rgb.t_ns for f in frames]) / MS
    assert np.median(gaps) == pytest.approx(1000 / 60, abs=0.1)


def test_a_loop_goes_on_with_rising_times_and_numbers():
    def make(stream):
        return list_source(stream, 10)

    r = lossless(make("ir"), make("rgb"), reopen=make, playback=Playback(None, loop=True))
    r.run(frames=35)
    rgb = [f.pair.rgb for f in out(r)]
    assert [f.frame_id for f in rgb] == list(range(35))
    assert np.diff([f.t_ns for f in rgb]) == pytest.approx(100 / 3 * MS, abs=2)
    assert {f.pair.skew_ns for f in out(r)} == {0}


def test_a_slow_fuser_drops_frames_at_the_front_and_the_age_stays_flat():
    r = paced(list_source("ir", 90), list_source("rgb", 90), stages=fused_by(Slow(0.1)))
    result = r.run()
    assert 5 <= result.frames <= 32
    assert result.delay_ms[2] < 1000  # three seconds of recording, were it to build up
    ids = [f.pair.rgb.frame_id for f in out(r)]
    assert ids == sorted(ids)
    rgb = result.frames + sum(n for k, n in result.drops.items() if k[0] == "rgb")
    assert rgb == 90
    assert {c for s, c in result.drops if s == "rgb"} <= {"busy", "queue"}


def test_a_very_slow_fuser_gets_the_newest_frame_from_the_first_on():
    """A queue that filled during its first frame was fused as a whole: eight costs late, before anything was judged."""
    r = paced(list_source("ir", 90), list_source("rgb", 90), stages=fused_by(Slow(0.4)))
    result = r.run()
    assert 4 <= result.frames <= 9
    assert result.delay_ms[2] < 3 * 400
    assert result.drops["rgb", "busy"] > 0


def test_a_hiccup_is_caught_up_with_not_dropped():
    """Skipping to the newest would lose twenty frames; a busy machine may lose one or two by itself."""

    class Hiccup(Slow):
        def fuse(self, thermal, rgb):
            self.seconds, wait = 0.0, self.seconds
            time.sleep(wait)
            return rgb

    r = paced(list_source("ir", 60), list_source("rgb", 60), stages=fused_by(Hiccup(0.7)), queue=64)
    result = r.run()
    assert result.frames >= 50
    assert result.frames + sum(n for (stream, _), n in result.drops.items() if stream == "rgb") == 60


def test_a_fuser_that_only_just_holds_the_rate_does_not_keep_the_queue_of_a_hiccup():
    """Eight frames that wait, each 33 ms after the one before, would be 270 ms for ever."""

    class Tight(Slow):
        def fuse(self, thermal, rgb):
            self.seconds, wait = 0.03, self.seconds
            time.sleep(wait)
            return rgb

    r = paced(list_source("ir", 90), list_source("rgb", 90), stages=fused_by(Tight(0.4)))
    assert r.run().delay_ms[0] < 150


def test_a_stuck_sink_does_not_hold_up_the_others():
    release = threading.Event()

    class Stuck(Memory):
        def write(self, fused):
            release.wait(10)
            super().write(fused)

    sinks = {"memory": Memory(), "stuck": Stuck()}
    r = paced(list_source("ir", 30), list_source("rgb", 30), stages=fused_by(Slow(0.0)), sinks=sinks)
    with pytest.raises(StageFailed, match="last frames"):
        r.run()
    release.set()
    assert len(out(r)) == 30


def test_each_thermal_frame_is_aligned_once():
    aligned = []

    class Counting(Aligner):
        def __call__(self, ir):
            aligned.append(1)
            return super().__call__(ir)

    stages = Stages(Counting((48, 64), (48, 64)), open_fuser("pyramid"), PLAIN)
    r = lossless(list_source("ir", 10, period_ms=100), list_source("rgb", 30), stages=stages)
    assert r.run().reused == 20
    assert len(aligned) == 10


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("stage", ["ir", "rgb", "fuse", "align", "sink"])
def test_a_failing_stage_ends_the_run_with_its_name(stage, live):
    class Broken(Memory):
        def write(self, fused):
            raise ZeroDivisionError("boom")

    class BrokenStage:
        name = "broken"
        valid = grid = None

        def __call__(self, *_):
            raise ZeroDivisionError("boom")

        fuse = __call__

    broken = ZeroDivisionError("boom")
    ir, rgb = (list_source(s, 60, fail=broken if stage == s else None) for s in ("ir", "rgb"))
    options = {
        "fuse": {"stages": fused_by(BrokenStage())},
        "align": {"stages": Stages(BrokenStage(), open_fuser("pyramid"))},
        "sink": {"sinks": {"screen": Broken()}},
    }
    r = (paced if live else lossless)(ir, rgb, **options.get(stage, {}))
    name = {"ir": "capture of ir", "rgb": "capture of rgb", "fuse": "fuse with broken", "sink": "screen"}.get(
        stage, stage
    )
    with pytest.raises(StageFailed, match=rf"{name} failed: ZeroDivisionError: boom"):
        r.run()
    assert ir.closed
    assert rgb.closed


def test_our_own_errors_speak_for_themselves():
    r = lossless(list_source("ir", 5), list_source("rgb", 5, fail=SourceLost("the cable is out")))
    with pytest.raises(SourceLost, match="the cable is out"):
        r.run()


def test_streams_that_never_overlap_are_refused_with_both_spans():
    r = lossless(list_source("ir", 30), list_source("rgb", 30, start_ms=10_000))
    with pytest.raises(NoOverlap, match=r"thermal 0\.00 to 1\.00 s, RGB 10\.00 to 11\.00 s"):
        r.run()


def test_streams_that_overlap_but_never_meet_are_refused_after_the_fact():
    ir, rgb = list_source("ir", 3, start_ms=450, period_ms=20), list_source("rgb", 2, period_ms=1000)
    r = lossless(ir, rgb, pairer=Pairer(tolerance_ns=MS))
    with pytest.raises(NoOverlap, match=r"sync\.tolerance_ms"):
        r.run()


def test_stop_ends_a_live_run_soon():
    stop = threading.Event()
    r = paced(list_source("ir", 3000), list_source("rgb", 3000), stop=stop)
    threading.Timer(0.3, stop.set).start()
    start = time.monotonic()
    r.run()
    assert time.monotonic() - start < 2


def test_a_source_that_hangs_does_not_keep_the_run_from_ending():
    release = threading.Event()

    class Hanging(ListSource):
        def __iter__(self):
            release.wait(20)
            return iter(())

    ir = Hanging("ir", [make_frame("ir")], live=True)
    r = paced(ir, list_source("rgb", 300))
    start = time.monotonic()
    result = r.run(duration_s=0.3)
    assert time.monotonic() - start < 2
    assert result.drops["rgb", "no_ir"] > 3
    release.set()


def test_the_pair_queue_pairs_at_once_and_drops_its_oldest_when_full():
    ticks = iter(range(1000))
    pairer = Pairer(tolerance_ns=17 * MS, wait_ns=20 * MS)
    pair_queue = LivePairQueue(pairer, 3, clock=lambda: next(ticks) * MS)
    for k in range(5):
        for stream in ("ir", "rgb"):
            pair_queue.put(make_frame(stream, k))
    assert [pair.rgb.frame_id for pair in pair_queue.take(0)] == [2, 3, 4]
    assert pair_queue.drops == {("rgb", "queue"): 2}


def test_all_frames_are_accounted_for_with_unequal_streams():
    ir, rgb = list_source("ir", 200, period_ms=1000 / 60), list_source("rgb", 75, start_ms=300, period_ms=40)
    result = lossless(ir, rgb).run()
    counted = {s: sum(n for k, n in result.drops.items() if k[0] == s) for s in ("ir", "rgb")}
    assert result.frames + counted["rgb"] == 75
    assert result.frames - result.reused + counted["ir"] <= 200


class Overtaken(Health):
    """A stream whose next frame comes just after its state was read."""

    def _state(self, now):
        seen = super()._state(now)
        self._any_ns = self._shown_ns = now
        return seen


def test_a_gap_that_ends_while_it_is_told_is_told_as_a_gap(caplog):
    """Otherwise the log would say that a stream is back which never went away."""
    caplog.set_level("INFO")
    clock = Ticks()
    pipeline = paced(list_source("ir", 3), list_source("rgb", 3))
    health = pipeline.rig.health["ir"] = Overtaken("ir", quiet_ns=150 * MS, clock=clock)
    health.frame(make_frame("ir", t_ns=0))
    pipeline._follow()
    clock.ns = 400 * MS
    pipeline._follow()
    pipeline._follow()
    assert [r.getMessage() for r in caplog.records] == ["thermal: no frame comes", "thermal is back"]
    assert caplog.records[-1].rtfuse_fields["was"] == "stalled"
