"""Read folders of stills for a calibration: by name, as `rtfuse fuse` does."""

from __future__ import annotations

import cv2
import numpy as np

from calib.footage import Footage


def test_a_missing_still_does_not_shift_the_pairs(tmp_path, caplog):
    for folder, missing in (("ir", 2), ("rgb", 5)):
        (tmp_path / folder).mkdir()
        for k in range(1, 8):
            if k != missing:
                cv2.imwrite(str(tmp_path / folder / f"{folder}_{k}.png"), np.full((8, 8), k, np.uint8))
    with Footage(str(tmp_path / "ir"), str(tmp_path / "rgb")) as footage:
        pairs = [(int(m.ir.image[0, 0]), int(m.rgb.image[0, 0, 0])) for m in footage]
    assert pairs == [(k, k) for k in (1, 3, 4, 6, 7)]
    assert "RGB: 1 of 6 without a partner, left out: rgb_2.png" in caplog.text
