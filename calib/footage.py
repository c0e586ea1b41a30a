"""Read pictures of one or both cameras, moment by moment, from stills, recordings or live cameras."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import cv2
import numpy as np

from rtfuse.capture import open_source
from rtfuse.config import Config, SourceSettings
from rtfuse.errors import CalibrationError, ConfigError, SourceLost
from rtfuse.pipeline.queues import LivePairQueue, OrderedPairQueue, PairQueue
from rtfuse.pipeline.scenes import chosen_stills, openers
from rtfuse.sync.pairer import Pairer
from rtfuse.types import Frame, Image, Source, Stream

_log = logging.getLogger("rtfuse.calib")
_JOIN_S = 2.0
"""The longest wait for a thread that reads a source: one left behind in native code could abort Python at its end."""


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """Frames of one time, from both cameras or from one."""

    ir: Frame | None
    rgb: Frame | None

    def frame(self, stream: Stream) -> Frame | None:
        """Return the frame of a stream, None without one."""
        return self.ir if stream == "ir" else self.rgb


class Footage:
    """Open sources, one or two, as an iterable of moments and a context manager.

    Pairs recordings by time, within half a frame of the slower one; stills by their names; and the
    newest frames of live cameras. Raises ConfigError without a source, or the error of a source that does not open.
    """

    def __init__(self, ir: str | None, rgb: str | None, *, tolerance_ms: float | None = None) -> None:
        given: dict[Stream, str | None] = {"ir": ir, "rgb": rgb}
        if not any(given.values()):
            raise ConfigError("no pictures were given; use --ir and --rgb")
        self._stack, self.sources = ExitStack(), dict[Stream, Source]()
        stills = _paired_stills(ir, rgb)
        try:
            for stream, uri in given.items():
                if uri:
                    self.sources[stream] = stills[stream]() if stills else open_source(uri, stream)
                    self._stack.callback(self.sources[stream].close)
        except BaseException:
            self._stack.close()
            raise
        rates = [s.info.rate_hz for s in self.sources.values()]
        limit_ms = tolerance_ms or (500 / min(r for r in rates if r) if all(rates) else 20.0)
        self._tolerance_ns = round(limit_ms * 1e6)

    def __enter__(self) -> Footage:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def live(self) -> bool:
        """True if a source is a live camera."""
        return any(s.info.live for s in self.sources.values())

    @property
    def both(self) -> bool:
        """True if there are two sources."""
        return len(self.sources) == 2

    def size_wh(self, stream: Stream) -> tuple[int, int] | None:
        """Return the image size of a stream, None without a source."""
        return self.sources[stream].info.size_wh if stream in self.sources else None

    @property
    def count(self) -> int | None:
        """The largest possible number of moments, None if unknown."""
        known = [s.info.frames for s in self.sources.values()]
        return None if any(n is None for n in known) else max(n for n in known if n is not None)

    def __iter__(self) -> Iterator[Moment]:
        """Yield the moments; end when a live source is lost after the first one."""
        found = False
        try:
            for moment in self._paired() if self.both else self._alone():
                yield moment
                found = True
        except SourceLost:
            if not found:
                raise

    def _alone(self) -> Iterator[Moment]:
        ((stream, source),) = self.sources.items()
        for frame in source:
            yield Moment(frame, None) if stream == "ir" else Moment(None, frame)

    def _paired(self) -> Iterator[Moment]:
        wait_ns = 50_000_000 if self.live else None
        pairer = Pairer(policy="strict", tolerance_ns=self._tolerance_ns, wait_ns=wait_ns)
        pair_queue: PairQueue = OrderedPairQueue(pairer, when=lambda frame: frame.t_ns)
        if self.live:
            pair_queue = LivePairQueue(pairer, 1, clock=time.monotonic_ns)
        for item in self.sources.items():
            thread = threading.Thread(
                target=_pump, args=(pair_queue, *item), name=f"calib-capture-{item[0]}", daemon=True
            )
            thread.start()
            self._stack.callback(thread.join, _JOIN_S)
        self._stack.callback(pair_queue.stop)
        while not pair_queue.over:
            for pair in pair_queue.take(0.1):
                if pair.ir is not None and pair.rgb is not None:
                    yield Moment(pair.ir, pair.rgb)


def _paired_stills(ir: str | None, rgb: str | None) -> dict[Stream, Callable[[], Source]]:
    """Return the openers of two folders of stills, paired by name as `rtfuse fuse` does; none for other sources."""
    config = Config(ir=SourceSettings(uri=ir), rgb=SourceSettings(uri=rgb))
    chosen = chosen_stills(config)
    if chosen is None:
        return {}
    for line in chosen.said:
        _log.warning("%s", line)
    return openers(chosen, config, time.monotonic_ns)


def _pump(pair_queue: PairQueue, stream: Stream, source: Source) -> None:
    """Put the frames of a source into the pair queue until its end, or until the queue is stopped."""
    try:
        for frame in source:
            if not pair_queue.put(frame):
                return
    except Exception as e:  # noqa: BLE001 - raised again by `take`
        pair_queue.fail(e)
    pair_queue.end(stream)


def sampled(footage: Footage, count: int) -> list[tuple[Image, Image]]:
    """Return at most `count` (thermal, RGB) pairs of images, spread over the whole footage.

    Raises CalibrationError if no two frames are of the same moment.
    """
    kept: list[tuple[Image, Image]] = []
    every, k = 1, -1
    for k, moment in enumerate(footage):
        if k % every == 0 and moment.ir is not None and moment.rgb is not None:
            kept.append((moment.ir.image, moment.rgb.image))
            if len(kept) > 2 * count:  # keep every second pair, now and from here on
                kept, every = kept[::2], 2 * every
        if footage.live and len(kept) >= count:
            break
    if not kept:
        raise CalibrationError("no two pictures of these streams are of the same moment; give streams of one recording")
    places = np.unique(np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int))
    return [kept[p] for p in places]


def as_grey(image: Image) -> Image:
    """Return a picture to display, (h, w) uint8 or (H, W, 3) uint8; stretch counts between their 0.5 % tails."""
    if image.dtype == np.uint8:
        return image
    low, high = np.percentile(image, [0.5, 99.5])
    return np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255).astype(np.uint8)


def is_colourless(image: Image) -> bool:
    """Return True if the channels of an (H, W, 3) uint8 picture are equal, except for noise of compression."""
    return bool(np.abs(cv2.subtract(image[..., 0].astype(np.int16), image[..., 1].astype(np.int16))).mean() < 0.5)
