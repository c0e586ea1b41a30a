"""The load controller in a pipeline: what it sees, what it lowers, and what is said of it."""

from __future__ import annotations

import logging
import time

from live import wait_until
from scenes import Memory

from rtfuse.align.aligner import Aligner
from rtfuse.capture.synthetic import SyntheticScene, SyntheticSource
from rtfuse.cli.status import one_line
from rtfuse.config import load_config
from rtfuse.fuse import open_fuser
from rtfuse.fuse.auto import SteppingFuser
from rtfuse.observe.watchdog import Watchdog
from rtfuse.pipeline.queues import LivePairQueue, SinkThread
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.pipeline.stages import Stages
from rtfuse.pipeline.steps import steps_of
from rtfuse.sync.pairer import Pairer
from rtfuse.web.metrics import exposition

MS = 1_000_000
SIZE_WH = (64, 48)


class Slow:
    """A fuser that takes its time, without the interpreter."""

    def __init__(self, name, cost_s):
        self.name, self.cost_s = name, cost_s

    def prepare(self, ir_hw, rgb_hw):
        pass

    def aim(self, rate_hz):
        pass

    def fuse(self, thermal, rgb):
        time.sleep(self.cost_s)
        return rgb


class Page(Memory):
    """A sink that can do less, and is watched."""

    degree, degrees, watched = 0, 2, True

    def eased(self):
        return f"page {self.degree}"


def live(fuser, *, lowers=True, **sinks):
    """A pipeline of two live cameras of 30 Hz."""
    scene = SyntheticScene(size=SIZE_WH, live=True, noise=0)
    sources = {stream: SyntheticSource(scene, stream) for stream in ("ir", "rgb")}
    stages = Stages(Aligner(SIZE_WH[::-1], SIZE_WH[::-1]), fuser, load_config(None, ["fuse.steady=false"]))
    pairer = Pairer(tolerance_ns=17 * MS, max_reuse_ns=150 * MS, wait_ns=20 * MS)
    return Pipeline(Rig(sources, pairer, stages, lowers=lowers), {"publish": Memory(), **sinks}, age_at="publish")


def test_a_fuser_that_becomes_too_slow_has_the_page_the_window_and_itself_lowered_in_this_order(caplog):
    caplog.set_level(logging.INFO, "rtfuse.load")
    fuser = SteppingFuser([lambda: Slow("large", 0.09), lambda: Slow("small", 0.001)])
    pipeline = live(fuser, web=Page(), window=Memory())
    result = pipeline.run(duration_s=9)
    assert result.lowered == ("page 2", "the window to one frame in 5", "the fuser to small")
    said = [(r.levelname, r.getMessage().partition("): ")[2]) for r in caplog.records]
    order = ("page 1", "page 2", "the window to one frame in 5", "the fuser to small")
    assert said[:4] == [("WARNING", what) for what in order]
    assert all(r.getMessage().startswith("too little processor (frames are ") for r in caplog.records[:4])
    assert result.drops["window", "spared"] > 0
    assert result.fields()["lowered"] == list(result.lowered)


def test_what_is_not_to_be_lowered_is_not():
    pipeline = live(Slow("slow", 0.09), lowers=False, web=Page())
    assert pipeline.run(duration_s=6).lowered == ()
    assert pipeline.sinks["web"].degree == 0


def test_a_fuser_that_was_chosen_by_name_may_take_its_time_and_the_log_says_so_once(caplog):
    caplog.set_level(logging.INFO, "rtfuse.load")
    pipeline = live(Slow("slow", 0.4), web=Page())
    result = pipeline.run(duration_s=10)
    assert result.lowered == ()
    (said,) = [r.getMessage() for r in caplog.records if r.name == "rtfuse.load"]
    assert said.startswith("too little processor (it takes 4")
    assert said.endswith(
        " ms to fuse a frame, 33 ms are there), and lowering other parts does not help: "
        "the fuser was chosen by name and stays; load.fuser=true lets it change, --fuser auto chooses one"
    )
    assert result.fields()["overload"] == result.overload == said


def test_frames_that_stay_late_with_everything_lowered_are_said_once(caplog):
    caplog.set_level(logging.INFO, "rtfuse.load")
    pipeline = live(SteppingFuser([lambda: Slow("large", 0.12), lambda: Slow("small", 0.09)]))
    result = pipeline.run(duration_s=11)
    assert result.lowered == ("the fuser to small",)
    first, second = (r.getMessage() for r in caplog.records if r.name == "rtfuse.load")
    assert first.endswith("the fuser to small")
    assert "does not help: end other programs, or let the cameras send smaller pictures, or fewer" in second
    assert result.overload == second
    assert second in one_line(result)
    assert "rtfuse_overload 1.0" in exposition(result, {}).decode()


def test_a_preview_that_is_lowered_gets_one_frame_in_five_and_the_others_are_counted():
    pair_queue = LivePairQueue(Pairer(tolerance_ns=MS, max_reuse_ns=MS, wait_ns=MS), 2, clock=time.monotonic_ns)
    sink = Memory()
    window = SinkThread(
        "window", sink, lossless=False, pair_queue=pair_queue, written=lambda *_: None, watchdog=Watchdog("window", 9.0)
    )
    (step,) = steps_of([window], open_fuser("pyramid"))
    assert (step.lowered, step.can_lower, step.can_lift) == (None, True, False)
    assert step.lower() == step.lowered == "the window to one frame in 5"
    assert (step.can_lower, step.can_lift) == (False, True)
    for k in range(1, 12):
        window.offer(k)
        wait_until(lambda: not window.waiting)
    assert step.lift() == "the window to all frames"
    window.offer(12)
    window.finish()
    assert window.joined(10)
    assert sink.fused == [5, 10, 12]
    assert window.spared == 9


def test_a_fuser_whose_better_one_was_too_slow_at_the_start_is_not_called_lowered():
    """It may still be lifted, once there is room, and is then lowered from there."""
    fuser = SteppingFuser([lambda: Slow("large", 0.04), lambda: Slow("small", 0.001)], first=1, likely=True)
    fuser.prepare((48, 64), (48, 64))
    (step,) = steps_of([], fuser)
    assert (fuser.name, step.lowered, step.can_lower, step.can_lift) == ("small", None, False, False)
    fuser.aim(1)
    assert step.can_lift
    assert step.lift() == "the fuser to large"
    assert step.lowered is None
    step.lower()
    assert step.lowered is None
