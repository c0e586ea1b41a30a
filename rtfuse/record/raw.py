"""Both streams as their cameras send them, in one Matroska file, with the times that pairing goes by.

Matroska counts in milliseconds. So beside the pictures there is a track of text, one line for every frame:

    ir 17 7123456789012 7123461234567 18 end-of-frame 0

the stream, the number of its packet in the file, capture and arrival (ns, the local monotonic clock), the frame's
number, what the capture time means (`rtfuse.types.Stamp`), and 1 if the picture was frozen. It is read by
`rtfuse.record.replay`.
"""

from __future__ import annotations

import json
import logging
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.observe.logs import event
from rtfuse.types import Clock, Frame, SourceInfo, Stream

Codec = Literal["h264", "ffv1", "mjpeg"]

_MS = 1_000_000
_BASE = Fraction(1, 1000)
_STREAMS: tuple[Stream, ...] = ("ir", "rgb")
_MUXER = {
    "cluster_time_limit": "300",  # ms: what a kill can cost, with the next two
    "max_interleave_delta": "200000",  # µs that one stream is waited for before the others are written
    "flush_packets": "1",
    "default_mode": "infer_no_subs",  # no player shows the times of its own accord
}
# One picture in, one packet out, and no picture needs a later one.
_CODECS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"preset": "ultrafast", "tune": "zerolatency", "crf": "18", "g": "60"}),
    "ffv1": ("ffv1", "bgr0", {"level": "3", "slices": "4", "slicecrc": "1"}),
    "mjpeg": ("mjpeg", "yuvj420p", {"flags": "+qscale", "global_quality": "354"}),  # 3 of 2 (best) to 31
}
_WAITING = 64
"""Frames that wait for the disk; about a second of both streams."""
_LOOK_S = 0.5
_log = logging.getLogger("rtfuse.raw")


def part_path(path: Path, part: int) -> Path:
    """Return the name of a part, counted from 1: `flight.mkv`, `flight-0002.mkv`, …"""
    return path if part == 1 else path.with_name(f"{path.stem}-{part:04d}{path.suffix}")


class RawRecorder:
    """Records the frames of both streams to `path`, in a thread of its own.

    Thermal is kept without loss (FFV1, 8 or 16 bits); RGB by `rgb_codec`: `h264` (visually lossless), `ffv1` (without
    loss), `mjpeg`. A new part begins after `split_bytes` or `split_s`, and where a picture's size changes. Recording
    ends when fewer than `reserve_bytes` are free on the disk, or it fails: `stopped` then says why, the file is
    complete, and later frames are ignored. `losses` counts frames that the disk was too slow for, by stream. `metadata`
    is kept in every part. Raises OutputExists without `force`, and OutputUnwritable.
    """

    def __init__(
        self,
        path: str | Path,
        infos: Mapping[Stream, SourceInfo],
        *,
        rgb_codec: Codec = "h264",
        split_bytes: int | None = None,
        split_s: float | None = None,
        reserve_bytes: int = 500_000_000,
        metadata: Mapping[str, str] | None = None,
        force: bool = False,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._path, self._infos, self._clock = Path(path), dict(infos), clock
        self._shapes = {stream: (_shape(info), info.dtype) for stream, info in infos.items()}
        self._codec, self._split_bytes, self._split_s = rgb_codec, split_bytes, split_s
        self._reserve_bytes, self._metadata = reserve_bytes, dict(metadata or {})
        self.losses: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.parts: list[Path] = []
        self.stopped: str | None = None
        self._part: _Part | None = None
        self._looked_s = 0.0
        self._check(force)
        self._waiting: queue.Queue[Frame | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="rtfuse-raw", daemon=True)
        self._thread.start()

    def _check(self, force: bool) -> None:
        path = self._path
        if path.suffix.lower() != ".mkv":
            raise OutputUnwritable(f"recording {path}: it becomes a Matroska file, so its name must end in .mkv")
        if not path.parent.is_dir():
            raise OutputUnwritable(f"recording {path}: there is no folder {path.parent}")
        old = [path, *path.parent.glob(f"{path.stem}-[0-9][0-9][0-9][0-9]{path.suffix}")]
        old = [part for part in old if part.exists()]
        if old and not force:
            raise OutputExists(f"recording {old[0]} exists; choose another name or give --force")
        if self._short_of_disk():
            free_mb, want_mb = shutil.disk_usage(path.parent).free / 1e6, self._reserve_bytes / 1e6
            raise OutputUnwritable(
                f"recording {path}: {free_mb:.0f} MB are free, raw.reserve_mb keeps {want_mb:.0f}; lower that?"
            )
        try:
            for part in old:
                part.unlink()
            path.touch()
        except OSError as e:
            raise OutputUnwritable(f"recording {path} cannot be written: {e.strerror or e}") from e

    def write(self, frame: Frame) -> None:
        """Record a frame as it is; returns at once. Frames of one stream must come from one thread."""
        if self.stopped is None:
            try:
                self._waiting.put_nowait(frame)
            except queue.Full:
                self.losses[frame.stream] += 1
                event(_log, logging.WARNING, "slow-disk", "the disk is too slow for all frames", stream=frame.stream)

    def close(self) -> None:
        """Write what waits, and complete the file."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        if not self.parts and self._path.exists() and self._path.stat().st_size == 0:
            self._path.unlink()

    def _work(self) -> None:
        while (frame := self._waiting.get()) is not None:
            if self.stopped is not None:
                continue
            try:
                self._take(frame)
            except (av.error.FFmpegError, OSError) as e:
                self._end(f"it cannot be written: {getattr(e, 'strerror', None) or e}")
        self._finish_part()

    def _take(self, frame: Frame) -> None:
        part, shape = self._part, (frame.image.shape, str(frame.image.dtype))
        if part is not None and (shape != self._shapes[frame.stream] or self._is_full(part, frame)):
            self._finish_part()
        self._shapes[frame.stream] = shape
        if self._short_of_disk(every_s=_LOOK_S):
            self._end(f"fewer than {self._reserve_bytes / 1e6:.0f} MB are free on the disk")
            return
        if self._part is None:
            path = part_path(self._path, len(self.parts) + 1)
            self._part = _Part(path, self._infos, self._shapes, self._codec, self._metadata, frame)
            self.parts.append(path)
        self._part.write(frame)
        self.frames[frame.stream] += 1

    def _is_full(self, part: _Part, frame: Frame) -> bool:
        long = self._split_s is not None and frame.arrival_ns - part.start_ns >= self._split_s * 1e9
        return long or (self._split_bytes is not None and part.written >= self._split_bytes)

    def _short_of_disk(self, every_s: float = 0.0) -> bool:
        now_s = time.monotonic()
        if now_s - self._looked_s < every_s:
            return False
        self._looked_s = now_s
        return shutil.disk_usage(self._path.parent).free < self._reserve_bytes

    def _finish_part(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        try:
            part.close()
        except (av.error.FFmpegError, OSError) as e:
            event(_log, logging.ERROR, "recording", f"{part.path} is not complete: {e}", path=str(part.path))

    def _end(self, why: str) -> None:
        self.stopped = why
        self._finish_part()
        event(_log, logging.ERROR, "recording", f"recording to {self._path} has ended: {why}", path=str(self._path))


class _Part:
    """One Matroska file; its tracks are the times, thermal and RGB."""

    def __init__(
        self,
        path: Path,
        infos: Mapping[Stream, SourceInfo],
        shapes: Mapping[Stream, tuple[tuple[int, ...], str]],
        codec: Codec,
        metadata: Mapping[str, str],
        first: Frame,
    ) -> None:
        self.path, self.start_ns, self.written = path, first.arrival_ns, 0
        self._zero_ns = first.t_ns
        self._counts: Counter[str] = Counter()
        self._last_ms: Counter[str] = Counter()
        self._container = av.open(str(path), "w", format="matroska", options=_MUXER)
        self._facts = self._container.add_mux_stream("subrip")
        self._facts.metadata["title"] = "times"
        self._videos: dict[Stream, Any] = {}
        self._formats: dict[Stream, tuple[str, str]] = {}
        for stream in _STREAMS:
            self._add(stream, *shapes[stream], codec, infos[stream].rate_hz)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sources = {s: _described(i) for s, i in infos.items()}
        about = {"creation_time": now, "rtfuse_sources": json.dumps(sources), "rtfuse_start_ns": str(self.start_ns)}
        self._container.metadata.update(about | {f"rtfuse_{key}": value for key, value in metadata.items()})

    def _add(self, stream: Stream, shape: tuple[int, ...], dtype: str, codec: Codec, rate_hz: float | None) -> None:
        name, coded, options = _CODECS["ffv1" if stream == "ir" else codec]
        given = "rgb24"
        if stream == "ir":
            given = coded = "gray16le" if dtype == "uint16" else "gray"
        elif coded == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            coded = "yuv444p"
        rate = Fraction(rate_hz or 30.0).limit_denominator(1001)
        video: Any = self._container.add_stream(name, rate=rate, options=dict(options))
        video.height, video.width, video.pix_fmt = shape[0], shape[1], coded
        video.codec_context.time_base = _BASE
        video.codec_context.thread_type = "SLICE"
        video.metadata["title"] = {"ir": "thermal", "rgb": "RGB"}[stream]
        self._videos[stream], self._formats[stream] = video, (given, coded)

    def write(self, frame: Frame) -> None:
        stream = frame.stream
        number, given, coded = self._counts[stream], *self._formats[stream]
        at_ms = max((frame.t_ns - self._zero_ns) // _MS, self._last_ms[stream], 0)
        facts_ms = max(at_ms, self._last_ms["facts"])  # no track may go back in time
        self._counts[stream], self._last_ms[stream], self._last_ms["facts"] = number + 1, at_ms, facts_ms
        facts = f"{stream} {number} {frame.t_ns} {frame.arrival_ns} {frame.frame_id} {frame.stamp} {int(frame.frozen)}"
        self._mux(av.Packet(facts.encode()), self._facts, facts_ms)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format=given)
        picture = picture if given == coded else picture.reformat(format=coded)
        picture.pts, picture.time_base = number, _BASE
        for packet in self._videos[stream].encode(picture):
            self._mux(packet, self._videos[stream], at_ms)

    def _mux(self, packet: Any, track: Any, at_ms: int) -> None:
        packet.stream, packet.time_base, packet.pts, packet.dts = track, _BASE, at_ms, at_ms
        self.written += packet.size
        self._container.mux(packet)

    def close(self) -> None:
        self._container.close()


def _shape(info: SourceInfo) -> tuple[int, ...]:
    w, h = info.size_wh
    return (h, w) if info.stream == "ir" else (h, w, 3)


def _described(info: SourceInfo) -> dict[str, Any]:
    return {"uri": info.uri, "size": info.size_wh, "dtype": info.dtype, "rate_hz": info.rate_hz, "live": info.live}
