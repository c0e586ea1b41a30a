"""Write frames into a V4L2 output such as v4l2loopback's, for programs that read cameras only."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from ctypes import c_int

import cv2
import numpy as np

from rtfuse.capture import videodev2 as api
from rtfuse.errors import ConfigError, OutputUnwritable
from rtfuse.types import Image, Picture
from rtfuse.wire.yuv import padded_i420, planes_in

_WANTED = "want a V4L2 output; one is made by: modprobe v4l2loopback video_nr=9 exclusive_caps=1"


class CameraOutput:
    """Write pictures into the device at `path`, as YUYV, else as YUV 4:2:0 (both BT.601, limited range), else as RGB.

    The device's size is that of the first picture, made even, or the size that the device insists on; pictures of
    another size are scaled. A picture is dropped while the device has no room. Raises ConfigError for a path that is
    not a V4L2 output, OutputUnwritable if it is absent, forbidden, or in use by another program.
    """

    open = True

    def __init__(self, path: str) -> None:
        if sys.platform != "linux":
            raise ConfigError(f"--pipe {path} needs Linux; use y4m, raw or mjpeg instead")
        self._path = path
        self._format: api.v4l2_pix_format | None = None
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as e:
            raise OutputUnwritable(f"--pipe {path}: permission denied; join the group video") from e
        except OSError as e:
            raise OutputUnwritable(f"--pipe {path}: {e.strerror or e}; {_WANTED}") from e
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def show(self, picture: Picture) -> None:
        """Write a picture; `open` is False once the device is gone. Raises OutputUnwritable."""
        if self._format is None:
            h, w = picture.shape_hw
            self._format = self._agreed(w & ~1, h & ~1)
            # Tells v4l2loopback (0.12) that we are its writer, so that it takes the next one after us; others refuse.
            with contextlib.suppress(OSError):
                api.ioctl(self._fd, api.VIDIOC_STREAMON, c_int(api.V4L2_BUF_TYPE_VIDEO_OUTPUT))
        pix = self._format
        if picture.shape_hw != (pix.height, pix.width):
            picture = picture.resized((pix.width, pix.height))
        data = _encoded(picture, _name(pix.pixelformat), pix.bytesperline)
        try:
            os.write(self._fd, data)
        except BlockingIOError:
            return
        except OSError as e:
            if e.errno == errno.ENODEV:
                self.open = False
                return
            raise self._unwritable(e) from e

    def close(self) -> None:
        """Close the device."""
        os.close(self._fd)

    def _check(self) -> None:
        try:
            found = api.ioctl(self._fd, api.VIDIOC_QUERYCAP, api.v4l2_capability())
        except OSError as e:
            raise ConfigError(f"--pipe {self._path} is not a V4L2 device; {_WANTED}") from e
        able, card = found.device_caps, found.card.decode(errors="replace")
        if not able & api.V4L2_CAP_VIDEO_OUTPUT and found.driver == b"v4l2 loopback":
            # With exclusive_caps=1 it takes no second writer.
            raise self._unwritable(OSError(errno.EBUSY, ""))
        if not able & api.V4L2_CAP_VIDEO_OUTPUT:
            raise ConfigError(f"--pipe {self._path} ({card}) is a camera, not an output; {_WANTED}")
        if not able & api.V4L2_CAP_READWRITE:
            raise ConfigError(f"--pipe {self._path} ({card}) does not accept pictures by write(); {_WANTED}")

    def _agreed(self, width: int, height: int) -> api.v4l2_pix_format:
        """Agree on a format with the device, and return it in the device's own terms."""
        offered = []
        for name in ("YUYV", "YU12", "RGB3"):
            asked = api.v4l2_format(type=api.V4L2_BUF_TYPE_VIDEO_OUTPUT)
            pix = asked.fmt.pix
            pix.width, pix.height, pix.pixelformat = width, height, int.from_bytes(name.encode(), "little")
            pix.field, pix.colorspace = api.V4L2_FIELD_NONE, api.V4L2_COLORSPACE_SMPTE170M
            try:
                got = api.ioctl(self._fd, api.VIDIOC_S_FMT, asked).fmt.pix
            except OSError as e:
                if e.errno != errno.EINVAL:
                    raise self._unwritable(e) from e
                continue
            if _name(got.pixelformat) == name and got.width % 2 == got.height % 2 == 0:
                return got
            offered.append(f"{got.width}x{got.height} {_name(got.pixelformat)}")
        said = ", ".join(dict.fromkeys(offered)) or "neither"
        raise ConfigError(
            f"--pipe {self._path}: asked for {width}x{height} YUYV, YU12 or RGB3; the device takes {said}"
        )

    def _unwritable(self, e: OSError) -> OutputUnwritable:
        why = "another program writes into it" if e.errno == errno.EBUSY else e.strerror or str(e)
        return OutputUnwritable(f"--pipe {self._path} cannot be written: {why}")


def _name(code: int) -> str:
    return code.to_bytes(4, "little").decode("ascii", "replace")


def _encoded(picture: Picture, name: str, bytesperline: int) -> bytes:
    """Return an even-sized picture in a device's format, each line padded to `bytesperline`."""
    h, w = picture.shape_hw
    planes = None if name == "RGB3" else picture.i420()
    if name == "YU12":
        y, u, v = planes or planes_in(padded_i420(picture.rgb).ravel(), "yuv420p", (h, w))
        rows = (_padded(y, bytesperline), *(_padded(plane, bytesperline // 2) for plane in (u, v)))
        return b"".join(np.ascontiguousarray(plane).data for plane in rows)
    if planes is not None:
        packed = _yuyv(*planes)
    else:
        packed = cv2.cvtColor(picture.rgb, cv2.COLOR_RGB2YUV_YUY2) if name == "YUYV" else picture.rgb
    return _padded(packed.reshape(h, -1), bytesperline).tobytes()


def _yuyv(y: Image, u: Image, v: Image) -> Image:
    """Return 4:2:0 as YUYV, (H, W, 2) uint8: each line of chroma serves two lines."""
    chroma = cv2.merge((u, v)).reshape(u.shape[0], -1)
    return cv2.merge((y, cv2.resize(chroma, y.shape[::-1], interpolation=cv2.INTER_NEAREST)))


def _padded(lines: Image, bytesperline: int) -> Image:
    return np.pad(lines, ((0, 0), (0, max(0, bytesperline - lines.shape[1])))) if bytesperline else lines
