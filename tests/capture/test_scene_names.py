"""Pair names: what belongs together is found, doubts are refused, nothing is lost, and no pair is wrong."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture.scenes.names import are_decimal, bare, in_order, png_names, stream_of
from rtfuse.capture.scenes.pairing import pair
from rtfuse.capture.scenes.streams import divided
from rtfuse.capture.scenes.times import nearest, times_of
from rtfuse.errors import ConfigError


def named(form, numbers=range(1, 9)):
    return [form.format(k) for k in numbers]


FORMS = {
    "the same": ("{:04d}.png", "{:04d}.png"),
    "another suffix": ("{:04d}.tiff", "{:04d}.JPG"),
    "a suffix of one side": ("FLIR_{:04d}.jpg", "FLIR_{:04d}_rgb.png"),
    "prefixes": ("ir_{}.png", "vi_{}.jpg"),
    "letters": ("DJI_{:04d}_T.JPG", "DJI_{:04d}_V.JPG"),
    "letters and times": ("DJI_2024050112{:02d}45_{:04d}_T.JPG", "DJI_2024050112{:02d}46_{:04d}_W.JPG"),
    "glued": ("IR{}.png", "VIS{}.png"),
    "folders": ("set00/V000/lwir/I{:05d}.jpg", "set00/V000/visible/I{:05d}.jpg"),
    "infix": ("img_thermal_{:03d}.png", "img_rgb_{:03d}.png"),
    "capitals": ("Frame{:02d}Thermal.PNG", "frame{}rgb.png"),
    "zeros": ("{}.png", "{:06d}.png"),
    "other labels": ("thm{:04d}.tiff", "IMG_{:05d}.jpg"),
    "cameras by number": ("cam0_{:04d}.png", "cam1_{:04d}.png"),
    "a date of one side": ("20240501_{:04d}.png", "{:04d}.png"),
    "brackets": ("scene ({}) [ir].png", "scene ({}).png"),
    "floats": ("{}.5.png", "{}.50.png"),
    "unicode": (unicodedata.normalize("NFD", "wärme {}.png"), unicodedata.normalize("NFC", "Wärme {}.png")),
}


@pytest.mark.parametrize("case", FORMS)
def test_common_ways_to_name_pairs_are_understood(case):
    forms, scenes = FORMS[case], range(1, 9)
    ir, rgb = ([form.format(*[k] * form.count("{")) for k in scenes] for form in forms)
    expected = dict(zip(ir, rgb, strict=True))
    random.Random(1).shuffle(ir)
    found = pair(ir, rgb[:3] + rgb[4:])
    assert dict(found.pairs) == {a: b for a, b in expected.items() if b != rgb[3]}
    assert found.alone == {"ir": tuple(a for a, b in expected.items() if b == rgb[3]), "rgb": ()}


REFUSED = {
    "two partners": (
        ["a_ir.png", "b_ir.png"],
        ["a_rgb.png", "a_vis.png", "b_rgb.png"],
        "a_ir.png.*a_rgb.png.*a_vis.png",
    ),
    "two suffixes": (["a.png", "b.png"], ["a.png", "a.jpg", "b.png"], "a.png may belong to RGB a.jpg or to a.png"),
    "two numbers": (["1.png", "01.png"], ["1.jpg", "2.jpg"], "RGB 1.jpg may belong to thermal 01.png or to 1.png"),
    "two labels": (named("foo{}.png"), named("bar{}.png") + named("qux{}.png"), "bar1.png or to qux1.png"),
    "two sensors": (["1_T.jpg", "2_T.jpg"], ["1_T.jpg", "1_V.jpg", "2_V.jpg"], "1_T.jpg or to 1_V.jpg"),
    "alternating": (named("DJI_{}.JPG", [1, 3, 5]), named("DJI_{}.JPG", [2, 4, 6]), "--pair order pairs the 3 and 3"),
    "another day": (named("20240501_{}.png"), named("20240502_{}.png"), "no thermal name .* fits one of RGB"),
    "another run": (named("run1_{}.png"), named("run2_{}.png"), "no thermal name .* fits one of RGB"),
    "from 0 and from 1": (
        named("{:04d}.png", range(8)),
        named("{:04d}.png"),
        "0 to 7 and RGB 1 to 8.*0000.png and 0001.png.*--pair name or --pair order",
    ),
    "times alone fit": (["1700000000.png", "1700000001.png"], ["1700000000.1.png", "1700000001.2.png"], "--pair time"),
    "other classes": (
        ["tv_1.png", "tv_2.png", "lamp_3.png"],
        ["photo_1.png", "photo_2.png", "oven_4.png"],
        "fits one of",
    ),
    "nothing": ([], ["a.png"], "0 thermal and 1 RGB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_doubts_are_refused_with_the_way_out(case):
    ir, rgb, said = REFUSED[case]
    with pytest.raises(ConfigError, match=said):
        pair(ir, rgb)


SCENES = {
    "classes": ("chair_1 tv_1", "chair_1 photo_1", "chair_1-chair_1"),
    "classes of one shape": ("tv_1 lamp_2", "photo_1 lamp_2", "lamp_2-lamp_2"),
    "a class with one more word": ("chair_1 chair_2 smart_tv_1", "chair_1 chair_2 smart_photo_1", "chair_1 chair_2"),
    "places": ("heat_pump_1 roof_1", "pump_1 roof_1", "roof_1-roof_1"),
    "places and letters": ("heat_pump_1_T roof_1_T", "pump_1_V roof_1_V", "roof_1_T-roof_1_V"),
    "plots": ("S1_T U1_T V1_T", "S1_V U1_V W1_V", "S1_T-S1_V U1_T-U1_V"),
    "plots with words": ("T1_ir T2_ir", "T1_rgb V2_rgb", "T1_ir-T1_rgb"),
    "only such plots": ("V1_T W1_T X1_T", "V1_V Z1_V X1_V", "V1_T-V1_V X1_T-X1_V"),
    "many of a class": (
        "lamp_1 lamp_2 tv_1 tv_2 tv_3",
        "lamp_1 lamp_2 photo_1 photo_2 photo_3",
        "lamp_1-lamp_1 lamp_2-lamp_2",
    ),
    "many of a place": ("hall_1 tv_1 tv_2 tv_3", "hall_1 photo_1 photo_2 photo_3", "hall_1-hall_1"),
    "in folders": ("tv/ir_1 lamp/ir_1", "photo/rgb_1 lamp/rgb_1", "lamp/ir_1-lamp/rgb_1"),
    "near times": (
        "tv_20240501123045_1 lamp_20240501123045_1",
        "photo_20240501123046_1 lamp_20240501123046_1",
        "lamp_20240501123045_1-lamp_20240501123046_1",
    ),
    "signs": ("ir_-30 ir_-20 ir_10", "rgb_-30 rgb_20 rgb_10", "ir_-30-rgb_-30 ir_10-rgb_10"),
    "signs alone": ("-30 -20 10", "-30 20 10", "-30 10"),
    "signs behind words": ("ir-30 ir-20 ir10", "rgb-30 rgb20 rgb10", "ir-30-rgb-30 ir10-rgb10"),
    "signs of one side": ("ir-30 ir-20", "rgb-30 rgb20", "ir-30-rgb-30"),
    "plus and minus": ("ir-30 ir-20 ir+10", "rgb-30 rgb+20 rgb+10", "ir-30-rgb-30 ir+10-rgb+10"),
    "fractions with signs": ("ir_-0.5 ir_-1.5", "rgb_-0.50 rgb_1.50", "ir_-0.5-rgb_-0.50"),
}


@pytest.mark.parametrize("case", SCENES)
def test_a_name_of_a_scene_is_not_that_of_a_stream(case):
    ir, rgb = ([f"{name}.png" for name in side.split()] for side in SCENES[case][:2])
    expected = SCENES[case][2]
    right = {
        (a, b)
        for a in ir
        for b in rgb
        for one in expected.split()
        if one in (f"{a[:-4]}-{b[:-4]}", a[:-4] if a == b else None)
    }
    assert right
    for first, second, pairs in ((ir, rgb, right), (rgb, ir, {(b, a) for a, b in right})):
        assert set(pair(first, second).pairs) == pairs


OF_SCENE_OR_STREAM = {
    "all of a side": (["heat_pump_1", "heat_pump_2", "heat_pump_3"], ["pump_1", "pump_2", "pump_3"], "heat pump"),
    "also on the other side": (["heat_pump_1", "heat_pump_2"], ["heat_pump_3", "pump_1", "pump_2"], "heat pump"),
    "a folder": (["heat_pump/1", "heat_pump/2"], ["pump/1", "pump/2"], "heat pump"),
    "the other stream's": (["visible_light_1", "visible_light_2"], ["light_1", "light_2"], "visible light"),
    "beside words of streams": (["heat_pump_1_T", "heat_pump_2_T"], ["pump_1_V", "pump_2_V"], "heat pump"),
    "capitals": (["HeatPump1", "HeatPump2"], ["Pump1", "Pump2"], "heat pump"),
    "of RGB": (["tower_1", "tower_2"], ["tv_tower_1", "tv_tower_2"], "tv tower"),
}


@pytest.mark.parametrize("case", OF_SCENE_OR_STREAM)
def test_a_word_of_scene_or_stream_is_refused_with_both_readings(case):
    ir, rgb, scene = OF_SCENE_OR_STREAM[case]
    with pytest.raises(ConfigError, match=rf"{ir[0]} may be the same scene|{rgb[0]} may be the same scene") as refused:
        pair(ir, rgb)
    assert f"'{scene}'" in str(refused.value)
    assert "--pair name" in str(refused.value)
    assert len(pair(ir, rgb, "name").pairs) >= 2


@pytest.mark.parametrize(
    ("ir", "rgb"),
    [("ir_pump_{}", "pump_{}"), ("thermal_pump_{}", "pump_{}"), ("light_{}", "visible_light_{}"), ("heat_{}", "{}"),
     ("heat_pump_{}", "heat_pump_{}"), ("heat_pump_{}_T", "heat_pump_{}_V"), ("heat/hall_{}", "rgb/hall_{}"),
     ("heat_hall_{}", "rgb_hall_{}"), ("ThermalHall{}", "RgbHall{}")],
)  # fmt: skip
def test_a_word_of_the_stream_alone_is_no_doubt(ir, rgb):
    assert len(pair(named(ir + ".png"), named(rgb + ".png")).pairs) == 8


ONE_FOLDER = {
    "words in the scenes": (["heat_pump_{k}_T", "roof_{k}_T"], ["heat_pump_{k}_V", "roof_{k}_V"]),
    "words of both streams in the scenes": (["heat_{k}_T", "tv_{k}_T"], ["heat_{k}_V", "tv_{k}_V"]),
    "a word of the other stream": (["DC_street_{k}_T"], ["DC_street_{k}_V"]),
    "such a word in front": (["T_tv_tower_{k}"], ["V_tv_tower_{k}"]),
    "such a folder": (["heat_pump/{k}_ir", "roof/{k}_ir"], ["heat_pump/{k}_rgb", "roof/{k}_rgb"]),
    "folders of streams": (["T1/lwir/{k}", "V1/lwir/{k}"], ["T1/visible/{k}", "V1/visible/{k}"]),
    "scenes of several words": (["ir_{k}_hall", "ir_{k}_heat_hall"], ["vi_{k}_hall", "vi_{k}_heat_hall"]),
    "times": (["tv_2024050112304{k}_T"], ["tv_2024050112304{k}5_V"]),
    "numbers of their own": (["IR_{k}1"], ["DC_{k}2"]),
}


@pytest.mark.parametrize("case", ONE_FOLDER)
def test_one_folder_is_divided_by_the_word_that_differs_within_a_scene(case):
    ir, rgb = ([f"{form.format(k=k)}.jpg" for form in side for k in range(1, 5)] for side in ONE_FOLDER[case])
    found = divided([*rgb, *ir, "overview.jpg", "overview heat pump.jpg"])
    assert ({*found["ir"]}, {*found["rgb"]}) == ({*ir}, {*rgb})
    if case not in ("times", "numbers of their own"):
        assert pair(found["ir"], found["rgb"]).alone == {"ir": (), "rgb": ()}


SHIFTED = ["{g}/{k}", "{g}/ir_{k}", "{g}_{k}", "{g}-x/img_{k}_b", "{k}/{g}"]


@pytest.mark.parametrize("form", SHIFTED)
@pytest.mark.parametrize("groups", ["a", "ab", "abc"])
def test_numbers_shifted_in_any_part_are_refused(form, groups):
    """Of three parts the last alone is shifted."""
    ir = [f"{form.format(g=g, k=k)}.png" for g in groups for k in range(4)]
    start = {g: 0 if groups == "abc" and g != "c" else 1 for g in groups}
    rgb = [f"{form.format(g=g, k=k + start[g])}.png".replace("ir_", "rgb_") for g in groups for k in range(4)]
    with pytest.raises(ConfigError, match=r"numbered 0 to 3 and RGB 1 to 4.*--pair name or --pair order"):
        pair(ir, rgb)
    assert len(pair(ir, rgb, "name").pairs) == 4 * len(groups) - sum(start.values())


def test_a_user_may_decide():
    ir, rgb = named("{:04d}.png", range(8)), named("{:04d}.png")
    assert dict(pair(ir, rgb, "name").pairs) == {n: n for n in ir[1:]}
    assert pair(ir, rgb, "order").pairs == tuple(zip(ir, rgb, strict=True))
    assert pair(ir, rgb[:6], "order").alone == {"ir": ("0006.png", "0007.png"), "rgb": ()}


def test_one_and_one_are_a_pair_in_any_case():
    found = pair(["monday.tiff"], ["a holiday.jpg"])
    assert found.pairs == (("monday.tiff", "a holiday.jpg"),)
    assert "though their names differ" in found.said[0]
    assert pair(["1_ir.tiff"], ["1_rgb.jpg"]).said == ()


def test_guesses_and_swapped_sides_are_said():
    assert "thm1.png with IMG_1.jpg" in pair(named("thm{}.png"), named("IMG_{}.jpg")).said[0]
    assert "are the two swapped?" in pair(named("{}_rgb.png"), named("{}_ir.png")).said[0]
    assert pair(named("{}_ir.png"), named("{}_rgb.png")).said == ()


_START = 1714566645  # 2024-05-01T12:30:45Z
STAMPS = {
    "s": (["{s}.png"], [0, 1, 61]),
    "float s": (["frame_{s}.0.png", "frame_{s}.125.png", "frame_{s}.5.png"], [0, 0.125, 0.5]),
    "ms": (["{s}000.png", "{s}125.png"], [0, 0.125]),
    "us": (["{s}000000_rgb.png", "{s}125000_rgb.png"], [0, 0.125]),
    "ns": (["{s}000000000.png", "{s}125000000.png"], [0, 0.125]),
    "ROS": (["{s}_000000000.png", "{s}_125000000.png"], [0, 0.125]),
    "ISO": (["2024-05-01T12:30:45Z_ir.png", "2024-05-01T12:30:46Z_ir.png"], [0, 1]),
    "ISO, a zone": (["2024-05-01T14:30:45+02:00.png", "2024-05-01T12:30:46Z.png"], [0, 1]),
    "spaces": (["2024-05-01 12.30.45.png", "2024-05-01 12.30.45.5.png"], [0, 0.5]),
    "glued ms": (["IMG_20240501_123045123.jpg", "IMG_20240501_123046.jpg"], [0.123, 1]),
    "separate ms": (["20240501_123045_007.png", "20240501_123045_250.png"], [0.007, 0.25]),
    "a count, not ms": (["20240501_123045_001.png", "20240501_123047_002.png"], [0, 2]),
}


@pytest.mark.parametrize("kind", STAMPS)
def test_times_in_names_are_read(kind):
    forms, times = STAMPS[kind]
    names = [form.format(s=_START + int(t)) for form, t in zip(forms * (len(times) // len(forms)), times, strict=True)]
    read = times_of(names)
    assert list(read.ns.values()) == [_START * 10**9 + round(t * 1e9) for t in times]
    assert read.absolute


def test_times_may_count_from_a_start():
    for names in (["0.5.png", "0.125.png"], ["t0.5s.png", "t0.125s.png"], ["500ms.png", "125ms.png"]):
        read = times_of(names)
        assert (list(read.ns.values()), read.absolute) == ([500_000_000, 125_000_000], False)


@pytest.mark.parametrize("names", [["1.png", "2.png"], ["20240501_0001.png", "20240501_0002.png"], ["a.png"]])
def test_numbers_are_not_times(names):
    assert times_of(names) is None


def test_floats_sort_as_numbers():
    names = [f"{1700000000 + k / 8!r}.png" for k in range(8)]
    assert in_order(reversed(names)) == names
    assert in_order(["1.10.png", "1.9.png", "1.png"]) == ["1.png", "1.9.png", "1.10.png"]
    assert are_decimal(["0.5.png", "0.125.png"])


def test_the_name_of_a_stream_is_taken_away():
    for name in ("a_1.png", "ir_a_1.png", "a_1_rgb.tif", "a_thermal_1.png", "A_01 (visible).png", "lwir/a_1.png"):
        assert bare(name) == ("a", "_", "1"), name
    assert [stream_of(n) for n in ("DJI_1_T.JPG", "V000/lwir/1.png", "x_rgb.png", "x.png")] == ["ir", "ir", "rgb", None]


def test_outputs_keep_their_names_apart():
    names = ["b/a.jpg", "b/a.png", "c.tif#1", "c.tif#2", "1.5.png", "b/a.jpg.png"]
    assert png_names(names) == ["b/a.jpg-2.png", "b/a.png.png", "c#1.png", "c#2.png", "1.5.png", "b/a.jpg.png"]


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=30, unique=True),
    st.lists(st.integers(0, 3000), min_size=1, max_size=30, unique=True),
    st.integers(0, 200),
)
@settings(max_examples=300, deadline=None)
def test_nearest_times_against_all_distances(ir, rgb, tolerance):
    """Compare with a search through all distances."""
    irs, rgbs = ({f"{t}": t for t in side} for side in (ir, rgb))
    found = nearest(irs, rgbs, tolerance)
    expected = {}
    for a in ir:
        b = min(rgb, key=lambda t: (abs(t - a), t))
        if abs(b - a) <= tolerance and min(ir, key=lambda t: (abs(t - b), t)) == a:
            expected[f"{a}"] = f"{b}"
    assert found == expected
