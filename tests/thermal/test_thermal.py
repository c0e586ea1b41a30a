"""Thermal: the gain control, what cameras send beside their picture, dead pixels, frozen frames, colours."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtfuse.errors import ConfigError
from rtfuse.thermal.agc import Agc
from rtfuse.thermal.cameras import CAMERAS, layout_of
from rtfuse.thermal.palettes import PALETTES, colourise, palette
from rtfuse.thermal.preprocessing import DeadPixels, FreezeWatch, ThermalFront
from rtfuse.thermal.settings import AgcSettings, Thermal
from rtfuse.types import Frame, Stamp

METHODS = ("plateau", "linear", "clahe")


def frame(image, k=0, period_ms=33):
    return Frame("ir", image, k, k * period_ms * 1_000_000, Stamp.ARRIVAL, 0)


def scene(rng, level=8000, noise=200, shape=(60, 80)):
    return rng.normal(level, noise, shape).clip(0, 65535).astype(np.uint16)


def street(rng, shape=(128, 160)):
    """A wide cold sky, a road, and a few warm people."""
    counts = rng.normal(7000, 3, shape)
    counts[shape[0] // 2 :] = rng.normal(7600, 40, (shape[0] - shape[0] // 2, shape[1]))
    counts[80:100, 30:40] = rng.normal(8400, 30, (20, 10))
    counts[90:110, 90:98] = rng.normal(8600, 30, (20, 8))
    return counts.astype(np.uint16)


# ------------------------------------------------------------------------------------------------------ gain control


@pytest.mark.parametrize("method", METHODS)
def test_eight_bits_pass_untouched(method):
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert Agc(AgcSettings(method=method))(frame(image)) is image


counts_of_any_kind = st.builds(
    lambda seed, level, noise: scene(np.random.default_rng(seed), level, noise),
    st.integers(0, 1000),
    st.integers(0, 65535),
    st.sampled_from([0, 1, 5, 200, 9000]),
)


@pytest.mark.parametrize("method", ["plateau", "linear"])
@given(
    st.lists(counts_of_any_kind, min_size=1, max_size=3),
    st.sampled_from([(0.0, 0.0), (0.001, 0.001), (0.2, 0.5), (1.0, 1.0)]),
    st.floats(0.1, 20),
    st.floats(0.01, 300),
)
@example([scene(np.random.default_rng(s), n, 9000) for s, n in ((0, 108), (813, 12))], (0.0, 0.0), 1.0, 1.0)
def test_more_counts_are_never_darker(method, scenes, tails, plateau, max_gain):
    agc = Agc(AgcSettings(method=method, tails=tails, plateau=plateau, max_gain=max_gain))
    for k, counts in enumerate(scenes):
        table = agc.table(frame(counts, k))
        assert table.dtype == np.uint8
        assert table.shape == (65536,)
        assert np.all(np.diff(table.astype(int)) >= 0)
        assert np.all(np.diff(table.astype(int)) <= np.ceil(max_gain) + 1)


@pytest.mark.parametrize("method", ["plateau", "linear"])
def test_the_whole_range_is_used(method):
    out = Agc(AgcSettings(method=method))(frame(scene(np.random.default_rng(0))))
    assert out.dtype == np.uint8
    assert out.min() <= 1
    assert out.max() >= 254


@pytest.mark.parametrize("method", METHODS)
def test_a_lamp_or_dead_pixels_do_not_darken_the_scene(method):
    counts = scene(np.random.default_rng(0), shape=(240, 320))
    plain = Agc(AgcSettings(method=method))(frame(counts)).astype(int)
    spoilt = counts.copy()
    spoilt[0, :30] = 65535
    spoilt[1, :30] = 0
    assert np.abs(Agc(AgcSettings(method=method))(frame(spoilt)).astype(int) - plain)[60:].mean() < 6


@pytest.mark.parametrize("method", METHODS)
def test_a_uniform_scene_is_neither_noise_nor_black(method):
    counts = np.full((60, 80), 8000, np.uint16)
    counts[::2, ::2] += 2
    out = Agc(AgcSettings(method=method))(frame(counts)).astype(int)
    assert np.ptp(out) < 24 if method == "clahe" else np.ptp(out) < 12
    assert 60 < out.mean() < 200 if method == "clahe" else 100 < out.mean() < 156
    assert abs(Agc(AgcSettings(method="plateau", midpoint=60))(frame(counts)).mean() - 60) < 8


def test_a_plateau_shows_what_a_wide_cold_sky_would_hide():
    """Linear spends its levels on the empty range between sky and people; the plateau on what is there."""
    counts = street(np.random.default_rng(1))
    road = np.s_[70:78, :]
    plain, equalised = (Agc(AgcSettings(method=m))(frame(counts)).astype(float) for m in ("linear", "plateau"))
    assert equalised[road].std() > 1.5 * plain[road].std()
    people, ground = equalised[82:98, 32:38].mean(), equalised[road].mean()
    assert people > ground + 40
    unbounded = Agc(AgcSettings(method="plateau", plateau=1e9, max_gain=255))(frame(counts)).astype(float)
    assert equalised[:60].std() < 0.5 * unbounded[:60].std()  # the sky's noise is not blown up


def test_the_mapping_follows_a_step_slowly():
    rng = np.random.default_rng(0)
    agc, first = Agc(AgcSettings(tau_ms=1000)), scene(rng)
    still = agc(frame(first, 0)).astype(int)
    warmer = (first + 150).astype(np.uint16)
    step = agc(frame(warmer, 1)).astype(int)
    for k in range(2, 300):
        settled = agc(frame(warmer, k)).astype(int)
    assert (step - still).mean() > 20  # the scene did get warmer, and shows it
    assert abs(settled.mean() - still.mean()) < 2


def test_the_speed_of_following_does_not_depend_on_the_frame_rate():
    rng = np.random.default_rng(0)
    first, warmer = scene(rng), scene(rng, 8150)
    shown = []
    for period_ms in (11, 100):
        agc = Agc(AgcSettings(tau_ms=700))
        agc(frame(first))
        for k in range(1, 550 // period_ms + 1):
            agc(frame(warmer, k, period_ms))
        shown.append(agc(frame(warmer, 550 // period_ms, period_ms)).mean())
    assert abs(shown[0] - shown[1]) < 4


def test_a_scene_beyond_the_mapping_is_mapped_anew_at_once():
    rng = np.random.default_rng(0)
    agc = Agc(AgcSettings(tau_ms=5000))
    agc(frame(scene(rng, 8000)))
    out = agc(frame(scene(rng, 30000), 1))
    assert out.std() > 40


def test_noise_alone_does_not_make_the_picture_flicker():
    rng = np.random.default_rng(0)
    calm, plain = Agc(), [Agc() for _ in range(40)]
    counts = street(rng).astype(float)
    pictures = [(counts + rng.normal(0, 4, counts.shape)).astype(np.uint16) for _ in range(40)]
    smoothed = [calm(frame(p, k)).mean() for k, p in enumerate(pictures)]
    alone = [agc(frame(p)).mean() for agc, p in zip(plain, pictures, strict=True)]
    assert np.abs(np.diff(smoothed)).mean() < 0.5 * np.abs(np.diff(alone)).mean() + 0.02


def test_a_region_is_what_the_mapping_is_made_for():
    counts = np.full((100, 100), 2000, np.uint16)
    counts[50:] = scene(np.random.default_rng(0), 9000, 50, (50, 100))
    below, whole = (Agc(AgcSettings(method="linear", region=r))(frame(counts)) for r in ((0, 0.5, 1, 0.5), None))
    assert below[50:].std() > 3 * whole[50:].std()
    assert below[:50].max() == 0


def test_a_region_of_no_size_is_one_pixel():
    Agc(AgcSettings(region=(1.0, 1.0, 0.0, 0.0)))(frame(scene(np.random.default_rng(0))))


def test_a_frozen_mapping_stays():
    rng = np.random.default_rng(0)
    agc = Agc(AgcSettings(freeze=True))
    first = agc.table(frame(scene(rng)))
    assert agc.table(frame(scene(rng, 20000), 1)) is first


def test_clahe_brings_out_local_contrast():
    rng = np.random.default_rng(0)
    ramp = np.linspace(5000, 15000, 160)[None].repeat(128, 0) + rng.normal(0, 60, (128, 160))
    counts = ramp.astype(np.uint16)
    shown = [Agc(AgcSettings(method=m))(frame(counts)) for m in ("linear", "clahe")]
    local = [np.diff(image.astype(float), axis=1).std() for image in shown]
    assert local[1] > 1.5 * local[0]


def test_shown_is_what_calling_gives():
    counts = scene(np.random.default_rng(0))
    for method in METHODS:
        image, table = Agc(AgcSettings(method=method)).shown(frame(counts))
        assert np.array_equal(image if table is None else table[image], Agc(AgcSettings(method=method))(frame(counts)))


# ------------------------------------------------------------------------------------- what cameras send, by layout


def boson_frame(status=0, counter=70000, housing_k=301.5):
    image = np.random.default_rng(0).integers(8000, 9000, (514, 640), np.uint16)
    image[:2] = 0
    image[0, [38, 42, 43, 47]] = status, counter >> 16, counter & 0xFFFF, round(housing_k * 10)
    return image


def lepton_frame(status=0, counter=70000, housing_k=301.5, tlinear=0, resolution=0, wh=(160, 120), top=False):
    w, h = wh
    rows = 320 // 160 if w == 160 else 3
    image = np.random.default_rng(0).integers(28000, 30000, (h + rows, w), np.uint16)
    words = np.zeros(rows * w, np.uint16)
    words[[3, 4, 20, 21]] = status & 0xFFFF, status >> 16, counter & 0xFFFF, counter >> 16
    words[[24, 26]] = round(housing_k * 100) + 40, round(housing_k * 100)
    words[[208, 209]] = tlinear, resolution
    image[h:] = words.reshape(rows, w)
    return image


def test_telemetry_of_a_boson():
    front = ThermalFront()
    sent = boson_frame(status=2)
    made = front(frame(sent))
    assert made.image.shape == (512, 640) == front.size_wh((640, 514), "uint16")[::-1]
    assert np.array_equal(made.image, sent[2:])
    assert (made.thermal.counter, made.thermal.housing_k, made.thermal.shutter) == (70000, 301.5, "closed")
    assert made.frozen
    assert front(frame(boson_frame(status=1))).thermal.shutter == "imminent"
    assert ThermalFront()(frame(boson_frame(status=3))).frozen is False


@pytest.mark.parametrize("wh", [(160, 120), (80, 60)])
def test_telemetry_of_a_lepton(wh):
    sent = lepton_frame(status=2 << 4, tlinear=1, resolution=1, wh=wh)
    made = ThermalFront()(frame(sent))
    assert made.image.shape == wh[::-1]
    assert (made.thermal.counter, made.thermal.housing_k, made.thermal.shutter) == (70000, 301.5, "closed")
    assert made.frozen
    assert made.thermal.k_per_count == 0.01
    assert made.thermal.hot.k == pytest.approx(float(sent[: wh[1]].max()) / 100)
    assert ThermalFront()(frame(lepton_frame(tlinear=1, wh=wh))).thermal.k_per_count == 0.1
    assert ThermalFront()(frame(lepton_frame(wh=wh))).thermal.k_per_count is None


@given(st.integers(0, 2**32 - 1), st.sampled_from([(640, 514), (160, 122), (80, 63)]))
def test_rows_that_are_no_telemetry_are_not_believed(seed, wh):
    """Whatever stands there, the picture comes out; nonsense temperatures give nothing."""
    rng = np.random.default_rng(seed)
    sent = rng.integers(0, 65536, wh[::-1], np.uint16)
    said = ThermalFront(freeze=False)(frame(sent)).thermal
    assert said is None or 213 <= said.housing_k <= 398
    sent[:2] = sent[-3:] = 0
    assert ThermalFront(freeze=False)(frame(sent)).thermal is None


@pytest.mark.parametrize("name", ["auto", "tc001", "p2pro"])
def test_counts_below_the_picture_are_temperatures(name):
    words = np.full((384, 256), 0x8010, np.uint16)
    words[192:] = round(293.15 * 64)
    words[200, 30], words[300, 40] = round(350.0 * 64), round(250.0 * 64)
    made = ThermalFront(Thermal(camera=name))(frame(words))
    assert made.image.shape == (192, 256)
    assert (made.thermal.hot.x, made.thermal.hot.y) == (30, 8)
    assert (made.thermal.cold.x, made.thermal.cold.y) == (40, 108)
    assert made.thermal.hot.k == pytest.approx(350.0, abs=0.01)
    assert made.thermal.cold.k == pytest.approx(250.0, abs=0.01)


def test_counts_folded_two_rows_into_one():
    words, temperatures = np.zeros((484, 512), np.uint16), np.full((192, 256), 300 * 16, np.uint16)
    temperatures[7, 11] = 310 * 16
    words[:96] = temperatures.reshape(96, 512)
    made = ThermalFront(Thermal(camera="tc002c"))(frame(words))
    assert np.array_equal(made.image, temperatures)
    assert (made.thermal.hot.x, made.thermal.hot.y, made.thermal.hot.k) == (11, 7, 310.0)


def test_the_eight_bit_half_is_the_picture_where_there_are_no_counts():
    front, sent = ThermalFront(Thermal(camera="tc001")), np.random.default_rng(0).integers(0, 255, (384, 256), np.uint8)
    assert np.array_equal(front(frame(sent)).image, sent[:192])
    assert front.size_wh((256, 384), "uint8") == (256, 192)


def test_any_camera_can_be_radiometric():
    counts = scene(np.random.default_rng(0), 29315, 20)
    made = ThermalFront(Thermal(k_per_count=0.01))(frame(counts))
    assert made.thermal.hot.k == pytest.approx(counts.max() / 100)
    assert counts[made.thermal.hot.y, made.thermal.hot.x] == counts.max()


def test_a_wrong_camera_is_an_error():
    with pytest.raises(ConfigError, match="'tc01' is not known; want auto, plain"):
        ThermalFront(Thermal(camera="tc01")).size_wh((640, 512), "uint16")
    with pytest.raises(ConfigError, match="tc001 sends 256x384, this source has 640x512"):
        ThermalFront(Thermal(camera="tc001")).size_wh((640, 512), "uint16")
    assert ThermalFront(Thermal(camera="boson")).size_wh((640, 512), "uint16") == (640, 512)  # without telemetry


def test_layouts_cut_pictures_from_what_is_sent():
    for camera in CAMERAS.values():
        for (w, h, dtype), layout in camera.layouts.items():
            sent = np.zeros((h, w), dtype)
            assert layout.picture(sent).shape == layout.size_wh((w, h))[::-1]
            assert layout.picture(sent).base is sent or layout.picture(sent) is sent
    plain = layout_of("auto", (33, 22), "uint8")
    sent = np.zeros((22, 33), np.uint8)
    assert plain.picture(sent) is sent


def test_black_hot_cameras_become_white_hot():
    sent = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(ThermalFront(Thermal(polarity="black-hot"))(frame(sent)).image, 255 - sent)


def test_a_plain_frame_is_handed_on_as_it_is():
    sent = frame(scene(np.random.default_rng(0)))
    assert ThermalFront()(sent) is sent


# --------------------------------------------------------------------------------------------- frozen, dead, coloured


def test_a_repeated_picture_is_frozen_a_uniform_one_is_not():
    watch, rng = FreezeWatch(), np.random.default_rng(0)
    a, b = scene(rng), scene(rng)
    assert [watch(x) for x in (a, a.copy(), b, b.copy(), b.copy(), a)] == [False, True, False, True, True, False]
    black = np.zeros((60, 80), np.uint16)
    assert [watch(x) for x in (black, black.copy())] == [False, False]


def test_telemetry_that_counts_on_does_not_hide_a_frozen_picture():
    front = ThermalFront()
    assert [front(frame(boson_frame(counter=k))).frozen for k in range(3)] == [False, True, True]
    assert not ThermalFront(freeze=False)(frame(boson_frame(counter=1))).frozen


@given(st.sets(st.tuples(st.integers(0, 15), st.integers(0, 11)), max_size=60), st.integers(0, 99))
def test_dead_pixels_are_replaced_by_their_live_neighbours(tmp_path_factory, dead, seed):
    path = tmp_path_factory.mktemp("dead") / "dead.txt"
    path.write_text("# x y\n" + "".join(f"{x} {y}  # dead\n" for x, y in dead))
    truth = np.add.outer(np.arange(12) * 7, np.arange(16) * 5).astype(np.uint16) + 1000
    spoilt = truth.copy()
    rng = np.random.default_rng(seed)
    for x, y in dead:
        spoilt[y, x] = rng.choice([0, 65535])
    before = spoilt.copy()
    healed = DeadPixels(str(path))(spoilt)
    assert np.array_equal(spoilt, before)
    alive = np.ones(truth.shape, bool)
    for x, y in dead:
        alive[y, x] = False
    assert np.array_equal(healed[alive], truth[alive])
    assert np.abs(healed.astype(int) - truth).max() <= 60


def test_a_map_may_be_an_image(tmp_path):
    marks = np.zeros((60, 80), np.uint8)
    marks[3, 5] = 255
    cv2.imwrite(str(tmp_path / "dead.png"), marks)
    counts = np.full((60, 80), 700, np.uint16)
    counts[3, 5] = 0
    front = ThermalFront(Thermal(dead_pixels=str(tmp_path / "dead.png")))
    assert np.all(front(frame(counts)).image == 700)
    with pytest.raises(ConfigError, match="is 80x60, the picture is 81x60"):
        front.size_wh((81, 60), "uint16")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"1 2 3\n", "neither an image nor"),
        (b"900 2\n", "outside of 80x60"),
        (b"\xff\xfe\x00", "neither"),
        (None, "No such"),
    ],
)
def test_a_wrong_map_is_an_error(tmp_path, content, fault):
    if content is not None:
        (tmp_path / "dead.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=fault):
        ThermalFront(Thermal(dead_pixels=str(tmp_path / "dead.txt"))).size_wh((80, 60), "uint16")


def test_a_map_that_no_longer_fits_is_left_out(tmp_path):
    (tmp_path / "dead.txt").write_text("70 50\n")
    dead = DeadPixels(str(tmp_path / "dead.txt"))
    small = scene(np.random.default_rng(0), shape=(30, 40))
    assert dead(small) is small


@pytest.mark.parametrize("name", PALETTES)
def test_palettes(name):
    colours = palette(name)
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    luma = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert np.array_equal(colourise(luma, name), colours[luma])
    if name in ("iron", "inferno", "viridis", "white-hot"):  # hotter is never darker
        brightness = colours.astype(float) @ (0.299, 0.587, 0.114)
        assert np.diff(brightness).min() > -1.5


def test_an_unknown_palette_is_an_error():
    with pytest.raises(ConfigError, match="no palette is called 'hot'"):
        palette("hot")
