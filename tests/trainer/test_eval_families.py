"""`trainer eval` with a detector and a segmenter: a table for each family, all values in JSON, and its errors."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from detect.test_detect import network as cells

from rtfuse.errors import ConfigError, RtfuseError
from trainer import cli

pytest.importorskip("pycocotools")


@pytest.fixture
def pairs(tmp_path):
    """Four pairs of 64x64: two cells of 8x8 that thermal shows always and RGB by day; labels, and masks of class 0."""
    for name in ("ir", "rgb", "labels", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for k, time in enumerate("DNDN"):
        ir, rgb = rng.integers(0, 20, (64, 64), np.uint8), rng.integers(0, 20, (64, 64, 3), np.uint8)
        for image in (ir, rgb) if time == "D" else (ir,):
            image[8:16, 16:24] = 250
            image[40:48, 24:32] = 250
        cv2.imwrite(str(tmp_path / "ir" / f"{k}{time}.png"), ir)
        cv2.imwrite(str(tmp_path / "rgb" / f"{k}{time}.png"), rgb)
        lines = [f"0 {(x + 4) / 64} {(y + 4) / 64} 0.125 0.125" for x, y in ((16, 8), (24, 40))]
        (tmp_path / "labels" / f"{k}{time}.txt").write_text("\n".join(lines))
    return tmp_path


def measured(pairs, **options):
    cli.evaluate(str(pairs / "ir"), str(pairs / "rgb"), pyramid=True, **options)


def test_ap_of_each_source_and_method_is_printed_and_written(pairs, capsys):
    model = cells(pairs / "cells.onnx", "v8")
    measured(pairs, detector=model, labels=pairs / "labels", classes="0=person", json=pairs / "all.json")
    said = capsys.readouterr().out
    for words in ("person AP50", "day (2)", "night (2)", "thermal", "halo", "by the D or N"):
        assert words in said
    found = json.loads((pairs / "all.json").read_text())
    night = found["detection"]["night"]
    assert night["thermal"]["person"]["ap50"]["value"] > 0.9
    assert night["rgb"]["person"]["ap50"]["value"] < 0.1
    assert found["detection"]["day"]["rgb"]["person"]["ap50"]["value"] > 0.9
    assert night["thermal"]["person"]["boxes"] == 4
    assert set(found["fidelity"]["pyramid"]) == {"0D", "1N", "2D", "3N"}
    assert found["artefacts"]["pyramid"]["0D"]["noise_gain"] > 0
    assert found["artefacts"]["pyramid"]["0D"]["cast"] < 1


def test_mistakes_are_one_line_before_anything_is_measured(pairs):
    model = cells(pairs / "cells.onnx", "v8")
    (pairs / "bad.onnx").write_bytes(b"no")
    labels = pairs / "labels"
    for options, words in [
        ({"detector": model}, "--detector needs --labels"),
        ({"labels": labels}, "--labels needs --detector"),
        ({"classes": "0=person"}, "--classes needs --labels"),
        ({"segmenter": model}, "--segmenter needs --masks"),
        ({"detector": model, "labels": labels}, "name the label classes"),
        ({"detector": pairs / "gone.onnx", "labels": labels, "classes": "0=person"}, r"gone\.onnx not found"),
        ({"detector": pairs / "bad.onnx", "labels": labels, "classes": "0=person"}, "cannot read"),
        ({"segmenter": model, "masks": pairs / "masks"}, r"holds no \.png|want one input"),
    ]:
        with pytest.raises(RtfuseError, match=words):
            measured(pairs, **options)
    (labels / "alone.txt").write_text("0 .5 .5 .1 .1")
    with pytest.raises(ConfigError, match=r"1 of 5 label files have no pair of their name, e.g. alone\.txt"):
        measured(pairs, detector=model, labels=labels, classes="0=person")
    scene = "synthetic:?size=64x64&duration_s=1"
    with pytest.raises(ConfigError, match="--detector is for folders of pictures"):
        cli.evaluate(scene, scene, pyramid=True, detector=model, labels=labels)
