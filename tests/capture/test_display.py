"""Decoded video is shown as a player shows it; what is expected is computed here from the definitions."""

from __future__ import annotations

import itertools
import logging
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import picture, write_video

from rtfuse.capture import open_source
from rtfuse.capture.display import Display, deinterlaced
from rtfuse.capture.hdr import to_sdr
from rtfuse.record.raw import RawRecorder
from rtfuse.types import Frame, SourceInfo, Stamp

MATRICES = {"601": (0.299, 0.114, 6), "709": (0.2126, 0.0722, 1), "2020": (0.2627, 0.0593, 9)}
"""Weights of red and blue in luma, and the number of the tag (ITU-T H.273)."""


def encode(path, frames, codec="ffv1", *, rate=25, options=None, aspect=None, tags=None):
    """Write VideoFrames as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in (tags or {}).items():
            setattr(stream.codec_context, name, value)
        for k, frame in enumerate(frames):
            for name, value in (tags or {}).items():
                setattr(frame, name, value)
            frame.pts, frame.time_base = k, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return str(path)


def yuv_frame(rgb, matrix, *, bits=8, full=False, layout=None):
    """Return a 4:4:4 frame of (H, W, 3) R'G'B' from 0 to 1, by the definition of the matrix."""
    kr, kb, _ = MATRICES[matrix]
    y = rgb @ [kr, 1 - kr - kb, kb]
    cb, cr = (rgb[..., 2] - y) / (2 * (1 - kb)), (rgb[..., 0] - y) / (2 * (1 - kr))
    step, top = 1 << (bits - 8), (1 << bits) - 1
    if full:
        planes = y * top, cb * top + 128 * step, cr * top + 128 * step
    else:
        planes = (16 + 219 * y) * step, (128 + 224 * cb) * step, (128 + 224 * cr) * step
    frame = VideoFrame(rgb.shape[1], rgb.shape[0], layout or ("yuv444p" if bits == 8 else f"yuv444p{bits}le"))
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((plane.height, plane.line_size), np.uint8)
        stored = values.round().clip(0, top).astype(np.uint8 if bits == 8 else np.uint16).view(np.uint8)
        lines[:, : stored.shape[1]] = stored
        plane.update(lines.tobytes())
    return frame


def patches(size_wh, colours):
    """Return (H, W, 3) with a vertical stripe of each colour."""
    w, h = size_wh
    return np.repeat(np.asarray(colours, float)[np.arange(w) * len(colours) // w][None], h, axis=0)


COLOURS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5), (0.8, 0.5, 0.2), (0.2, 0.35, 0.6)]


@pytest.mark.parametrize(
    ("size_wh", "made", "tag", "full", "codec"),
    [
        ((320, 240), "601", None, False, "ffv1"),
        ((1280, 720), "709", None, False, "ffv1"),
        ((720, 1280), "709", None, False, "ffv1"),
        ((720, 576), "601", None, False, "ffv1"),
        ((1280, 720), "601", "601", False, "ffv1"),
        ((320, 240), "709", "709", False, "ffv1"),
        ((1280, 720), "709", "709", True, "ffv1"),
        ((1280, 720), "2020", "2020", False, "ffv1"),
        ((1280, 720), "601", None, True, "mjpeg"),
    ],
)
@pytest.mark.parametrize("bits", [8, 10])
def test_colours_follow_the_tags_or_else_the_size(tmp_path, size_wh, made, tag, full, codec, bits):
    if codec == "mjpeg" and bits == 10:
        pytest.skip("JPEG has 8 bits")
    rgb = patches(size_wh, COLOURS)
    layout = "yuvj444p" if codec == "mjpeg" else None
    tags = {"color_range": 2 if full else 1} | ({"colorspace": MATRICES[tag][2]} if tag else {})
    options = {"q": "1", "flags": "+qscale"} if codec == "mjpeg" else {}
    path = encode(
        tmp_path / "v.mkv",
        [yuv_frame(rgb, made, full=full, bits=bits, layout=layout)],
        codec,
        options=options,
        tags=tags,
    )
    (frame,) = open_source(path, "rgb")
    w = size_wh[0]
    middles = [w * (2 * k + 1) // (2 * len(COLOURS)) for k in range(len(COLOURS))]
    assert frame.image[8, middles] == pytest.approx(np.round(rgb[8, middles] * 255), abs=3)


def with_matrix(path, a, b, c, d):
    """Put a display matrix into the track header of an MP4 file."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version and flags, times, track, duration, layer, group, volume
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def displayed(stored, a, b, c, d):
    """Move every pixel of an image to (a x + c y, b x + d y)."""
    h, w = stored.shape[:2]
    y, x = np.mgrid[:h, :w]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    shown = np.zeros((to_y.max() + 1, to_x.max() + 1, *stored.shape[2:]), stored.dtype)
    shown[to_y, to_x] = stored
    return shown


ORIENTATIONS = [(s, 0, 0, t) for s, t in itertools.product((1, -1), repeat=2)]
ORIENTATIONS += [(0, s, t, 0) for s, t in itertools.product((1, -1), repeat=2)]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("stream", ["ir", "rgb"])
def test_all_eight_display_matrices_are_applied(tmp_path, matrix, stream, caplog):
    path = write_video(tmp_path / "v.mp4", 3, codec="libx264", size_wh=(96, 64))
    plain = [frame.image for frame in open_source(str(path), stream)]
    with_matrix(path, *matrix)
    with caplog.at_level(logging.INFO):
        source = open_source(str(path), stream)
        frames = list(source)
    assert len(frames) == 3
    for frame, image in zip(frames, plain, strict=True):
        assert np.array_equal(frame.image, displayed(image, *matrix))
        assert frame.image.flags.c_contiguous
        assert source.info.size_wh == frame.image.shape[1::-1]
    assert caplog.text.count("display matrix") == (matrix != (1, 0, 0, 1))


@pytest.mark.parametrize(
    ("aspect", "size_wh"), [((4, 3), (128, 64)), ((3, 4), (96, 85)), ((1, 1), (96, 64)), ((1001, 1000), (96, 64))]
)
@pytest.mark.parametrize("stream", ["ir", "rgb"])
def test_pixels_become_square(tmp_path, aspect, size_wh, stream, caplog):
    frames = [
        VideoFrame.from_ndarray(picture(k, (96, 64)), format="rgb24").reformat(format="yuv444p") for k in range(3)
    ]
    with caplog.at_level(logging.INFO):
        path = encode(tmp_path / "v.mkv", frames, "libx264", options={"qp": "0"}, aspect=Fraction(*aspect))
        source = open_source(path, stream)
        images = [frame.image for frame in source]
    assert source.info.size_wh == size_wh
    assert {image.shape[1::-1] for image in images} == {size_wh}
    x, y = np.meshgrid(np.arange(size_wh[0]) * 96 / size_wh[0], np.arange(size_wh[1]) * 64 / size_wh[1])
    smooth = 96 + 60 * np.sin((x + 4) / 9) + 60 * np.cos(y / 7)
    if stream == "rgb":
        assert np.abs(images[2][..., 0] - smooth.clip(0, 255)).mean() < 4
    assert caplog.text.count("square") == (size_wh != (96, 64))


def test_sixteen_bits_keep_their_counts_and_their_depth(tmp_path):
    counts = (np.arange(48 * 64, dtype=np.uint16) * 21).reshape(48, 64)
    frame = VideoFrame.from_ndarray(counts, format="gray16le")
    (plain,) = open_source(encode(tmp_path / "v.mkv", [frame]), "ir")
    assert np.array_equal(plain.image, counts)
    big_endian = VideoFrame.from_ndarray(counts, format="gray16be")
    (wide,) = open_source(encode(tmp_path / "w.mov", [big_endian], "png", aspect=Fraction(2)), "ir")
    assert (wide.image.shape, wide.image.dtype) == ((48, 128), np.uint16)


@pytest.mark.parametrize("layout", ["yuv420p10le", "rgb48be", "yuv422p10le", "gbrp10le"])
def test_deep_thermal_video_is_the_same_each_time(layout):
    rng = np.random.default_rng(0)
    frame = VideoFrame(322, 242, layout)
    for plane in frame.planes:
        plane.update(rng.integers(0, 1023, plane.buffer_size // 2, dtype=np.uint16).tobytes())
    display = Display("ir")
    first = display.image(frame)
    assert first.dtype == np.uint16
    assert all(np.array_equal(display.image(frame), first) for _ in range(60))


def woven(count):
    """Frames of two fields each, of a bar that moves from field to field; and the picture of each first field."""
    fields = []
    for k in range(2 * count):
        image = np.full((96, 128), 60, np.uint8)
        image[20:76, 10 + 2 * k : 30 + 2 * k] = 220
        fields.append(image)
    frames = [fields[2 * k].copy() for k in range(count)]
    for k, frame in enumerate(frames):
        frame[1::2] = fields[2 * k + 1][1::2]
    return frames, fields[::2]


def combs(image):
    """Return the difference of each line from its neighbours."""
    image = image.astype(float)
    return np.abs(image[1:-1] - (image[:-2] + image[2:]) / 2).mean()


@pytest.mark.parametrize("stream", ["ir", "rgb"])
@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("mkv", "libx264", {"preset": "ultrafast", "crf": "4", "x264-params": "interlaced=1:tff=1"}),
        ("ts", "mpeg2video", {"flags": "+ildct+ilme", "b": "8000000"}),
    ],
)
def test_interlaced_frames_are_deinterlaced_each_with_its_time(tmp_path, stream, suffix, codec, options, caplog):
    made, first_fields = woven(24)
    frames = [VideoFrame.from_ndarray(image, format="gray").reformat(format="yuv420p") for image in made]
    path = encode(tmp_path / f"v.{suffix}", frames, codec, options=options)
    with av.open(path) as container:
        stored = [(frame.pts, frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        base = container.streams.video[0].time_base
    with caplog.at_level(logging.INFO):
        shown = list(open_source(path, stream))
    assert [f.t_ns for f in shown] == [int(pts * base * 10**9) for pts, _ in stored]
    assert caplog.text.count("deinterlaced") == 1
    grey = [f.image if stream == "ir" else f.image[..., 1] for f in shown]
    assert np.mean([combs(image) for image in grey]) < 0.35 * np.mean([combs(image) for _, image in stored])
    errors = [np.abs(image.astype(float) - field).mean() for image, field in zip(grey, first_fields, strict=True)]
    assert np.mean(errors) < 6


def test_other_frames_pass_untouched(tmp_path):
    path = write_video(tmp_path / "v.mp4", 12, codec="libx264")
    with av.open(str(path)) as container:
        given_ = list(container.decode(video=0))
    said = []
    assert all(a is b for a, b in zip(deinterlaced(given_, said.append), given_, strict=True))
    assert not said
    display = Display("rgb")
    for frame in given_:
        assert np.array_equal(display.image(frame), frame.to_ndarray(format="rgb24"))


def test_a_raw_recording_of_large_pictures_comes_back_in_its_colours(tmp_path):
    image = (patches((1280, 720), COLOURS) * 255).round().astype(np.uint8)
    ir = Frame("ir", image[..., 0].copy(), 0, 0, Stamp.ARRIVAL, 0)
    rgb = Frame("rgb", image, 0, 0, Stamp.ARRIVAL, 0)
    infos = {s: SourceInfo("x", s, (1280, 720), "uint8", live=True) for s in ("ir", "rgb")}
    recorder = RawRecorder(tmp_path / "raw.mkv", infos, reserve_bytes=0)
    recorder.write(ir)
    recorder.write(rgb)
    recorder.close()
    (frame,) = open_source(str(tmp_path / "raw.mkv"), "rgb")
    assert np.abs(frame.image[8, 80::160].astype(int) - image[8, 80::160]).max() <= 6


# HDR. Light below the knee of the tone curve, some 90 cd/m², must come out exactly: it is compared with the formulas.

TO_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
"""BT.2087, table 4."""


def pq(light):
    power = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def hlg(light):
    """The signal of light on a display of 1000 cd/m², by way of the scene's."""
    shown = light / 1000
    luma = shown @ [0.2627, 0.6780, 0.0593]
    scene = shown * np.where(luma > 0, luma, 1)[..., None] ** (1 / 1.2 - 1)
    bright = 0.17883277 * np.log((12 * scene).clip(1) - 0.28466892) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


@given(st.lists(st.tuples(*[st.floats(0, 85)] * 3), min_size=1, max_size=20), st.sampled_from([16, 18]))
@settings(max_examples=50, deadline=None)
def test_dim_hdr_light_keeps_its_colour(colours, transfer):
    light = np.array([colours])
    signal = (pq if transfer == 16 else hlg)((light @ TO_2020.T).clip(0))
    shown = to_sdr((signal * 65535).round().clip(0, 65535).astype(np.uint16), transfer)
    assert np.abs(shown - 255 * (light / 203) ** (1 / 2.2)).max() < 3


@pytest.mark.parametrize("transfer", [16, 18])
def test_bright_hdr_light_bends_to_white_without_a_step(transfer):
    light = np.repeat(np.linspace(0, 1000, 400)[None, :, None], 3, axis=2)
    signal = (pq if transfer == 16 else hlg)(light)
    shown = to_sdr((signal * 65535).round().clip(0, 65535).astype(np.uint16), transfer)[0].astype(int)
    assert (np.ptp(shown, axis=1) <= 1).all()
    assert np.diff(shown[:, 1]).min() >= -1
    assert np.diff(shown[40:, 1]).max() <= 3
    assert shown[0].max() == 0
    assert shown[-1].min() >= 253
    assert 190 < shown[81, 0] < 240  # diffuse white


@pytest.mark.parametrize(("transfer", "encoded"), [(16, pq), (18, hlg)])
def test_an_hdr_recording_is_mapped_and_it_is_said(tmp_path, transfer, encoded, caplog):
    light = patches((64, 48), [(60, 10, 10), (10, 60, 10), (10, 10, 60), (50, 50, 50)])
    frame = yuv_frame(encoded(light @ TO_2020.T), "2020", bits=10)
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": transfer}
    with caplog.at_level(logging.INFO):
        (shown,) = open_source(encode(tmp_path / "v.mkv", [frame], tags=tags), "rgb")
    assert np.abs(shown.image[8, 8::16] - 255 * (light[8, 8::16] / 203) ** (1 / 2.2)).max() < 6
    assert caplog.text.count("HDR") == 1
