"""Live cameras: decoding and negotiation without a device; streaming with one, where RTFUSE_TEST_CAMERAS names it.

`tools/camera_vm.sh .venv/bin/python -m pytest -m camera tests/capture/test_v4l2.py` runs the latter anywhere.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jpegs import smooth_picture, without_huffman_tables

from rtfuse.capture import videodev2 as api
from rtfuse.capture.node import Control, Identity, Node
from rtfuse.capture.pixels import CameraFormat, Sizes, canonical, choose, decode, dtype_of, fourcc_code, fourcc_name
from rtfuse.capture.settings import CameraOptions
from rtfuse.capture.v4l2 import CameraInfo, V4l2Source, find_again, list_cameras
from rtfuse.errors import ConfigError, DeviceUnavailable, SourceLost
from rtfuse.types import Frame, Stamp, Stream
from rtfuse.view.camera import CameraOutput

CAMERAS = [path for path in os.environ.get("RTFUSE_TEST_CAMERAS", "").split(",") if path]


# ---------------------------------------------------------------------------------------------------- pixel formats


@st.composite
def raw_frames(draw: st.DrawFn) -> tuple[int, int, int, np.random.Generator]:
    """Width and height (even), padding bytes per line, source of bytes."""
    w, h = 2 * draw(st.integers(1, 20)), 2 * draw(st.integers(1, 8))
    return w, h, draw(st.integers(0, 9)), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def lines(rng: np.random.Generator, count: int, row_bytes: int, padding: int) -> list[bytes]:
    return [rng.bytes(row_bytes + padding) for _ in range(count)]


@pytest.mark.parametrize("fourcc", ["Y16", "Y16-BE", "Y14", "Y12", "Y10"])
@given(raw_frames())
def test_counts_are_kept_bit_for_bit(fourcc: str, frame: tuple[int, int, int, np.random.Generator]) -> None:
    w, h, padding, rng = frame
    rows = lines(rng, h, 2 * w, padding)
    image = decode(b"".join(rows), fourcc, (w, h), 2 * w + padding, "ir")
    order = ">" if fourcc == "Y16-BE" else "<"
    assert image.tolist() == [list(struct.unpack(f"{order}{w}H", row[: 2 * w])) for row in rows]
    assert image.dtype == np.uint16
    assert image.flags.c_contiguous
    assert image.flags.owndata


@pytest.mark.parametrize(("fourcc", "first", "step"), [("GREY", 0, 1), ("NV12", 0, 1), ("YUYV", 0, 2), ("UYVY", 1, 2)])
@given(raw_frames())
def test_luma_of_eight_bit_formats(
    fourcc: str, first: int, step: int, frame: tuple[int, int, int, np.random.Generator]
) -> None:
    w, h, padding, rng = frame
    rows = lines(rng, h * 3 // 2 if fourcc == "NV12" else h, step * w, padding)
    image = decode(b"".join(rows), fourcc, (w, h), step * w + padding, "ir")
    assert image.tolist() == [list(row[first : step * w : step]) for row in rows[:h]]
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.owndata


def bt601(y: int, u: int, v: int) -> list[float]:
    """Limited-range YCbCr to RGB, ITU-R BT.601."""
    scaled, cb, cr = 255 / 219 * (y - 16), 255 / 224 * (u - 128), 255 / 224 * (v - 128)
    rgb = (scaled + 1.402 * cr, scaled - 0.344136 * cb - 0.714136 * cr, scaled + 1.772 * cb)
    return [min(max(channel, 0.0), 255.0) for channel in rgb]


def expected_rgb(fourcc: str, rows: list[bytes], x: int, y: int, h: int) -> list[float]:
    if fourcc == "NV12":
        row, pair = rows[h + y // 2], 2 * (x // 2)
        return bt601(max(rows[y][x], 16), row[pair], row[pair + 1])
    if fourcc in ("YUYV", "UYVY"):
        quad, luma = rows[y][4 * (x // 2) :][:4], int(fourcc == "UYVY")
        return bt601(max(quad[luma + 2 * (x % 2)], 16), quad[1 - luma], quad[3 - luma])
    if fourcc == "GREY":
        return [rows[y][x]] * 3
    triple = list(rows[y][3 * x :][:3])
    return triple if fourcc == "RGB3" else triple[::-1]


@pytest.mark.parametrize(
    ("fourcc", "pixel_bytes"), [("YUYV", 2), ("UYVY", 2), ("NV12", 1), ("RGB3", 3), ("BGR3", 3), ("GREY", 1)]
)
@given(raw_frames())
def test_rgb(fourcc: str, pixel_bytes: int, frame: tuple[int, int, int, np.random.Generator]) -> None:
    w, h, padding, rng = frame
    rows = lines(rng, h * 3 // 2 if fourcc == "NV12" else h, pixel_bytes * w, padding)
    image = decode(b"".join(rows), fourcc, (w, h), pixel_bytes * w + padding, "rgb")
    expected = [[expected_rgb(fourcc, rows, x, y, h) for x in range(w)] for y in range(h)]
    tolerance = 2 if fourcc in ("YUYV", "UYVY", "NV12") else 0
    np.testing.assert_allclose(image.astype(float), np.array(expected), atol=tolerance)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.owndata


def test_jpeg_with_and_without_its_huffman_tables() -> None:
    rgb = smooth_picture()
    jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert len(without_huffman_tables(jpeg)) < len(jpeg)
    for data in (jpeg, without_huffman_tables(jpeg), jpeg + bytes(100)):
        image = decode(data, "MJPG", (64, 48), 0, "rgb")
        assert np.abs(image.astype(int) - rgb).mean() < 3
        luma = decode(data, "MJPG", (64, 48), 0, "ir")
        assert np.abs(luma.astype(float) - rgb @ (0.299, 0.587, 0.114)).mean() < 3


@pytest.mark.parametrize("fourcc", ["Y16", "YUYV", "GREY", "MJPG"])
def test_too_few_bytes_are_an_error(fourcc: str) -> None:
    for data in (b"", bytes(31)):
        with pytest.raises(ValueError, match="bytes"):
            decode(data, fourcc, (8, 4), 0, "ir")


def test_a_jpeg_of_another_size_is_an_error() -> None:
    jpeg = cv2.imencode(".jpg", smooth_picture())[1].tobytes()
    with pytest.raises(ValueError, match="64x48, not 64x50"):
        decode(jpeg, "MJPG", (64, 50), 0, "rgb")


def test_a_format_of_the_other_stream_is_an_error() -> None:
    with pytest.raises(LookupError, match="Y16 cannot be decoded as rgb"):
        decode(bytes(64), "Y16", (8, 4), 0, "rgb")


@pytest.mark.parametrize(
    ("name", "code"), [("YUYV", 0x56595559), ("Y16", 0x20363159), ("Y16-BE", 0xA0363159), ("MJPG", 0x47504A4D)]
)
def test_fourcc_names(name: str, code: int) -> None:
    assert fourcc_code(name) == code
    assert fourcc_name(code) == name


def test_fourcc_names_that_users_write() -> None:
    meant = {"mjpeg": "MJPG", "yuyv": "YUYV", "Y16": "Y16", "y16_be": "Y16-BE", "RGB24": "RGB3"}
    assert {name: canonical(name) for name in meant} == meant
    with pytest.raises(ValueError, match="fourcc"):
        fourcc_code("H.264")


# ------------------------------------------------------------------------------------------------------ negotiation


def size(w: int, h: int, rate_hz: float | None = None) -> Sizes:
    return Sizes((w, h), (w, h), rates_hz=(rate_hz,) if rate_hz else ())


BOSON = [CameraFormat("YU12", (size(640, 512, 60),)), CameraFormat("Y16", (size(640, 512, 60),))]
LEPTON = [
    CameraFormat("UYVY", (size(160, 120, 9),)),
    CameraFormat("Y16", (size(160, 120, 9), size(160, 122, 9))),
    CameraFormat("GREY", (size(160, 120, 9),)),
]
WEBCAM = [
    CameraFormat("MJPG", (size(1920, 1080, 30), size(1280, 720, 30), size(640, 480, 30))),
    CameraFormat("YUYV", (size(640, 480, 30), size(1280, 720, 10), size(1920, 1080, 5))),
]
SENSOR = [CameraFormat("NV12", (Sizes((32, 32), (3280, 2464), (16, 2)),))]
UNLISTED = [CameraFormat("YUYV")]


@pytest.mark.parametrize(
    ("stream", "offers", "asked", "expected"),
    [
        ("ir", BOSON, {}, ("Y16", (640, 512))),
        ("ir", LEPTON, {}, ("Y16", (160, 122))),
        ("ir", LEPTON, {"size_wh": (160, 120)}, ("Y16", (160, 120))),
        ("ir", LEPTON, {"pixel_format": "grey"}, ("GREY", (160, 120))),
        ("ir", LEPTON, {"rate_hz": 30.0}, ("Y16", (160, 122))),  # none is that fast
        ("ir", LEPTON[:1], {}, ("UYVY", (160, 120))),
        ("ir", [CameraFormat("Y10"), CameraFormat("Y16-BE")], {}, ("Y16-BE", None)),
        ("rgb", WEBCAM, {}, ("YUYV", (640, 480))),  # the uncompressed one that is fluent
        ("rgb", WEBCAM, {"size_wh": (1280, 720)}, ("MJPG", (1280, 720))),
        ("rgb", WEBCAM, {"size_wh": (1280, 720), "rate_hz": 10.0}, ("YUYV", (1280, 720))),
        ("rgb", WEBCAM, {"size_wh": (1920, 1080), "pixel_format": "YUYV"}, ("YUYV", (1920, 1080))),
        ("rgb", WEBCAM[:1], {}, ("MJPG", (1280, 720))),
        ("rgb", [CameraFormat("YUYV", (size(640, 480, 29.97),)), *WEBCAM[:1]], {"rate_hz": 30.0}, ("YUYV", (640, 480))),
        ("rgb", SENSOR, {"size_wh": (640, 480)}, ("NV12", (640, 480))),
        ("rgb", UNLISTED, {}, ("YUYV", None)),
        ("rgb", UNLISTED, {"size_wh": (640, 480)}, ("YUYV", (640, 480))),
        ("rgb", [CameraFormat("RGB3", (size(3840, 2160),))], {}, ("RGB3", (3840, 2160))),
    ],
)
def test_choice_of_format_and_size(
    stream: Stream, offers: list[CameraFormat], asked: dict[str, object], expected: tuple[str, tuple[int, int] | None]
) -> None:
    assert choose(stream, offers, **asked) == expected  # type: ignore[arg-type]


def test_choice_on_a_grid_of_sizes_is_on_the_grid_and_within_reason() -> None:
    _, wh = choose("rgb", SENSOR)
    assert wh is not None
    assert SENSOR[0].sizes[0].admits(wh)
    assert 0.9 * 1280 * 720 < wh[0] * wh[1] <= 1280 * 720
    assert wh[0] / wh[1] == pytest.approx(3280 / 2464, rel=0.03)


@pytest.mark.parametrize(
    ("stream", "offers", "asked", "message"),
    [
        ("ir", WEBCAM[:1], {"pixel_format": "Y16"}, "asked for Y16; it offers MJPG 1920x1080/1280x720/640x480"),
        ("rgb", WEBCAM, {"size_wh": (800, 600)}, "at 800x600; it offers MJPG .*; YUYV 640x480"),
        ("rgb", SENSOR, {"size_wh": (648, 480)}, "it offers NV12 32x32..3280x2464"),
        ("rgb", [CameraFormat("H264")], {}, "it offers H264"),
        ("rgb", [], {}, "it offers no format"),
        ("rgb", WEBCAM, {"pixel_format": "Y16"}, "Y16 cannot be decoded as rgb; it must be one of YUYV"),
    ],
)
def test_a_refusal_says_what_is_offered(
    stream: Stream, offers: list[CameraFormat], asked: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        choose(stream, offers, **asked)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)


def test_dtype_of_a_format() -> None:
    assert [dtype_of(f, "ir") for f in ("Y16", "Y10", "GREY", "YUYV")] == ["uint16", "uint16", "uint8", "uint8"]


@given(raw_frames())
def test_words_hidden_in_yuyv(frame: tuple[int, int, int, np.random.Generator]) -> None:
    w, h, padding, rng = frame
    rows = lines(rng, h, 2 * w, padding)
    for fourcc in ("YUYV", "UYVY"):
        image = decode(b"".join(rows), fourcc, (w, h), 2 * w + padding, "ir", packed_counts=True)
        assert image.tolist() == [list(struct.unpack(f"<{w}H", row[: 2 * w])) for row in rows]
    with pytest.raises(LookupError, match="NV12 cannot be decoded as 16-bit words of ir"):
        decode(bytes(64), "NV12", (8, 4), 0, "ir", packed_counts=True)


# --------------------------------------------------------------------------------------------- controls and identities

AUTO = Control("auto_exposure", "menu", 3, 3, 0, 3, 1, choices={"manual_mode": 1, "aperture_priority_mode": 3})
GAIN = Control("gain", "integer", 4, 0, 0, 64, 4)
SWITCH = Control("backlight", "boolean", 1, 0, 0, 1, 1)


@pytest.mark.parametrize(
    ("control", "value", "number"),
    [
        (AUTO, "Manual Mode", 1),
        (AUTO, "aperture_priority_mode", 3),
        (AUTO, 1, 1),
        (GAIN, 8, 8),
        (GAIN, "12", 12),
        (SWITCH, True, 1),
        (SWITCH, "off", 0),
    ],
)
def test_values_of_controls(control: Control, value: int | bool | str, number: int) -> None:
    assert control.number(value) == number


@pytest.mark.parametrize(
    ("control", "value"), [(AUTO, "manuel"), (AUTO, 2), (GAIN, 65), (GAIN, 5), (GAIN, "much"), (SWITCH, 2)]
)
def test_impossible_values_say_what_is_possible(control: Control, value: int | str) -> None:
    with pytest.raises(ValueError, match=rf"control {control.name}=.*is not possible"):
        control.number(value)


BOSON_A = Identity("uvcvideo", "Boson", "usb-1.2", ("09cb:4007", "A1"))
BOSON_B = Identity("uvcvideo", "Boson", "usb-1.3", ("09cb:4007", "B2"))
CHEAP = Identity("uvcvideo", "HD Camera", "usb-1.4", ("1234:5678", ""))
FIXED = Identity("rp1-cfe", "csi", "platform:1")


def moved(identity: Identity, bus: str) -> Identity:
    return Identity(identity.driver, identity.card, bus, identity.usb, identity.index)


@pytest.mark.parametrize(
    ("identity", "found", "at"),
    [
        (BOSON_A, {"/dev/video0": BOSON_A}, "/dev/video0"),
        (BOSON_A, {"/dev/video0": CHEAP, "/dev/video5": moved(BOSON_A, "usb-9")}, "/dev/video5"),
        (BOSON_A, {"/dev/video0": BOSON_B}, None),  # another serial number
        (CHEAP, {"/dev/video3": moved(CHEAP, "usb-7")}, "/dev/video3"),
        (CHEAP, {"/dev/video3": moved(CHEAP, "usb-7"), "/dev/video4": CHEAP}, "/dev/video4"),  # the same socket
        (CHEAP, {"/dev/video3": moved(CHEAP, "usb-7"), "/dev/video4": moved(CHEAP, "usb-8")}, None),  # which one?
        (FIXED, {"/dev/video0": moved(FIXED, "platform:2")}, None),
        (FIXED, {"/dev/video2": FIXED}, "/dev/video2"),
        (BOSON_A, {}, None),
    ],
)
def test_a_camera_is_found_again_and_never_confused(
    identity: Identity, found: dict[str, Identity], at: str | None
) -> None:
    assert find_again("/dev/video0", identity, found) == at


def test_a_stable_name_is_kept() -> None:
    assert find_again("/dev/v4l/by-id/usb-Boson", BOSON_A, {}) == "/dev/v4l/by-id/usb-Boson"


# ------------------------------------------------------------------------------------------ devices that are not there

LISTED = r"(no cameras found|cameras: /)"
linux = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux only")


@linux
def test_an_absent_camera_is_an_error_that_lists_the_cameras() -> None:
    with pytest.raises(DeviceUnavailable, match=rf"thermal camera /dev/video987: the device does not exist; {LISTED}"):
        V4l2Source("/dev/video987", "ir")


@linux
@pytest.mark.parametrize("path", ["/dev/null", "/dev", __file__])
def test_what_is_not_a_camera_is_never_opened(path: str) -> None:
    with pytest.raises(DeviceUnavailable, match=rf"not a video capture device; {LISTED}"):
        V4l2Source(path, "rgb")


@linux
def test_a_folder_without_cameras_lists_none(tmp_path: Path) -> None:
    (tmp_path / "video0").touch()  # not a device
    (tmp_path / "videoX").touch()
    assert list_cameras(tmp_path) == []
    assert list_cameras(tmp_path / "absent") == []


def test_on_other_systems_the_error_says_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(DeviceUnavailable, match="live cameras need Linux; use a file, a stream or synthetic: instead"):
        V4l2Source("/dev/video0", "rgb")
    with pytest.raises(ConfigError, match="--pipe /dev/video9 needs Linux; use y4m, raw or mjpeg instead"):
        CameraOutput("/dev/video9")


def test_a_camera_in_one_line() -> None:
    camera = CameraInfo("/dev/video2", None, "uvcvideo", "Boson", (CameraFormat("Y16"), CameraFormat("H264")))
    assert str(camera) == "/dev/video2: Boson (Y16)"
    assert str(CameraInfo("/dev/video3", None, "", "C920", problem="permission denied")) == (
        "/dev/video3: C920 (permission denied)"
    )


# ----------------------------------------------------------------------------------------------------- real V4L2 nodes

camera = pytest.mark.camera
needs_cameras = pytest.mark.skipif(not CAMERAS, reason="RTFUSE_TEST_CAMERAS names no V4L2 device")


def offer_of(path: str, fourcc: str) -> CameraFormat:
    """Return what the camera offers in this format; skips where it does not."""
    info = next(c for c in list_cameras() if c.path == os.path.realpath(path))
    assert info.problem is None, info.problem
    offer = next((o for o in info.formats if o.fourcc == fourcc), None)
    if offer is None:
        pytest.skip(f"{path} does not offer {fourcc}")
    return offer


def smallest(offer: CameraFormat) -> tuple[int, int]:
    return min((s.min_wh for s in offer.sizes), key=lambda wh: wh[0] * wh[1])


def open_small(path: str, stream: Stream, fourcc: str | None = None, stall_timeout_s: float = 20.0) -> V4l2Source:
    """Open at the camera's smallest size and about 15 Hz, which an emulated machine can keep up with."""
    wh = smallest(offer_of(path, fourcc or "YUYV"))
    return V4l2Source(path, stream, rate_hz=15.0, options=CameraOptions(wh, fourcc), stall_timeout_s=stall_timeout_s)


def press(path: str, *names: str, value: int = 1) -> None:
    """Set the first control of vivid whose name starts with one of `names`; skips on a driver without it."""
    with closing(Node(path)) as node:
        for control in node.described_controls():
            if control.name.decode().startswith(names):
                api.ioctl(node.fd, api.VIDIOC_S_CTRL, api.v4l2_control(control.id, value))
                return
    pytest.skip(f"{path} has no control {' or '.join(names)}: not the vivid driver")


def check_frames(frames: list[Frame], source: V4l2Source) -> None:
    w, h = source.info.size_wh
    period_ns = 1e9 / (source.info.rate_hz or 30)
    for frame in frames:
        assert frame.shape_hw == (h, w)
        assert frame.image.dtype == source.info.dtype
        assert frame.stamp in (Stamp.END, Stamp.EXPOSURE)
        age_ns, now_ns = frame.arrival_ns - frame.t_ns, time.monotonic_ns()
        # vivid delivers a frame when it begins and stamps it with the end that it would have
        assert -period_ns <= age_ns < 2_000_000_000
        assert frame.arrival_ns <= now_ns
    ids, times = [f.frame_id for f in frames], [f.t_ns for f in frames]
    assert ids == sorted(set(ids))
    assert times == sorted(set(times))
    assert ids[-1] + 1 == len(frames) + sum(source.losses.values())


@camera
@needs_cameras
@pytest.mark.parametrize("fourcc", ["Y16", "Y16-BE", "Y14", "Y12", "Y10", "GREY", "YUYV", "UYVY", "NV12", "MJPG"])
def test_thermal_frames(fourcc: str) -> None:
    with closing(open_small(CAMERAS[0], "ir", fourcc)) as source:
        frames = list(islice(source, 20))
        check_frames(frames, source)
    assert np.ptp(frames[-1].image) > 0


@camera
@needs_cameras
@pytest.mark.parametrize("fourcc", ["YUYV", "UYVY", "NV12", "RGB3", "BGR3", "MJPG", "GREY"])
def test_rgb_frames(fourcc: str) -> None:
    with closing(open_small(CAMERAS[-1], "rgb", fourcc)) as source:
        frames = list(islice(source, 20))
        check_frames(frames, source)
        assert source.info.rate_hz == pytest.approx(15, rel=0.1)
    if out := os.environ.get("CAMERA_VM_OUT"):
        cv2.imwrite(f"{out}/{fourcc}.png", frames[-1].image[..., ::-1])


@camera
@needs_cameras
def test_vivid_colour_bars_have_their_colours() -> None:
    bars = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
    press(CAMERAS[-1], "Test Pattern", value=1)  # 100 % colour bars
    press(CAMERAS[-1], "OSD Text Mode", value=2)  # none
    try:
        for fourcc in ("YUYV", "NV12", "RGB3", "BGR3"):
            with closing(open_small(CAMERAS[-1], "rgb", fourcc)) as source:
                image = next(iter(source)).image
            if out := os.environ.get("CAMERA_VM_OUT"):
                cv2.imwrite(f"{out}/bars-{fourcc}.png", image[..., ::-1])
            w = image.shape[1]
            row = image[image.shape[0] * 3 // 4, (2 * np.arange(8) + 1) * w // 16]
            assert (row > 128).astype(int).tolist() == [list(bar) for bar in bars], (fourcc, row.tolist())
    finally:
        press(CAMERAS[-1], "Test Pattern", value=0)
        press(CAMERAS[-1], "OSD Text Mode", value=0)


@camera
@needs_cameras
def test_both_cameras_at_once_by_a_stable_name(tmp_path: Path) -> None:
    link = tmp_path / "usb-vivid-video-index0"
    link.symlink_to(CAMERAS[0])
    with closing(open_small(str(link), "ir")) as ir, closing(open_small(CAMERAS[-1], "rgb")) as rgb:
        assert ir.info.uri == str(link)
        for _, (a, b) in zip(range(10), zip(ir, rgb, strict=False), strict=False):
            assert (a.stream, b.stream) == ("ir", "rgb")


@camera
@needs_cameras
def test_the_cameras_are_listed_with_formats_and_sizes() -> None:
    cameras = {c.path: c for c in list_cameras()}
    for path in CAMERAS:
        info = cameras[os.path.realpath(path)]
        assert info.problem is None
        assert info.driver
        assert any(offer.sizes for offer in info.formats)


@camera
@needs_cameras
def test_controls_are_set_by_name_and_wrong_ones_are_refused() -> None:
    wanted = {"brightness": 77, "test_pattern": "100_colorbar", "horizontal_movement": 0}
    with closing(V4l2Source(CAMERAS[0], "rgb", options=CameraOptions(controls=wanted))):
        info = next(c for c in list_cameras() if c.path == os.path.realpath(CAMERAS[0]))
    got = {c.name: c for c in info.controls}
    assert got["brightness"].value == 77
    assert got["test_pattern"].value == got["test_pattern"].choices["100_colorbar"] == 1
    for wrong, message in (
        ({"brightnes": 5}, "no control brightnes; did you mean brightness"),
        ({"brightness": 999}, "control brightness=77 .*0 to 255.*999 is not possible"),
    ):
        with pytest.raises(DeviceUnavailable, match=message):
            V4l2Source(CAMERAS[0], "rgb", options=CameraOptions(controls=wrong))
    V4l2Source(CAMERAS[0], "rgb", options=CameraOptions(controls={"brightness": 128, "test_pattern": 0})).close()


@camera
@needs_cameras
def test_a_camera_is_told_from_another_of_its_model() -> None:
    with closing(open_small(CAMERAS[0], "ir")) as ir, closing(open_small(CAMERAS[-1], "rgb")) as rgb:
        found = {c.path: c.identity for c in list_cameras() if c.identity}
        assert find_again(CAMERAS[0], ir.identity, found) == os.path.realpath(CAMERAS[0])
        assert find_again(CAMERAS[0], rgb.identity, found) == os.path.realpath(CAMERAS[-1])
        assert find_again(CAMERAS[0], ir.identity, {CAMERAS[-1]: rgb.identity}) is None
    with closing(ir.reopen()) as reopened:
        assert next(iter(reopened)).stream == "ir"


@camera
@needs_cameras
def test_the_wrong_wishes_are_refused_with_what_is_offered() -> None:
    with pytest.raises(DeviceUnavailable, match=r"asked for .* at 17x11; it offers .*YUYV \d+x\d+"):
        V4l2Source(CAMERAS[0], "rgb", options=CameraOptions((17, 11)))
    with pytest.raises(DeviceUnavailable, match="H264 cannot be decoded"):
        V4l2Source(CAMERAS[0], "rgb", options=CameraOptions(pixel_format="H264"))
    with pytest.raises(DeviceUnavailable, match=f"the device does not exist; cameras: .*{CAMERAS[0]}"):
        V4l2Source("/dev/video987", "rgb")


@camera
@needs_cameras
def test_a_camera_in_use_is_an_error_and_free_again_after_close() -> None:
    with closing(open_small(CAMERAS[0], "ir")):
        with pytest.raises(DeviceUnavailable, match="it is in use by this very process"):
            open_small(CAMERAS[0], "rgb")
        assert list_cameras()[0].problem is None
    with closing(open_small(CAMERAS[0], "rgb")) as source:
        assert next(iter(source)).frame_id == 0


@camera
@needs_cameras
def test_a_camera_in_use_elsewhere_names_the_process() -> None:
    code = (
        "import sys; from rtfuse.capture.v4l2 import V4l2Source;"
        "source = V4l2Source(sys.argv[1], 'ir'); print('open', flush=True); input()"
    )
    command = [sys.executable, "-c", code, CAMERAS[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(DeviceUnavailable, match=rf"it is in use by \S+ \(process {other.pid}\)"):
            open_small(CAMERAS[0], "ir")
        other.communicate("\n")


@camera
@needs_cameras
def test_a_forbidden_camera_names_the_group_and_is_still_listed() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give up its right to open a camera")
    code = (
        "import os, sys; from rtfuse.capture.v4l2 import V4l2Source, list_cameras;"
        "os.setgroups([]); os.setuid(65534); print(*list_cameras());"
        "V4l2Source(sys.argv[1], 'ir')"
    )
    done = subprocess.run([sys.executable, "-c", code, CAMERAS[0]], capture_output=True, text=True, timeout=200)
    assert f"{os.path.realpath(CAMERAS[0])}: " in done.stdout
    assert "(permission denied)" in done.stdout
    assert "DeviceUnavailable: thermal camera" in done.stderr
    assert "join the group video" in done.stderr


@camera
@needs_cameras
def test_close_from_another_thread_ends_an_iteration() -> None:
    source = open_small(CAMERAS[0], "ir")
    started, count = threading.Event(), 0

    def consume() -> None:
        nonlocal count
        for _ in source:
            count += 1
            started.set()

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    assert started.wait(60)
    begin = time.monotonic()
    source.close()
    thread.join(0.5)
    assert not thread.is_alive()
    assert time.monotonic() - begin < 0.5
    source.close()
    assert list(source) == []
    with closing(open_small(CAMERAS[0], "ir")) as again:
        assert next(iter(again))


@camera
@needs_cameras
def test_a_slow_consumer_gets_the_newest_frame() -> None:
    with closing(open_small(CAMERAS[0], "ir")) as source:
        frames = iter(source)
        first = next(frames)
        period_ns = round(1e9 / (source.info.rate_hz or 30))
        busy_until = time.monotonic_ns() + 20 * period_ns
        while time.monotonic_ns() < busy_until:
            pass
        second = next(frames)
        assert second.t_ns >= busy_until - 2 * period_ns
        check_frames([first, second], source)
        assert source.losses["stale"] >= 1


@camera
@needs_cameras
def test_a_buffer_flagged_as_broken_is_counted() -> None:
    with closing(open_small(CAMERAS[0], "ir")) as source:
        frames = iter(source)
        got = [next(frames)]
        press(CAMERAS[0], "Inject V4L2_BUF_FLAG_ERROR")
        got += list(islice(frames, 10))
        assert source.losses["corrupt"] == 1
        check_frames(got, source)


@camera
@needs_cameras
def test_frames_dropped_by_the_driver_are_counted() -> None:
    press(CAMERAS[0], "Percentage of Dropped Buffers", value=50)
    try:
        with closing(open_small(CAMERAS[0], "ir")) as source:
            frames = list(islice(source, 20))
            assert source.losses["driver"] >= 1
            check_frames(frames, source)
    finally:
        press(CAMERAS[0], "Percentage of Dropped Buffers", value=0)


@camera
@needs_cameras
def test_a_driver_that_stamps_the_start_of_exposure() -> None:
    for value, stamp in ((1, Stamp.EXPOSURE), (0, Stamp.END)):
        press(CAMERAS[0], "Timestamp Source", value=value)
        with closing(open_small(CAMERAS[0], "ir")) as source:
            frame = next(iter(source))
        assert frame.stamp is stamp
        assert stamp is Stamp.END or frame.t_ns <= frame.arrival_ns


@camera
@needs_cameras
def test_a_camera_that_falls_silent_is_lost() -> None:
    with closing(open_small(CAMERAS[0], "ir", stall_timeout_s=1.0)) as source:
        frames = iter(source)
        next(frames)
        press(CAMERAS[0], "Percentage of Dropped Buffers", value=100)
        try:
            with pytest.raises(SourceLost, match=rf"{CAMERAS[0]}: no usable frame for 1 s after \d+ frames"):
                list(islice(frames, 1000))
        finally:
            press(CAMERAS[0], "Percentage of Dropped Buffers", value=0)


@camera
@needs_cameras
def test_unplugging_is_a_lost_source_and_the_camera_can_be_opened_again() -> None:
    source = open_small(CAMERAS[0], "ir")
    frames = iter(source)
    next(frames)
    press(CAMERAS[0], "Disconnect")
    with pytest.raises(SourceLost, match=rf"{CAMERAS[0]}: it was unplugged after \d+ frames"):
        list(islice(frames, 1000))
    source.close()
    with closing(open_small(CAMERAS[0], "ir")) as again:
        assert next(iter(again))
