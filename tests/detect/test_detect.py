"""`rtfuse detect`: boxes of every network layout, in pixels of the frame; warm spots; the command as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from live import publishing

from rtfuse import DetectionsSubscriber, Subscriber
from rtfuse.detect import Report, Warm, Watch, watch
from rtfuse.detect.yolo import Yolo, layout_of, letterboxed
from rtfuse.errors import ConfigError
from rtfuse.publish.detections import DetectionsPublisher
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Frame, Fused, Pair, Stamp
from rtfuse.wire.detections import Box

ROOT = Path(__file__).parents[2]
SIDE = 64
CELL = 8


def network(path, layout, *, names="{0: 'lamp', 1: 'person'}", half=False, extra=0, side=SIDE, imgsz=None):
    """Write a network that finds bright cells of 8x8: its boxes are those cells; red is a lamp, white a person.

    A real one, small: an average pool for each colour, a threshold, the boxes of the grid beside it.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind, number = (TensorProto.FLOAT16, np.float16) if half else (TensorProto.FLOAT, np.float32)
    n = SIDE // CELL
    cells = n * n
    centres = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) * CELL + CELL / 2
    whole = np.hstack([centres, np.full((cells, 2), CELL)])
    if layout == "end2end":
        whole = np.hstack([centres - CELL / 2, centres + CELL / 2])
    boxes = numpy_helper.from_array(whole[None].astype(number), "boxes")
    flat = numpy_helper.from_array(np.array([1, 3, cells], np.int64), "flat")
    # Of R, G and B to: lamp (red without green), person (green, which here only white has)
    mix = numpy_helper.from_array(np.array([[[1, -1, 0], [0, 1, 0]]], number), "mix")
    zero = numpy_helper.from_array(np.array(0, number), "zero")
    nodes = [
        helper.make_node("AveragePool", ["images"], ["pool"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["pool", "flat"], ["colours"]),
        helper.make_node("MatMul", ["mix", "colours"], ["raw"]),
        helper.make_node("Max", ["raw", "zero"], ["scores"]),  # (1, 2, cells)
        helper.make_node("Transpose", ["scores"], ["by_row"], perm=[0, 2, 1]),
    ]
    constants = [boxes, flat, mix, zero]
    if layout == "v8":
        nodes += [
            helper.make_node("Concat", ["boxes", "by_row"], ["rows"], axis=2),
            helper.make_node("Transpose", ["rows"], ["output"], perm=[0, 2, 1]),
        ]
        shape = [1, 6, cells]
    elif layout == "v5":
        constants.append(numpy_helper.from_array(np.ones((1, cells, 1), number), "object"))
        nodes.append(helper.make_node("Concat", ["boxes", "object", "by_row"], ["output"], axis=2))
        shape = [1, cells, 7]
    else:
        nodes += [
            helper.make_node("ReduceMax", ["by_row"], ["best"], axes=[2], keepdims=1),
            helper.make_node("ArgMax", ["by_row"], ["which"], axis=2, keepdims=1),
            helper.make_node("Cast", ["which"], ["class"], to=kind),
            helper.make_node("Concat", ["boxes", "best", "class"], ["output"], axis=2),
        ]
        shape = [1, cells, 6]
    outputs = [helper.make_tensor_value_info("output", kind, shape)]
    if extra:
        outputs.append(helper.make_tensor_value_info("pool", kind, [1, 3, n, n]))
    graph = helper.make_graph(
        nodes, "cells", [helper.make_tensor_value_info("images", kind, [1, 3, side, side])], outputs, constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    said = {"names": names, "imgsz": imgsz}
    helper.set_model_props(model, {key: value for key, value in said.items() if value})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def scene(w, h, cells):
    """A frame of any size in which these cells (column, row) of the network's input are white, or red."""
    image = np.zeros((h, w, 3), np.uint8)
    _, scale, offset = letterboxed(image, (SIDE, SIDE))
    for column, row, colour in cells:
        x0, y0 = np.round((np.array([column, row]) * CELL - offset) / scale).astype(int)
        x1, y1 = np.round((np.array([column + 1, row + 1]) * CELL - offset) / scale).astype(int)
        image[y0:y1, x0:x1] = colour
    return image


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_network_of_any_size_runs_at_the_one_that_it_was_made_for(tmp_path, engine):
    free = network(tmp_path / "free.onnx", "v8", side="side", imgsz=f"[{SIDE}, {SIDE}]")
    assert Yolo(free, engine=engine)(scene(64, 64, [(4, 3, WHITE)]))
    assert Yolo(free, engine=engine, size=128)._size_wh == (128, 128)
    plain = network(tmp_path / "plain.onnx", "v8", side="side")
    assert Yolo(plain, engine=engine)._size_wh == (640, 640)
    fixed = network(tmp_path / "fixed.onnx", "v8", imgsz="[96, 96]")
    assert Yolo(fixed, engine=engine, size=128)._size_wh == (SIDE, SIDE)


WHITE, RED = (255, 255, 255), (255, 0, 0)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layout", ["v5", "v8", "end2end"])
@pytest.mark.parametrize("size_wh", [(64, 64), (640, 480), (321, 243), (101, 333)])
def test_boxes_lie_where_the_things_are_in_the_frame(tmp_path, engine, layout, size_wh):
    w, h = size_wh
    find = Yolo(network(tmp_path / "m.onnx", layout), engine=engine)
    image = scene(w, h, [(4, 3, WHITE), (3, 5, RED)])
    found = {box.label: box for box in find(image) if box.score > 0.6}
    assert set(found) == {"person", "lamp"}
    for label, colour in (("person", WHITE), ("lamp", RED)):
        ys, xs = np.nonzero((image == colour).all(axis=2))
        box, off = found[label], max(w, h) / SIDE  # one pixel of the network's input
        assert abs(box.x - xs.min()) <= off
        assert abs(box.y - ys.min()) <= off
        assert abs(box.x + box.width - xs.max() - 1) <= off
        assert abs(box.y + box.height - ys.max() - 1) <= off


def test_gray_frames_and_half_precision_are_taken(tmp_path):
    find = Yolo(network(tmp_path / "m.onnx", "v8", half=True))
    image = scene(64, 48, [(4, 3, WHITE)])[..., 0]
    (box,) = [box for box in find(image) if box.score > 0.9]
    assert (box.x, box.y, box.width, box.height, box.label) == (32, 16, 8, 8, "person")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("written", "given", "label"),
    [
        ("{0: 'a', 1: 'b'}", (), "b"),
        ("['a', 'c']", (), "c"),
        (None, (), "class 1"),
        ("__import__('os').abort()", (), "class 1"),
        ("{0: 'a', 1: 'b'}", ("x", "y"), "y"),
    ],
)
def test_names_come_from_the_model_or_from_the_command_line(tmp_path, engine, written, given, label):
    find = Yolo(network(tmp_path / "m.onnx", "v8", names=written), engine=engine, names=given)
    assert {box.label for box in find(scene(64, 64, [(4, 3, WHITE)])) if box.score > 0.5} == {label}


def test_of_boxes_that_overlap_the_better_one_stays_in_each_class():
    from rtfuse.detect.yolo import decoded

    rows = np.zeros((1, 4, 7), np.float32)
    rows[0, :, :4] = [[50, 50, 20, 20], [52, 50, 20, 20], [50, 50, 20, 20], [90, 50, 20, 20]]
    rows[0, :, 4] = 0.5, 1, 1, 1
    rows[0, :, 5:] = [[0.9, 0], [0.8, 0], [0, 0.7], [0.2, 0]]
    for output, layout in ((rows, "v5"), (np.delete(rows, 4, 2).transpose(0, 2, 1), "v8")):
        corners, scores, classes = decoded(output, layout, 0.25, 0.45)
        kept = {(int(c), *map(round, box)) for box, c in zip(corners.tolist(), classes, strict=True)}
        assert kept == {(0, *((42, 40, 62, 60) if layout == "v5" else (40, 40, 60, 60))), (1, 40, 40, 60, 60)}
        assert max(scores) == pytest.approx(0.8 if layout == "v5" else 0.9)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((1, 84, 8400), "v8"),
        ((1, 5, 8400), "v8"),
        ((1, 6, 8400), "v8"),
        ((1, 25200, 85), "v5"),
        ((1, 25200, 6), "v5"),
        ((1, 300, 6), "end2end"),
        ((1, 100, 6), "end2end"),
    ],
)
def test_the_layout_is_told_from_the_shape(shape, layout):
    assert layout_of(shape, (640, 640)) == layout


@pytest.mark.parametrize("shape", [(1, 1000), (1, 3, 80, 80), (2, 84, 8400), (1, 4, 100)])
def test_an_output_that_has_no_boxes_is_refused(shape):
    with pytest.raises(ConfigError, match="want"):
        layout_of(shape, (640, 640))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_no_model_is_refused_in_one_line(tmp_path, engine):
    (tmp_path / "bad.onnx").write_bytes(b"\x08nonsense")
    for name in ("bad.onnx", "none.onnx"):
        with pytest.raises(ConfigError) as refused:
            Yolo(tmp_path / name, engine=engine)
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="2 outputs"):
        Yolo(network(tmp_path / "two.onnx", "v8", extra=1), engine=engine)


def thermal(w=160, h=120):
    image = np.random.default_rng(1).normal(60, 4, (h, w)).clip(0, 255).astype(np.uint8)
    image[40:80, 50:66] = 200
    return image


def test_what_is_warm_is_found_and_noise_is_not():
    (box,) = Warm()(thermal())
    assert abs(box.x - 50) <= 2
    assert abs(box.y - 40) <= 2
    assert abs(box.width - 16) <= 4
    assert abs(box.height - 40) <= 4
    assert (box.label, box.score > 0.5) == ("warm", True)
    assert Warm()(np.full((120, 160), 90, np.uint8)) == []
    with pytest.raises(ConfigError, match="--topic ir"):
        Warm()(np.zeros((120, 160, 3), np.uint8))


@pytest.mark.footage
def test_most_people_on_real_thermal_pictures_are_warm(footage):
    import cv2

    seen = people = 0
    for labels in sorted((footage / "pairs" / "msrs" / "labels").glob("*.txt"))[::4]:
        image = cv2.imread(str(next((footage / "pairs" / "msrs" / "ir").glob(labels.stem + ".*"))), 0)
        h, w = image.shape
        centres = [((b.x + b.width / 2) / w, (b.y + b.height / 2) / h) for b in Warm()(image)]
        for kind, cx, cy, bw, bh in (map(float, line.split()) for line in labels.read_text().splitlines() if line):
            if kind == 0:
                people += 1
                seen += any(abs(x - cx) < bw / 2 and abs(y - cy) < bh / 2 for x, y in centres)
    assert people > 30
    assert seen / people > 0.6


def test_boxes_go_out_best_first_and_never_too_many(tmp_path, playing):
    boxes = [Box(x=0, y=0, width=1, height=1, label="x", score=k / 500) for k in range(500)]
    with (
        Subscriber(playing.endpoint) as frames,
        DetectionsPublisher(f"ipc://{tmp_path}/boxes", detector="many") as out,
        DetectionsSubscriber(out.endpoint) as there,
    ):
        header = frames.recv(20).header
        said = None
        while said is None:
            sent = out.write(header, boxes, 1.5)
            said = there.recv(0.05)
            assert out.sent < 400
        assert [box.score for box in said.boxes] == [k / 500 for k in range(499, 99, -1)]
        assert (said.frame_session, said.frame_seq, said.rig) == (header.session, header.seq, header.rig)
        assert (said.detector, said.spent_ms, sent.session) == ("many", 1.5, said.session)
    with pytest.raises(ConfigError, match="--insecure"):
        DetectionsPublisher("tcp://0.0.0.0:5556", detector="x")
    with pytest.raises(ConfigError, match="characters"):
        DetectionsPublisher(f"ipc://{tmp_path}/boxes", detector="")


def one_frame():
    image = np.dstack([thermal()] * 3)
    ir, rgb = Frame("ir", image[..., 0].copy(), 0, 0, Stamp.ARRIVAL, 0), Frame("rgb", image, 0, 0, Stamp.ARRIVAL, 0)
    return Fused(image, ir.image, Pair(ir, rgb), None, "test")


@pytest.fixture
def playing(tmp_path):
    """A publisher of thermal and fused pictures with one bright thing in them."""
    publisher = Publisher([Offer(f"ipc://{tmp_path}/frames", planes=("fused", "ir"))])
    with publishing(publisher, one_frame(), every_s=0.01):
        yield publisher


@pytest.fixture
def tool(tmp_path):
    """Start the tool with arguments; what still runs at the end is killed."""
    running = []

    def start(*args):
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "rtfuse", "detect", *map(str, args)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONPATH": str(ROOT)},
            )
        )
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("model", [None, "v8"])
def test_the_tool_publishes_what_it_finds_until_ctrl_c(tmp_path, playing, tool, model):
    chosen = ["--model", network(tmp_path / "cells.onnx", model)] if model else []
    process = tool(playing.endpoint, "--publish", f"ipc://{tmp_path}/boxes", "--print", *chosen)
    with DetectionsSubscriber(f"ipc://{tmp_path}/boxes") as boxes:
        said = boxes.recv(60)
        assert said is not None, process.stderr
        assert (said.detector, said.frame_width, said.frame_height) == ("cells" if model else "warm", 160, 120)
        assert any(box.label == ("person" if model else "warm") and 40 < box.x < 70 for box in said.boxes)
        later = boxes.recv(20)
        assert later.frame_seq > said.frame_seq
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert f"{said.boxes[0].label} {said.boxes[0].score:.2f} at " in output
    assert "frames examined" in errors


def test_the_tool_says_in_one_line_what_it_cannot_do(tmp_path, playing, tool):
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(1).bytes(5000))
    for model in (tmp_path / "none.onnx", tmp_path / "noise.onnx", ROOT / "README.md", ROOT):
        process = tool(playing.endpoint, "--publish", f"ipc://{tmp_path}/boxes", "--model", model)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 2
        (line,) = errors.strip().splitlines()
        assert line.startswith(("error: openvino cannot read", "error: model"))
        assert str(model) in line
        assert len(line) < 120 + len(str(model))
    process = tool(playing.endpoint, "--publish", f"ipc://{tmp_path}/boxes", "--topic", "fused")
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, "error:" in errors, "Traceback" in errors) == (2, True, False)


def test_a_busy_address_is_found_before_the_model_is_loaded(tmp_path, playing, tool):
    with DetectionsPublisher(f"ipc://{tmp_path}/boxes", detector="x"):
        process = tool(playing.endpoint, "--publish", f"ipc://{tmp_path}/boxes", "--model", tmp_path / "none.onnx")
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = errors.strip().splitlines()
    assert f"{tmp_path}/boxes" in line
    assert "none.onnx" not in line


def test_a_rig_that_goes_and_comes_back_is_said_once_each(tmp_path):
    """The loop itself, with a publisher that stops for three seconds."""
    endpoint, said, over = f"ipc://{tmp_path}/frames", [], threading.Event()
    seen = []
    report = Report(said.append, lambda _: None, lambda header, boxes: seen.append(boxes))
    how = Watch(endpoint, "ir", f"ipc://{tmp_path}/boxes")
    thread = threading.Thread(target=watch, args=(how, "warm", Warm, report, over.is_set))
    thread.start()

    def until(lines):
        deadline = time.monotonic() + 30
        while len(said) < lines and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(said) == lines, said

    try:
        until(2)
        assert "nothing answers on" in said[1]
        for lines in (3, 5):  # gone; back, and gone again
            with publishing(Publisher([Offer(endpoint, planes=("fused", "ir"))]), one_frame()):
                before, deadline = len(seen), time.monotonic() + 30
                while len(seen) < before + 3 and time.monotonic() < deadline:
                    time.sleep(0.02)
            until(lines)
    finally:
        over.set()
        thread.join(20)
    assert ["is gone" in line for line in said[2:]] == [True, False, True]
    assert "is back after" in said[3]
