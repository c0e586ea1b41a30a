"""The synthetic scene keeps its word: times, losses, warps and warm objects are where it says."""

from __future__ import annotations

import itertools

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture import open_source
from rtfuse.capture.synthetic import PLANE_M, SyntheticScene, SyntheticSource
from rtfuse.errors import ConfigError
from rtfuse.fuse.luma_fuser import luma
from rtfuse.types import Stamp

SMALL = {"size": (160, 120), "duration_s": 2.0}


def scene(**changes):
    return SyntheticScene(**(SMALL | changes))


def take(stream, count=None, **changes):
    return list(itertools.islice(SyntheticSource(scene(**changes), stream), count))


@pytest.mark.parametrize("stream", ["ir", "rgb"])
def test_a_seed_gives_the_same_film_and_another_seed_another(stream):
    first, again, other = (take(stream, 3, seed=s) for s in (3, 3, 4))
    assert all(np.array_equal(a.image, b.image) and a.t_ns == b.t_ns for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].image, other[0].image)


def test_frames_are_what_their_stream_promises():
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        source = SyntheticSource(scene(bits=bits, ir_size=(80, 64), ir_fps=9.0), "ir", clock=lambda: 5)
        frames = list(source)
        assert len(frames) == source.info.frames == 18
        assert {f.image.shape for f in frames} == {(64, 80)}
        assert {f.image.dtype for f in frames} == {np.dtype(dtype)}
        assert str(frames[0].image.dtype) == source.info.dtype
        assert (frames[0].stamp, frames[0].arrival_ns) == (Stamp.MEDIA, 5)


@pytest.mark.parametrize("size", [(16, 16), (65, 49), (121, 333), (1280, 720)])
def test_any_size_is_drawn(size):
    for stream in ("ir", "rgb"):
        (frame,) = take(stream, 1, size=size)
        assert frame.shape_hw == size[::-1]
        assert frame.image.std() > 5


@settings(deadline=None, max_examples=50)
@given(skew=st.floats(-50, 50), stamp=st.floats(-50, 50), jitter=st.floats(0, 10), k=st.integers(0, 10**6))
def test_times_are_the_rate_plus_skew_plus_bounded_jitter(skew, stamp, jitter, k):
    s = scene(skew_ms=skew, stamp_ms=stamp, jitter_ms=jitter, ir_fps=9.0)
    ir, rgb = s.frame("ir", k), s.frame("rgb", k)
    assert abs(ir.true_ns - k * 1e9 / 9 - skew * 1e6) <= jitter * 1e6 + 1
    assert abs(rgb.true_ns - k * 1e9 / 30) <= jitter * 1e6 + 1
    assert abs(ir.t_ns - ir.true_ns - stamp * 1e6) <= 1
    assert rgb.t_ns == rgb.true_ns


def test_the_source_says_what_the_truth_says():
    s = scene(drop=0.3, jitter_ms=5, skew_ms=7, duration_s=4.0)
    source = SyntheticSource(s, "ir")
    frames = list(source)
    truth = [s.frame("ir", k) for k in range(s.count("ir"))]
    assert [f.frame_id for f in frames] == [k for k, t in enumerate(truth) if not t.dropped]
    assert [f.t_ns for f in frames] == [t.t_ns for t in truth if not t.dropped]
    assert source.losses["dropped"] == sum(t.dropped for t in truth)
    assert 0.15 < source.losses["dropped"] / len(truth) < 0.45


def test_the_shutter_freezes_the_picture_bit_for_bit_while_time_goes_on():
    s = scene(ffc_every_s=1.0, ffc_s=0.3)
    frames = list(SyntheticSource(s, "ir"))
    same = [np.array_equal(a.image, b.image) for a, b in itertools.pairwise(frames)]
    frozen = [s.frame("ir", k).shown_ns < s.frame("ir", k).true_ns for k in range(len(frames))]
    assert same == frozen[1:]
    assert sum(frozen) == 9
    assert len({f.t_ns for f in frames}) == len(frames)


def clear_objects(s, t_ns, stream):
    """Persons large enough to judge, wholly inside the image, with nobody and nothing before or behind them."""
    w, h = s.size_wh(stream)
    objects = s.objects(t_ns)
    props = [(p.z_m, s.placement(stream, t_ns).box(p)) for p in s.stage.actors(t_ns / 1e9) if p.kind == "prop"]
    for k, one in enumerate(objects):
        x0, y0, x1, y1 = one.box_ir if stream == "ir" else one.box_rgb
        others = (o.box_ir if stream == "ir" else o.box_rgb for j, o in enumerate(objects) if j != k)
        apart = all(o[2] < x0 - 8 or o[0] > x1 + 8 for o in others)
        hidden = any(z < one.distance_m and p[0] < x1 and p[2] > x0 for z, p in props)
        if one.kind == "person" and y1 - y0 > 0.15 * h and x0 > 8 and x1 < w - 8 and apart and not hidden:
            yield one, (x0, y0, x1, y1)


def contrast(image, box):
    """Mean of the middle of the box minus the mean of a band on either side of it."""
    x0, y0, x1, y1 = box
    rows = slice(int(y0 + 0.3 * (y1 - y0)), int(y0 + 0.55 * (y1 - y0)))
    middle, half = (x0 + x1) / 2, max(1.0, 0.12 * (x1 - x0))
    inner = image[rows, int(middle - half) : int(middle + half) + 1].astype(float).mean()
    outer = np.hstack([image[rows, int(x0 - 6) : int(x0 - 1)], image[rows, int(x1 + 2) : int(x1 + 7)]])
    return inner - outer.astype(float).mean()


def test_people_are_bright_in_thermal_and_dark_in_rgb():
    s = scene(size=(640, 480), noise=0.0)
    sources = {stream: SyntheticSource(s, stream) for stream in ("ir", "rgb")}
    seen = {"ir": [], "rgb": []}
    for stream, source in sources.items():
        for k, frame in enumerate(itertools.islice(source, 60)):
            image = frame.image if stream == "ir" else luma(frame.image)
            boxes = clear_objects(s, s.frame(stream, k).true_ns, stream)
            seen[stream] += [contrast(image, box) for _, box in boxes]
    assert len(seen["ir"]) > 30
    assert min(seen["ir"]) > 25
    assert np.mean(seen["ir"]) > 80
    assert np.mean(seen["rgb"]) < 10


def test_counts_are_hundredths_of_a_kelvin():
    s = scene(size=(640, 480), bits=16, noise=0.0)
    (frame,) = itertools.islice(SyntheticSource(s, "ir"), 1)
    celsius = frame.image / 100 - 273.15
    assert 20 < np.percentile(celsius, 99.9) < 36
    assert 7 < np.median(celsius) < 11
    assert celsius.min() < -5


@pytest.mark.parametrize(("warp", "ir_size"), [(1.0, (640, 480)), (-0.7, (320, 256)), (0.0, (160, 120))])
def test_the_homography_takes_thermal_to_rgb(warp, ir_size):
    """The street without people, warped by the truth, lies on the street of a scene without any warp."""
    common = {"size": (640, 480), "noise": 0.0, "baseline_m": 0.0, "motion": 0.5}
    warped, plain = scene(**common, warp=warp, ir_size=ir_size), scene(**common)
    (a,), (b,) = (list(itertools.islice(SyntheticSource(s, "ir"), 1)) for s in (warped, plain))
    back = cv2.warpPerspective(a.image, warped.H_rgb_from_ir, (640, 480), flags=cv2.INTER_LINEAR)
    middle = np.s_[90:390, 110:530]
    error = np.abs(back[middle].astype(int) - b.image[middle])
    assert error.mean() < 4
    shifted = np.abs(np.roll(back, 6, 1)[middle].astype(int) - b.image[middle])
    assert error.mean() < 0.6 * shifted.mean()


def test_boxes_agree_with_the_homography_at_the_plane_and_part_from_it_elsewhere():
    s = scene(size=(640, 480), warp=0.8, ir_size=(320, 256), baseline_m=0.1)
    checked = 0
    for t_ns in range(0, 20_000_000_000, 400_000_000):
        for one in s.objects(t_ns):
            corners = np.array([[one.box_ir[0], one.box_ir[1], 1], [one.box_ir[2], one.box_ir[3], 1]])
            xy = corners @ s.H_rgb_from_ir.T
            shift = (xy[:, 0] / xy[:, 2]).mean() - (one.box_rgb[0] + one.box_rgb[2]) / 2
            focal = s.stage.view.focal_px
            assert shift == pytest.approx(focal * 0.1 * (1 / one.distance_m - 1 / PLANE_M), abs=1.5)
            checked += abs(one.distance_m - PLANE_M) < 3
    assert checked


def test_skew_shows_as_displacement_of_what_moves():
    late = scene(size=(640, 480), skew_ms=100.0, baseline_m=0.0, motion=0.0)
    at = 2_500_000_000
    walker = next(o for o in late.objects(at) if 12 < o.distance_m < 13 and o.kind == "person")
    then = next(o for o in late.objects(at + 100_000_000) if 12 < o.distance_m < 13 and o.kind == "person")
    moved = then.box_rgb[0] + then.box_rgb[2] - walker.box_rgb[0] - walker.box_rgb[2]
    assert moved / 2 == pytest.approx(0.145 * late.stage.view.focal_px / 12.8, abs=6)


def test_motion_is_continuous():
    s = scene(size=(320, 240), noise=0.0, duration_s=21.0, fps=10.0)
    frames = [f.image.astype(np.float32) for f in SyntheticSource(s, "ir")]
    steps = np.array([np.abs(b - a).mean() for a, b in itertools.pairwise(frames)])
    assert steps.max() < 12
    assert np.median(steps) > 0.1


def test_uri_and_defaults():
    assert SyntheticScene.from_uri("synthetic:") == SyntheticScene()
    s = SyntheticScene.from_uri("synthetic:?seed=3&size=320x240&ir_size=160x120&ir_fps=9&drop=0.1&bits=16")
    assert s == SyntheticScene(seed=3, size=(320, 240), ir_size=(160, 120), ir_fps=9.0, drop=0.1, bits=16)
    assert open_source("synthetic:?size=64x48", "rgb").info.size_wh == (64, 48)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sead=3", "unknown key sead; did you mean seed"),
        ("zzz=3", "unknown key zzz; there are baseline_m"),
        ("size=640", "size: expected"),
        ("size=640x4", "size"),
        ("drop=2", "drop: expected"),
        ("fps=0", "fps: expected"),
        ("seed=abc", "seed: expected"),
        ("bits=12", "bits: "),
        ("seed=-1", "seed: expected"),
        ("skew_ms=nan", "skew_ms: expected"),
        ("stamp_ms=inf", "stamp_ms: expected"),
        ("duration_s=inf", "duration_s: expected"),
        ("ffc_every_s=inf", "ffc_every_s: expected"),
        ("baseline_m=nan", "baseline_m: expected"),
        ("noise=inf", "noise: expected"),
        ("jitter_ms=30", "jitter_ms: expected less than half a frame, 16.67, found 30"),
        ("ffc_every_s=1&ffc_s=1.5", "ffc_s: expected less than ffc_every_s, 1, found 1.5"),
    ],
)
def test_mistakes_are_named(query, words):
    with pytest.raises(ConfigError, match=words) as caught:
        SyntheticScene.from_uri("synthetic:?" + query)
    assert "\n" not in str(caught.value)


def test_close_ends_it():
    source = SyntheticSource(scene(), "rgb")
    seen = 0
    for _ in source:
        seen += 1
        if seen == 3:
            source.close()
    assert seen == 3


def test_a_scene_is_a_value():
    with pytest.raises(AttributeError):
        scene().seed = 4
    assert msgspec.structs.replace(scene(), seed=9).seed == 9


def test_the_uri_gives_the_same_scene_again():
    s = scene(seed=3, ir_size=(80, 60), skew_ms=-7.25, drop=0.1, bits=16)
    uri = SyntheticSource(s, "ir").info.uri
    assert SyntheticScene.from_uri(uri) == s
    assert SyntheticScene().uri == "synthetic:"


def test_noise_has_the_deviation_asked_for():
    noisy, clean = (take("rgb", 1, noise=n, motion=0.0)[0].image.astype(int) for n in (3.0, 0.0))
    away = (noisy - clean)[clean > 12]
    assert away.std() == pytest.approx(3.0, abs=0.15)
    assert away.mean() == pytest.approx(0.0, abs=0.1)


@settings(deadline=None, max_examples=50)
@given(jitter=st.floats(0, 16), skew=st.floats(-50, 50), k=st.integers(0, 10**4))
def test_a_frozen_picture_is_the_last_before_the_shutter_closed(jitter, skew, k):
    s = scene(ffc_every_s=7.0, ffc_s=3.0, jitter_ms=jitter, skew_ms=skew)
    truth = s.frame("ir", k)
    if truth.shown_ns < truth.true_ns:
        start = truth.true_ns - truth.true_ns % 7_000_000_000
        before = (s.frame("ir", j).true_ns for j in range(max(0, k - 200), k))
        assert truth.shown_ns == max(t for t in before if t < start)


def test_frozen_frames_do_not_share_memory():
    frames = list(SyntheticSource(scene(ffc_every_s=1.0, ffc_s=0.3), "ir"))
    assert not any(np.shares_memory(a.image, b.image) for a, b in itertools.pairwise(frames))


def test_a_walk_has_no_jumps():
    """The legs of one who crosses change by less than a leg's width from pose to pose."""
    steps = scene().stage._across
    legs = [a.heat[0][a.heat[0].shape[0] * 13 // 24 :, :, 1] for a in steps]
    change = [np.abs(a - b).mean() for a, b in zip(legs, legs[1:] + legs[:1], strict=True)]
    assert max(change) < 0.2


@pytest.mark.parametrize("seed", [0, 2, 7])
def test_no_cold_sky_eats_into_the_tree_before_it(seed):
    """Blurred with a far colder sky, a crown's edge is black in thermal, and a scribble in what is fused."""
    s = scene(size=(640, 480), seed=seed, noise=0.0, bits=16)
    (frame,) = itertools.islice(SyntheticSource(s, "ir"), 1)
    x0, y0, x1, y1 = (round(v) for v in tree_box(s))
    assert frame.image[y0:y1, x0:x1].min() / 100 - 273.15 > -2


def tree_box(s):
    """Return the box of the nearer tree, in pixels of the thermal camera."""
    trees = [a for a in s.stage.actors(0) if a.kind == "prop" and a.z_m == 17.5]
    return s.placement("ir", 0).box(trees[0])
