"""Which network runs: by what each costs, and by what the machine does meanwhile."""

from __future__ import annotations

import numpy as np
import pytest

from rtfuse.errors import EngineUnavailable
from rtfuse.fuse import open_fuser
from rtfuse.fuse.auto import SteppingFuser

IR, RGB = np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint8)
MS = 1_000_000


class Machine:
    """A clock, and two fusers that take their time by it; `slower` makes both slower."""

    def __init__(self, small_ms, large_ms):
        self.now, self.slower, self.opened, self.broken = 0, 1.0, [], set()
        self.costs = {"student": small_ms, "ufuser": large_ms}

    def open(self, name):
        self.opened.append(name)
        return Timed(self, name)

    def auto(self, rate_hz=30, *, likely=False, below=()):
        openers = [lambda name=name: self.open(name) for name in ("ufuser", "student", *below)]
        fuser = SteppingFuser(openers, first=1, likely=likely, clock=lambda: self.now)
        fuser.aim(rate_hz)
        fuser.prepare(IR.shape, RGB.shape[:2])
        return fuser

    def run(self, fuser, frames, period_ms=33):
        """The names of what made each frame, with the frames coming at their rate."""
        names = []
        for _ in range(frames):
            before = self.now
            fuser(IR, RGB)
            names.append(fuser.name)
            self.now = max(self.now, before + period_ms * MS)
        return names


class Timed:
    def __init__(self, machine, name):
        self.machine, self.name = machine, name

    def prepare(self, ir_hw, rgb_hw):
        pass

    def fuse(self, thermal, rgb):
        return self(thermal(), rgb, thermal.valid)

    def __call__(self, ir, rgb, valid=None):
        if self.name in self.machine.broken:
            raise EngineUnavailable(f"{self.name}: the device is gone")
        self.machine.now += round(self.machine.costs[self.name] * self.machine.slower * MS)
        return rgb


@pytest.mark.parametrize(
    ("small_ms", "large_ms", "rate_hz", "name"),
    [(10, 400, 30, "student"), (1, 12, 30, "ufuser"), (1, 30, 30, "student"), (1, 30, 9, "ufuser")],
)
def test_the_best_that_holds_the_rate_with_a_margin(small_ms, large_ms, rate_hz, name):
    assert Machine(small_ms, large_ms).auto(rate_hz).name == name


def test_when_the_large_one_breaks_in_the_middle_the_small_one_fuses_that_frame_and_goes_on(caplog):
    machine = Machine(1, 12)
    fuser = machine.auto()
    assert machine.run(fuser, 3) == ["ufuser"] * 3
    machine.broken.add("ufuser")
    assert machine.run(fuser, 200) == ["student"] * 200
    assert [r.message for r in caplog.records] == ["ufuser: the device is gone; on with student"]
    assert str(fuser).endswith("ufuser failed")
    machine.broken.add("student")
    with pytest.raises(EngineUnavailable):
        fuser(IR, RGB)


def test_what_cannot_hold_it_is_not_even_opened_but_where_it_is_likely_to():
    for likely, opened in ((False, ["student"]), (True, ["student", "ufuser"])):
        machine = Machine(10, 400)
        machine.auto(likely=likely)
        assert machine.opened == opened


def test_a_machine_that_becomes_slow_steps_down_and_up_again():
    machine = Machine(0.5, 15)
    fuser = machine.auto()
    assert set(machine.run(fuser, 60)) == {"ufuser"}
    machine.slower = 3.0
    names = machine.run(fuser, 90)
    assert (names[0], names[-1]) == ("ufuser", "student")
    assert names == sorted(names, reverse=True)  # once, and for good while it is slow
    machine.slower = 1.0
    names = machine.run(fuser, 600)
    assert names[0] == "student"
    assert names[-1] == "ufuser"


def test_one_slow_frame_changes_nothing():
    machine = Machine(0.5, 15)
    fuser = machine.auto()
    machine.run(fuser, 60)
    machine.slower = 20.0
    machine.run(fuser, 1)
    machine.slower = 1.0
    assert set(machine.run(fuser, 60)) == {"ufuser"}


def test_it_is_tried_again_less_and_less_often():
    """On a machine that is fast only while nothing large runs, the picture must not change all the time."""
    machine = Machine(0.5, 15)
    fuser = machine.auto()
    changes = []
    for k in range(30 * 300):
        before = fuser.name
        machine.slower = 3.0 if before == "ufuser" and k > 60 else 1.0
        machine.run(fuser, 1)
        if fuser.name != before:
            changes.append(k)
    ups = changes[1::2]
    assert len(changes) < 16
    assert ups[-1] - ups[-2] > ups[1] - ups[0]


def test_the_real_ones_say_what_was_measured():
    fuser = open_fuser("auto", engine="eager")
    fuser.aim(0.01)  # a frame every 100 s: any machine holds that
    fuser.prepare((48, 64), (48, 64))
    assert fuser.name == "ufuser"
    assert "ms a frame, the cameras allow 100000 ms" in str(fuser)
    fuser = open_fuser("auto", engine="eager")
    fuser.aim(1e6)
    fuser.prepare((48, 64), (48, 64))
    assert fuser.name == "student"
    assert fuser(IR, RGB).shape == RGB.shape
