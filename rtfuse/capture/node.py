"""Open and drive a V4L2 capture node; every call raises OSError as the kernel reports it."""

from __future__ import annotations

import contextlib
import difflib
import errno
import mmap
import os
import re
import select
import stat
import sys
from collections.abc import Iterator, Mapping
from ctypes import c_int
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from rtfuse.capture import videodev2 as api
from rtfuse.capture.pixels import DECODABLE, CameraFormat, Sizes, fourcc_code, fourcc_name
from rtfuse.errors import DeviceUnavailable

_BUFFERS = 4
_VIDEO_MAJOR = 81  # device number of every V4L2 node
_SYS = Path("/sys/class/video4linux")
_CAPTURE, _MMAP = api.V4L2_BUF_TYPE_VIDEO_CAPTURE, api.V4L2_MEMORY_MMAP
_KINDS = {
    api.V4L2_CTRL_TYPE_INTEGER: "integer",
    api.V4L2_CTRL_TYPE_BOOLEAN: "boolean",
    api.V4L2_CTRL_TYPE_MENU: "menu",
    api.V4L2_CTRL_TYPE_INTEGER_MENU: "menu",
    api.V4L2_CTRL_TYPE_BUTTON: "button",
    api.V4L2_CTRL_TYPE_BITMASK: "integer",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Identify a camera independently of its number.

    `usb`: vendor:product, and the serial number.
    `index`: the number of its node.
    `bus`: the place where it is plugged in.
    """

    driver: str
    card: str
    bus: str
    usb: tuple[str, str] | None = None
    index: str = "0"

    def same_kind(self, other: Identity) -> bool:
        """Return True if both are of one model and, if they have serial numbers, the same camera."""
        return (self.driver, self.card, self.usb, self.index) == (other.driver, other.card, other.usb, other.index)

    @property
    def movable(self) -> bool:
        """True if it can be plugged in elsewhere."""
        return self.bus.startswith("usb")


@dataclass(frozen=True, slots=True)
class Control:
    """Setting of a camera; `choices` are the values of a menu by name."""

    name: str
    kind: str
    value: int | None
    default: int
    low: int
    high: int
    step: int
    id: int = field(repr=False, default=0)
    choices: Mapping[str, int] = field(default_factory=dict)
    fixed: bool = False

    def __str__(self) -> str:
        if self.kind == "button":
            return f"{self.name} (button)"
        if self.kind == "boolean":
            return f"{self.name}={str(bool(self.value)).lower()} (default {str(bool(self.default)).lower()})"
        named = {number: name for name, number in self.choices.items()}
        value, default = named.get(self.value or 0, self.value), named.get(self.default, self.default)
        possible = ", ".join(self.choices) if self.choices else f"{self.low} to {self.high}"
        return f"{self.name}={value} (default {default}; {possible}{'; read only' if self.fixed else ''})"

    def number(self, value: int | bool | str) -> int:
        """Return the number for a value as a user writes it. Raises ValueError with the possible values."""
        if isinstance(value, str) and value.lower() in ("true", "false", "on", "off") and self.kind == "boolean":
            value = value.lower() in ("true", "on")
        if isinstance(value, str) and _slug(value) in self.choices:
            return self.choices[_slug(value)]
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value):
            value = int(value)
        if isinstance(value, str) or not self.low <= value <= self.high or (value - self.low) % max(self.step, 1):
            raise ValueError(f"control {self}: {value!r} is not possible")
        if self.choices and value not in self.choices.values():
            raise ValueError(f"control {self}: {value!r} is not possible")
        return int(value)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


class Node:
    """Own an open capture node; closing it ends its streaming."""

    def __init__(self, path: str, mode: int = os.O_RDWR) -> None:
        if sys.platform != "linux":
            raise DeviceUnavailable("live cameras need Linux; use a file, a stream or synthetic: instead")
        path = os.path.realpath(path)
        status = os.stat(path)
        if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _VIDEO_MAJOR:
            raise OSError(errno.ENOTTY, "not a V4L2 device", path)
        self.maps: list[mmap.mmap] = []
        self.fd = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            self.driver, self.card, self.bus = self._capabilities(path)
        except OSError:
            os.close(self.fd)
            raise
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def _capabilities(self, path: str) -> tuple[str, str, str]:
        got = api.ioctl(self.fd, api.VIDIOC_QUERYCAP, api.v4l2_capability())
        here = got.device_caps if got.capabilities & api.V4L2_CAP_DEVICE_CAPS else got.capabilities
        if here & api.V4L2_CAP_VIDEO_CAPTURE_MPLANE:
            raise OSError(errno.EOPNOTSUPP, "multi-planar capture is not supported", path)
        if not (here & api.V4L2_CAP_VIDEO_CAPTURE and here & api.V4L2_CAP_STREAMING):
            raise OSError(errno.ENOTTY, "not a video capture device", path)
        driver, card, bus = (text.decode(errors="replace") for text in (got.driver, got.card, got.bus_info))
        return driver, card, bus

    @property
    def identity(self) -> Identity:
        """The camera's identity."""
        node = _SYS / Path(os.readlink(f"/proc/self/fd/{self.fd}")).name
        product = serial = ""
        with contextlib.suppress(OSError):
            usb = (node / "device").resolve().parent
            product = ":".join((usb / name).read_text().strip() for name in ("idVendor", "idProduct"))
            serial = (usb / "serial").read_text().strip()
        index = "0"
        with contextlib.suppress(OSError):
            index = (node / "index").read_text().strip()
        return Identity(self.driver, self.card, self.bus, (product, serial) if product else None, index)

    def controls(self) -> list[Control]:
        """Return the settings that are numbers, with their values."""
        found = []
        for info in self.described_controls():
            if info.type not in _KINDS or info.flags & api.V4L2_CTRL_FLAG_DISABLED:
                continue
            value = None
            if not info.flags & api.V4L2_CTRL_FLAG_WRITE_ONLY and info.type != api.V4L2_CTRL_TYPE_BUTTON:
                with contextlib.suppress(OSError):
                    value = api.ioctl(self.fd, api.VIDIOC_G_CTRL, api.v4l2_control(info.id)).value
            found.append(
                Control(
                    _slug(info.name.decode(errors="replace")),
                    _KINDS[info.type],
                    value,
                    info.default_value,
                    info.minimum,
                    info.maximum,
                    info.step,
                    info.id,
                    self._choices(info) if _KINDS[info.type] == "menu" else {},
                    bool(info.flags & api.V4L2_CTRL_FLAG_READ_ONLY),
                )
            )
        return found

    def described_controls(self) -> Iterator[api.v4l2_query_ext_ctrl]:
        """Yield the driver's description of each control, by ascending id."""
        last = 0
        while True:
            after_last = last | api.V4L2_CTRL_FLAG_NEXT_CTRL | api.V4L2_CTRL_FLAG_NEXT_COMPOUND
            try:
                info = api.ioctl(self.fd, api.VIDIOC_QUERY_EXT_CTRL, api.v4l2_query_ext_ctrl(after_last))
            except OSError as e:
                if e.errno in api.END_OF_LIST:
                    return
                raise
            if info.id <= last:  # a driver that begins again
                return
            yield info
            last = info.id

    def _choices(self, info: api.v4l2_query_ext_ctrl) -> dict[str, int]:
        choices = {}
        for index in range(info.minimum, info.maximum + 1):
            try:
                item = api.ioctl(self.fd, api.VIDIOC_QUERYMENU, api.v4l2_querymenu(info.id, index))
            except OSError as e:
                if e.errno in api.END_OF_LIST:  # a menu may have gaps
                    continue
                raise
            text = bytes(item.name)
            if info.type == api.V4L2_CTRL_TYPE_INTEGER_MENU:
                choices[str(int.from_bytes(text[:8], sys.byteorder, signed=True))] = index
            else:
                choices[_slug(text.split(b"\0")[0].decode(errors="replace"))] = index
        return choices

    def set_controls(self, wanted: Mapping[str, int | bool | str]) -> None:
        """Set controls by name, in this order. Raises ValueError for a wrong name or value."""
        for name, value in wanted.items():  # one by one, as an automatic mode may block others
            known = {control.name: control for control in self.controls()}
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"it has no control {name}; {hint}")
            control = known[name]
            try:
                api.ioctl(self.fd, api.VIDIOC_S_CTRL, api.v4l2_control(control.id, control.number(value)))
            except OSError as e:
                raise ValueError(f"control {control} cannot be set to {value!r}: {e.strerror}") from e

    def formats(self) -> tuple[CameraFormat, ...]:
        """Return the pixel formats, with sizes and rates for those that can be decoded."""
        query = api.v4l2_fmtdesc(type=_CAPTURE)
        codes = [found.pixelformat for found in api.listed(self.fd, api.VIDIOC_ENUM_FMT, query)]
        named = ((code, fourcc_name(code)) for code in codes)
        return tuple(CameraFormat(name, tuple(self._sizes(code)) if name in DECODABLE else ()) for code, name in named)

    def _sizes(self, code: int) -> Iterator[Sizes]:
        query = api.v4l2_frmsizeenum(pixel_format=code)
        for found in api.listed(self.fd, api.VIDIOC_ENUM_FRAMESIZES, query):
            if found.type == api.V4L2_FRMSIZE_TYPE_DISCRETE:
                wh = found.discrete.width, found.discrete.height
                yield Sizes(wh, wh, rates_hz=self._rates(code, wh))
            else:
                grid = found.stepwise
                low, high = (grid.min_width, grid.min_height), (grid.max_width, grid.max_height)
                yield Sizes(low, high, (grid.step_width, grid.step_height))

    def _rates(self, code: int, size_wh: tuple[int, int]) -> tuple[float, ...]:
        """Return the frame rates at one size, fastest first; of a range, its fastest and slowest."""
        query = api.v4l2_frmivalenum(pixel_format=code, width=size_wh[0], height=size_wh[1])
        rates = set()
        for found in api.listed(self.fd, api.VIDIOC_ENUM_FRAMEINTERVALS, query):
            discrete = found.type == api.V4L2_FRMIVAL_TYPE_DISCRETE
            for interval in (found.discrete,) if discrete else (found.stepwise.min, found.stepwise.max):
                if interval.numerator:
                    rates.add(interval.denominator / interval.numerator)
        return tuple(sorted(rates, reverse=True))

    def set_format(self, fourcc: str, size_wh: tuple[int, int] | None) -> tuple[str, tuple[int, int], int]:
        """Ask for a format; return the format, size and bytes per line that the driver chose."""
        asked = api.v4l2_format(type=_CAPTURE)
        pix = asked.fmt.pix
        if size_wh is None:
            now = self._format()
            size_wh = now.width, now.height
        pix.width, pix.height = size_wh
        pix.pixelformat, pix.field = fourcc_code(fourcc), api.V4L2_FIELD_ANY
        got = api.ioctl(self.fd, api.VIDIOC_S_FMT, asked).fmt.pix
        return fourcc_name(got.pixelformat), (got.width, got.height), got.bytesperline

    def _format(self) -> api.v4l2_pix_format:
        """Return the present format. Raises OSError, ENODEV if the camera is gone."""
        return api.ioctl(self.fd, api.VIDIOC_G_FMT, api.v4l2_format(type=_CAPTURE)).fmt.pix

    def set_rate(self, rate_hz: float | None) -> float | None:
        """Ask for a rate, if one is given; return the driver's, None if it does not know rates."""
        try:
            if rate_hz is not None:
                asked = api.v4l2_streamparm(type=_CAPTURE)
                asked.parm.capture.timeperframe = interval_of(rate_hz)
                api.ioctl(self.fd, api.VIDIOC_S_PARM, asked)
            got = api.ioctl(self.fd, api.VIDIOC_G_PARM, api.v4l2_streamparm(type=_CAPTURE)).parm.capture.timeperframe
        except OSError as e:
            if e.errno in (errno.ENOTTY, errno.EINVAL):
                return None
            raise
        return got.denominator / got.numerator if got.numerator and got.denominator else None

    def start(self) -> None:
        wanted = api.v4l2_requestbuffers(_BUFFERS, _CAPTURE, _MMAP)
        count = api.ioctl(self.fd, api.VIDIOC_REQBUFS, wanted).count
        if not count:
            raise OSError(errno.ENOMEM, "its driver gives no buffers")
        for index in range(count):
            buffer = api.ioctl(self.fd, api.VIDIOC_QUERYBUF, _buffer(index))
            self.maps.append(mmap.mmap(self.fd, buffer.length, offset=buffer.m.offset))
            self.give(buffer)
        api.ioctl(self.fd, api.VIDIOC_STREAMON, c_int(_CAPTURE))

    def wait(self, timeout_ms: int) -> bool:
        """Wait for a frame; return False if none has come. Raises OSError EIO if the driver has failed."""
        events = self._poll.poll(timeout_ms)
        if events and not events[0][1] & select.POLLIN:
            self._format()  # ENODEV if the camera is gone
            raise OSError(errno.EIO, "the driver reports an error")
        return bool(events)

    def take(self) -> api.v4l2_buffer | None:
        """Dequeue the oldest filled buffer, None if all are empty."""
        try:
            return api.ioctl(self.fd, api.VIDIOC_DQBUF, _buffer())
        except BlockingIOError:
            return None

    def give(self, buffer: api.v4l2_buffer) -> None:
        """Hand a buffer back to the driver."""
        api.ioctl(self.fd, api.VIDIOC_QBUF, _buffer(buffer.index))

    def bytes_of(self, buffer: api.v4l2_buffer) -> memoryview:
        """Return the bytes of a dequeued buffer, not copied; drop the view before `give`."""
        return memoryview(self.maps[buffer.index])[: buffer.bytesused]

    def close(self) -> None:
        """End streaming, free the buffers and close the node; safe to call twice."""
        if self.fd < 0:
            return
        with contextlib.suppress(OSError):  # it may be gone
            if self.maps:
                api.ioctl(self.fd, api.VIDIOC_STREAMOFF, c_int(_CAPTURE))
        for mapped in self.maps:
            with contextlib.suppress(BufferError):  # an exception's traceback still looks into it
                mapped.close()
        self.maps.clear()
        os.close(self.fd)
        self.fd = -1


def _buffer(index: int = 0) -> api.v4l2_buffer:
    return api.v4l2_buffer(index, _CAPTURE, memory=_MMAP)


def interval_of(rate_hz: float) -> api.v4l2_fract:
    """Return the time between frames, in seconds, as a fraction of V4L2: 32 bits over 32 bits."""
    rate = Fraction(min(max(rate_hz, 1e-4), 4e4)).limit_denominator(100_000)
    return api.v4l2_fract(rate.denominator, rate.numerator)
