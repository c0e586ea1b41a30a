"""A V4L2 capture node: thin calls, each of which raises OSError as the kernel reports it. Only this opens a device."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import re
import select
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rtfuse.capture.pixels import DECODABLE, Offer, Sizes, fourcc_code, fourcc_name
from rtfuse.errors import DeviceUnavailable

_BUFFERS = 4
_VIDEO_MAJOR = 81  # device number of every V4L2 node
_SYS = Path("/sys/class/video4linux")


def _linuxpy() -> Any:
    try:
        from linuxpy.video import device
    except ImportError as e:
        raise DeviceUnavailable(
            f"live cameras need Linux and the linuxpy package ({e}); use a file, a stream or synthetic: instead"
        ) from e
    return device


@dataclass(frozen=True, slots=True)
class Identity:
    """What a camera is, whatever its number: `usb` is vendor:product and serial, `index` its node, `bus` its place."""

    driver: str
    card: str
    bus: str
    usb: tuple[str, str] | None = None
    index: str = "0"

    def same_kind(self, other: Identity) -> bool:
        """Whether both are cameras of one model, and, as far as they have numbers, the same one."""
        return (self.driver, self.card, self.usb, self.index) == (other.driver, other.card, other.usb, other.index)

    @property
    def movable(self) -> bool:
        """Whether it can be plugged in elsewhere."""
        return self.bus.startswith("usb")


@dataclass(frozen=True, slots=True)
class Control:
    """One setting of a camera; `choices` are the values of a menu by their names."""

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
        """Return the number for a value as a user writes it. Raises ValueError, saying what is possible."""
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
    """An open capture node; closing it ends its streaming."""

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
            self.driver, self.card, self.bus = self._capabilities(path)
        except OSError:
            os.close(self.fd)
            raise
        self._poll = select.poll()
        self._poll.register(self.fd, select.POLLIN)

    def _capabilities(self, path: str) -> tuple[str, str, str]:
        got, flag = self._api.read_capabilities(self.fd), self._api.Capability
        here = got.device_caps if got.capabilities & flag.DEVICE_CAPS else got.capabilities
        if here & flag.VIDEO_CAPTURE_MPLANE:
            raise OSError(errno.EOPNOTSUPP, "multi-planar capture is not supported", path)
        if not (here & flag.VIDEO_CAPTURE and here & flag.STREAMING):
            raise OSError(errno.ENOTTY, "not a video capture device", path)
        driver, card, bus = (text.decode(errors="replace") for text in (got.driver, got.card, got.bus_info))
        return driver, card, bus

    @property
    def identity(self) -> Identity:
        """What camera this is."""
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
        kind, flag = self._api.ControlType, self._api.ControlFlag
        known = {
            kind.INTEGER: "integer",
            kind.BOOLEAN: "boolean",
            kind.MENU: "menu",
            kind.INTEGER_MENU: "menu",
            kind.BUTTON: "button",
            kind.BITMASK: "integer",
        }
        found = []
        for info in self._api.iter_read_controls(self.fd):
            if info.type not in known or info.flags & flag.DISABLED:
                continue
            value = None
            if not info.flags & flag.WRITE_ONLY and info.type != kind.BUTTON:
                with contextlib.suppress(OSError):
                    value = self._api.get_control(self.fd, info.id)
            found.append(
                Control(
                    _slug(info.name.decode(errors="replace")),
                    known[info.type],
                    value,
                    info.default_value,
                    info.minimum,
                    info.maximum,
                    info.step,
                    info.id,
                    self._choices(info) if known[info.type] == "menu" else {},
                    bool(info.flags & flag.READ_ONLY),
                )
            )
        return found

    def _choices(self, info: Any) -> dict[str, int]:
        query, choices = self._api.raw.v4l2_querymenu(id=info.id), {}
        bounds = {"start": info.minimum, "stop": info.maximum + 1, "ignore_einval": True}
        for item in self._api.iter_read(self.fd, self._api.IOC.QUERYMENU, query, **bounds):
            numbers = info.type == self._api.ControlType.INTEGER_MENU
            choices[str(item.value) if numbers else _slug(item.name.decode(errors="replace"))] = int(item.index)
        return choices

    def set_controls(self, wanted: Mapping[str, int | bool | str]) -> None:
        """Set controls by their names, in this order. Raises ValueError for a wrong name or value."""
        for name, value in wanted.items():  # each after the one before: an automatic mode may block what it decides
            known = {control.name: control for control in self.controls()}
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known) or 'none'}"
                raise ValueError(f"it has no control {name}; {hint}")
            control = known[name]
            try:
                self._api.set_control(self.fd, control.id, control.number(value))
            except OSError as e:
                raise ValueError(f"control {control} cannot be set to {value!r}: {e.strerror}") from e

    def offers(self) -> tuple[Offer, ...]:
        """Return the pixel formats; with sizes and rates where the format is one that can be decoded."""
        query = self._api.raw.v4l2_fmtdesc(type=self._type)
        codes = [found.pixelformat for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FMT, query)]
        named = ((code, fourcc_name(code)) for code in codes)
        return tuple(Offer(name, tuple(self._sizes(code)) if name in DECODABLE else ()) for code, name in named)

    def _sizes(self, code: int) -> Iterator[Sizes]:
        query = self._api.raw.v4l2_frmsizeenum(pixel_format=code)
        for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FRAMESIZES, query):
            if found.type == self._api.FrameSizeType.DISCRETE:
                wh = found.m1.discrete.width, found.m1.discrete.height
                yield Sizes(wh, wh, rates_hz=self._rates(code, wh))
            else:
                grid = found.m1.stepwise
                low, high = (grid.min_width, grid.min_height), (grid.max_width, grid.max_height)
                yield Sizes(low, high, (grid.step_width, grid.step_height))

    def _rates(self, code: int, size_wh: tuple[int, int]) -> tuple[float, ...]:
        """Return the frame rates at one size, fastest first; of a range, its fastest and slowest."""
        query = self._api.raw.v4l2_frmivalenum(pixel_format=code, width=size_wh[0], height=size_wh[1])
        rates = set()
        for found in self._api.iter_read(self.fd, self._api.IOC.ENUM_FRAMEINTERVALS, query):
            discrete = found.type == self._api.FrameIntervalType.DISCRETE
            for interval in (found.discrete,) if discrete else (found.stepwise.min, found.stepwise.max):
                if interval.numerator:
                    rates.add(interval.denominator / interval.numerator)
        return tuple(sorted(rates, reverse=True))

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
