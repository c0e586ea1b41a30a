"""Each moment's own calibration: when files give one, and how the stages follow it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.capture import open_source
from rtfuse.config import load_config
from rtfuse.fuse import open_fuser
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.photos import own_calibrations, stored_calibration
from rtfuse.pipeline.scenes import Scenes
from rtfuse.types import Pair
from tests import flirs

W, H, PHOTO_WH = 40, 30, (160, 120)


def written(path, offset_xy):
    counts = np.random.default_rng(1).integers(15000, 20000, (H, W)).astype(np.uint16)
    photo = np.random.default_rng(2).integers(0, 255, (PHOTO_WH[1], PHOTO_WH[0], 3)).astype(np.uint8)
    records = [flirs.camera((W, H)), flirs.pixels(counts), flirs.photo(photo), flirs.pip(2.0, offset_xy)]
    path.write_bytes(flirs.rjpeg(flirs.fff(*records)))
    return str(path)


def moment_of(path):
    return Pair(*(next(iter(open_source(path, stream))) for stream in ("ir", "rgb")))


@pytest.mark.parametrize(
    ("ir", "rgb", "calib", "expected"),
    [
        ("a.jpg", "a.jpg", None, True),
        (".", ".", None, True),
        ("*.jpg", "*.jpg", None, True),
        ("a.jpg", "b.png", None, False),
        ("b.png", "b.png", None, False),
        ("a.jpg", "a.jpg", "calibration.yaml", False),
        ("synthetic:", "synthetic:", None, False),
    ],
)
def test_only_the_photo_of_the_same_file_is_laid_by_its_numbers(tmp_path, monkeypatch, ir, rgb, calib, expected):
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "a.jpg", (0, 0))
    cv2.imwrite("b.png", np.zeros((H, W), np.uint8))
    config = load_config(options={"ir.uri": ir, "rgb.uri": rgb, "align.calib": calib})
    assert (own_calibrations(config) is not None) is expected


def test_the_stages_follow_each_file(tmp_path):
    first, second = (moment_of(written(tmp_path / f"{k}.jpg", offset)) for k, offset in enumerate([(0, 0), (16, -8)]))
    config = load_config(options={"ir.uri": str(tmp_path), "rgb.uri": str(tmp_path), "fuse.fuser": "pyramid"})
    with open_rig(config) as rig:
        reached = []
        for moment in (first, first, second):
            ys, xs = np.nonzero(rig.stages.process(moment).valid)
            reached.append((xs.min(), ys.min()))
        assert reached[0] == reached[1]
        assert np.subtract(reached[2], reached[0]) == pytest.approx((16, -8), abs=1)
        before = rig.aligner
        rig.stages.process(second)
        assert rig.aligner is before  # the same numbers cost nothing
    assert str(open_fuser("pyramid")) == str(rig.fuser)


def test_refinement_has_the_last_word(tmp_path):
    path = written(tmp_path / "a.jpg", (0, 0))
    config = load_config(options={"ir.uri": path, "rgb.uri": path, "fuse.fuser": "pyramid"})
    asked = []

    def refine(moment, stored):
        asked.append(stored)
        return stored_calibration(moment_of(written(tmp_path / "b.jpg", (-12, 4))))

    with open_rig(config, scenes=Scenes(refine=refine)) as rig:
        rig.stages.process(moment_of(path))
        x, y = rig.aligner.place(((W - 1) / 2, (H - 1) / 2))
    assert asked == [stored_calibration(moment_of(path))]
    assert (x, y) == pytest.approx(((PHOTO_WH[0] - 1) / 2 - 12, (PHOTO_WH[1] - 1) / 2 + 4), abs=0.01)
