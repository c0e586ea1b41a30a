"""Radiometric JPEG: counts, constants and photo as they were stored, and one line for whatever is damaged."""

from __future__ import annotations

import struct
import time
from datetime import UTC, datetime

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtfuse.capture import flir, open_source
from rtfuse.cli.radiometric import require_photo
from rtfuse.errors import ConfigError, SourceUnreadable
from tests import flirs

W, H = 64, 48
Y, X = np.mgrid[:H, :W]
COUNTS = (15000 + 40 * X + 3 * Y + 900 * np.exp(-((X - 40) ** 2 + (Y - 20) ** 2) / 40)).astype(np.uint16)
RGB = np.stack([2 * X + 60, 3 * Y + 50, 200 - X], -1).astype(np.uint8)


def written(path, *, how="png", order="<", photo="jpeg", pip=(2.0, (10, -6)), zoom=1.0):
    records = [flirs.camera((W, H), order=order, zoom=zoom), flirs.pixels(COUNTS, how, order)]
    if photo is not None:
        records += [flirs.photo(cv2.resize(RGB, (320, 240)), photo, order)]
    if pip is not None:
        records += [flirs.pip(*pip)]
    path.write_bytes(flirs.rjpeg(flirs.fff(*records), part=2000))
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", ["raw<", "raw>", "png", "png>", "jpegls"])
def test_counts_as_they_were_stored(tmp_path, how, order):
    path = written(tmp_path / "a.jpg", how=how, order=order)
    (frame,) = open_source(str(path), "ir")
    assert frame.image.dtype == np.uint16
    assert np.array_equal(frame.image, COUNTS)
    assert frame.thermal.radiometry.planck == pytest.approx(flirs.RADIOMETRY.planck)
    assert frame.thermal.radiometry.air == pytest.approx(flirs.RADIOMETRY.air)
    assert frame.thermal.radiometry.window_transmission == pytest.approx(0.98)


def test_jpeg_ls_behind_a_few_bytes(tmp_path):
    record = struct.pack("<3H26x", 2, W, H) + bytes(20) + flirs.encoded(COUNTS, "jpegls")
    (tmp_path / "a.jpg").write_bytes(flirs.rjpeg(flirs.fff((flirs.PIXELS, 3, record))))
    assert np.array_equal(flir.picture(tmp_path / "a.jpg", "ir"), COUNTS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", ["jpeg", "png", "bytes"])
def test_the_photo_in_its_colours(tmp_path, how, order):
    path = written(tmp_path / "a.jpg", photo=how, order=order)
    (frame,) = open_source(str(path), "rgb")
    assert np.abs(frame.image.astype(int) - cv2.resize(RGB, (320, 240))).max() <= 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_what_the_camera_noted(tmp_path, order):
    found = flir.read(written(tmp_path / "a.jpg", order=order, zoom=1.6))
    assert (found.camera, found.lens, found.rate_hz, found.field_of_view_deg) == ("FLIR T640", "FOL25", 30, 25)
    assert found.taken == datetime(2013, 4, 12, 10, 24, 1, 131000, UTC)
    assert found.zoom == pytest.approx(1.6)
    assert (found.pip.real_to_ir, found.pip.offset_xy, found.photo_wh) == (2.0, (10, -6), (320, 240))


@pytest.mark.parametrize(("real_to_ir", "zoom"), [(2.0, 1.0), (3.2, 1.6), (1.0, 1.0)])
def test_the_place_of_thermal_in_the_photo(tmp_path, real_to_ir, zoom):
    """Thermal is `1 / (real_to_ir / zoom)` of the photo's width, its centre at the photo's centre and the offset."""
    H_photo_from_ir = np.array(
        flir.read(written(tmp_path / "a.jpg", pip=(real_to_ir, (10, -6)), zoom=zoom)).H_photo_from_ir
    )
    corners = np.array([[-0.5, -0.5, 1], [W - 0.5, H - 0.5, 1]]) @ H_photo_from_ir.T
    (x0, y0), (x1, y1) = corners[:, :2] + 0.5
    assert (x1 - x0) == pytest.approx(320 * zoom / real_to_ir, rel=1e-4)
    assert ((x0 + x1) / 2, (y0 + y1) / 2) == pytest.approx((160 + 10, 120 - 6), abs=1e-3)


def test_counts_of_other_depths_are_refused(tmp_path):
    """FFmpeg stretches JPEG-LS of fewer bits to 16: the counts would be others."""
    data = flirs.encoded(COUNTS, "jpegls")
    at = data.index(b"\xff\xf7") + 4
    record = struct.pack("<3H26x", 2, W, H) + data[:at] + b"\x0e" + data[at + 1 :]
    (tmp_path / "a.jpg").write_bytes(flirs.rjpeg(flirs.fff((flirs.PIXELS, 3, record))))
    with pytest.raises(SourceUnreadable, match="JPEG of 14 bits"):
        flir.picture(tmp_path / "a.jpg", "ir")


@pytest.mark.parametrize("missing", ["photo", "pip"])
def test_without_a_photo_or_a_place(tmp_path, missing):
    path = written(tmp_path / "a.jpg", **{missing: None})
    assert flir.read(path).H_photo_from_ir is None
    assert np.array_equal(flir.picture(path, "ir"), COUNTS)
    if missing == "photo":
        with pytest.raises(SourceUnreadable, match=r"a\.jpg holds thermal alone, without a photo; give an RGB"):
            open_source(str(path), "rgb")


def test_other_pictures_are_left_to_their_decoder(tmp_path):
    plain = tmp_path / "plain.jpg"
    cv2.imwrite(str(plain), RGB)
    photo_alone = tmp_path / "photo.jpg"
    photo_alone.write_bytes(flirs.rjpeg(flirs.fff(flirs.camera((W, H))), RGB))
    (tmp_path / "text.jpg").write_text("nothing")
    for path in (plain, photo_alone, tmp_path / "text.jpg", tmp_path / "absent.jpg", tmp_path):
        assert not flir.is_radiometric(path)
        assert flir.picture(path, "ir") is None
    assert open_source(str(photo_alone), "rgb").info.size_wh == (W, H)


def test_constants_that_cannot_be(tmp_path):
    """Counts remain where the camera noted no temperatures."""
    path = tmp_path / "a.jpg"
    for place in (0x20, 0x28, 0x58, 0x30C):
        kind, subtype, data = flirs.camera((W, H))
        broken = bytearray(data)
        struct.pack_into("<f", broken, place, float("nan"))
        path.write_bytes(flirs.rjpeg(flirs.fff((kind, subtype, bytes(broken)), flirs.pixels(COUNTS))))
        found = flir.read(path)
        assert found.radiometry is None
        assert np.array_equal(found.counts(), COUNTS)


def huge_png(w, h):
    data = bytearray(flirs.encoded(COUNTS, "png"))
    data[16:24] = struct.pack(">2I", w, h)
    return bytes(data)


def without(data, number):
    """The file without one segment of its FLIR data."""
    begin, end = (data.index(b"FLIR\0\x01" + bytes([k])) - 4 for k in (number, number + 1))
    return data[:begin] + data[end:]


def far_away(data, at):
    """The file with a record that begins beyond its end."""
    return data[:at] + struct.pack(">I", 1 << 31) + data[at + 4 :]


def thinned(data, mark, count):
    """The file without `count` bytes of the segment that begins with `mark`."""
    at = data.index(mark) + len(mark) + 40
    return data[:at] + data[at + count :]


EXIF = b"\xff\xe1\0\xc8Exif\0\0" + bytes(192)
DAMAGES = {
    "is damaged, behind byte": lambda d: thinned(d, b"FLIR\0\x01" + bytes([d[d.index(b"FLIR\0") + 7]] * 2), 8),
    "is damaged, behind": lambda d: thinned(d[:2] + EXIF + d[2:], b"Exif", 100),
    "is damaged, behind b": lambda d: thinned(d[:2] + EXIF + d[2:], b"Exif", 20),
    "is cut, behind byte 2 of": lambda d: d[:1000],
    "part 2 of the": lambda d: without(d, 1),
    "part 1 of the": lambda d: without(d, 0),
    "no header": lambda d: d.replace(struct.pack(">2I", 100, 64), struct.pack(">2I", 9999, 64), 1),
    "directory of 900": lambda d: d.replace(struct.pack(">3I", 100, 64, 5), struct.pack(">3I", 100, 64, 900), 1),
    "is cut, byte": lambda d: far_away(d, d.index(struct.pack(">2H2I", 1, 3, 100, 1)) + 12),
}


@pytest.mark.parametrize("said", DAMAGES)
def test_damage_in_one_line(tmp_path, said):
    path = written(tmp_path / "a.jpg")
    path.write_bytes(DAMAGES[said](path.read_bytes()))
    for stream in ("ir", "rgb"):
        with pytest.raises(SourceUnreadable, match=said) as caught:
            open_source(str(path), stream)
        assert "\n" not in str(caught.value)
    assert flir.is_radiometric(path)


def outcome(path, stream):
    """The picture, or the line that says why there is none."""
    try:
        return flir.picture(path, stream), ""
    except SourceUnreadable as e:
        return None, str(e)


@pytest.mark.parametrize("size", [(60000, 60000), (0, 48), (64, 47), (2**31, 2**31)])
@pytest.mark.parametrize("kind", ["png", "raw"])
def test_sizes_that_cannot_be_allocate_nothing(tmp_path, kind, size):
    w, h = size
    data = huge_png(w, h) if kind == "png" else COUNTS.tobytes()[: 2 * 64 * 46]
    head = struct.pack("<3H26x", 2, *((W, H) if kind == "png" else (w % 65536, h % 65536)))
    (tmp_path / "a.jpg").write_bytes(flirs.rjpeg(flirs.fff(flirs.camera((W, H)), (flirs.PIXELS, 3, head + data))))
    begun = time.monotonic()
    held, said = outcome(tmp_path / "a.jpg", "ir")
    assert held is None
    assert "\n" not in said
    assert said or 0 in (w % 65536, h % 65536)  # a picture of size 0 is none
    assert time.monotonic() - begun < 1


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_crashes_or_passes_as_another_picture(tmp_path, data):
    """Bytes that are cut off or changed give the picture, one line, or no radiometric file; never anything else."""
    how = data.draw(st.sampled_from(["raw<", "png", "jpegls"]))
    whole = bytearray(written(tmp_path / "a.jpg", how=how).read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(whole))))
    (tmp_path / "b.jpg").write_bytes(bytes(whole[:cut]))
    for stream in ("ir", "rgb"):
        held, said = outcome(tmp_path / "b.jpg", stream)
        assert "\n" not in said
        if held is not None:
            assert held.dtype == (np.uint16 if stream == "ir" else np.uint8)
            assert held.ndim == (2 if stream == "ir" else 3)


def test_a_file_without_a_photo_in_a_folder_is_left_out_with_its_reason(tmp_path, caplog):
    for name, photo in (("1.jpg", None), ("2.jpg", "jpeg")):
        written(tmp_path / name, photo=photo)
    source = open_source(str(tmp_path), "rgb")
    assert [frame.frame_id for frame in source] == [1]
    assert source.losses == {"corrupt": 1}
    assert "1.jpg holds thermal alone" in caplog.text


def test_a_damaged_file_in_a_folder_is_left_out_with_its_reason(tmp_path, caplog):
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        written(tmp_path / name)
    cut = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(cut[: len(cut) // 3])
    source = open_source(str(tmp_path), "ir")
    assert [frame.frame_id for frame in source] == [0, 2]
    assert source.losses == {"corrupt": 1}
    assert "2.jpg: part" in caplog.text


@pytest.mark.parametrize(
    ("maker", "kb", "expected"), [(b"DJI", 60, True), (b"dji", 60, True), (b"DJI", 1, False), (b"Acme", 60, False)]
)
def test_dji_is_recognised(tmp_path, maker, kb, expected):
    shown = cv2.imencode(".jpg", RGB)[1].tobytes()
    inside = b"Exif\0\0" + maker + b"\0"
    segments = b"\xff\xe1" + struct.pack(">H", len(inside) + 2) + inside
    segments += b"\xff\xe3" + struct.pack(">H", kb * 1000 + 2) + bytes(kb * 1000)
    path = tmp_path / "DJI_0001_T.JPG"
    path.write_bytes(shown[:2] + segments + shown[2:])
    assert flir.is_dji(path) is (kb == 60 and maker != b"Acme")


def test_the_real_ones(footage):
    e40, t640 = (flir.read(footage / "rjpeg" / name) for name in ("FLIR_E40.jpg", "FLIR_T640.jpg"))
    assert (e40.camera, e40.size_wh, e40.has_photo) == ("FLIR E40", (160, 120), False)
    assert (t640.camera, t640.lens, t640.size_wh, t640.photo_wh) == ("FLIR T640", "FOL25", (640, 480), (2592, 1944))
    # The counts that another reader took out of the same file.
    stored = cv2.imread(str(footage / "raw" / "flir_t640" / "ir16.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(t640.counts(), stored) or np.array_equal(t640.counts(), stored.byteswap())
    assert t640.photo().shape == (1944, 2592, 3)


@pytest.mark.parametrize("size", [2, 3, 20, 150, 210])
def test_a_picture_that_is_cut_in_its_header_is_said_to_be_cut(tmp_path, size):
    path = written(tmp_path / "a.jpg")
    whole = path.read_bytes()
    path.write_bytes((whole[:2] + EXIF + whole[2:])[:size])
    with pytest.raises(SourceUnreadable, match=rf"a\.jpg: its FLIR|a\.jpg is cut: it ends after {size} bytes"):
        require_photo(str(path))
    path.write_bytes(cv2.imencode(".jpg", RGB)[1].tobytes())
    with pytest.raises(ConfigError, match="is the only input"):
        require_photo(str(path))
