"""Walk frames through the reference rig in one thread, and count what each part of the way costs.

The reference rig: recordings of 640×480 in H.264, a calibration with distortion, the student on a processor, and each
kind of output. `costs` counts processor time in turns of the known work (`rtfuse.bench.work`), `planes` memory.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import numpy as np

from rtfuse.align.aligner import Aligner
from rtfuse.bench.stages import example_calibration
from rtfuse.bench.work import Meter
from rtfuse.capture import open_source
from rtfuse.config import Config
from rtfuse.fuse import open_fuser
from rtfuse.pipeline.stages import Stages
from rtfuse.publish.publisher import Publisher
from rtfuse.sync.pairer import Pairer
from rtfuse.thermal.agc import Agc, displayed
from rtfuse.thermal.settings import AgcSettings
from rtfuse.types import Frame, Fused, Stream
from rtfuse.wire.h264 import H264Encoder
from rtfuse.wire.images import compress
from rtfuse.wire.message import Header, encode
from rtfuse.wire.names import ColourFormat

SIZE_WH = 640, 480
PARTS = ("read ir", "read rgb", "pair", "agc 16 bits", "thermal", "align", "fuse", "deflicker")
OUTPUTS = ("raw yuv420p", "jpeg", "h264", "raw rgb24")
"""In this order: RGB is computed last, since the others must not need it."""
_WARM_UP = 10


class _Watch(Protocol):
    def begin(self) -> None: ...

    def lap(self, part: str) -> None: ...


def costs(ir: str, rgb: str, fuser: str = "student", frames: int = 120) -> dict[str, list[float]]:
    """Return the cost of every frame in turns of the known work, by part and output, of two recordings.

    `latency` is the sum of the parts from a decoded frame to a raw message. Reading is given as means of ten frames,
    since FFmpeg's threads decode several at a time. Raises what the stages raise.
    """
    meter = Meter()
    for _ in _walk(ir, rgb, fuser, frames + _WARM_UP, meter):
        pass
    found = {part: turns[_WARM_UP:] for part, turns in meter.turns.items()}
    for part in ("read ir", "read rgb"):
        found[part] = _tens(found[part])
    way = ["pair", "thermal", "align", "fuse", "deflicker", "raw yuv420p"]
    return found | {"latency": [float(x) for x in np.sum([found[part] for part in way], axis=0)]}


def planes(ir: str, rgb: str, fuser: str = "student") -> dict[str, float]:
    """Return the most memory that a part takes of NumPy, OpenCV and Python, as a number of 640×480 planes of bytes.

    A copy, or a conversion, of a whole plane adds 1; to RGB adds 3; to float32 4. The results of a part count, those of
    parts before do not.
    """
    scale = _Scale()
    tracemalloc.start()
    try:
        for _ in _walk(ir, rgb, fuser, _WARM_UP, scale):
            pass
    finally:
        tracemalloc.stop()
    return scale.planes


def _tens(turns: list[float]) -> list[float]:
    return [float(np.mean(turns[k : k + 10])) for k in range(0, len(turns), 10)]


class _Scale:
    """Weigh parts: the peak of traced memory above its beginning, in planes; the last sample of each."""

    def __init__(self) -> None:
        self.planes: dict[str, float] = {}
        self._before = 0

    def begin(self) -> None:
        tracemalloc.reset_peak()
        self._before = tracemalloc.get_traced_memory()[0]

    def lap(self, part: str) -> None:
        self.planes[part] = (tracemalloc.get_traced_memory()[1] - self._before) / (SIZE_WH[0] * SIZE_WH[1])
        self.begin()


def _walk(ir: str, rgb: str, fuser: str, frames: int, watch: _Watch) -> Iterator[Fused]:
    """Yield fused frames; `watch` is told after each part and output."""
    streams: tuple[Stream, Stream] = ("ir", "rgb")
    sources = [open_source(uri, stream) for uri, stream in zip((ir, rgb), streams, strict=True)]
    readers = [iter(source) for source in sources]
    hw = SIZE_WH[::-1]
    opened = open_fuser(fuser, engine="openvino" if fuser == "student" else "auto")
    stages = Stages(Aligner(hw, hw, example_calibration(SIZE_WH)), opened, Config(), done=watch.lap)
    stages.prepare()
    pairer, agc, outputs = Pairer(tolerance_ns=20_000_000), Agc(AgcSettings()), _Outputs()
    try:
        for _ in range(frames):
            watch.begin()
            for reader, stream in zip(readers, streams, strict=True):
                if (frame := next(reader, None)) is None:
                    return
                watch.lap(f"read {stream}")
                pairer.push(frame)
            watch.begin()
            moments = pairer.pairs()
            watch.lap("pair")
            for moment in moments:
                counts = _counts(moment.ir)
                watch.begin()
                displayed(*agc.shown(counts))
                watch.lap("agc 16 bits")
                fused = stages.process(moment)
                outputs(fused, watch)
                yield fused
    finally:
        outputs.close()
        for source in sources:
            source.close()


def _counts(ir: Frame | None) -> Frame:
    """Return a thermal frame of 16 bits with the picture of one of 8 bits."""
    assert ir is not None
    return Frame("ir", ir.image.astype(np.uint16) * 16 + 7000, ir.frame_id, ir.t_ns, ir.stamp, ir.arrival_ns)


class _Outputs:
    """Make every kind of output of a frame."""

    def __init__(self) -> None:
        self._publisher, self._h264 = Publisher("tcp://127.0.0.1:*"), H264Encoder()
        self._ways: dict[str, Callable[[Fused], object]] = {
            "raw yuv420p": lambda fused: encode("fused", self._header(fused, "yuv420p"), fused.picture),
            "jpeg": lambda fused: compress(fused.picture, "jpeg", 90),
            "h264": lambda fused: self._h264(fused.picture, fused.pair.leader.t_ns / 1e9),
            "raw rgb24": lambda fused: encode("fused", self._header(fused, "rgb24"), fused.image),
        }

    def __call__(self, fused: Fused, watch: _Watch) -> None:
        watch.begin()
        for name in OUTPUTS:
            self._ways[name](fused)
            watch.lap(name)

    def _header(self, fused: Fused, pixel_format: ColourFormat) -> Header:
        return msgspec.structs.replace(self._publisher.header(fused), pixel_format=pixel_format)

    def close(self) -> None:
        self._publisher.close()
