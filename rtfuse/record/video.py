"""Write fused frames to a video (PyAV), an image or a folder of images; incomplete files never get the final name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace

from rtfuse.capture.paths import ffmpeg_name, is_pipe
from rtfuse.errors import OutputExists, OutputUnwritable
from rtfuse.folders import expanded
from rtfuse.outputs import try_in
from rtfuse.picture import MATRIX_TAGS, Coding, Matrix, video_frame
from rtfuse.record.disk import ReservedFile
from rtfuse.record.images import ImageWriter, compose
from rtfuse.types import Fused, Image, Picture

# Not .avi: it has no times, only a rate.
VIDEO_CODECS = {".mp4": "libx264", ".mkv": "libx264", ".mov": "libx264", ".webm": "libvpx-vp9"}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
_SWSCALE: dict[Matrix, Colorspace] = {
    "bt601": Colorspace.ITU601,
    "bt709": Colorspace.ITU709,
    "bt2020": Colorspace.BT2020,
}
_CODEC_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "18"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "24", "b": "0"},
}


class Writer(Protocol):
    """Make one output; `close` completes it, `abort` removes it."""

    def write(self, fused: Fused) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def _options(suffix: str, *, streamed: bool) -> dict[str, str]:
    """Return FFmpeg's options: MP4 and MOV keep tags of our own, and a pipe needs no index at its end."""
    if suffix not in (".mp4", ".mov"):
        return {}
    return {"movflags": "use_metadata_tags" + ("+frag_keyframe+empty_moov" if streamed else "")}


def open_writer(
    path: str | Path,
    *,
    rate_hz: float | None = None,
    time_base: Fraction | None = None,
    utc_ns: int | None = None,
    side_by_side: bool = False,
    force: bool = False,
    names: Sequence[str] | None = None,
) -> Writer:
    """Open a video or an image by the suffix of `path`, or a folder of PNG files without a suffix.

    A pipe (`>(command)`) takes a video: by its suffix, Matroska without one.
    `rate_hz`, `time_base`: those of the RGB stream, so that its times are kept exactly.
    `utc_ns`: UTC at time 0 of a recorded RGB stream, in nanoseconds since 1970; None: unknown.
    `side_by_side`: True puts thermal and RGB to the left of the fused picture.
    `force`: True replaces a file that exists, and in a folder the files of the same names; others stay.
    `names`: in a folder, the file for each frame of RGB by its number, with its subfolders; None: `NNNNNN.png`.
    Raises what `check_writer` raises.
    """
    path = check_writer(path, force=force)
    suffix, piped = path.suffix.lower(), is_pipe(path)
    partial = path if piped else partial_of(path)
    try:
        if suffix in VIDEO_CODECS or piped:
            if not piped:
                partial.touch()
            return VideoWriter(
                path, partial, rate_hz=rate_hz, time_base=time_base, utc_ns=utc_ns, side_by_side=side_by_side
            )
        if not suffix:
            partial.mkdir()
        else:
            partial.touch()
    except OSError as e:
        raise OutputUnwritable(f"output {path} cannot be written: {e.strerror or e}") from e
    return ImageWriter(path, partial, side_by_side=side_by_side, names=names)


def check_writer(path: str | Path, *, force: bool = False) -> Path:
    """Return the path, with `~` expanded, of an output that `open_writer` can open; nothing is left there.

    Raises OutputExists without `force`, OutputUnwritable if the folder is missing or not writable, or the suffix is
    unknown.
    """
    path = Path(expanded(str(path)))
    if is_pipe(path):
        return _check_pipe(path)
    if path.name in ("", ".."):  # `.` and the like, which have no name beside which a partial output could lie
        path = Path(os.path.realpath(path))
    suffix = path.suffix.lower()
    if suffix and suffix not in VIDEO_CODECS and suffix not in IMAGE_SUFFIXES:
        known = " ".join([*VIDEO_CODECS, *sorted(IMAGE_SUFFIXES)])
        raise OutputUnwritable(f"output {path}: unknown format {suffix}; want one of {known}, or a folder")
    if (path.exists() or path.is_symlink()) and not force:
        raise OutputExists(f"output {path} exists; choose another name or give --force")
    if path.is_dir() == bool(suffix) and path.exists():
        raise OutputUnwritable(f"output {path} is {'a folder' if suffix else 'a file'}; choose another name")
    if not path.name:
        raise OutputUnwritable(f"output {path} names neither a file nor a folder of pictures")
    try:
        try_in(path.parent)
    except OSError as e:
        raise OutputUnwritable(f"output {path} cannot be written: {e.strerror or e}") from e
    return path


def partial_of(path: Path) -> Path:
    """Return the name that an output of this process has until it is complete."""
    return path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")


def remove_partial(*paths: Path | None) -> None:
    """Remove what this process has written of incomplete outputs."""
    for partial in [partial_of(path) for path in paths if path is not None and path.name]:
        with suppress(OSError):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def _check_pipe(path: Path) -> Path:
    if path.suffix.lower() not in {*VIDEO_CODECS, ""}:
        raise OutputUnwritable(f"output {path} is a pipe, for a video: want {' '.join(VIDEO_CODECS)} or no suffix")
    if _is_stdout(path):
        raise OutputUnwritable(f"output {path} also gets the lines of this command; name a pipe, or >(command)")
    return path


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(1))
    except OSError:
        return False


class VideoWriter:
    """Write H.264 (VP9 in WebM), each frame at its RGB frame's capture time, which counts from the first frame.

    The metadata keep the absolute time of the first frame: `rtfuse_start_s` in seconds of the RGB recording, and
    `creation_time` in UTC, where they are known. 4:2:0 where both sides are even, else 4:4:4 (8 bit). YUV keeps
    the matrix, the range and the chroma of its source; RGB becomes BT.601 of limited range.
    `partial` gets the name `path` when it is complete; a pipe has the one name. When the disk becomes full, `write`
    raises OutputUnwritable and `close` still completes the file: room for its end is kept. Frames that wait in the
    encoder then may not fit: at most a second or two.
    """

    def __init__(
        self,
        path: Path,
        partial: Path,
        *,
        rate_hz: float | None,
        time_base: Fraction | None,
        utc_ns: int | None,
        side_by_side: bool,
    ) -> None:
        self._path, self._partial, self._side_by_side = path, partial, side_by_side
        self._rate = Fraction(rate_hz or 30).limit_denominator(1001)
        self._base = time_base if time_base and time_base <= Fraction(1, 1000) else Fraction(1, 90_000)
        self._utc_ns = utc_ns
        self._suffix, streamed = path.suffix.lower() or ".mkv", partial == path
        form = "matroska" if self._suffix == ".mkv" else self._suffix[1:]
        try:
            self._disk = None if streamed else ReservedFile(partial)
            options = _options(self._suffix, streamed=streamed)
            self._container = av.open(self._disk or ffmpeg_name(partial), "w", format=form, options=options)
        except (OSError, av.error.FFmpegError) as e:
            raise OutputUnwritable(f"output {path} cannot be opened: {e.strerror or e}") from e
        self._stream: av.VideoStream | None = None
        self._coding = Coding()
        self._start_ns = 0
        self._last_pts = -1

    def write(self, fused: Fused) -> None:
        """Encode one frame. Raises OutputUnwritable if the disk does not take it."""
        leader = fused.pair.leader
        content = compose(fused, side_by_side=True) if self._side_by_side else fused.picture
        self.add(content, leader.t_ns, media=leader.stamp.value == "media")

    def add(self, content: Picture | Image, t_ns: int, *, media: bool = False) -> None:
        """Encode a picture of this capture time; an array is (H, W, 3) uint8 RGB. Raises what `write` raises."""
        picture = content if isinstance(content, Picture) else Picture.of_rgb(content)
        if self._stream is not None and picture.shape_hw != (self._stream.height, self._stream.width):
            # the camera came back with another size; the file has one
            size_wh = self._stream.width, self._stream.height
            picture = picture.resized(size_wh)
        try:
            if self._disk is not None:
                self._disk.check()
            if self._stream is None:
                self._stream, self._start_ns = self._open_stream(picture), t_ns
                if media:
                    self._note_start(t_ns)
            frame = self._frame(picture, self._stream.pix_fmt)
            ticks = Fraction(t_ns - self._start_ns, 1_000_000_000) / self._base
            frame.pts = self._last_pts = max(round(ticks), self._last_pts + 1)
            frame.time_base = self._base
            frame.duration = max(1, round(1 / self._rate / self._base))
            self._mux(self._stream.encode(frame))
        except (OSError, av.error.FFmpegError) as e:
            raise OutputUnwritable(f"output {self._path} cannot be written: {e.strerror or e}") from e

    def _frame(self, picture: Picture, layout: str | None) -> VideoFrame:
        """Return FFmpeg's frame of a picture: its own planes where it has the coding of the file, else by RGB."""
        planes = picture.i420(self._coding) if layout == "yuv420p" else None
        if planes is not None:
            return video_frame("yuv420p", planes, self._coding)
        return VideoFrame.from_ndarray(np.ascontiguousarray(picture.rgb), format="rgb24").reformat(
            format=layout,
            dst_colorspace=_SWSCALE[self._coding.matrix],
            dst_color_range=ColorRange.JPEG if self._coding.full else ColorRange.MPEG,
        )

    def _mux(self, packets: Iterable[Packet[Any]]) -> None:
        """Write packets, as far as a disk that is full has room for them."""
        for packet in packets:
            if self._disk is not None and not self._disk.takes(packet.size):
                return
            self._container.mux(packet)

    def _note_start(self, t_ns: int) -> None:
        """Write the time of the first frame into the metadata."""
        self._container.metadata["rtfuse_start_s"] = f"{t_ns / 1e9:.6f}"
        if self._utc_ns is not None:
            began = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=(self._utc_ns + t_ns) // 1000)
            self._container.metadata["creation_time"] = began.isoformat(timespec="microseconds").replace("+00:00", "Z")

    def _open_stream(self, picture: Picture) -> av.VideoStream:
        codec = VIDEO_CODECS[self._suffix]
        stream = self._container.add_stream(codec, rate=self._rate, options=dict(_CODEC_OPTIONS[codec]))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = picture.shape_hw
        stream.pix_fmt = "yuv420p" if stream.height % 2 == 0 and stream.width % 2 == 0 else "yuv444p"
        stream.time_base = stream.codec_context.time_base = self._base
        if picture.layout not in ("rgb24", "gray"):
            self._coding = picture.coding
        stream.codec_context.colorspace = MATRIX_TAGS[self._coding.matrix]
        stream.codec_context.color_range = ColorRange.JPEG if self._coding.full else ColorRange.MPEG
        stream.codec_context.thread_type = "AUTO"
        return stream

    def close(self) -> None:
        """Complete the file and give it its name; without frames, remove it."""
        if self._stream is None:
            self.abort()
            return
        try:
            self._mux(self._stream.encode(None))
            self._container.close()
            if self._disk is not None:
                self._disk.close()
            if self._partial != self._path:
                os.replace(self._partial, self._path)
        except (OSError, av.error.FFmpegError) as e:
            self.abort()
            raise OutputUnwritable(f"output {self._path} cannot be written: {e.strerror or e}") from e

    def abort(self) -> None:
        """Remove the incomplete output."""
        with suppress(OSError, av.error.FFmpegError):  # an unfinished container, a full disk
            self._container.close()
        if self._disk is not None:
            with suppress(OSError):
                self._disk.close()
        if self._partial != self._path:
            self._partial.unlink(missing_ok=True)


def check_picture(path: Path, *, force: bool = False) -> None:
    """Raise what `check_writer` raises, and OutputUnwritable if the suffix is not that of an image."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise OutputUnwritable(f"picture {path}: want one of {' '.join(sorted(IMAGE_SUFFIXES))}")
    check_writer(path, force=force)


class PictureWriter:
    """Write one side-by-side picture: the frame number `at`, or the last one if fewer came.

    Without `at`, for an input of unknown length, it is one near the middle: of the frames 0, 1, 2, 4, 8 …
    """

    def __init__(self, path: Path, *, at: int | None, force: bool) -> None:
        check_picture(path, force=force)
        self._image = open_writer(path, side_by_side=True, force=force)
        self._at, self._seen = at, 0
        self._last: Fused | None = None
        self._before: Fused | None = None

    def write(self, fused: Fused) -> None:
        """Keep the frame, up to the wanted one."""
        if self._at is None and self._seen & (self._seen - 1) == 0:
            self._before, self._last = self._last, fused
        elif self._at is not None and self._seen <= self._at:
            self._last = fused
        self._seen += 1

    def close(self) -> None:
        """Write the picture."""
        newest = 1 << max(self._seen - 1, 1).bit_length() - 1  # the number of the last frame that was kept
        wanted = self._before if self._before is not None and 4 * newest > 3 * self._seen else self._last
        if wanted is not None:
            self._image.write(wanted)
        self._image.close()

    def abort(self) -> None:
        """Remove the incomplete output."""
        self._image.abort()
