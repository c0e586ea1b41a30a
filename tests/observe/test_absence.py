"""A stream that stops is said once, and once when it is back."""

from __future__ import annotations

from rtfuse.observe.absence import Absence


def watched():
    now, said = [0.0], []
    return now, said, Absence("the rig", said.append, unseen=lambda: "nothing yet", clock=lambda: now[0])


def test_gone_and_back_are_said_once():
    now, said, absence = watched()
    for now[0] in (0.1, 0.2):
        absence.frame()
    for now[0] in (1.0, 2.1, 2.3, 5.0):
        absence.nothing()
    assert said == ["the rig is gone: no frame for 2.1 s; waiting for it"]
    for now[0] in (7.2, 7.3):
        absence.frame()
    assert said[1:] == ["the rig is back after 7.0 s"]
    now[0] = 10
    absence.nothing()
    assert len(said) == 3


def test_a_stream_that_never_came_is_not_gone_but_unseen():
    now, said, absence = watched()
    for now[0] in (1.0, 2.0, 9.0):
        absence.nothing()
    absence.frame()
    assert said == ["nothing yet"]


def test_a_slow_stream_is_not_gone_between_its_frames():
    now, said, absence = watched()
    for now[0] in (1, 3, 5):
        absence.frame()
    now[0] = 12
    absence.nothing()
    assert said == []
    now[0] = 13
    absence.nothing()
    assert len(said) == 1
