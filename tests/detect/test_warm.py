"""The detector without a model boxes people and cars of the synthetic street, and no house fronts."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from rtfuse.capture.synthetic import SyntheticScene, SyntheticSource
from rtfuse.detect.detector import Warm
from rtfuse.thermal.agc import Agc


def shared(a, b):
    """Return the area that two boxes (left, top, right, bottom) share, in pixels."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(0, width) * max(0, height)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


@pytest.mark.parametrize(("bits", "precision", "recall"), [(8, 0.9, 0.85), (16, 0.8, 0.6)])
def test_it_boxes_people_and_cars_but_no_house_fronts(bits, precision, recall):
    """Of 16 bits the gain control makes fronts bright: there it may miss people, but not take fronts for them."""
    scene, detector, agc = SyntheticScene(bits=bits, duration_s=20.0), Warm(), Agc()
    camera = SyntheticSource(scene, "ir")._camera
    right = boxes = found = people = 0
    for k in range(0, 600, 46):
        t_ns = scene.frame("ir", k).true_ns
        image = camera.take(k, t_ns)
        image = image if bits == 8 else agc(SimpleNamespace(image=image, t_ns=t_ns))
        things = scene.objects(t_ns)
        seen = [(b.x, b.y, b.x + b.width, b.y + b.height) for b in detector(image)]
        boxes += len(seen)
        msgspec.json.encode(detector(image))  # as numbers of Python's own
        right += sum(sum(shared(box, one.box_ir) for one in things) > 0.5 * area(box) for box in seen)
        whole = [one.box_ir for one in things if one.kind == "person" and one.distance_m < 25]
        whole = [box for box in whole if box[0] >= 0 and box[2] < 640]
        people += len(whole)
        found += sum(any(shared(box, one) > 0.5 * area(one) for box in seen) for one in whole)
    assert right / boxes >= precision
    assert found / people >= recall
