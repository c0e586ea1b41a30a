"""Play one stream of the synthetic scene as a source."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from rtfuse.capture.synthetic.cameras import ColourCamera, ThermalCamera
from rtfuse.capture.synthetic.scene import SyntheticScene
from rtfuse.types import Clock, Frame, SourceInfo, Stamp, Stream


class SyntheticSource:
    """Draw one stream of a scene, frame by frame, without waiting; `t_ns` is the scene's own time (`Stamp.MEDIA`).

    Of a `live` scene they come at their own pace, `t_ns` on the local clock (`Stamp.END`); those that were not waited
    for count as `stale`. `losses` also counts the frames that the camera lost, `dropped`; their numbers are left out.
    """

    def __init__(self, scene: SyntheticScene, stream: Stream, *, clock: Clock = time.monotonic_ns) -> None:
        self.scene, self._clock, self._closed = scene, clock, threading.Event()
        self._losses: Counter[str] = Counter()
        count, period_ns = scene.count(stream), round(1e9 / scene.rate_hz(stream))
        first = scene.frame(stream, 0).t_ns
        self._info = SourceInfo(
            uri=scene.uri,
            stream=stream,
            size_wh=scene.size_wh(stream),
            dtype="uint16" if stream == "ir" and scene.bits == 16 else "uint8",
            live=scene.live,
            rate_hz=scene.rate_hz(stream),
            frames=None if scene.drop or scene.live else count,
            start_ns=None if scene.live else first,
            end_ns=None if scene.live else first + count * period_ns,
        )
        self._camera = ThermalCamera(scene) if stream == "ir" else ColourCamera(scene)

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        return self._lived() if self.scene.live else self._played()

    def _lived(self) -> Iterator[Frame]:
        stream, scene, origin_ns = self._info.stream, self.scene, _origin_ns(self.scene, self._clock)
        first = k = int((self._clock() - origin_ns) * scene.rate_hz(stream) / 1e9) + 1
        period_s = 1 / scene.rate_hz(stream)
        while True:
            truth = scene.frame(stream, k)
            wait_s = (origin_ns + truth.true_ns - self._clock()) / 1e9
            if self._closed.wait(max(wait_s, 0.0)):
                return
            if truth.dropped:
                self._losses["dropped"] += 1
            elif wait_s < -period_s:  # the next one is there, and a camera gives the newest
                self._losses["stale"] += 1
            else:
                image = self._camera.take(k, truth.shown_ns)
                yield Frame(stream, image, k - first, origin_ns + truth.t_ns, Stamp.END, self._clock())
            k += 1

    def _played(self) -> Iterator[Frame]:
        stream = self._info.stream
        for k in range(self.scene.count(stream)):
            if self._closed.is_set():
                return
            truth = self.scene.frame(stream, k)
            if truth.dropped:
                self._losses["dropped"] += 1
                continue
            image = self._camera.take(k, truth.shown_ns)
            yield Frame(stream, image, k, truth.t_ns, Stamp.MEDIA, self._clock())

    def close(self) -> None:
        """End the iteration after the frame in progress."""
        self._closed.set()


@lru_cache(maxsize=8)
def _origin_ns(scene: SyntheticScene, clock: Clock) -> int:
    """Return when the live scene began; the same for both of its cameras."""
    return clock()
