"""Segmentation measures with small ONNX networks that the test makes: IoU, and what is refused."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtfuse.errors import ConfigError
from trainer.measures.segmentation import Segmentation, open_segmenter

onnx = pytest.importorskip("onnx")


def network(path, *, channels=3, size=("h", "w"), indices=False):
    """Write a network that calls pixels of red above 0.5 class 1, by logits or by class numbers."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.zeros((2, channels, 1, 1), np.float32)
    kernel[1, 0] = 2  # class 0: 1 everywhere; class 1: twice red
    constants = [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(np.float32([1, 0]), "bias")]
    nodes = [helper.make_node("Conv", ["x", "kernel", "bias"], ["logits"], kernel_shape=[1, 1])]
    out = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2, *size])
    if indices:
        nodes.append(helper.make_node("ArgMax", ["logits"], ["classes"], axis=1, keepdims=0))
        out = helper.make_tensor_value_info("classes", TensorProto.INT64, [1, *size])
    graph = helper.make_graph(
        nodes, "red", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, *size])], [out], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize(("size", "indices"), [(("h", "w"), False), (("h", "w"), True), ((20, 40), False)])
def test_iou_is_counted_for_each_source_and_method(tmp_path, size, indices):
    segmenter = open_segmenter(network(tmp_path / "red.onnx", size=size, indices=indices))
    assert segmenter.classes == (None if indices else 2)
    mask = np.zeros((40, 80), np.uint8)
    mask[:, 40:] = 1
    mask[:, 70:] = 255  # ignored
    cv2.imwrite(str(tmp_path / "m.png"), mask)
    meter = Segmentation(segmenter, {"a": tmp_path / "m.png", "b": tmp_path / "m.png"})
    ir, rgb = np.zeros((40, 80), np.uint8), np.zeros((40, 80, 3), np.uint8)
    ir[:, 40:] = 255
    rgb[:, 60:] = 255  # RGB sees a third of what is not ignored
    for name in ("a", "b", "without a mask"):
        meter.add(name, ir, rgb, {"good": ir})
    result = meter.result()
    assert result["thermal"].mean.value == result["good"].mean.value == 1
    assert result["rgb"].classes[1].value == pytest.approx(1 / 3)
    assert result["rgb"].classes[0].value == pytest.approx(40 / 60)
    assert result["rgb"].mean.value == pytest.approx(0.5)
    assert result["rgb"].mean.low == result["rgb"].mean.high == pytest.approx(0.5)  # both pictures are the same
    assert result["rgb"].pictures == 2
    assert meter.lines() == ["segmentation leaves out 1 pairs without a mask"]


def test_what_does_not_fit_is_refused(tmp_path):
    for kind, words in [({"channels": 1}, r"has input \[1, 1, 0, 0\].*want one input \[1, 3")]:
        with pytest.raises(ConfigError, match=words):
            open_segmenter(network(tmp_path / "m.onnx", **kind))
    (tmp_path / "bad.onnx").write_bytes(b"no")
    for name, words in [("bad.onnx", "cannot be read as a model"), ("gone.onnx", "is not a file")]:
        with pytest.raises(ConfigError, match=words):
            open_segmenter(tmp_path / name)
    segmenter = open_segmenter(network(tmp_path / "m.onnx"))
    ir, rgb = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
    for mask, words in [(np.full((8, 8), 2, np.uint8), "has class 2; the network has 2 classes"),
                        (np.zeros((4, 8), np.uint8), r"is uint8 \[4, 8\]"),
                        (np.zeros((8, 8), np.uint16), "is uint16")]:  # fmt: skip
        cv2.imwrite(str(tmp_path / "m.png"), mask)
        with pytest.raises(ConfigError, match=words):
            Segmentation(segmenter, {"a": tmp_path / "m.png"}).add("a", ir, rgb, {})
    with pytest.raises(ConfigError, match="nothing to segment"):
        Segmentation(segmenter, {}).result()
