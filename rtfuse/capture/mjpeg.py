"""Decode the JPEG pictures of a camera into their planes, without RGB."""

from __future__ import annotations

from typing import Any

from rtfuse.capture import jpeg
from rtfuse.picture import Coding, Layout, Picture, plane_views

_LAYOUTS: dict[str, Layout] = {
    "yuvj420p": "yuv420p",
    "yuvj422p": "yuv422p",
    "yuvj444p": "yuv444p",
    "gray": "gray",
}
"""FFmpeg's names of JPEG's layouts, of BT.601 and full range (JFIF 1.02, page 3)."""
_END = b"\xff\xd9"


class JpegPlanes:
    """Decode the pictures of one camera, in one thread.

    FFmpeg takes half the time of OpenCV where no RGB is needed, else the same time. Where data is cut, FFmpeg shows the
    rest of an older picture; so incomplete data is not decoded, and an error ends the picture.
    """

    def __init__(self) -> None:
        import av

        self._context: Any = av.CodecContext.create("mjpeg", "r")
        self._context.thread_count, self._context.options = 1, {"err_detect": "explode"}
        self._useful = True

    def __call__(self, data: bytes, size_wh: tuple[int, int]) -> Picture | None:
        """Return the picture, whose planes are views of FFmpeg's frame; None for OpenCV to decide.

        OpenCV decides about pictures with damage, of another size, or with planes that `Picture` does not support;
        after unsupported planes, skip FFmpeg for this camera.
        """
        if not self._useful or not _whole(data):
            return None
        from av.error import FFmpegError
        from av.packet import Packet

        try:
            frames = self._context.decode(Packet(data))
        except (FFmpegError, ValueError):
            return None
        if len(frames) != 1 or (frames[0].width, frames[0].height) != size_wh:
            return None
        layout = _LAYOUTS.get(frames[0].format.name)
        if layout is None:
            self._useful = False
            return None
        return Picture(layout, plane_views(frames[0]), Coding(full=True))


def _whole(data: bytes) -> bool:
    """Return True if the data has a scan, and an end behind it."""
    marker, at = 0, 0
    for marker, _, at in jpeg.segments(data):  # noqa: B007 - the last one counts
        pass
    return marker == jpeg.SCAN and data.rfind(_END, at) >= 0
