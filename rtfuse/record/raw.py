"""Record both streams as their cameras send them, in one file (`rtfuse.record.format`)."""

from __future__ import annotations

import logging
import queue
import shutil
import threading
import time
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np

from rtfuse.capture.paths import ffmpeg_name, is_pipe
from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.observe.logs import event
from rtfuse.outputs import try_in
from rtfuse.picture import video_frame
from rtfuse.record.format import (
    CONTAINER,
    IR_PIXEL_FORMATS,
    SUFFIX,
    TIMES_CODEC,
    TIMES_TITLE,
    VIDEO_TITLES,
    FrameTimes,
    existing_parts,
    metadata,
    part_path,
)
from rtfuse.types import Frame, SourceInfo, Stream

Codec = Literal["h264", "ffv1", "mjpeg"]

_MS = 1_000_000
_BT601 = 6
"""The colour matrix of `reformat`, as the number of its tag: other programs take another one for large pictures."""
_BASE = Fraction(1, 1000)
_MUXER = {
    "cluster_time_limit": "300",  # ms: what a kill can cost, with the next two
    "max_interleave_delta": "200000",  # µs that one stream is waited for before the others are written
    "flush_packets": "1",
    "default_mode": "infer_no_subs",  # no player shows the times unless asked
}
# One picture in, one packet out, and no picture needs a later one.
_CODECS: dict[Codec, tuple[str, str, dict[str, str]]] = {
    "h264": ("libx264", "yuv420p", {"preset": "ultrafast", "tune": "zerolatency", "crf": "18", "g": "60"}),
    "ffv1": ("ffv1", "bgr0", {"level": "3", "slices": "4", "slicecrc": "1"}),
    "mjpeg": ("mjpeg", "yuvj420p", {"flags": "+qscale", "global_quality": "354"}),  # 3 of 2 (best) to 31
}
_WAITING = 64
"""The most frames that wait for the disk: about a second of both streams."""
_LOOK_S = 0.5
_log = logging.getLogger("rtfuse.raw")


def check_raw(path: Path, *, reserve_bytes: int = 0, force: bool = False) -> list[Path]:
    """Return the parts of an older recording at a path that a recording can be written to; nothing is left there.

    Raises OutputExists for older parts without `force`, and OutputUnwritable for a pipe, another suffix, a folder that
    is missing or takes no file, or fewer than `reserve_bytes` free on the disk.
    """
    if is_pipe(path):
        raise OutputUnwritable(f"recording {path} is a pipe: its parts and times need a file; name one")
    if path.suffix.lower() != SUFFIX:
        raise OutputUnwritable(f"recording {path}: it becomes a Matroska file, so its name must end in {SUFFIX}")
    if not path.parent.is_dir():
        raise OutputUnwritable(f"recording {path}: folder {path.parent} does not exist; make it, or choose another")
    old = existing_parts(path)
    if old and not force:
        raise OutputExists(f"recording {old[0]} exists; choose another name or give --force")
    try:
        try_in(path.parent)
        free = shutil.disk_usage(path.parent).free
    except OSError as e:
        raise OutputUnwritable(f"recording {path} cannot be written: {e.strerror or e}") from e
    if free < reserve_bytes:
        raise OutputUnwritable(
            f"recording {path}: {free / 1e6:.0f} MB are free, raw.reserve_mb keeps {reserve_bytes / 1e6:.0f}; "
            "lower that?"
        )
    return old


class RawRecorder:
    """Record the frames of both streams to `path`, in a thread of its own.

    Thermal is lossless (FFV1, 8 or 16 bits). `rgb_codec`: `h264` (visually lossless), `ffv1` (lossless) or `mjpeg`.
    `split_bytes`, `split_s`: a new part begins after so much. It also begins where the size of an image changes.
    `reserve_bytes`: recording ends when fewer bytes are free on the disk.
    `metadata`: texts that are kept in every part.
    `stopped`: the reason why recording ended (full disk, error), None until then. The file is complete, later frames
    are ignored.
    `losses`: counts frames that the disk was too slow for, by stream.
    Raises what `check_raw` raises.
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
    ) -> None:
        self._path, self._infos = Path(path), dict(infos)
        self._shapes = {stream: (_shape(info), info.dtype) for stream, info in infos.items()}
        self._codec, self._split_bytes, self._split_s = rgb_codec, split_bytes, split_s
        self._reserve_bytes, self._metadata = reserve_bytes, dict(metadata or {})
        self.losses: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self.parts: list[Path] = []
        self.stopped: str | None = None
        self._part: _Part | None = None
        self._looked_s = 0.0
        self._claim(force)
        self._waiting: queue.Queue[Frame | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="rtfuse-raw", daemon=True)
        self._thread.start()

    def _claim(self, force: bool) -> None:
        """Remove the parts of an older recording, and make the file."""
        old = check_raw(self._path, reserve_bytes=self._reserve_bytes, force=force)
        try:
            for part in old:
                part.unlink()
            self._path.touch()
        except OSError as e:
            raise OutputUnwritable(f"recording {self._path} cannot be written: {e.strerror or e}") from e

    def write(self, frame: Frame) -> None:
        """Queue a frame for recording; return at once. Call it for one stream from one thread only."""
        if self.stopped is None:
            try:
                self._waiting.put_nowait(frame)
            except queue.Full:
                self.losses[frame.stream] += 1
                event(_log, logging.WARNING, "slow-disk", "the disk is too slow for all frames", stream=frame.stream)

    def close(self) -> None:
        """Write the waiting frames and complete the file. Raises OutputUnwritable if it could not take any frame."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
        if not self.parts and self._path.exists() and self._path.stat().st_size == 0:
            self._path.unlink()
        if self.stopped is not None and not self.frames:
            raise OutputUnwritable(f"recording {self._path}: {self.stopped}")

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
        part, shape = self._part, (_shape_of(frame), frame.dtype)
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
    """Write one part of the recording."""

    def __init__(
        self,
        path: Path,
        infos: Mapping[Stream, SourceInfo],
        shapes: Mapping[Stream, tuple[tuple[int, ...], str]],
        codec: Codec,
        more: Mapping[str, str],
        first: Frame,
    ) -> None:
        self.path, self.start_ns, self.written = path, first.arrival_ns, 0
        self._zero_ns = first.t_ns
        self._counts: Counter[str] = Counter()
        self._last_ms: Counter[str] = Counter()
        self._container = av.open(ffmpeg_name(path), "w", format=CONTAINER, options=_MUXER)
        self._times = self._container.add_mux_stream(TIMES_CODEC)
        self._times.metadata["title"] = TIMES_TITLE
        self._videos: dict[Stream, Any] = {}
        self._formats: dict[Stream, tuple[str, str]] = {}
        for stream in VIDEO_TITLES:
            self._add(stream, *shapes[stream], codec, infos[stream].rate_hz)
        self._container.metadata.update(metadata(infos, self.start_ns, more))

    def _add(self, stream: Stream, shape: tuple[int, ...], dtype: str, codec: Codec, rate_hz: float | None) -> None:
        name, coded, options = _CODECS["ffv1" if stream == "ir" else codec]
        given = "rgb24"
        if stream == "ir":
            given = coded = IR_PIXEL_FORMATS[dtype]
        elif coded == "yuv420p" and (shape[0] % 2 or shape[1] % 2):
            coded = "yuv444p"
        rate = Fraction(rate_hz or 30.0).limit_denominator(1001)
        video: Any = self._container.add_stream(name, rate=rate, options=dict(options))
        video.height, video.width, video.pix_fmt = shape[0], shape[1], coded
        video.codec_context.time_base = _BASE
        if name == "libx264":
            video.codec_context.colorspace = _BT601
        video.codec_context.thread_type = "SLICE"
        video.metadata["title"] = VIDEO_TITLES[stream]
        self._videos[stream], self._formats[stream] = video, (given, coded)

    def write(self, frame: Frame) -> None:
        stream = frame.stream
        number, given, coded = self._counts[stream], *self._formats[stream]
        at_ms = max((frame.t_ns - self._zero_ns) // _MS, self._last_ms[stream], 0)
        times_ms = max(at_ms, self._last_ms[TIMES_TITLE])  # no track may go back in time
        self._counts[stream], self._last_ms[stream], self._last_ms[TIMES_TITLE] = number + 1, at_ms, times_ms
        self._mux(av.Packet(FrameTimes.of(frame, number).encode()), self._times, times_ms)
        picture = _video_frame(frame, given, coded)
        picture.pts, picture.time_base = number, _BASE
        for packet in self._videos[stream].encode(picture):
            self._mux(packet, self._videos[stream], at_ms)

    def _mux(self, packet: Any, track: Any, at_ms: int) -> None:
        packet.stream, packet.time_base, packet.pts, packet.dts = track, _BASE, at_ms, at_ms
        self.written += packet.size
        self._container.mux(packet)

    def close(self) -> None:
        self._container.close()


def _video_frame(frame: Frame, given: str, coded: str) -> av.VideoFrame:
    """Return FFmpeg's frame in the pixel format `coded`: the planes of the camera, or converted from `given`."""
    planes = frame.picture.i420() if coded == "yuv420p" else None
    if planes is not None:
        return video_frame("yuv420p", planes)
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.image), format=given)
    return picture if given == coded else picture.reformat(format=coded)


def _shape_of(frame: Frame) -> tuple[int, ...]:
    return frame.shape_hw if frame.stream == "ir" else (*frame.shape_hw, 3)


def _shape(info: SourceInfo) -> tuple[int, ...]:
    w, h = info.size_wh
    return (h, w) if info.stream == "ir" else (h, w, 3)
