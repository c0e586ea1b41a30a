"""Read live cameras with V4L2 (Linux): `V4l2Source` streams one, `list_cameras` lists all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rtfuse.capture import videodev2 as api
from rtfuse.capture.mjpeg import JpegPlanes
from rtfuse.capture.node import Control, Identity, Node
from rtfuse.capture.pixels import (
    DECODABLE,
    JPEG,
    CameraFormat,
    choose,
    decode,
    decode_picture,
    dtype_of,
    is_counts,
    packs_counts,
)
from rtfuse.capture.settings import CameraOptions, PictureOptions
from rtfuse.errors import DeviceUnavailable, RtfuseError, SourceLost
from rtfuse.types import LABELS, Clock, Frame, Image, Picture, SourceInfo, Stamp, Stream

_SLICE_MS = 100  # close() takes effect within this


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """Describe one camera of this machine.

    `stable_path`: a link (by-id, else by-path) that does not depend on its number; None where udev made none.
    `formats`: its pixel formats with their sizes.
    `problem`: the reason why it could not be queried; None if it could.
    """

    path: str
    stable_path: str | None
    driver: str
    card: str
    formats: tuple[CameraFormat, ...] = ()
    problem: str | None = None
    identity: Identity | None = None
    controls: tuple[Control, ...] = ()

    def __str__(self) -> str:
        known = [known.fourcc for known in self.formats if known.fourcc in DECODABLE]
        detail = self.problem or ", ".join(known or [known.fourcc for known in self.formats]) or "no formats"
        return f"{self.path}: {self.card} ({detail})"


def list_cameras(dev: Path = Path("/dev")) -> list[CameraInfo]:
    """List the capture devices among the nodes `video*` in the folder `dev`, opening each read only.

    A camera that is forbidden or fails is listed with its `problem`. Raises DeviceUnavailable without Linux.
    """
    numbered = [(int(node.name[5:]), str(node)) for node in dev.glob("video*") if node.name[5:].isdigit()]
    cameras = (_describe(path, _stable_path(path, dev)) for _, path in sorted(numbered))
    return [camera for camera in cameras if camera is not None]


def _describe(path: str, stable_path: str | None) -> CameraInfo | None:
    """Describe the node at `path`; None if it is not a capture device."""
    try:
        with contextlib.closing(Node(path, os.O_RDONLY)) as node:
            formats, controls = node.formats(), tuple(node.controls())
            return CameraInfo(path, stable_path, node.driver, node.card, formats, None, node.identity, controls)
    except OSError as e:
        if isinstance(e, RtfuseError):
            raise
        if e.errno in (errno.ENOTTY, errno.ENOENT):
            return None
        card = "unknown"
        with contextlib.suppress(OSError):
            card = Path("/sys/class/video4linux", Path(path).name, "name").read_text().strip()
        return CameraInfo(path, stable_path, "", card, problem=(e.strerror or "fails").lower())


def _stable_path(path: str, dev: Path) -> str | None:
    links = (link for folder in ("by-id", "by-path") for link in sorted((dev / "v4l" / folder).glob("*")))
    return next((str(link) for link in links if os.path.realpath(link) == os.path.realpath(path)), None)


class V4l2Source:
    """Read a live V4L2 camera, newest frame first: frames that a newer one overtook are dropped and counted.

    `path`: `/dev/videoN` or, better, a link in `/dev/v4l/by-id` or `by-path`.
    `rate_hz`: the rate to ask for; `info.rate_hz` is the driver's.
    `options`: the mode; size and pixel format are binding if given.
    `picture`: `uncolour` of it turns thermal in false colours into luma.
    `stall_timeout_s`: the longest wait for a frame.
    `clock`: must be CLOCK_MONOTONIC in production, as drivers stamp frames with it.
    `losses`: counts frames that are `stale` (overtaken by a newer one), missing in the `driver`'s numbering, or
    `corrupt` (flagged or undecodable).
    Opening raises DeviceUnavailable. Iterating raises SourceLost if the camera is unplugged, fails or stalls.
    """

    def __init__(
        self,
        path: str,
        stream: Stream,
        *,
        rate_hz: float | None = None,
        options: CameraOptions | None = None,
        picture: PictureOptions | None = None,
        stall_timeout_s: float = 5.0,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._path, self._clock, self._stall_timeout_s = path, clock, stall_timeout_s
        self._rate_hz, self._options = rate_hz, options or CameraOptions()
        self._picture = picture or PictureOptions()
        self._name = f"{LABELS[stream]} camera {path}"
        self._losses: Counter[str] = Counter()
        self._frame_id, self._starved = -1, False
        self._sequence: int | None = None
        self._closing, self._lock = threading.Event(), threading.Lock()
        node = None
        try:
            self._node = node = Node(path)
            self.identity = node.identity
            self._info = self._set_up(stream)
            node.set_controls(self._options.controls)
            node.start()
        except (OSError, ValueError) as e:
            if node is not None:
                node.close()
            if isinstance(e, RtfuseError):
                raise
            raise DeviceUnavailable(f"{self._name}: {_reason(path, e)}") from e

    def _set_up(self, stream: Stream) -> SourceInfo:
        options, rate_hz = self._options, self._rate_hz
        formats = self._node.formats()
        asked, size = choose(
            stream, formats, size_wh=options.size_wh, rate_hz=rate_hz, pixel_format=options.pixel_format
        )
        self.pixel_format, got_wh, self._stride = self._node.set_format(asked, size)
        if self.pixel_format != asked or (size is not None and got_wh != size):
            wanted, got = asked + (" {}x{}".format(*size) if size else ""), "{}x{}".format(*got_wh)
            offered = "; ".join(str(known) for known in formats if known.fourcc == asked)
            raise ValueError(f"asked for {wanted}, its driver chose {self.pixel_format} {got}; it offers {offered}")
        got_hz = self._node.set_rate(rate_hz)
        packed = options.packed_counts
        hidden = packs_counts(asked, got_wh) if packed is None else packed and not is_counts(asked)
        self._packed_counts = hidden and stream == "ir"
        dtype = dtype_of(asked, stream, packed_counts=self._packed_counts)
        self._planes_of = JpegPlanes() if asked in JPEG and stream == "rgb" else None
        return SourceInfo(self._path, stream, got_wh, dtype, live=True, rate_hz=got_hz, coding=asked)

    def reopen(self) -> V4l2Source:
        """Open the same camera again, at its present path. Raises DeviceUnavailable if it is absent."""
        cameras = {camera.path: camera.identity for camera in list_cameras() if camera.identity is not None}
        path = find_again(self._path, self.identity, cameras)
        if path is None:
            raise DeviceUnavailable(f"{self._name} ({self.identity.card}) is absent")
        return V4l2Source(
            path,
            self._info.stream,
            rate_hz=self._rate_hz,
            options=self._options,
            picture=self._picture,
            stall_timeout_s=self._stall_timeout_s,
            clock=self._clock,
        )

    @property
    def info(self) -> SourceInfo:
        return self._info

    @property
    def losses(self) -> Counter[str]:
        return self._losses

    def __iter__(self) -> Iterator[Frame]:
        self._sequence, limit_s = None, self._stall_timeout_s
        self._locked(self._discard_waiting)
        deadline = time.monotonic() + limit_s
        while not self._closing.is_set():
            frame = self._locked(self._newest)
            if frame is not None:
                yield frame
                deadline = time.monotonic() + limit_s
            elif time.monotonic() > deadline and not self._closing.is_set():
                self.close()
                raise SourceLost(f"{self._name}: no usable frame for {limit_s:g} s after {self._frame_id + 1} frames")

    def _locked(self, step: Callable[[], Frame | None]) -> Frame | None:
        """Run one step on the open device, locked; None if it is closed. Raises SourceLost if the device fails."""
        with self._lock:
            if self._closing.is_set():
                return None
            try:
                return step()
            except OSError as e:
                self._closing.set()
                self._node.close()
                why = "it was unplugged" if e.errno in (errno.ENODEV, errno.ENXIO) else f"it failed ({e.strerror})"
                raise SourceLost(f"{self._name}: {why} after {self._frame_id + 1} frames") from e

    def _discard_waiting(self) -> None:
        """Return to the driver the buffers that were filled before the iteration began."""
        while (buffer := self._node.take()) is not None:
            self._node.give(buffer)

    def _newest(self) -> Frame | None:
        """Wait one slice of time; return the newest usable frame, None if none came."""
        if not self._node.wait(_SLICE_MS):
            return None
        newest, newest_id, taken = None, -1, 0
        while (buffer := self._node.take()) is not None:
            taken += 1
            self._number(buffer.sequence)
            if buffer.flags & api.V4L2_BUF_FLAG_ERROR:
                self._losses["corrupt"] += 1
                self._node.give(buffer)
                continue
            if newest is not None:
                self._losses["stale"] += 1
                self._node.give(newest)
            newest, newest_id = buffer, self._frame_id
        # With every buffer full the driver had to stop, so even the newest is old; but never wait twice in a row.
        self._starved = taken >= len(self._node.maps) and not self._starved
        if newest is not None and not self._starved:
            return self._decoded(newest, newest_id)
        if newest is not None:
            self._losses["stale"] += 1
            self._node.give(newest)
        return None

    def _number(self, sequence: int) -> None:
        """Advance `_frame_id` to the frame with this driver's number (32 bits, wraps), counting the gap as lost."""
        step = 1 if self._sequence is None else (sequence - self._sequence) % (1 << 32)
        if not 0 < step < 1 << 31:
            step = 1  # a driver that does not number its frames
        self._sequence = sequence
        self._frame_id += step
        if step > 1:
            self._losses["driver"] += step - 1

    def _decoded(self, buffer: api.v4l2_buffer, frame_id: int) -> Frame | None:
        """Decode a buffer and hand it back to the driver; None if it cannot be decoded."""
        info, t_ns, stamp = self._info, self._clock(), Stamp.ARRIVAL
        if buffer.flags & api.V4L2_BUF_FLAG_TIMESTAMP_MASK == api.V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC:
            t_ns = buffer.timestamp.tv_sec * 1_000_000_000 + buffer.timestamp.tv_usec * 1_000
            at_start = buffer.flags & api.V4L2_BUF_FLAG_TSTAMP_SRC_MASK == api.V4L2_BUF_FLAG_TSTAMP_SRC_SOE
            stamp = Stamp.EXPOSURE if at_start else Stamp.END
        try:
            data = self._node.bytes_of(buffer)
            content = self._content(data)
        except ValueError:
            self._losses["corrupt"] += 1
            return None
        finally:
            self._node.give(buffer)
        return Frame(info.stream, content, frame_id, t_ns, stamp, self._clock())

    def _content(self, data: memoryview) -> Image | Picture:
        """Decode the bytes of a frame. Raises ValueError."""
        info = self._info
        if info.stream == "rgb":
            return decode_picture(data, self.pixel_format, info.size_wh, self._stride, self._planes_of)
        return decode(
            data,
            self.pixel_format,
            info.size_wh,
            self._stride,
            info.stream,
            packed_counts=self._packed_counts,
            uncolour=self._picture.uncolour,
        )

    def close(self) -> None:
        """Release the camera; an iteration in progress in another thread ends within a fraction of a second."""
        self._closing.set()
        with self._lock:
            self._node.close()


def find_again(path: str, identity: Identity, found: Mapping[str, Identity]) -> str | None:
    """Return the present path, of those in `found`, of the camera that was at `path`; None if it is absent.

    A name in `/dev/v4l` belongs to the camera and is returned as it is; a numbered path is searched by `identity`. A
    camera of the same model without serial numbers matches only if it is the only one.
    """
    if not re.fullmatch(r"video\d+", Path(path).name):
        return path
    same = {at: other for at, other in found.items() if other.same_kind(identity)}
    here = [at for at, other in same.items() if other.bus == identity.bus]
    if path in here:
        return path
    if len(here) == 1 or (not here and len(same) == 1 and identity.movable):
        return (here or list(same))[0]
    return None


def _reason(path: str, e: OSError | ValueError) -> str:
    """Return in one line why the camera at `path` cannot be opened, and what to do."""
    if not isinstance(e, OSError):
        return str(e)
    if e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"the device does not exist; {_cameras()}"
    if e.errno == errno.ENOTTY:
        return f"it is not a video capture device; {_cameras()}"
    if e.errno == errno.EBUSY:
        return f"it is in use{_by_whom(path)}; close that program or choose another camera"
    if e.errno in (errno.EACCES, errno.EPERM):
        return "permission denied; join the group video (sudo usermod -aG video $USER) and log in again"
    if e.errno == errno.ENOSPC:
        return "no USB bandwidth is left; use another USB controller, a smaller size, a lower rate or MJPG"
    return f"it cannot be opened: {e.strerror}"


def _cameras() -> str:
    return "cameras: " + "; ".join(map(str, found)) if (found := list_cameras()) else "no cameras found"


def _by_whom(path: str) -> str:
    """Name a process that has the node open, if this user can see it in /proc."""
    node = os.path.realpath(path)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == node:
                pid = link.parts[2]
                name = Path("/proc", pid, "comm").read_text().strip()
                return " by this very process" if int(pid) == os.getpid() else f" by {name} (process {pid})"
        except OSError:
            continue
    return ""
