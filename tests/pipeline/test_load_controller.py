"""A rig that has too little processor steps down in time and in order, and up again without flapping; no clock runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.pipeline.load_controller import LoadController

MS, S = 1_000_000, 1_000_000_000
PERIOD_MS = 1000 / 30


@dataclass
class Part:
    """Something that can be lowered by some degrees; `log` is shared, and gets each change."""

    name: str
    degrees: int
    log: list[str] = field(default_factory=list)
    degree: int = 0
    useful: bool = True
    room: bool = True

    @property
    def lowered(self):
        return f"{self.name} {self.degree}" if self.degree else None

    @property
    def can_lower(self):
        return self.useful and self.degree < self.degrees

    @property
    def can_lift(self):
        return self.degree > 0 and self.room

    def lower(self):
        return self._to(self.degree + 1)

    def lift(self):
        return self._to(self.degree - 1)

    def _to(self, degree):
        self.degree = degree
        self.log.append(f"{self.name} {degree}")
        return self.log[-1]


class Machine:
    """A rig at 30 Hz, with parts to lower and a clock of its own."""

    def __init__(self, *, patient=False, own_ms=10.0):
        self.log = []
        self.page, self.previews, self.fuser = (
            Part(*a, self.log) for a in (("page", 2), ("previews", 1), ("fuser", 1))
        )
        self.parts = [self.page, self.previews, self.fuser]
        self.controller = LoadController(self.parts, PERIOD_MS * MS, patient=patient)
        self.ms, self.own_ms, self.lost, self.waiting, self.waited_ns = 0.0, own_ms, 0.0, 0.0, 0
        self.changes = []

    @property
    def depth(self):
        return sum(part.degree for part in self.parts)

    def run(self, seconds, age_ms, *, loss=0.0):
        """Let frames come for some seconds; returns the changes, each with its second."""
        before, end = len(self.changes), self.ms + 1000 * seconds
        while self.ms < end:
            self.ms += PERIOD_MS
            self.lost += loss
            self.waited_ns += round(self.waiting * PERIOD_MS * MS)
            age = age_ms(self) if callable(age_ms) else age_ms
            if age is not None:
                self.controller.frame(round(age * MS))
                self.controller.cost(round(self.own_ms * MS))
            change = self.controller.look(round(self.ms * MS), lost=int(self.lost), waited_ns=self.waited_ns)
            if change is not None:
                self.changes.append((self.ms / 1000, change))
        return self.changes[before:]


def begun(**how):
    """Return a machine whose first seconds were quiet."""
    machine = Machine(**how)
    assert machine.run(5, 20) == []
    return machine


@pytest.mark.parametrize(
    ("age_ms", "loss", "first_s"),
    [(75, 0.0, 0.8), (120, 0.0, 0.6), (270, 0.0, 0.6), (40, 0.5, 0.8), (None, 1.0, 1.2)],
)
def test_the_first_step_comes_within_a_second(age_ms, loss, first_s):
    machine = begun()
    changes = machine.run(1.5, age_ms, loss=loss)
    assert changes[0][0] - 5 <= first_s
    assert changes[0][1].down


def test_everything_is_lowered_in_order_and_lifted_in_the_opposite_order():
    machine = begun()
    down = machine.run(3, 270)
    assert [c.what for _, c in down] == machine.log == ["page 1", "page 2", "previews 1", "fuser 1"]
    assert down[-1][0] - down[0][0] < 1.5
    assert machine.controller.lowered == ("page 2", "previews 1", "fuser 1")
    assert machine.run(60, 270) == []  # there is nothing left
    up = machine.run(100, 20)
    assert [c.what for _, c in up] == ["fuser 0", "previews 0", "page 1", "page 0"]
    assert not any(c.down for _, c in up)
    assert all(b - a >= 9 for (a, _), (b, _) in pairwise(up))
    assert machine.controller.lowered == ()


def test_what_would_not_help_is_left_out():
    machine = begun()
    machine.page.useful = False
    machine.run(3, 270)
    assert machine.log == ["previews 1", "fuser 1"]
    machine.fuser.room = False
    machine.run(60, 20)
    assert machine.log[2:] == ["previews 0"]


def one_in_eight(machine):
    return 300 if round(machine.ms / PERIOD_MS) % 8 == 0 else 20


@pytest.mark.parametrize(
    ("age_ms", "how", "loss"),
    [
        pytest.param(60, {}, 0.0, id="in time"),
        pytest.param(one_in_eight, {}, 0.0, id="one frame in eight is slow"),
        pytest.param(150, {}, 0.0, id="cameras that take long"),
        pytest.param(None, {}, 0.0, id="no frame comes"),
        pytest.param(30, {}, 0.1, id="few are lost"),
        pytest.param(400, {"patient": True, "own_ms": 350.0}, 0.9, id="a slow fuser that was chosen by name"),
    ],
)
def test_what_is_no_lack_of_processor_lowers_nothing(age_ms, how, loss):
    assert Machine(**how).run(60, age_ms, loss=loss) == []


def test_the_start_is_not_judged():
    machine = Machine()
    assert machine.run(3, 300) == []
    assert machine.run(30, 20) == []


def test_the_reason_is_said():
    machine = begun()
    machine.waiting = 0.5
    (_, first), (_, second), *_ = machine.run(1, 270, loss=0.5)
    assert first.why.startswith("frames are 270 ms old")
    assert second.why == "frames are 270 ms old, 33% are lost, tasks wait for a processor 50% of the time"


def test_while_tasks_wait_calm_counts_less():
    machine = begun()
    machine.run(3, 270)
    machine.waiting = 0.5
    assert machine.run(35, 20) == []
    assert len(machine.run(10, 20)) == 1


def loaded(capacity):
    """Return the age under a load that needs `capacity` degrees to be lowered."""
    return lambda machine: 25 if machine.depth >= capacity else 140


@pytest.mark.parametrize("capacity", [1, 2, 3, 4])
def test_under_a_load_that_stays_it_is_tried_less_and_less_often(capacity):
    machine = begun()
    machine.run(1200, loaded(capacity))
    assert machine.depth in (capacity - 1, capacity)
    lifts = [at for at, change in machine.changes if not change.down]
    waits = [b - a for a, b in pairwise(lifts)]
    assert all(b > 1.5 * a for a, b in pairwise(waits) if b < 290)
    assert len(lifts) <= 8
    late_s = sum(
        b - a for (a, x), (b, y) in zip(machine.changes, machine.changes[1:], strict=False) if y.down and not x.down
    )
    assert late_s < 0.4 * len(lifts)  # each failure costs one window and a part
    machine.run(60, 25)
    assert machine.depth <= capacity


def test_a_load_that_comes_back_after_a_minute_is_a_new_one():
    machine = begun()
    machine.run(300, loaded(1))
    machine.run(400, 20)
    assert machine.depth == 0
    machine.run(1, 140)
    (at, _), *_ = machine.run(15, 20)
    assert at - machine.changes[-2][0] < 12


phases = st.lists(
    st.tuples(st.floats(0.1, 20), st.one_of(st.none(), st.floats(1, 500)), st.sampled_from([0.0, 0.0, 0.2, 1.0])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(phases)
def test_whatever_comes_steps_are_in_order_bounded_and_do_not_flap(phases):
    machine = begun()
    for seconds, age_ms, loss in phases:
        machine.run(seconds, age_ms, loss=loss)
    degrees = {"page": 0, "previews": 0, "fuser": 0}
    limits = {"page": 2, "previews": 1, "fuser": 1}
    for _, change in machine.changes:
        name, degree = change.what.split()
        assert int(degree) == degrees[name] + (1 if change.down else -1)
        if change.down:  # all that comes before it is lowered already
            assert all(degrees[before] == limits[before] for before in list(limits)[: list(limits).index(name)])
        degrees[name] = int(degree)
    lifts = [at for at, change in machine.changes if not change.down]
    assert all(b - a >= 9 for a, b in pairwise(lifts))
    assert len(machine.changes) <= 4 + 2 * len(lifts)


@settings(max_examples=15, deadline=None)
@given(phases, st.floats(105, 2000))
def test_whatever_was_before_late_frames_lower_everything_soon_and_a_calm_lifts_it(phases, age_ms):
    machine = begun()
    for seconds, before_ms, loss in phases:
        machine.run(seconds, None if before_ms is None else before_ms % 40, loss=loss)
    machine.run(1, 10)
    assert machine.run(1.1, age_ms) or machine.depth == 4
    machine.run(4, age_ms)
    assert machine.depth == 4
    machine.run(700, 10)
    assert machine.depth == 0


def test_what_is_late_with_nothing_left_to_lower_is_known_until_a_calm():
    machine = begun()
    machine.run(0.7, 270)
    assert machine.depth
    assert machine.controller.stuck is None
    machine.run(2.5, 270, loss=0.5)
    assert machine.depth == 4
    assert machine.controller.stuck is None, "the last step has had no time to show its effect"
    machine.run(3, 270, loss=0.5)
    assert machine.controller.stuck.startswith("frames are 270 ms old")
    machine.run(9, 20)
    assert machine.controller.stuck is not None
    machine.run(2, 20)
    assert machine.controller.stuck is None


@pytest.mark.parametrize(("own_ms", "stuck"), [(30, None), (90, "it takes 90 ms to fuse a frame, 33 ms are there")])
def test_a_fuser_that_stays_and_is_slower_than_the_cameras_is_known(own_ms, stuck):
    machine = begun(patient=True, own_ms=own_ms)
    machine.run(5, own_ms + 10, loss=0.6 if stuck else 0.0)
    assert machine.controller.stuck == stuck
    machine.run(30, own_ms + 10)
    assert machine.controller.stuck == stuck
    assert not machine.depth
