"""Live cameras through V4L2 (Linux): the only file that opens a device.

`V4l2Source` streams one camera, newest frame first; `list_cameras` says which there are. Only using it needs linuxpy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtfuse.capture.pixels import PREFERENCE, Offer, Sizes, choose, decode, dtype_of, fourcc_code, fourcc_name
from rtfuse.errors import DeviceUnavailable, RtfuseError, SourceLost
from rtfuse.types import Clock, Frame, SourceInfo, Stamp, Stream

_BUFFERS = 4
_SLICE_MS = 100  # close() takes effect within this
_VIDEO_MAJOR = 81  # device number of every V4L2 node
_DECODABLE = frozenset(name for names in PREFERENCE.values() for name in names)


def _linuxpy() -> Any:
    try:
        from linuxpy.video import device
    except ImportError as e:
        raise DeviceUnavailable(
            f"live cameras need Linux and the linuxpy package ({e}); use a file, a stream or synthetic: instead"
        ) from e
    return device


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """One camera of this machine.

    `stable_path` (by-id, else by-path) names it whatever its number; None where udev made no such link. `offers`
    lists its pixel formats with their sizes; `problem` says why it could not be asked, None if it could.
    """

    path: str
    stable_path: str | None
    driver: str
    card: str
    offers: tuple[Offer, ...] = ()
    problem: str | None = None

    def __str__(self) -> str:
        known = [offer.fourcc for offer in self.offers if offer.fourcc in _DECODABLE]
        detail = self.problem or ", ".join(known or [offer.fourcc for offer in self.offers]) or "no formats"
        return f"{self.path}: {self.card} ({detail})"


def list_cameras(dev: Path = Path("/dev")) -> list[CameraInfo]:
    """List the capture devices among the nodes `video*` in the folder `dev`, opening each read only.

    One that is forbidden or fails is listed with its `problem`. Raises DeviceUnavailable if linuxpy is missing.
    """
    numbered = [(int(node.name[5:]), str(node)) for node in dev.glob("video*") if node.name[5:].isdigit()]
    cameras = (_describe(path, _stable_path(path, dev)) for _, path in sorted(numbered))
    return [camera for camera in cameras if camera is not None]


def _describe(path: str, stable_path: str | None) -> CameraInfo | None:
    """Return what the node at `path` is, None if it is not a capture device."""
    try:
        with contextlib.closing(_Node(path, os.O_RDONLY)) as node:
            return CameraInfo(path, stable_path, node.driver, node.card, node.offers())
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


class _Node:
    """A V4L2 capture node: thin calls, each of which raises OSError as the kernel reports it."""

    def __init__(self, path: str, mode: int = os.O_RDWR) -> None:
        self._api = _linuxpy()
        path = os.path.realpath(path)
        status = os.stat(path)
        if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _VIDEO_MAJOR:
            raise OSError(errno.ENOTTY, "not a V4L2 device", path)
        self.flags = self._api.BufferFlag
        self.maps: list[Any] = []
        self._type, self._memory = self._api.BufferType.VIDEO_CAPTURE, self._api.Memory.MMAP
        self.fd = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.driver, self.card = self._capabilities(path)
        except OSError:
            os.close(self.fd)
            raise
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def _capabilities(self, path: str) -> tuple[str, str]:
        got, flag = self._api.read_capabilities(self.fd), self._api.Capability
        here = got.device_caps if got.capabilities & flag.DEVICE_CAPS else got.capabilities
        if here & flag.VIDEO_CAPTURE_MPLANE:
            raise OSError(errno.EOPNOTSUPP, "multi-planar capture is not supported", path)
        if not (here & flag.VIDEO_CAPTURE and here & flag.STREAMING):
            raise OSError(errno.ENOTTY, "not a video capture device", path)
        return got.driver.decode(errors="replace"), got.card.decode(errors="replace")

    def offers(self) -> tuple[Offer, ...]:
        """Return the pixel formats; with sizes and rates where the format is one that can be decoded."""
        query = self._api.raw.v4l2_fmtdesc(type=self._type)
        codes = [found.pixelformat for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FMT, query)]
        named = ((code, fourcc_name(code)) for code in codes)
        return tuple(Offer(name, tuple(self._sizes(code)) if name in _DECODABLE else ()) for code, name in named)

    def _sizes(self, code: int) -> Iterator[Sizes]:
        query = self._api.raw.v4l2_frmsizeenum(pixel_format=code)
        for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FRAMESIZES, query):
            if found.type == self._api.FrameSizeType.DISCRETE:
                wh = found.m1.discrete.width, found.m1.discrete.height
                yield Sizes(wh, wh, rate_hz=self._top_rate(code, wh))
            else:
                grid = found.m1.stepwise
                low, high = (grid.min_width, grid.min_height), (grid.max_width, grid.max_height)
                yield Sizes(low, high, (grid.step_width, grid.step_height))

    def _top_rate(self, code: int, size_wh: tuple[int, int]) -> float | None:
        query = self._api.raw.v4l2_frmivalenum(pixel_format=code, width=size_wh[0], height=size_wh[1])
        rates = []
        for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FRAMEINTERVALS, query):
            discrete = found.type == self._api.FrameIntervalType.DISCRETE
            interval = found.discrete if discrete else found.stepwise.min
            if interval.numerator:
                rates.append(interval.denominator / interval.numerator)
        return max(rates, default=None)

    def set_format(self, fourcc: str, size_wh: tuple[int, int] | None) -> tuple[str, tuple[int, int], int]:
        """Ask for a format; return the format, size and bytes per line that the driver chose."""
        if size_wh is None:
            now = self._api.get_raw_format(self.fd, self._type).fmt.pix
            size_wh = now.width, now.height
        got = self._api.set_format(self.fd, self._type, *size_wh, fourcc_code(fourcc)).fmt.pix
        return fourcc_name(got.pixelformat), (got.width, got.height), got.bytesperline

    def set_rate(self, rate_hz: float | None) -> float | None:
        """Ask for a rate, if one is given; return the driver's, None if it has no notion of it."""
        try:
            if rate_hz is not None:
                self._api.set_fps(self.fd, self._type, rate_hz)
            return float(self._api.get_fps(self.fd, self._type)) or None
        except ZeroDivisionError:
            return None
        except OSError as e:
            if e.errno in (errno.ENOTTY, errno.EINVAL):
                return None
            raise

    def start(self) -> None:
        for index in range(self._api.request_buffers(self.fd, self._type, self._memory, _BUFFERS).count):
            buffer = self._api.query_buffer(self.fd, self._type, self._memory, index)
            self.maps.append(self._api.mmap_from_buffer(self.fd, buffer))
            self.give(buffer)
        self._api.stream_on(self.fd, self._type)

    def wait(self, timeout_ms: int) -> bool:
        """Wait for a frame; False if there is none yet. Raises OSError EIO if the driver cannot go on."""
        events = self._poll.poll(timeout_ms)
        if events and not events[0][1] & select.POLLIN:
            self._api.get_raw_format(self.fd, self._type)  # ENODEV if the camera is gone
            raise OSError(errno.EIO, "the driver reports an error")
        return bool(events)

    def take(self) -> Any | None:
        """Dequeue the oldest filled buffer, None if there is none."""
        try:
            return self._api.dequeue_buffer(self.fd, self._type, self._memory)
        except BlockingIOError:
            return None

    def give(self, buffer: Any) -> None:
        """Hand a buffer back to the driver."""
        self._api.enqueue_buffer(self.fd, self._type, self._memory, 0, buffer.index)

    def bytes_of(self, buffer: Any) -> memoryview:
        """Return what the driver wrote into a dequeued buffer, uncopied; drop it before `give`."""
        return memoryview(self.maps[buffer.index])[: buffer.bytesused]

    def close(self) -> None:
        """End streaming, free the buffers and close the node; safe to call twice."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):  # it may be gone
            if self.maps:
                self._api.stream_off(self.fd, self._type)
        for mapped in self.maps:
            with contextlib.suppress(BufferError):  # an exception's traceback still looks into it
                mapped.close()
        self.maps.clear()
        os.close(self.fd)
        self.fd = -1


class V4l2Source:
    """A live V4L2 camera, newest frame first: what waited behind a newer frame is dropped and counted.

    `path` is `/dev/videoN` or, better, a link in `/dev/v4l/by-id` or `by-path`. `size_wh` (pixels) and
    `pixel_format` (fourcc) are binding if given; `rate_hz` is asked for, and `info.rate_hz` says what was got.
    `clock` must be CLOCK_MONOTONIC in production, as it is what drivers stamp frames with. `losses` counts `stale`
    (overtaken by a newer frame), `driver` (gaps in the driver's numbering) and `corrupt` (flagged or undecodable).
    Opening raises DeviceUnavailable; iterating raises SourceLost if the camera is unplugged or fails, or delivers
    no frame for `stall_timeout_s` seconds.
    """

    def __init__(
        self,
        path: str,
        stream: Stream,
        *,
        size_wh: tuple[int, int] | None = None,
        rate_hz: float | None = None,
        pixel_format: str | None = None,
        stall_timeout_s: float = 5.0,
        clock: Clock = time.monotonic_ns,
    ) -> None:
        self._path, self._clock, self._stall_timeout_s = path, clock, stall_timeout_s
        self._name = f"{'thermal' if stream == 'ir' else 'RGB'} camera {path}"
        self._losses: Counter[str] = Counter()
        self._frame_id, self._starved = -1, False
        self._sequence: int | None = None
        self._closing, self._lock = threading.Event(), threading.Lock()
        node = None
        try:
            self._node = node = _Node(path)
            self._info = self._set_up(stream, size_wh, rate_hz, pixel_format)
            node.start()
        except (OSError, ValueError) as e:
            if node is not None:
                node.close()
            if isinstance(e, RtfuseError):
                raise
            raise DeviceUnavailable(f"{self._name}: {_reason(path, e)}") from e

    def _set_up(
        self, stream: Stream, size_wh: tuple[int, int] | None, rate_hz: float | None, pixel_format: str | None
    ) -> SourceInfo:
        offers = self._node.offers()
        asked, size = choose(stream, offers, size_wh=size_wh, rate_hz=rate_hz, pixel_format=pixel_format)
        self.pixel_format, got_wh, self._stride = self._node.set_format(asked, size)
        if self.pixel_format != asked or (size is not None and got_wh != size):
            wanted, got = asked + (" {}x{}".format(*size) if size else ""), "{}x{}".format(*got_wh)
            offered = "; ".join(str(offer) for offer in offers if offer.fourcc == asked)
            raise ValueError(f"asked for {wanted}, its driver chose {self.pixel_format} {got}; it offers {offered}")
        got_hz = self._node.set_rate(rate_hz)
        return SourceInfo(self._path, stream, got_wh, dtype_of(asked, stream), live=True, rate_hz=got_hz)

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
        """Run one step on the open device, alone; None if it is closed. Raises SourceLost if the device fails."""
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
        """Forget what was captured before anyone was listening."""
        while (buffer := self._node.take()) is not None:
            self._node.give(buffer)

    def _newest(self) -> Frame | None:
        """Wait one slice of time; return the newest usable frame, None if there is none."""
        if not self._node.wait(_SLICE_MS):
            return None
        newest, newest_id, taken = None, -1, 0
        while (buffer := self._node.take()) is not None:
            taken += 1
            self._number(buffer.sequence)
            if buffer.flags & self._node.flags.ERROR:
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

    def _decoded(self, buffer: Any, frame_id: int) -> Frame | None:
        """Decode a buffer and hand it back to the driver; None if it cannot be decoded."""
        flag, info, t_ns, stamp = self._node.flags, self._info, self._clock(), Stamp.ARRIVAL
        if buffer.flags & flag.TIMESTAMP_MASK == flag.TIMESTAMP_MONOTONIC:
            t_ns = buffer.timestamp.secs * 1_000_000_000 + buffer.timestamp.usecs * 1_000
            at_start = buffer.flags & flag.TSTAMP_SRC_MASK == flag.TSTAMP_SRC_SOE
            stamp = Stamp.EXPOSURE if at_start else Stamp.END
        try:
            image = decode(self._node.bytes_of(buffer), self.pixel_format, info.size_wh, self._stride, info.stream)
        except ValueError:
            self._losses["corrupt"] += 1
            return None
        finally:
            self._node.give(buffer)
        return Frame(info.stream, image, frame_id, t_ns, stamp, self._clock())

    def close(self) -> None:
        """Release the camera; an iteration in progress in another thread ends within a fraction of a second."""
        self._closing.set()
        with self._lock:
            self._node.close()


def _reason(path: str, e: OSError | ValueError) -> str:
    """Say in a line why the camera at `path` cannot be opened, and what to do."""
    if not isinstance(e, OSError):
        return str(e)
    if e.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return f"there is no such device; {_cameras()}"
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
    """Name a process that has the node open, as far as /proc tells this user."""
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
