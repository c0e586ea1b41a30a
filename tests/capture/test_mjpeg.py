"""JPEG of cameras as planes: the same picture as OpenCV's, and nothing of a damaged one."""

from __future__ import annotations

from contextlib import closing
from itertools import islice

import av
import cv2
import numpy as np
import pytest
from jpegs import smooth_picture, without_huffman_tables
from planes import difference, source

from rtfuse.capture import v4l2
from rtfuse.capture import videodev2 as api
from rtfuse.capture.mjpeg import JpegPlanes
from rtfuse.capture.node import Identity
from rtfuse.capture.pixels import CameraFormat, Sizes, decode, decode_picture
from rtfuse.picture import Coding

WH = (64, 48)
SAMPLINGS = {
    "yuv420p": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "yuv422p": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "yuv444p": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}


def jpeg(image, sampling="yuv422p"):
    options = [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, SAMPLINGS[sampling]]
    return cv2.imencode(".jpg", image if image.ndim == 2 else image[..., ::-1], options)[1].tobytes()


def noisy():
    """A picture whose coded data is long enough to be damaged inside."""
    return np.random.default_rng(0).integers(60, 200, (*WH[::-1], 3), np.uint8)


@pytest.mark.parametrize("sampling", ["yuv420p", "yuv422p", "yuv444p"])
@pytest.mark.parametrize("change", [bytes, without_huffman_tables, lambda data: data + bytes(100)])
def test_a_picture_has_its_own_planes(sampling, change):
    data = change(jpeg(smooth_picture(), sampling))
    got = decode_picture(data, "MJPG", WH, 0, JpegPlanes())
    assert (got.layout, got.coding, got.shape_hw) == (sampling, Coding(full=True), WH[::-1])
    assert difference(got.luma, decode(data, "MJPG", WH, 0, "ir")) <= 1
    assert np.abs(got.rgb.astype(int) - smooth_picture()).mean() < 3


@pytest.mark.parametrize("sampling", ["yuv420p", "yuv422p", "yuv444p"])
def test_its_rgb_is_that_of_opencv(sampling):
    """In a picture without edges of colour, where OpenCV makes chroma smooth and FFmpeg does not. Both may round each
    plane the other way."""
    data = jpeg(source("rgb24").rgb, sampling)
    got, want = decode_picture(data, "MJPG", WH, 0, JpegPlanes()), decode(data, "MJPG", WH, 0, "rgb")
    assert np.abs(got.rgb.astype(int) - want).mean() < 1
    assert difference(got.rgb, want) <= 3


def test_a_grey_picture_has_luma_alone():
    grey = np.ascontiguousarray(smooth_picture()[..., 0])
    got = decode_picture(jpeg(grey), "MJPG", WH, 0, JpegPlanes())
    assert (got.layout, got.coding.full) == ("gray", True)
    assert np.abs(got.luma.astype(int) - grey).max() <= 3


def test_planes_stay_while_others_are_decoded():
    planes_of, shown = JpegPlanes(), [smooth_picture() // 2 + k for k in range(40)]
    kept = [planes_of(jpeg(image), WH) for image in shown]
    for picture, image in zip(kept, shown, strict=True):
        assert np.abs(picture.luma.astype(int) - cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).mean() < 1


DAMAGES = {
    "half": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-2],
    "headers alone": lambda data: data[:300],
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(5000),
    "cut, then zeros": lambda data: data[: len(data) // 2] + bytes(len(data)),
    "zeros inside": lambda data: data[: len(data) // 2] + bytes(300) + data[len(data) // 2 + 300 :],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_is_for_opencv_and_leaves_the_next_picture_alone(damage):
    planes_of = JpegPlanes()
    assert planes_of(jpeg(255 - noisy()), WH) is not None  # whose rest FFmpeg would show
    data = DAMAGES[damage](jpeg(noisy()))
    assert planes_of(data, WH) is None
    try:
        want = decode(data, "MJPG", WH, 0, "rgb")
    except ValueError as e:
        with pytest.raises(ValueError, match=str(e)):
            decode_picture(data, "MJPG", WH, 0, planes_of)
    else:
        assert np.array_equal(decode_picture(data, "MJPG", WH, 0, planes_of).rgb, want)
    assert planes_of(jpeg(smooth_picture()), WH) is not None


def test_another_size_is_an_error():
    with pytest.raises(ValueError, match="64x48, not 64x50"):
        decode_picture(jpeg(smooth_picture()), "MJPG", (64, 50), 0, JpegPlanes())


def test_a_camera_with_other_planes_is_decoded_once_by_ffmpeg(monkeypatch):
    planes_of, packets = JpegPlanes(), []
    plain = av.packet.Packet
    monkeypatch.setattr(av.packet, "Packet", lambda data: packets.append(data) or plain(data))
    data = jpeg(smooth_picture(), "4:1:1")
    for _ in range(3):
        got = decode_picture(data, "MJPG", WH, 0, planes_of)
        assert np.array_equal(got.rgb, decode(data, "MJPG", WH, 0, "rgb"))
    assert len(packets) == 1


class Webcam:
    """The device of a camera that sends one picture again and again."""

    identity = Identity("uvcvideo", "webcam", "usb-1")

    def __init__(self, _path):
        self.maps, self._filled = [None] * 4, False

    def formats(self):
        return [CameraFormat("MJPG", (Sizes(WH, WH, rates_hz=(30.0,)),))]

    def set_format(self, fourcc, size_wh):
        return fourcc, size_wh, 0

    def set_rate(self, _hz):
        return 30.0

    def wait(self, _ms):
        self._filled = True
        return True

    def take(self):
        filled, self._filled = self._filled, False
        return api.v4l2_buffer() if filled else None

    def bytes_of(self, _buffer):
        return memoryview(jpeg(smooth_picture()))

    def set_controls(self, _controls):
        pass

    def give(self, _buffer):
        pass

    start = close = lambda _: None


@pytest.mark.parametrize(("stream", "layout"), [("rgb", "yuv422p"), ("ir", None)])
def test_frames_of_a_camera_have_planes(monkeypatch, stream, layout):
    monkeypatch.setattr(v4l2, "Node", Webcam)
    with closing(v4l2.V4l2Source("/dev/video0", stream)) as camera:
        frames = list(islice(camera, 3))
    for frame in frames:
        if layout is None:
            assert np.array_equal(frame.image, decode(jpeg(smooth_picture()), "MJPG", WH, 0, "ir"))
        else:
            assert frame.picture.layout == layout
            assert frame.picture.i420()[1].shape == (24, 32)
