"""Guess the board in a picture, and name it where another one is wanted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from calib import guess as guesses_of
from calib.footage import Moment
from calib.guess import BoardDoubt, guess_board
from calib.targets import parse_board
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.types import Frame
from tools.render_boards import BoardScene, rig_of_scene

RIG = rig_of_scene(SyntheticScene.from_uri("synthetic:?warp=1&ir_size=320x240"))


@pytest.mark.parametrize(
    "text", ["checkerboard:9x6:25mm", "circles:7x5:30mm", "acircles:4x9:20mm", "charuco:7x5:35mm:26mm"]
)
def test_most_pictures_of_a_board_name_it_and_none_names_another(text):
    scene = BoardScene(RIG, parse_board(text), seed=1)
    guesses = [guess_board(scene.picture("rgb", pose)) for pose in scene.poses(4)]
    name = ":".join(text.split(":")[:2])
    assert guesses.count(name) >= 2
    assert set(guesses) <= {name, None}


def test_a_board_that_may_go_on_outside_the_picture_is_not_named():
    scene = BoardScene(RIG, parse_board("circles:7x5:30mm"), seed=1)
    pose = next(p for p in scene.poses(4) if guess_board(scene.picture("rgb", p)) == "circles:7x5")
    picture, grid = scene.picture("rgb", pose), scene.pixels("rgb", pose).reshape(5, 7, 2)
    end = int((grid[:, 5, 0].max() + grid[:, 6, 0].min()) / 2)  # between the last two columns
    assert guess_board(np.ascontiguousarray(picture[:, :end])) is None


def test_pictures_without_a_board_give_no_guess():
    rng = np.random.default_rng(0)
    for image in (
        np.zeros((240, 320), np.uint8),
        rng.integers(0, 255, (240, 320), np.uint8),
        cv2.GaussianBlur(rng.integers(0, 255, (240, 320, 3), np.uint8), (0, 0), 4),
        np.zeros((4, 4), np.uint16),
    ):
        assert guess_board(image) is None


def look(doubt, scene, count):
    """Show a doubt `count` pictures of a scene, a second apart."""
    for k, pose in enumerate(scene.poses(count)):
        image = scene.picture("rgb", pose)
        doubt.look(Moment(None, Frame("rgb", image, k, k * 10**9, "arrival", k * 10**9)))


def test_a_doubt_is_sure_after_some_pictures_and_later_for_live_cameras():
    scene = BoardScene(RIG, parse_board("charuco:7x5:35mm:26mm"), seed=1)
    doubt, live = (BoardDoubt(parse_board("checkerboard:9x6:25mm"), live) for live in (False, True))
    for one in (doubt, live):
        look(one, scene, 4)
    assert doubt.sure
    assert not live.sure
    assert "4 of 4 pictures seem to show charuco:7x5" in live.hint()
    same = BoardDoubt(parse_board("charuco:5x7:35mm:26mm"), False)
    look(same, scene, 4)
    assert not same.sure
    assert same.hint() == ""


@pytest.mark.parametrize("given", ["checkerboard:10x7:25mm", "checkerboard:7x10:25mm"])
def test_a_board_counted_in_squares_is_said_to_be(given):
    doubt = BoardDoubt(parse_board(given), False)
    look(doubt, BoardScene(RIG, parse_board("checkerboard:9x6:25mm"), seed=1), 3)
    assert "checkerboard:9x6: --board counts inner corners" in doubt.hint()


def vote(monkeypatch, doubt, names, found=()):
    """Show a doubt one picture for each guess, a second apart; `found`: moments with the wanted board."""
    image = np.zeros((24, 24, 3), np.uint8)
    for k, name in enumerate(names):
        monkeypatch.setattr(guesses_of, "guess_board", lambda _, name=name: name)
        moment = Moment(None, Frame("rgb", image, k, k * 10**9, "arrival", k * 10**9))
        doubt.look(moment, int(k in found))


def test_a_smaller_board_inside_a_larger_one_votes_for_the_larger(monkeypatch):
    doubt = BoardDoubt(parse_board("checkerboard:8x6:25mm"), False)
    vote(monkeypatch, doubt, ["checkerboard:9x6", "checkerboard:5x3", "checkerboard:9x6", "checkerboard:5x3"])
    assert doubt.sure
    assert "4 of 4 pictures seem to show checkerboard:9x6" in doubt.hint()


def test_one_larger_guess_does_not_take_the_votes_of_a_smaller_board(monkeypatch):
    doubt = BoardDoubt(parse_board("checkerboard:8x6:25mm"), False)
    vote(monkeypatch, doubt, ["checkerboard:7x5"] * 4 + ["checkerboard:12x9"])
    assert doubt.sure
    assert "4 of 5 pictures seem to show checkerboard:7x5" in doubt.hint()


def test_votes_of_another_kind_are_not_those_of_a_larger_board(monkeypatch):
    doubt = BoardDoubt(parse_board("checkerboard:8x6:25mm"), False)
    vote(monkeypatch, doubt, ["checkerboard:9x6", "circles:5x3"] * 2)
    assert not doubt.sure


def test_one_finding_of_the_wanted_board_does_not_silence_the_guesses(monkeypatch):
    doubt = BoardDoubt(parse_board("checkerboard:8x6:25mm"), False)
    vote(monkeypatch, doubt, ["checkerboard:9x6"] * 5, found={0})
    assert doubt.sure
    assert "4 of 5 pictures seem to show checkerboard:9x6" in doubt.hint()


def test_a_board_that_is_found_often_is_not_doubted(monkeypatch):
    doubt = BoardDoubt(parse_board("checkerboard:8x6:25mm"), False)
    vote(monkeypatch, doubt, ["checkerboard:9x6"] * 40, found=set(range(6)))
    assert not doubt.sure
    assert doubt.hint() == ""


def test_a_part_of_a_larger_checkerboard_is_not_named():
    scene = BoardScene(RIG, parse_board("checkerboard:9x6:25mm"), seed=1)
    pose = next(p for p in scene.poses(4) if guess_board(scene.picture("rgb", p)) == "checkerboard:9x6")
    picture, corners = scene.picture("rgb", pose), scene.pixels("rgb", pose).reshape(6, 9, 2)
    part = corners[1:5, 2:7].reshape(-1, 2)
    cells = np.stack(np.meshgrid(np.arange(5), np.arange(4)), -1).reshape(-1, 2)
    whole = np.stack(np.meshgrid(np.arange(9), np.arange(6)), -1).reshape(-1, 2)
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    assert guesses_of._goes_on(grey, cells, part)
    assert not guesses_of._goes_on(grey, whole, corners.reshape(-1, 2))
