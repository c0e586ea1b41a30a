"""Detection measures: AP as pycocotools computes it, its intervals, labels and class names, and their errors."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from rtfuse.errors import ConfigError
from rtfuse.wire.detections import Box
from trainer.measures.average_precision import Matched, draws, matched
from trainer.measures.detection import Detection
from trainer.measures.labels import Classes, read_classes, read_labels, split_by_time

pytest.importorskip("pycocotools")


def random_boxes(rng, pictures=12, digits=1):
    """Return true boxes of two classes, and detections with errors, misses and false ones; one digit: equal scores."""
    truth, found = [], []
    for _ in range(pictures):
        n = rng.integers(0, 6)
        boxes = np.column_stack([rng.integers(0, 2, n), rng.uniform(0, 80, (n, 2)), rng.uniform(8, 40, (n, 2))])
        near = boxes[rng.random(n) < 0.8].copy()
        near[:, 1:] += rng.normal(0, 3, near[:, 1:].shape)
        wrong = np.column_stack([rng.integers(0, 2, 3), rng.uniform(0, 80, (3, 2)), rng.uniform(8, 40, (3, 2))])
        rows = np.vstack([near, wrong])
        found.append(np.column_stack([rows, np.round(rng.random(len(rows)), digits)]))
        truth.append(boxes)
    return truth, found


def coco_aps(truth, found, label):
    """Return AP at 0.5 and its mean over IoU limits by pycocotools' own accumulation."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        boxes = [(k, row) for k, rows in enumerate(truth) for row in rows]
        coco.dataset = {
            "images": [{"id": k} for k in range(len(truth))],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": [
                {
                    "id": n,
                    "image_id": k,
                    "category_id": int(r[0]),
                    "bbox": list(r[1:]),
                    "area": r[3] * r[4],
                    "iscrowd": 0,
                }
                for n, (k, r) in enumerate(boxes, 1)
            ],
        }
        coco.createIndex()
        rows = np.array([[k, *row[1:5], row[5], row[0]] for k, each in enumerate(found) for row in each])
        judge = COCOeval(coco, coco.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, label, 0, 2]
    return precision[0].mean(), precision.mean()


def test_ap_is_that_of_pycocotools():
    for seed in range(5):
        truth, found = random_boxes(np.random.default_rng(seed))
        each = matched(truth, found, [0, 1])
        for label in (0, 1):
            assert each[label].precision(np.ones(len(truth))) == pytest.approx(coco_aps(truth, found, label), abs=1e-9)


def test_a_picture_of_weight_two_counts_as_if_it_were_there_twice():
    truth, found = random_boxes(np.random.default_rng(1), digits=12)
    weights, once = draws(len(truth), 20), matched(truth, found, [0, 1])
    for row in weights:
        again = [k for k, n in enumerate(row) for _ in range(int(n))]
        drawn = matched([truth[k] for k in again], [found[k] for k in again], [0, 1])
        for label in (0, 1):
            assert once[label].precision(row) == pytest.approx(
                drawn[label].precision(np.ones(len(again))), abs=1e-9, nan_ok=True
            )


def test_without_boxes_or_detections():
    nothing = Matched(np.empty(0, np.int64), np.empty((10, 0), bool), np.array([1, 0]))
    assert nothing.precision(np.ones(2)) == (0, 0)
    assert np.isnan(nothing.precision(np.array([0.0, 1.0]))).all()
    assert matched([np.array([[0, 1, 1, 9, 9.0]])], [np.empty((0, 6))], [0])[0].precision(np.ones(1)) == (0, 0)


def bright(image):
    """A detector that boxes all that is brighter than 200, as a person, and boxes the corner as a boat."""
    ys, xs = np.nonzero((image if image.ndim == 2 else image.mean(axis=2)) > 200)
    boat = [Box(x=0, y=0, width=4, height=4, label="boat", score=0.2)]
    if not len(xs):
        return boat
    x, y = int(xs.min()), int(ys.min())
    width, height = int(xs.max()) + 1 - x, int(ys.max()) + 1 - y
    return [*boat, Box(x=x, y=y, width=width, height=height, label="person", score=0.9)]


def test_who_sees_the_person_is_told_for_each_source_and_method():
    labels = {f"{k}{'DN'[k % 2]}": np.array([[0, 0.5, 0.5, 0.25, 0.5], [7, 0.1, 0.1, 0.1, 0.1]]) for k in range(8)}
    meter = Detection(bright, labels, Classes({0: ("person",)}))
    for k, name in enumerate(labels):
        ir, rgb = np.zeros((40, 80), np.uint8), np.zeros((40, 80, 3), np.uint8)
        ir[10:30, 30:50] = 255
        if k % 2 == 0:
            rgb[10:30, 30:50] = 255  # RGB sees it by day alone
        meter.add(name, ir, rgb, {"max": np.maximum(ir, rgb[..., 0]), "blind": np.zeros_like(ir)})
    meter.add("unlabelled", ir, rgb, {"max": ir, "blind": ir})
    result = meter.result()
    ap50 = {time: {m: found["person"].ap50.value for m, found in each.items()} for time, each in result.items()}
    assert ap50["day"] == pytest.approx({"rgb": 1, "thermal": 1, "max": 1, "blind": 0})
    assert ap50["night"] == pytest.approx({"rgb": 0, "thermal": 1, "max": 1, "blind": 0})
    half = result["all"]["rgb"]["person"]
    assert half.ap50.value == pytest.approx(51 / 101)  # half of the boxes: recalls 0 to 0.5 of 101
    assert half.ap50.low < half.ap50.value < half.ap50.high
    assert (half.boxes, half.pictures) == (8, 8)
    assert (result["all"]["max"]["person"].share, result["all"]["blind"]["person"].share) == (1, 0)
    assert np.isnan(half.share)
    said = "; ".join(meter.lines())
    assert "8 boxes of classes [7]" in said
    assert "boat" in said
    assert "D or N" in said
    assert "leaves out 1 pairs without a label file" in said


def test_labels_are_checked(tmp_path):
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n\n1 .9 .9 .2 .2\n")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "classes.txt").write_text("person\ncar\n")
    found = read_labels(tmp_path, ["a", "b", "c"])
    assert found["a"].shape == (2, 5)
    assert found["b"].shape == (0, 5)
    with pytest.raises(ConfigError, match=r"1 of 2 label files have no pair of their name, e.g. b\.txt"):
        read_labels(tmp_path, ["a"])
    for line, words in [
        ("0 0.5 0.5 0.2 1.2", r"a\.txt line 1: the box lies outside 0 to 1"),
        ("0 0.5 0.5 0 0.2", "has no area"),
        ("0 0.5 0.5 0.2", "want 'class x y width height'"),
        ("person 0.5 0.5 0.2 0.2", "want 'class x y width height'"),
        ("0 nan 0.5 0.2 0.2", "outside 0 to 1"),
    ]:
        (tmp_path / "a.txt").write_text(line)
        with pytest.raises(ConfigError, match=words):
            read_labels(tmp_path, ["a", "b"])
    with pytest.raises(ConfigError, match="is not a folder"):
        read_labels(tmp_path / "absent", [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"has no \.txt file"):
        read_labels(tmp_path / "empty", [])


def test_class_names_come_from_the_option_a_file_or_the_folder(tmp_path):
    assert read_classes("0=person,2=car+truck", tmp_path).names == {0: ("person",), 2: ("car", "truck")}
    with pytest.raises(ConfigError, match="name the label classes"):
        read_classes(None, tmp_path)
    (tmp_path / "classes.txt").write_text("person\nbicycle\n")
    assert read_classes(None, tmp_path).names == {0: ("person",), 1: ("bicycle",)}
    for text, words in [("0=", "want NUMBER=NAME"), ("x=car", "want NUMBER"), ("gone.txt", "neither a file"),
                        ("0=car,1=car", "'car' to two")]:  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            read_classes(text, tmp_path)


def test_day_and_night_come_from_names_or_from_brightness():
    assert split_by_time({"01D": 10, "02N": 90})[0] == {"01D": "day", "02N": "night"}
    times, said = split_by_time({"a": 20, "02N": 90})
    assert times == {"a": "night", "02N": "day"}
    assert "guessed" in said
