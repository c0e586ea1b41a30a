"""Run a detector on the newest frames of a rig, and publish its boxes: the loop of `rtfuse detect`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rtfuse.client.look import silence
from rtfuse.client.subscriber import Received, Subscriber
from rtfuse.detect.detector import Detector
from rtfuse.errors import ConfigError
from rtfuse.observe.absence import Absence
from rtfuse.publish.detections import DetectionsPublisher
from rtfuse.types import Image
from rtfuse.wire.detections import Box
from rtfuse.wire.message import Header

_POLL_S = 0.1
_PACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Name the frames that a detector watches, and the endpoint of its boxes.

    endpoint: where the rig publishes.
    topic: the plane to watch.
    publish: the endpoint that the boxes are published on.
    keys: the client's key file, for a rig that encrypts.
    publish_keys: the folder of keys that encrypts the boxes.
    insecure: allow boxes in plain text beyond this machine.
    frames, duration_s: end after this many frames, or seconds.
    """

    endpoint: str
    topic: str
    publish: str
    keys: Path | None = None
    publish_keys: Path | None = None
    insecure: bool = False
    frames: int | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """Take the results of a detector, in the thread that detects.

    say: one line for the user.
    pace: rate and latency as one line, once a second.
    found: the header of a frame and its boxes.
    """

    say: Callable[[str], None]
    pace: Callable[[str], None]
    found: Callable[[Header, list[Box]], None]


def watch(
    how: Watch, name: str, open_detector: Callable[[], Detector], report: Report, stopped: Callable[[], bool]
) -> int:
    """Detect until `stopped` or a limit of `how`; returns the number of frames.

    Both addresses are opened before the detector: a busy port is an error before a model is loaded. Raises ConfigError,
    EndpointUnavailable, KeysUnusable.
    """
    boxes = DetectionsPublisher(how.publish, detector=name, keys=how.publish_keys, allow_remote=how.insecure)
    with boxes, Subscriber(how.endpoint, topic=how.topic, keys=how.keys) as stream:
        detector = open_detector()
        report.say(f"{name}: watching {how.topic} of {how.endpoint}, boxes on {boxes.endpoint}")
        unseen = partial(silence, how.endpoint, how.topic, how.keys, stopped=stopped)
        absence = Absence(f"the rig on {how.endpoint}", report.say, unseen=unseen)
        end, pace = time.monotonic() + (how.duration_s or float("inf")), _Pace(name, stream)
        while not stopped() and time.monotonic() < end and boxes.sent != how.frames:
            received = stream.recv(_POLL_S)
            if received is None:
                absence.nothing()
                continue
            absence.frame()
            found, spent_ms = _timed(detector, _picture(received, how.topic))
            boxes.write(received.header, found, spent_ms)
            report.found(received.header, found)
            if line := pace.after(spent_ms):
                report.pace(line)
        return boxes.sent


def _picture(received: Received, topic: str) -> Image:
    """Return the picture of a frame, uint8. Raises ConfigError for counts."""
    if received.image.dtype != np.uint8:
        raise ConfigError(f"{topic} has counts, on the thermal camera's own grid; want ir, rgb or fused")
    return received.image


def _timed(detector: Detector, image: Image) -> tuple[list[Box], float]:
    began = time.perf_counter()
    found = detector(image)
    return found, 1000 * (time.perf_counter() - began)


class _Pace:
    """Put rate and latency into one line a second."""

    def __init__(self, name: str, stream: Subscriber) -> None:
        self._name, self._stream = name, stream
        self._spent_ms, self._since = list[float](), time.monotonic()

    def after(self, spent_ms: float) -> str | None:
        """Count a frame; returns the line when a second has passed since the last one."""
        self._spent_ms.append(spent_ms)
        if time.monotonic() - self._since < _PACE_S:
            return None
        reception = self._stream.reception()
        p50, p95 = np.percentile(self._spent_ms, (50, 95))
        age = f", frames {reception.age_ms.p50:.0f} ms old when taken" if reception.age_ms else ""
        self._spent_ms, self._since = [], time.monotonic()
        return (
            f"{self._name}: {reception.rate_hz:.1f} frames/s, {p50:.1f} ms each (p95 {p95:.1f}){age}, "
            f"{reception.lost} skipped"
        )
