"""Image files as people have them: what is read from the pixels, and what is said about them."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture import open_source
from rtfuse.capture.images import ImageReader, pages, read_image
from rtfuse.capture.settings import PictureOptions
from rtfuse.errors import SourceUnreadable

HEAT = np.add.outer(np.arange(40), np.arange(48)).astype(np.float64) / 86  # (40, 48), 0 to 1
CELSIUS = 15 + 30 * HEAT
COUNTS = (7000 + 800 * HEAT).astype(np.uint16)
SCENE = np.dstack([40 + 200 * HEAT, 220 - 180 * HEAT, 60 + 0 * HEAT]).astype(np.uint8)
MASK = np.where(HEAT > 0.5, 255, 0).astype(np.uint8)


def tiff(*images, order="<", big=False, tile=None, photometric=None, **tags):
    """Write pages of any type as TIFF, uncompressed, in strips or in tiles of `tile` pixels; `tags` as `t254=1`."""
    place, width = ("Q", 8) if big else ("I", 4)
    body = bytearray(struct.pack(order + ("2sHHHQ" if big else "2sHI"), b"II" if order == "<" else b"MM",
                                 43 if big else 42, *((8, 0, 0) if big else (0,))))  # fmt: skip
    link = 8 if big else 4
    for image in images:
        data = image.astype(image.dtype.newbyteorder(order))
        parts = [data] if tile is None else [
            np.pad(data[y : y + tile, x : x + tile], [(0, max(y + tile - data.shape[0], 0)),
                   (0, max(x + tile - data.shape[1], 0)), (0, 0)][: data.ndim], mode="edge")
            for y in range(0, data.shape[0], tile) for x in range(0, data.shape[1], tile)
        ]  # fmt: skip
        places = []
        for part in parts:
            places.append(len(body))
            body += part.tobytes()
        samples = 1 if image.ndim == 2 else image.shape[2]
        entries = {
            256: (3, [image.shape[1]]), 257: (3, [image.shape[0]]), 258: (3, [image.dtype.itemsize * 8] * samples),
            259: (3, [1]), 262: (3, [(1 + (samples > 2)) if photometric is None else photometric]), 277: (3, [samples]),
            339: (3, [{"u": 1, "i": 2, "f": 3}[image.dtype.kind]] * samples),
        }  # fmt: skip
        sizes = [part.nbytes for part in parts]
        if tile is None:
            entries |= {273: (4, places), 278: (3, [image.shape[0]]), 279: (4, sizes)}
        else:
            entries |= {322: (3, [tile]), 323: (3, [tile]), 324: (4, places), 325: (4, sizes)}
        entries |= {int(name[1:]): (2, list(v)) if isinstance(v, bytes) else (3, [v]) for name, v in tags.items()}
        rows = []
        for tag, (kind, values) in sorted(entries.items()):
            raw = struct.pack(order + {2: "B", 3: "H"}.get(kind, "I") * len(values), *values)
            if len(raw) > width:
                raw, at = struct.pack(order + place, len(body)), raw
                body += at
            rows.append(struct.pack(order + "HH" + place, tag, kind, len(values)) + raw.ljust(width, b"\0"))
        struct.pack_into(order + place, body, link, len(body))
        body += struct.pack(order + ("Q" if big else "H"), len(rows)) + b"".join(rows)
        link = len(body)
        body += bytes(width)
    return bytes(body)


def saved(folder, name, image):
    """Write bytes, or a picture (of colours in R, G, B) in the format of the name's suffix; return the path."""
    path = folder / name
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}.get(image.shape[2] if image.ndim == 3 else 1)
        lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []
        assert cv2.imwrite(str(path), image if order is None else cv2.cvtColor(image, order), lossless)
    return path


def said(caplog):
    return [record.getMessage() for record in caplog.records]


CENTIKELVIN = np.rint((CELSIUS + 273.15) * 100).astype(np.uint16)
HOT = HEAT > 0.95
COLD = (CELSIUS * 100 - 3000).astype(np.int16)
WIDE = (COUNTS.astype(np.int32) * 100 - 900_000, np.rint(CELSIUS * 3000 - 60_000).astype(np.int32))
THERMAL = {
    "8 bits": (COUNTS.astype(np.uint8), COUNTS.astype(np.uint8), ""),
    "16 bits": (COUNTS, COUNTS, ""),
    "°C, float32": (CELSIUS.astype(np.float32), CENTIKELVIN, "°C"),
    "°C, float64": (CELSIUS, CENTIKELVIN, "°C"),
    "kelvin, float32": ((CELSIUS + 273.15).astype(np.float32), CENTIKELVIN, "kelvin"),
    "frost": (CELSIUS - 50, CENTIKELVIN - 5000, "°C"),
    "a fire in °C": (np.where(HOT, 350.5, CELSIUS), np.where(HOT, 62365, CENTIKELVIN), "°C"),
    "a fire in kelvin": (np.where(HOT, 600, CELSIUS + 273.15), np.where(HOT, 60000, CENTIKELVIN), "kelvin"),
    "counts as float": (COUNTS.astype(np.float32), COUNTS, "counts"),
    "luma as float": (np.rint(HEAT * 255), np.rint(HEAT * 255).astype(np.uint16), "counts"),
    "int16": ((CELSIUS * 100).astype(np.int16), (CELSIUS * 100).astype(np.uint16), ""),
    "int16, negative": (COLD, COLD.astype(int) + 32768, "negative"),
    "int32, negative and wide": (WIDE[0], WIDE[0] + 7 * 32768 >> 1, "229376 is added"),
    "int32, thousandths of a degree": (WIDE[1], WIDE[1] + 32768 >> 1, "negative"),
    "int32": ((CELSIUS * 100).astype(np.int32), (CELSIUS * 100).astype(np.uint16), ""),
    "uint32": (COUNTS.astype(np.uint32), COUNTS, ""),
    "uint32, wide": (COUNTS.astype(np.uint32) * 100, COUNTS.astype(np.uint32) * 100 >> 4, "more than 16 bits"),
}  # fmt: skip


@pytest.mark.parametrize("layout", [{}, {"order": ">"}, {"big": True}, {"order": ">", "big": True}, {"tile": 32}])
@pytest.mark.parametrize("case", THERMAL)
def test_every_type_of_thermal_value_becomes_counts(tmp_path, caplog, case, layout):
    values, counts, word = THERMAL[case]
    read = read_image(saved(tmp_path, "t.tif", tiff(values, **layout)), "ir")
    assert read.dtype == (np.uint8 if case == "8 bits" else np.uint16)
    assert np.abs(read.astype(int) - counts).max() <= (1 if values.dtype.kind == "f" else 0)
    assert len(said(caplog)) == bool(word) + ("negative" in case and "wide" in case) + ("thousandths" in case)
    assert word in "".join(said(caplog))


def test_lifted_counts_stay_apart_in_every_picture_of_a_sequence(tmp_path, caplog):
    read = ImageReader("ir")
    for k, image in enumerate((COLD.astype(np.int32), WIDE[0], COLD.astype(np.int32))):
        counts = read(saved(tmp_path, f"{k}.tif", tiff(image)))
        assert len(np.unique(counts)) > 0.4 * len(np.unique(image))
    assert [line.split("; ")[1] for line in said(caplog) if "negative" in line] == [
        "32768 is added to all",
        "229376 is added to all",
    ]


NODATA = {
    "-9999": (CELSIUS.astype(np.float32), -9999, {}),
    "-32768 in kelvin": (CELSIUS + 273.15, -32768, {}),
    "1e20": (CELSIUS.astype(np.float32), 1e20, {}),
    "the least float": (CELSIUS.astype(np.float32), np.finfo(np.float32).min, {}),
    "int16": ((CELSIUS * 100).astype(np.int16), -9999, {}),
    "int16, the least": (COLD, -32768, {}),
    "named by the file": (CELSIUS.astype(np.float32), 77, {"t42113": b"77\0"}),
    "named at length": (COUNTS, 1000, {"t42113": b"1.000000e+03\0"}),
    "zero in counts": (COUNTS, 0, {"t42113": b"0\0"}),
}


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("case", NODATA)
def test_pixels_without_a_value_do_not_stretch_the_range(tmp_path, caplog, case, big):
    values, nodata, tags = NODATA[case]
    whole = read_image(saved(tmp_path, "whole.tif", tiff(values)), "ir")
    caplog.clear()
    holes = np.where(HEAT < 0.2, np.array(nodata, values.dtype), values)
    read = read_image(saved(tmp_path, "t.tif", tiff(holes, big=big, **tags)), "ir")
    assert np.array_equal(read[HEAT >= 0.2], whole[HEAT >= 0.2])
    assert (read[HEAT < 0.2] == read[HEAT >= 0.2].min()).all()
    assert f"{(HEAT < 0.2).sum()} of {HEAT.size} pixels" in said(caplog)[0]


def test_true_values_are_never_taken_for_none(tmp_path):
    true = np.arange(-9999, -9999 + HEAT.size, dtype=np.int16).reshape(HEAT.shape)
    assert np.array_equal(read_image(saved(tmp_path, "t.tif", tiff(true)), "ir"), true.astype(int) + 32768)


@pytest.mark.parametrize(
    ("values", "unit", "counts"),
    [
        (HEAT, "celsius", 27315 + 100 * HEAT),
        (HEAT, "counts", 65535 * HEAT),
        (250 + 500 * HEAT, "celsius", np.minimum(27315 + 100 * (250 + 500 * HEAT), 65535)),
        (250 + 500 * HEAT, "kelvin", np.minimum(100 * (250 + 500 * HEAT), 65535)),
        (np.rint(40 * HEAT).astype(np.uint8), "celsius", 27315 + 100 * np.rint(40 * HEAT)),
    ],
)
def test_a_unit_that_is_in_doubt_is_asked_for_and_taken(tmp_path, values, unit, counts):
    path = saved(tmp_path, "t.tif", tiff(values))
    if values.dtype.kind == "f":
        with pytest.raises(SourceUnreadable, match=r"ir\.unit=celsius"):
            open_source(str(path), "ir")
    read = ImageReader("ir", PictureOptions(unit=unit))(path)
    assert np.abs(read.astype(float) - counts).max() <= 0.51


def test_the_unit_of_the_first_picture_holds_for_all_and_is_said_once(tmp_path, caplog):
    read = ImageReader("ir")
    for name, values in (("1.tif", CELSIUS), ("2.tif", CELSIUS + 200)):
        counts = read(saved(tmp_path, name, tiff(values)))
        assert np.abs(counts - (values + 273.15) * 100).max() < 1
    assert len(said(caplog)) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40 * 48), st.sampled_from([np.nan, np.inf, -np.inf]), st.sampled_from(["f4", "f8"]))
def test_values_that_are_not_finite_are_no_reason_to_stop(tmp_path_factory, count, value, kind):
    values = CELSIUS.astype(kind).ravel()
    values[:count] = value
    read = read_image(saved(tmp_path_factory.mktemp("t"), "t.tif", tiff(values.reshape(40, 48))), "ir")
    assert np.abs(read.ravel()[count:].astype(float) - CENTIKELVIN.ravel()[count:]).max(initial=0) <= 1
    odd = read.ravel()[:count]
    if count and count < values.size:
        assert (odd == (read.ravel()[count:].max() if value == np.inf else read.ravel()[count:].min())).all()


def test_every_page_is_a_picture_but_no_smaller_copy(tmp_path):
    stack = tiff(*[COUNTS + k for k in range(5)])
    path = saved(tmp_path, "s.tif", stack)
    assert pages(path) == 5
    assert [read_image(path, "ir", k)[0, 0] for k in range(5)] == [7000 + k for k in range(5)]
    assert read_image(path, "ir", 5) is None
    frames = list(open_source(str(path), "ir", fps=10))
    assert [int(f.image[0, 0]) for f in frames] == [7000, 7001, 7002, 7003, 7004]
    assert [f.t_ns for f in frames] == [k * 100_000_000 for k in range(5)]
    assert pages(saved(tmp_path, "reduced.tif", tiff(COUNTS, COUNTS[::2, ::2], t254=1))) == 1
    assert pages(saved(tmp_path, "no.png", COUNTS)) == pages(tmp_path / "absent.tif") == 1


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_every_picture_of_an_animation_is_one(tmp_path, suffix):
    film = cv2.Animation()
    film.frames = [cv2.cvtColor(np.full((64, 96), 40 * k + 20, np.uint8), cv2.COLOR_GRAY2BGRA) for k in range(5)]
    film.durations = np.array([100] * 5)
    whole = cv2.imencodeanimation(f".{suffix}", film)[1].tobytes()
    path = saved(tmp_path, f"a.{suffix}", whole)
    for stream in ("ir", "rgb"):
        frames = [frame.image for frame in open_source(str(path), stream)]
        assert np.abs([frame.mean() - 40 * k - 20 for k, frame in enumerate(frames)]).max() < 3
        assert len(frames) == 5
    cut = saved(tmp_path, f"cut.{suffix}", whole[: len(whole) * 2 // 3])
    assert any(read_image(cut, "rgb", page) is None for page in range(max(pages(cut), 5)))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400))
def test_a_broken_tiff_neither_hangs_nor_raises(tmp_path_factory, noise, at):
    data = bytearray(tiff(COUNTS[:4, :4], COUNTS[:4, :4]))
    data[at : at + len(noise)] = noise
    path = saved(tmp_path_factory.mktemp("t"), "t.tif", bytes(data))
    assert 1 <= pages(path) <= 2 + len(noise)
    for page in range(3):
        read = read_image(path, "rgb", page)
        assert read is None or read.dtype == np.uint8


DIM = SCENE.astype(np.uint16)
RGB = {
    "8 bits": ("s.png", SCENE, SCENE, ""),
    "12 bits in 16": ("s.png", SCENE.astype(np.uint16) * 16, SCENE, "12 bits"),
    "10 bits in 16, TIFF": ("s.tif", tiff(SCENE.astype(np.uint16) * 4), SCENE, "10 bits"),
    "16 bits": ("s.png", SCENE.astype(np.uint16) * 257 + 1000, None, ""),
    "0 to 1, float": ("s.tif", tiff((SCENE / 255).astype(np.float32)), SCENE, "0 to 1"),
    "grey": ("s.png", SCENE[..., 0], np.repeat(SCENE[..., :1], 3, 2), ""),
    "grey, 16 bits": ("s.png", COUNTS * 8, np.repeat((COUNTS * 8 >> 8)[..., None], 3, 2), ""),
    "a mask as alpha": ("s.png", np.dstack([SCENE, MASK]), SCENE, ""),
    "a mask as alpha, TIFF": ("s.tif", tiff(np.dstack([SCENE, MASK]), t338=2), SCENE, ""),
    "thermal as alpha": ("s.png", np.dstack([SCENE, COUNTS.astype(np.uint8)]), SCENE, "alpha channel"),
    "WebP": ("s.webp", SCENE, SCENE, ""),
    "JPEG 2000": ("s.jp2", np.kron(SCENE, np.ones((4, 4, 1), np.uint8)), np.kron(SCENE, np.ones((4, 4, 1))), ""),
    "PNM": ("s.ppm", SCENE, SCENE, ""),
    "PPM up to 100": ("s.ppm", b"P6 48 40 100\n" + np.rint(SCENE / 2.55).astype(np.uint8).tobytes(), SCENE, "100 as"),
    "PPM of 12 bits": ("s.ppm", b"P6 48 40 4095\n" + (4 * DIM).astype(">u2").tobytes(), SCENE // 4, "4095"),
    "CMYK": ("s.tif", tiff(np.dstack([255 - SCENE, 0 * MASK]), photometric=5), SCENE, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", RGB)
def test_every_kind_of_rgb_becomes_8_bits(tmp_path, caplog, case):
    name, image, wanted, word = RGB[case]
    read = read_image(saved(tmp_path, name, image), "rgb")
    wanted = image >> 8 if wanted is None else wanted
    assert np.abs(read.astype(int) - wanted).max() <= (6 if "2000" in case else 2)
    assert len(said(caplog)) == bool(word)
    assert word in "".join(said(caplog))


def test_separate_planes_are_read_or_refused_but_never_mixed_up(tmp_path):
    def planar(image):
        """Write the three planes as strips of one page."""
        flat = tiff(np.concatenate([image[..., c] for c in range(3)]), photometric=2, t284=2)
        h, size = image.shape[0], image[..., 0].nbytes
        body = bytearray(flat)
        (at,) = struct.unpack_from("<I", body, 4)
        extra = len(body)
        places, sizes = [8 + k * size for k in range(3)], [size] * 3
        body += struct.pack("<6I3H", *places, *sizes, *[image.itemsize * 8] * 3)
        wanted = {257: (1, h), 258: (3, extra + 24), 273: (3, extra), 277: (1, 3), 278: (1, h), 279: (3, extra + 12)}
        for k in range(struct.unpack_from("<H", body, at)[0]):
            entry = at + 2 + 12 * k
            if (tag := struct.unpack_from("<H", body, entry)[0]) in wanted:
                struct.pack_into("<II", body, entry + 4, *wanted[tag])
            elif tag == 339:
                struct.pack_into("<H", body, entry, 65000)  # no type: unsigned
        return bytes(body)

    assert np.array_equal(read_image(saved(tmp_path, "8.tif", planar(SCENE)), "rgb"), SCENE)
    with pytest.raises(SourceUnreadable, match="one channel"):
        read_image(saved(tmp_path, "two.tif", tiff(np.dstack([COUNTS, COUNTS]))), "ir")
    with pytest.raises(SourceUnreadable, match="interleaved"):
        read_image(saved(tmp_path, "16.tif", planar(SCENE.astype(np.uint16) * 257)), "rgb")


def test_a_dark_picture_has_the_depth_of_the_bright_one_before(tmp_path):
    read = ImageReader("rgb")
    bright, dark = SCENE.astype(np.uint16) * 16, SCENE.astype(np.uint16)
    read(saved(tmp_path, "1.png", bright))
    assert np.abs(read(saved(tmp_path, "2.png", dark)).astype(int) - SCENE // 16).max() <= 1


KINDS = {
    "rgb": [SCENE.astype(np.uint16) * factor for factor in (257, 16, 1, 4)],
    "ir": [CELSIUS, CELSIUS + 273.15, COLD, COUNTS, COUNTS.astype(np.uint32) * 100, COUNTS.astype(np.float32)],
}


@pytest.mark.parametrize("stream", KINDS)
def test_alone_each_picture_is_read_as_if_it_were_the_only_one(tmp_path, stream, caplog):
    together = ImageReader(stream, PictureOptions(alone=True))
    paths = [saved(tmp_path, f"{k}.tif", tiff(image)) for k, image in enumerate(KINDS[stream])]
    alone = [read_image(path, stream) for path in paths]
    lines = len(caplog.records)
    for _ in range(2):
        assert all(np.array_equal(together(path), image) for path, image in zip(paths, alone, strict=True))
    assert len(caplog.records) == 2 * lines  # each kind once more


def png(kind, rows, *chunks, bits=8):
    """Write a PNG by hand: (kind of colour, rows of bytes, chunks before the data)."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(
        ">IIBBBBB", rows.shape[1] * 8 // bits // {2: 3, 4: 2, 6: 4}.get(kind, 1), rows.shape[0], bits, kind, 0, 0, 0
    )
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    middle = b"".join(chunk(name, text) for name, text in chunks)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", data) + chunk(b"IEND", b"")


GREY = COUNTS.astype(np.uint8)
ALL = np.arange(256, dtype=np.uint8)
PERCENT = np.rint(HEAT * 100).astype(np.uint8)
ONE_CHANNEL = {
    "grey in three channels": ("t.png", np.repeat(GREY[..., None], 3, 2), GREY, ""),
    "16-bit grey in three channels": ("t.png", np.repeat(COUNTS[..., None], 3, 2), COUNTS, ""),
    "16-bit grey in three channels, TIFF": ("t.tif", tiff(np.repeat(COUNTS[..., None], 3, 2)), COUNTS, ""),
    "palette of greys": ("t.png", png(3, GREY, (b"PLTE", np.repeat(ALL, 3).tobytes())), GREY, ""),
    "1 bit": ("t.png", png(0, np.packbits(MASK > 0, axis=1), bits=1), MASK, ""),
    "grey with a mask": ("t.png", png(4, np.dstack([GREY, MASK]).reshape(40, -1)), GREY, ""),
    "alpha beside colours": ("t.png", np.dstack([SCENE, GREY]), GREY, "alpha channel"),
    "alpha beside colours, TIFF": ("t.tif", tiff(np.dstack([SCENE, GREY]), t338=2), GREY, "alpha channel"),
    "16-bit alpha": ("t.png", np.dstack([SCENE.astype(np.uint16) * 257, COUNTS]), COUNTS, "alpha channel"),
    "0 is white": ("t.tif", tiff(GREY, photometric=0), 255 - GREY, ""),
    "0 is white, 16 bits": ("t.tif", tiff(COUNTS, photometric=0), 65535 - COUNTS, "0 is white"),
    "PGM of 14 bits": ("t.pgm", b"P5\n48 40\n16383\n" + COUNTS.astype(">u2").tobytes(), COUNTS, ""),
    "JPEG 2000": ("t.jp2", np.kron(COUNTS, np.ones((4, 4), np.uint16)), np.kron(COUNTS, np.ones((4, 4))), ""),
    "PGM up to 100": ("t.pgm", b"P5\n# text\n48 40\n100\n" + PERCENT.tobytes(), PERCENT * 2.55, "100 as white"),
    "PFM": ("t.pfm", CELSIUS.astype(np.float32), CENTIKELVIN, "°C"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_CHANNEL)
def test_thermal_is_found_in_every_kind_of_picture(tmp_path, caplog, case):
    name, image, wanted, word = ONE_CHANNEL[case]
    read = read_image(saved(tmp_path, name, image), "ir")
    assert read.shape == wanted.shape
    most = 16 if "2000" in case else 1 if "PFM" in case or "100" in case else 0
    assert np.abs(read.astype(int) - wanted).max() <= most
    assert word in "".join(said(caplog))
    assert len(said(caplog)) == bool(word)


def test_swapped_bytes_are_noticed_and_put_right_when_asked(tmp_path, caplog):
    smooth = (COUNTS[0, 0] + 3000 * cv2.resize(HEAT, (160, 120))).astype(np.uint16)
    path = saved(tmp_path, "t.png", smooth.byteswap())
    assert np.array_equal(read_image(path, "ir"), smooth.byteswap())
    assert "ir.byteorder=swapped" in said(caplog)[0]
    caplog.clear()
    assert np.array_equal(ImageReader("ir", PictureOptions(swapped=True))(path), smooth)
    read_image(saved(tmp_path, "right.png", smooth), "ir")
    assert said(caplog) == []


@pytest.mark.parametrize("stream", ["ir", "rgb"])
def test_a_jpeg_is_turned_as_its_exif_says(tmp_path, stream):
    lying = np.kron(SCENE if stream == "rgb" else GREY, np.ones((8, 8, 1) if stream == "rgb" else (8, 8), np.uint8))
    data = cv2.imencode(".jpg", lying[..., ::-1] if stream == "rgb" else lying, [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
    exif = b"Exif\0\0" + struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    app1 = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    read = read_image(saved(tmp_path, "t.jpg", data.tobytes()[:2] + app1 + data.tobytes()[2:]), stream)
    upright = np.rot90(lying, -1)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).mean() < 3


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "jp2", "webp", "bmp", "ppm"])
@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_damage_gives_no_picture_and_nothing_on_the_terminal(tmp_path, capfd, suffix, damage):
    whole = saved(tmp_path, f"t.{suffix}", np.kron(SCENE, np.ones((8, 8, 1), np.uint8))).read_bytes()
    harmed = {"cut": whole[: len(whole) // 2], "empty": b"", "noise": whole[:8] + bytes(range(256)) * 8}[damage]
    assert read_image(saved(tmp_path, f"h.{suffix}", harmed), "rgb") is None or suffix in ("bmp", "ppm")
    assert capfd.readouterr() == ("", "")
