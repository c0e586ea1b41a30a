"""Mutated calibration files: none ends in a traceback, and none is used silently wrong.

A mutation changes numbers, units, keys, lines or characters. A file that is still read, without a word, must be one of
two: the calibration that it was, to a hundredth of a pixel; or, where no sum of its values is in it, another rig that
could exist, by a measure of its own: thermal covers a part of RGB, upright, without folds, at a likely scale.
"""

from __future__ import annotations

import random
import re

import cv2
import foreign_calibrations as other
import msgspec
import numpy as np
import pytest
import yaml

from calib.interchange.rigs import Wanted, read
from rtfuse.align.aligner import ir_pixels_of_rgb_grid
from rtfuse.align.calibration import (
    Calibration,
    Camera,
    Quality,
    SensorMode,
    load_calibration,
    matrix3,
    projected,
    save_calibration,
    vector3,
)
from rtfuse.align.doubts import doubts
from rtfuse.errors import RtfuseError

NUMBER = re.compile(r"(?<![\w.])[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?(?![\w.])")
IR = Camera(size_wh=(160, 128), K=((140.0, 0, 80.2), (0, 140.5, 63.1), (0, 0, 1.0)), dist=(-0.3, 0.11, 0.001, 0, -0.02))
RGB = Camera(size_wh=(160, 120), K=((150.0, 0, 79.0), (0, 150.5, 60.2), (0, 0, 1.0)), dist=(-0.05, 0.01, 0, 0, 0))
POSE = Calibration(
    ir=msgspec.structs.replace(IR, modes=(SensorMode(size_wh=(80, 64), binning=(2.0, 2.0)),)),
    rgb=RGB,
    R_rgb_from_ir=matrix3(cv2.Rodrigues(np.array([0.01, -0.02, 0.015]))[0]),
    t_rgb_from_ir_m=(0.06, 0.003, -0.002),
    plane_m=6.0,
    ir_offset_ms=-11.5,
    quality=Quality(method="boards", pair_error_px=0.2, views=20, distance_m=(0.5, 2.0)),
)
FLAT = Calibration(
    ir=Camera(size_wh=(160, 128)),
    rgb=Camera(size_wh=(160, 120)),
    H_rgb_from_ir=matrix3(np.array([[1.05, 0.02, -5], [-0.01, 1.06, 2], [1e-5, 0, 1]])),
)


def other_number(text, rng):
    """Return a number in place of another: of another sign, size or digit, or none at all."""
    x = float(text)
    return rng.choice(
        [
            ".nan",
            "-.inf",
            "0",
            repr(-x),
            repr(x * 10.0 ** rng.choice([-6, -3, -2, -1, 1, 2, 3, 6])),
            repr(x + rng.gauss(0, 1)),
            repr(x * rng.uniform(0.5, 2)),
            text.replace(rng.choice(text), rng.choice("0123456789.-e:_"), 1),
            "9" * rng.choice([20, 400, 5000]),
            "'" + text + "'",
            "null",
            "[1]",
        ]
    )


def mutate_number(text, rng):
    found = rng.choice(list(NUMBER.finditer(text)))
    return text[: found.start()] + other_number(found[0], rng) + text[found.end() :]


def mutate_character(text, rng):
    k = rng.randrange(len(text))
    return (
        text[:k]
        + rng.choice(["", rng.choice("\t\x00:-[]{},#&*!|>'\"%@ \n0123456789eé")])
        + text[k + rng.randrange(2) :]
    )


def mutate_line(text, rng):
    lines = text.splitlines(keepends=True)
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(4)
    if how == 0:
        del lines[a]
    elif how == 1:
        lines.insert(b, lines[a])
    elif how == 2:
        lines[a], lines[b] = lines[b], lines[a]
    else:
        lines = lines[:a]
    return "".join(lines)


def mutate_words(text, rng):
    words = re.findall(r"\w+(?=:)", text)
    return text.replace(rng.choice(words), rng.choice([*words, "x", "&a", "!!int"]), rng.choice([1, -1]))


def mutate_unit(text, rng):
    """Multiply the numbers of one line, which is one key's, as if it had another unit."""
    lines = text.splitlines(keepends=True)
    a, factor = rng.randrange(len(lines)), rng.choice([1e-6, 1e-3, 0.01, 57.29578, 100.0, 1e3, 1e6])
    lines[a] = NUMBER.sub(lambda found: repr(float(found[0]) * factor), lines[a])
    return "".join(lines)


MUTATIONS = (mutate_number, mutate_number, mutate_unit, mutate_unit, mutate_line, mutate_words, mutate_character)


def mutated(text, rng):
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if text.strip() and NUMBER.search(text) and re.search(r"\w+(?=:)", text):
            text = rng.choice(MUTATIONS)(text, rng)
    return text


def same_picture(a, b):
    """Return True if two rigs put thermal at the same place, to a hundredth of a pixel, at the same time."""
    if (a.ir.size_wh, a.rgb.size_wh, a.ir_offset_ms or 0) != (b.ir.size_wh, b.rgb.size_wh, b.ir_offset_ms or 0):
        return False
    return np.abs(ir_pixels_of_rgb_grid(a) - ir_pixels_of_rgb_grid(b)).max() < 0.01


def could_exist(c):
    """Measure on the whole map, apart from the checks, that thermal lies on RGB as a camera's picture can."""
    small = [max(side, 2) for side in c.rgb.size_wh]
    assert max(small) < 3000  # no mutation makes it larger and keeps the lenses likely
    xy = ir_pixels_of_rgb_grid(c).astype(float)
    if not np.isfinite(xy).all():
        return False
    (w, h), there = c.ir.size_wh, xy[:-1, :-1]
    seen = (there >= 0).all(2) & (there[..., 0] <= w - 1) & (there[..., 1] <= h - 1)
    right, below = xy[:-1, 1:] - there, xy[1:, :-1] - there
    area = (right[..., 0] * below[..., 1] - right[..., 1] * below[..., 0])[seen]
    if seen.mean() < 0.04 or (area > 0).mean() < 0.93:
        return False
    scale = np.sqrt(np.median(np.abs(area)) * small[0] * small[1] / (w * h))
    return 1 / 40 < scale < 40 and abs(c.ir_offset_ms or 0) <= 1e4


def lens_could_exist(camera):
    """Measure that a camera sees between a third of a degree and all around, and its middle in the middle."""
    (w, h), K = camera.size_wh, camera.matrix
    middle = np.array([(w - 1) / 2, (h - 1) / 2])
    ahead = projected(np.array([[0.0, 0, 1], [1e-4, 0, 1], [0, 1e-4, 1]]), camera)
    steps = np.linalg.norm(ahead[1:] - ahead[0], axis=1) * 1e4 / max(w, h)
    return bool(
        (steps > 0.1).all() and (steps < 250).all() and (abs(ahead[0] - middle) < 0.7 * np.array([w, h])).all()
    ) and (K[1, 0] == K[0, 1] == 0)


def plain_text(c, tmp_path):
    """Return a calibration as a person writes it: without the sum."""
    save_calibration(c, tmp_path / "plain.yaml")
    return re.sub(r"digest: .*\n", "", (tmp_path / "plain.yaml").read_text())


def ours(tries, seed, tmp_path, *, digest):
    """Mutate our own files; return how many were refused, told and taken without a word."""
    rng, counts, file = random.Random(seed), {"refused": 0, "told": 0, "same": 0, "another": 0}, tmp_path / "c.yaml"
    originals = []
    for c in (POSE, FLAT):
        save_calibration(c, file)
        originals.append((c, file.read_text() if digest else plain_text(c, tmp_path)))
    for _ in range(tries):
        c, text = rng.choice(originals)
        file.write_text(changed := mutated(text, rng), encoding="utf-8")
        try:
            found = load_calibration(file)
        except RtfuseError as e:
            counts["refused"] += "\n" not in str(e)
            continue
        if list(doubts(found)):
            counts["told"] += 1
        elif same_picture(found, c):
            counts["same"] += 1
        else:
            assert not digest or "digest" not in changed, changed
            assert could_exist(found), changed
            counts["another"] += 1
    return counts


FOREIGN = {
    **{name: [text] for name, (text, _) in other.TEXTS.items() if isinstance(text, str)},
    **{name: texts for name, (texts, _) in other.rigs().items()},
    "Kalibr": [other.KALIBR],
}


def foreign(tries, seed, tmp_path):
    rng, counts = random.Random(seed), {"refused": 0, "told": 0, "taken": 0}
    for _ in range(tries):
        name = rng.choice(list(FOREIGN))
        texts = list(FOREIGN[name])
        k = rng.randrange(len(texts))
        texts[k] = mutated(texts[k], rng)
        paths = [tmp_path / f"{n}.txt" for n in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        wanted = other.rigs().get(name, ([], {}))[1]
        try:
            found = read(paths, Wanted(**wanted)).value
        except RtfuseError as e:
            counts["refused"] += "\n" not in str(e)
            continue
        if isinstance(found, Camera):
            assert lens_could_exist(found), texts[k]
        elif list(doubts(found)):
            counts["told"] += 1
            continue
        else:
            assert lens_could_exist(found.ir), texts[k]
            assert lens_could_exist(found.rgb), texts[k]
            assert np.linalg.norm(vector3(np.array(found.t_rgb_from_ir_m))) <= 3, texts[k]
            assert np.allclose(np.linalg.det(np.array(found.R_rgb_from_ir)), 1), texts[k]
        counts["taken"] += 1
    return counts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("digest", [True, False], ids=["as calib writes", "by hand"])
@pytest.mark.parametrize(("tries", "seed"), [(150, 1), pytest.param(1500, 2, marks=pytest.mark.slow)])
def test_our_files_are_never_used_silently_wrong(tmp_path, tries, seed, digest):
    counts = ours(tries, seed, tmp_path, digest=digest)
    print(counts)
    assert sum(counts.values()) == tries
    assert counts["refused"] > tries / 4
    assert counts["told"] + counts["same"] > 0
    assert counts["another"] < (0.01 if digest else 0.35) * tries


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("tries", "seed"), [(200, 3), pytest.param(1500, 4, marks=pytest.mark.slow)])
def test_files_of_other_tools_are_never_used_silently_wrong(tmp_path, tries, seed):
    counts = foreign(tries, seed, tmp_path)
    print(counts)
    assert sum(counts.values()) == tries
    assert counts["refused"] > tries / 4
    assert counts["taken"] > 0


def test_the_fuzz_sees_wrong_rigs():
    """The check of a rig that could exist refuses rigs that could not."""
    assert could_exist(POSE)
    assert could_exist(FLAT)
    for H in ([[1.0, 0, 155], [0, 1, 0], [0, 0, 1]], [[-1.0, 0, 159], [0, 1, 0], [0, 0, 1]]):
        assert not could_exist(msgspec.structs.replace(FLAT, H_rgb_from_ir=matrix3(np.array(H))))
    assert not lens_could_exist(Camera(size_wh=(640, 480), K=((4.2, 0, 3.2), (0, 4.2, 2.4), (0, 0, 1.0))))
    assert yaml.safe_load(other.KALIBR)["cam1"]["resolution"] == [640, 512]
