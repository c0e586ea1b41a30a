"""False colours from cameras and streams: looked for in the chroma, at no cost where that is flat."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest

from rtfuse.capture.chroma import coloured
from rtfuse.capture.pixels import decode
from rtfuse.capture.recordings import Decoder
from rtfuse.capture.settings import PictureOptions

W, H = 64, 48
LUMA = np.add.outer(np.arange(H) * 2, np.arange(W) * 2).astype(np.uint8)
GREY = np.repeat(LUMA[..., None], 3, 2)
COLOURS = cv2.applyColorMap(LUMA, cv2.COLORMAP_JET)[..., ::-1].copy()
PLANAR = ["yuv420p", "yuv422p", "yuvj444p", "yuv420p10le", "nv12", "nv21", "gray", "gray16le"]


def frame_of(picture, pix_fmt):
    return av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)


@pytest.mark.parametrize("pix_fmt", PLANAR)
def test_chroma_tells_colour(pix_fmt):
    assert not coloured(frame_of(GREY, pix_fmt))
    assert coloured(frame_of(COLOURS, pix_fmt)) == (not pix_fmt.startswith("gray"))


@pytest.mark.parametrize("pix_fmt", ["rgb24", "bgr0", "yuyv422", "p010le"])
def test_what_has_no_planes_of_chroma_is_looked_at(pix_fmt):
    assert coloured(frame_of(COLOURS, pix_fmt))


def packed(picture, fourcc):
    """Return a picture as the bytes of a camera's frame."""
    if fourcc == "MJPG":
        return cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    data = frame_of(picture, "nv12" if fourcc == "NV12" else "yuyv422").to_ndarray()
    return data[..., ::-1].tobytes() if fourcc == "UYVY" else data.tobytes()


@pytest.mark.parametrize("fourcc", ["YUYV", "UYVY", "NV12", "MJPG"])
def test_a_camera_in_false_colours_is_turned_back(fourcc):
    seen = []

    def uncolour(picture):
        seen.append(picture)
        return LUMA if len(seen) < 2 else None

    def decoded(picture):
        return decode(packed(picture, fourcc), fourcc, (W, H), 0, "ir", uncolour=uncolour)

    plain = decode(packed(GREY, fourcc), fourcc, (W, H), 0, "ir")
    assert np.array_equal(decoded(GREY), plain)
    assert seen == [], "a grey frame is not converted"
    assert decoded(COLOURS) is LUMA
    assert np.abs(seen[0].astype(int) - COLOURS).mean() < 12
    assert np.array_equal(decoded(COLOURS), decode(packed(COLOURS, fourcc), fourcc, (W, H), 0, "ir")), "None: its luma"


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "dtype"), [("yuv420p", "ffv1", "uint8"), ("yuv420p10le", "ffv1", "uint16")]
)
def test_a_decoder_keeps_the_depth_of_its_stream(tmp_path, pix_fmt, codec, dtype):
    with av.open(str(tmp_path / "t.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = W, H, pix_fmt
        container.mux(stream.encode(frame_of(COLOURS, pix_fmt)))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / "t.mkv")) as container:
        decoder = Decoder(container, "ir", live=False, picture=PictureOptions(uncolour=lambda picture: LUMA))
        image = decoder.content(decoder.first)
        assert image.dtype == decoder.info("t.mkv", live=False).dtype == dtype
        assert np.array_equal(image >> (8 if dtype == "uint16" else 0), LUMA)
