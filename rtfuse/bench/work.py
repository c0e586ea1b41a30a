"""Count processor time in turns of a known work, so that a figure holds on a slow or busy machine.

A turn is a small pyramid of OpenCV and two copies of NumPy on pictures of 640×480 bytes: the operations that the stages
of a frame are made of. It runs before and after each measured part, in the same thread, and the part's cost is the
processor time of all threads, divided by that of a turn.
"""

from __future__ import annotations

import time
from collections import defaultdict

import cv2
import numpy as np


class Work:
    """Do the known work; `turn` returns the nanoseconds that it took of this thread's processor."""

    def __init__(self) -> None:
        self._a = np.random.default_rng(0).integers(0, 256, (480, 640), dtype=np.uint8)
        self._b, self._c = self._a.copy(), self._a.copy()

    def turn(self) -> int:
        """Do it once."""
        begun_ns = time.thread_time_ns()
        cv2.pyrUp(cv2.pyrDown(self._a), self._b)
        cv2.addWeighted(self._a, 0.5, self._b, 0.5, 0, self._c)
        np.copyto(self._b, self._c)
        np.copyto(self._c, self._a)
        return time.thread_time_ns() - begun_ns


class Meter:
    """Measure parts of a thread's work, one after the other, in turns of the known work.

    `turns`: the cost of each sample, by part. Call `begin` before the first part of a frame, and `lap` after each.
    """

    def __init__(self) -> None:
        self.turns: dict[str, list[float]] = defaultdict(list)
        self._work, self._turn_ns, self._begun_ns = Work(), 0, 0

    def begin(self) -> None:
        """Begin a sample."""
        self._turn_ns = self._work.turn()
        self._begun_ns = time.process_time_ns()

    def lap(self, part: str) -> None:
        """End a sample of a part, and begin the next."""
        spent_ns, before_ns = time.process_time_ns() - self._begun_ns, self._turn_ns
        self.begin()
        self.turns[part].append(2 * spent_ns / (before_ns + self._turn_ns))
