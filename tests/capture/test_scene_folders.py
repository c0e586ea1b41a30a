"""Pair random folders, and compare with what their maker knows: zero wrong pairs, zero names lost."""

from __future__ import annotations

import random
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtfuse.capture.scenes.choosing import choose
from rtfuse.capture.scenes.pairing import pair
from rtfuse.capture.settings import Stills
from rtfuse.errors import ConfigError

FORMS = [
    ("{k:04d}", "{k:04d}"),
    ("{k}", "{k:05d}"),
    ("ir_{k}", "vi_{k}"),
    ("FLIR_{k:04d}", "FLIR_{k:04d}_rgb"),
    ("DJI_{k:04d}_T", "DJI_{k:04d}_V"),
    ("IR{k}", "VIS{k}"),
    ("thermal/{k:03d}", "visible/{k:03d}"),
    ("flug {k} (lwir)", "flug {k}"),
    ("DJI_20240501{k:06d}_{k:04d}_T", "DJI_20240501{k:06d}_{k:04d}_W"),
    ("{k}.25", "{k}.250"),
    ("17000{k:05d}", "17000{k:05d}"),
    ("thm{k}", "IMG_{k:04d}"),
    ("wärme-{k}", "Wärme-{k}"),
    ("{w}_ir", "{w}_rgb"),
    ("thermal-{w}", "{w}"),
    ("{w}-{k}_T", "{w}-{k}_V"),
]
_PLACES = "market street park river bridge night dawn harbour forest mill tower square lake hill field quay"
WORDS = _PLACES.split()
JUNK = ["holiday", "copy of 0003", "0002 (1)", "new 7", "Zürich", "x-99-y", "IMG_20230909_111213", "readme 2"]
SUFFIXES = [".png", ".jpg", ".JPG", ".tiff", ".bmp"]


def changed(rng, name):
    """A name as another program, or another file system, writes it."""
    how = rng.randrange(6)
    if how == 0:
        return name.upper() if name.isascii() else name
    return unicodedata.normalize("NFD" if how == 1 else "NFC", name) if how < 3 else name


def folder(rng, form, scenes, junk):
    """Return {name: scene} of a side: some scenes missing, kinds mixed, foreign names among them (scene None)."""
    kinds = SUFFIXES if rng.random() < 0.3 else [rng.choice(SUFFIXES)]
    made = {}
    for k in scenes:
        name = form.format(k=k, w=WORDS[k % len(WORDS)]) + rng.choice(kinds)
        made[changed(rng, name) if rng.random() < 0.3 else name] = k
    for word in rng.sample(junk, rng.randrange(3)) if junk else ():
        made[word + rng.choice(kinds)] = None
    names = list(made)
    rng.shuffle(names)
    return {name: made[name] for name in names}


def sides(rng):
    """Return two folders of the same scenes, in one of the usual ways to name them."""
    count = rng.randint(2, 12)
    first = rng.choice([0, 1, 7, 95])
    scenes = range(first, first + count)
    forms = rng.choice(FORMS)
    missing = rng.choice([0.0, 0.1, 0.5])
    kept = [[k for k in scenes if rng.random() >= missing] for _ in forms]
    junk = JUNK[::2], JUNK[1::2]
    if any(len(one) < 2 for one in kept):
        junk = (), ()
    return [folder(rng, *each) for each in zip(forms, kept, junk, strict=True)]


def shifted(ir, rgb):
    """True if both sides are runs of numbers of one length with different starts: position and number disagree."""
    a, b = (sorted(k for k in side.values() if k is not None) for side in (ir, rgb))
    return len(a) == len(b) and a != b and all(x[-1] - x[0] == len(x) - 1 for x in (a, b))


def check(ir, rgb):
    """Compare with the pairs that the maker knows; return True if the folders were refused."""
    expected = {a: b for a, j in ir.items() for b, k in rgb.items() if j == k is not None}
    if len(ir) == len(rgb) == 1:
        expected = dict(zip(ir, rgb, strict=True))
    try:
        found = pair(list(ir), list(rgb))
    except ConfigError:
        assert not expected or shifted(ir, rgb), (ir, rgb)
        return True
    assert dict(found.pairs) == expected
    assert sorted([a for a, _ in found.pairs] + list(found.alone["ir"])) == sorted(ir)
    assert sorted([b for _, b in found.pairs] + list(found.alone["rgb"])) == sorted(rgb)
    return False


@pytest.mark.parametrize("part", range(8))
def test_random_folders(part):
    """10,000 folders: every pair is right, every name is in a pair or listed, and only doubts are refused."""
    refused = sum(check(*sides(random.Random(seed))) for seed in range(part, 10_000, 8))
    assert refused < 150, "the check of shifted numbers refuses what is clear"


def on_disk(rng, root, side):
    """Write a folder, some of its pictures links that lead nowhere; return the names of these."""
    broken = {name for name in side if rng.random() < 0.1}
    for name in [*side, "._x.png", ".DS_Store", "sub/Thumbs.db", "notes.txt"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(root / "nowhere") if name in broken else path.write_bytes(b"")
    return broken


@pytest.mark.parametrize("seed", range(60))
def test_random_folders_on_disk(tmp_path, seed):
    """Count every file: in a pair, or without a partner, or not a picture."""
    rng = random.Random(seed)
    ir, rgb = sides(rng)
    broken = [on_disk(rng, tmp_path / name, side) for name, side in (("ir", ir), ("rgb", rgb))]
    pairs = {a: b for a, j in ir.items() for b, k in rgb.items() if j == k is not None}
    expected = {a: b for a, b in pairs.items() if a not in broken[0] and b not in broken[1]}
    if not expected or len(ir) == len(rgb) == 1 or shifted(ir, rgb):
        return
    found = choose(str(tmp_path / "ir"), str(tmp_path / "rgb"), Stills(recursive=True))
    assert {a.name: b.name for a, b in zip(found.stills["ir"], found.stills["rgb"], strict=True)} == expected
    text = "\n".join(found.said)
    for label, side, names in (("thermal", ir, broken[0]), ("RGB", rgb, broken[1])):
        left = len(side) - len(expected)
        assert found.left_out["ir" if label == "thermal" else "rgb"] == left
        assert not left or f"{label}: {left} of {len(side)} without a partner" in text
        assert text.count("(a broken link)") == len(broken[0] | broken[1]) or len(names) > 10
        assert f"{label}: files that are not pictures, left out (1): notes.txt" in text


PIECES = [
    "ir",
    "rgb",
    "T",
    "V",
    "_",
    "-",
    ".",
    "/",
    " ",
    "0",
    "1",
    "01",
    "10",
    "20240501",
    "a",
    "B",
    "ä",
    "熱",
    "²",
    "5",
]
NAMES = st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join), min_size=1, max_size=6)


@given(NAMES, NAMES)
@settings(max_examples=500, deadline=None)
def test_any_names(first, second):
    """Whatever the names: each is in one pair or listed, and both directions give the same pairs."""
    ir, rgb = ([*{f"x{name}.png": None for name in names}] for names in (first, second))
    try:
        found = pair(ir, rgb)
    except ConfigError:
        with pytest.raises(ConfigError):
            pair(rgb, ir)
        return
    assert sorted([a for a, _ in found.pairs] + list(found.alone["ir"])) == sorted(ir)
    assert sorted([b for _, b in found.pairs] + list(found.alone["rgb"])) == sorted(rgb)
    assert {(a, b) for b, a in pair(rgb, ir).pairs} == set(found.pairs)
