"""Guess the board in a picture, and name it where another one is wanted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

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
