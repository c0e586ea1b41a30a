"""Call V4L2 of the Linux kernel: structures, numbers and flags under their names in linux/videodev2.h.

It holds only the part that rtfuse uses. Layouts and numbers are those of x86-64 and ARM64;
`tests/capture/test_videodev2.py` compares them with the header, by a C compiler. Importing works on every system,
calling only on Linux.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from ctypes import Structure, Union, c_char, c_int, c_long, c_ulong, c_void_p, sizeof
from ctypes import c_int32 as s32
from ctypes import c_int64 as s64
from ctypes import c_uint8 as u8
from ctypes import c_uint32 as u32
from ctypes import c_uint64 as u64
from typing import TypeVar

if sys.platform == "linux":
    import fcntl

V4L2_BUF_TYPE_VIDEO_CAPTURE, V4L2_BUF_TYPE_VIDEO_OUTPUT = 1, 2
V4L2_MEMORY_MMAP = 1
V4L2_FIELD_ANY, V4L2_FIELD_NONE = 0, 1
V4L2_COLORSPACE_SMPTE170M = 1

V4L2_CAP_VIDEO_CAPTURE = 0x1
V4L2_CAP_VIDEO_OUTPUT = 0x2
V4L2_CAP_VIDEO_CAPTURE_MPLANE = 0x1000
V4L2_CAP_READWRITE = 0x1000000
V4L2_CAP_STREAMING = 0x4000000
V4L2_CAP_DEVICE_CAPS = 0x80000000

V4L2_BUF_FLAG_ERROR = 0x40
V4L2_BUF_FLAG_TIMESTAMP_MASK = 0xE000
V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC = 0x2000
V4L2_BUF_FLAG_TSTAMP_SRC_MASK = 0x70000
V4L2_BUF_FLAG_TSTAMP_SRC_SOE = 0x10000

V4L2_FRMSIZE_TYPE_DISCRETE = V4L2_FRMIVAL_TYPE_DISCRETE = 1

V4L2_CTRL_TYPE_INTEGER = 1
V4L2_CTRL_TYPE_BOOLEAN = 2
V4L2_CTRL_TYPE_MENU = 3
V4L2_CTRL_TYPE_BUTTON = 4
V4L2_CTRL_TYPE_BITMASK = 8
V4L2_CTRL_TYPE_INTEGER_MENU = 9
V4L2_CTRL_FLAG_DISABLED = 0x1
V4L2_CTRL_FLAG_READ_ONLY = 0x4
V4L2_CTRL_FLAG_WRITE_ONLY = 0x40
V4L2_CTRL_FLAG_NEXT_CTRL = 0x80000000
V4L2_CTRL_FLAG_NEXT_COMPOUND = 0x40000000


class v4l2_capability(Structure):
    """Driver, name and capabilities of a device."""

    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", u32),
        ("capabilities", u32),
        ("device_caps", u32),
        ("reserved", u32 * 3),
    )


class v4l2_fmtdesc(Structure):
    """Pixel format of a device."""

    _fields_ = (
        ("index", u32),
        ("type", u32),
        ("flags", u32),
        ("description", c_char * 32),
        ("pixelformat", u32),
        ("mbus_code", u32),
        ("reserved", u32 * 3),
    )


class v4l2_frmsize_discrete(Structure):
    """Size of frames, in pixels."""

    _fields_ = (("width", u32), ("height", u32))


class v4l2_frmsize_stepwise(Structure):
    """Grid of sizes of frames, in pixels."""

    _fields_ = (
        ("min_width", u32),
        ("max_width", u32),
        ("step_width", u32),
        ("min_height", u32),
        ("max_height", u32),
        ("step_height", u32),
    )


class _frmsize(Union):
    _fields_ = (("discrete", v4l2_frmsize_discrete), ("stepwise", v4l2_frmsize_stepwise))


class v4l2_frmsizeenum(Structure):
    """Sizes of one pixel format of a device."""

    _anonymous_ = ("_union",)
    _fields_ = (
        ("index", u32),
        ("pixel_format", u32),
        ("type", u32),
        ("_union", _frmsize),
        ("reserved", u32 * 2),
    )


class v4l2_fract(Structure):
    """Fraction."""

    _fields_ = (("numerator", u32), ("denominator", u32))


class v4l2_frmival_stepwise(Structure):
    """Range of frame intervals, in seconds."""

    _fields_ = (("min", v4l2_fract), ("max", v4l2_fract), ("step", v4l2_fract))


class _frmival(Union):
    _fields_ = (("discrete", v4l2_fract), ("stepwise", v4l2_frmival_stepwise))


class v4l2_frmivalenum(Structure):
    """Frame intervals at one size, in seconds."""

    _anonymous_ = ("_union",)
    _fields_ = (
        ("index", u32),
        ("pixel_format", u32),
        ("width", u32),
        ("height", u32),
        ("type", u32),
        ("_union", _frmival),
        ("reserved", u32 * 2),
    )


class v4l2_pix_format(Structure):
    """Pixel format with its size in pixels, and `bytesperline` and `sizeimage` in bytes."""

    _fields_ = (
        ("width", u32),
        ("height", u32),
        ("pixelformat", u32),
        ("field", u32),
        ("bytesperline", u32),
        ("sizeimage", u32),
        ("colorspace", u32),
        ("priv", u32),
        ("flags", u32),
        ("ycbcr_enc", u32),
        ("quantization", u32),
        ("xfer_func", u32),
    )


class _format(Union):
    # The header's union has a member with pointers, which aligns it.
    _fields_ = (("pix", v4l2_pix_format), ("raw_data", u8 * 200), ("_pointer", c_void_p))


class v4l2_format(Structure):
    """Format that a device captures or puts out."""

    _fields_ = (("type", u32), ("fmt", _format))


class v4l2_captureparm(Structure):
    """Parameters of capture; `timeperframe` is the frame interval in seconds."""

    _fields_ = (
        ("capability", u32),
        ("capturemode", u32),
        ("timeperframe", v4l2_fract),
        ("extendedmode", u32),
        ("readbuffers", u32),
        ("reserved", u32 * 4),
    )


class _parm(Union):
    _fields_ = (("capture", v4l2_captureparm), ("raw_data", u8 * 200))


class v4l2_streamparm(Structure):
    """Parameters of streaming."""

    _fields_ = (("type", u32), ("parm", _parm))


class v4l2_requestbuffers(Structure):
    """Number of buffers: first the wanted, then the allocated ones."""

    _fields_ = (
        ("count", u32),
        ("type", u32),
        ("memory", u32),
        ("capabilities", u32),
        ("flags", u8),
        ("reserved", u8 * 3),
    )


class timeval(Structure):
    """Time in seconds and microseconds."""

    _fields_ = (("tv_sec", c_long), ("tv_usec", c_long))


class v4l2_timecode(Structure):
    """Time code, as on tape."""

    _fields_ = (
        ("type", u32),
        ("flags", u32),
        ("frames", u8),
        ("seconds", u8),
        ("minutes", u8),
        ("hours", u8),
        ("userbits", u8 * 4),
    )


class _place(Union):
    _fields_ = (("offset", u32), ("userptr", c_ulong), ("planes", c_void_p), ("fd", s32))


class v4l2_buffer(Structure):
    """Buffer: its index, the number of bytes, and the time."""

    _fields_ = (
        ("index", u32),
        ("type", u32),
        ("bytesused", u32),
        ("flags", u32),
        ("field", u32),
        ("timestamp", timeval),
        ("timecode", v4l2_timecode),
        ("sequence", u32),
        ("memory", u32),
        ("m", _place),
        ("length", u32),
        ("reserved2", u32),
        ("request_fd", s32),
    )


class v4l2_query_ext_ctrl(Structure):
    """Description of a control."""

    _fields_ = (
        ("id", u32),
        ("type", u32),
        ("name", c_char * 32),
        ("minimum", s64),
        ("maximum", s64),
        ("step", u64),
        ("default_value", s64),
        ("flags", u32),
        ("elem_size", u32),
        ("elems", u32),
        ("nr_of_dims", u32),
        ("dims", u32 * 4),
        ("reserved", u32 * 32),
    )


class v4l2_querymenu(Structure):
    """Entry of a menu. `name` is its text; of a menu of integers, a 64-bit number in its first eight bytes."""

    _fields_ = (("id", u32), ("index", u32), ("name", u8 * 32), ("reserved", u32))


class v4l2_control(Structure):
    """Value of a control."""

    _fields_ = (("id", u32), ("value", s32))


def _number(sequence: int, argument: type[Structure | c_int], *, reads: bool = True, writes: bool = True) -> int:
    """Return an ioctl's number; `reads`, `writes`: True if the caller reads or writes the argument."""
    return reads << 31 | writes << 30 | sizeof(argument) << 16 | ord("V") << 8 | sequence


VIDIOC_QUERYCAP = _number(0, v4l2_capability, writes=False)
VIDIOC_ENUM_FMT = _number(2, v4l2_fmtdesc)
VIDIOC_G_FMT = _number(4, v4l2_format)
VIDIOC_S_FMT = _number(5, v4l2_format)
VIDIOC_REQBUFS = _number(8, v4l2_requestbuffers)
VIDIOC_QUERYBUF = _number(9, v4l2_buffer)
VIDIOC_QBUF = _number(15, v4l2_buffer)
VIDIOC_DQBUF = _number(17, v4l2_buffer)
VIDIOC_STREAMON = _number(18, c_int, reads=False)
VIDIOC_STREAMOFF = _number(19, c_int, reads=False)
VIDIOC_G_PARM = _number(21, v4l2_streamparm)
VIDIOC_S_PARM = _number(22, v4l2_streamparm)
VIDIOC_G_CTRL = _number(27, v4l2_control)
VIDIOC_S_CTRL = _number(28, v4l2_control)
VIDIOC_QUERYMENU = _number(37, v4l2_querymenu)
VIDIOC_ENUM_FRAMESIZES = _number(74, v4l2_frmsizeenum)
VIDIOC_ENUM_FRAMEINTERVALS = _number(75, v4l2_frmivalenum)
VIDIOC_QUERY_EXT_CTRL = _number(103, v4l2_query_ext_ctrl)

END_OF_LIST = (errno.EINVAL, errno.ENOTTY, errno.ENODATA, errno.EPIPE)
"""Errors of drivers for the first index beyond their list, or if they have no list."""
_LONGEST_LIST = 1024

Argument = TypeVar("Argument", bound=Structure | c_int)
Indexed = TypeVar("Indexed", v4l2_fmtdesc, v4l2_frmsizeenum, v4l2_frmivalenum)


def ioctl(fd: int, request: int, argument: Argument) -> Argument:
    """Call the driver, again after a signal; return `argument` with the driver's values. Raises OSError."""
    while True:
        try:
            fcntl.ioctl(fd, request, argument)
        except InterruptedError:
            continue
        return argument


def listed(fd: int, request: int, query: Indexed) -> Iterator[Indexed]:
    """Yield `query` once per entry of a driver's list; each step overwrites it.

    Raises OSError, EIO if the list has no end.
    """
    for index in range(_LONGEST_LIST):
        query.index = index
        try:
            ioctl(fd, request, query)
        except OSError as e:
            if e.errno in END_OF_LIST:
                return
            raise
        yield query
    raise OSError(errno.EIO, f"its driver lists more than {_LONGEST_LIST} formats, sizes or rates")
