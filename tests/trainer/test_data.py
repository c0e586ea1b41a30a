"""Training data: patches of pairs and recordings, refusals, and batches that can be repeated."""

from __future__ import annotations

import cv2
import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scenes import write_video

from rtfuse.bench.stages import example_calibration
from rtfuse.errors import CalibrationError, ConfigError, SourceNotFound, SourceUnreadable
from trainer.classical import CLASSICAL, fuse_wavelet
from trainer.data import Patches, low_contrast, prepare
from trainer.pairs import NO_PARTNER, OTHER_SIZE, UNREADABLE, Pairs, Survey
from trainer.recipe import Data, Root
from trainer.scenes import NO_PSEUDO, SAME, TWO_SIZES, scenes

SCENE = "synthetic:?seed=2&size=128x96&duration_s=4"
STREET = Root(name="street", ir=SCENE, rgb=SCENE, every=30)


@pytest.fixture
def folders(tmp_path):
    """Pairs in folders: three good ones and one of every fault."""
    rng = np.random.default_rng(0)
    for name in ("ir", "rgb", "method"):
        (tmp_path / name).mkdir()
    for stem in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / "ir" / f"{stem}.png"), rng.integers(0, 255, (96, 128), np.uint8))
        cv2.imwrite(str(tmp_path / "rgb" / f"{stem}.jpg"), rng.integers(0, 255, (96, 128, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "method" / f"{stem}.png"), rng.integers(0, 255, (96, 128), np.uint8))
    (tmp_path / "method" / "b.png").unlink()
    cv2.imwrite(str(tmp_path / "ir" / "alone.png"), np.zeros((96, 128), np.uint8))
    cv2.imwrite(str(tmp_path / "ir" / "sizes.png"), np.zeros((96, 128), np.uint8))
    cv2.imwrite(str(tmp_path / "rgb" / "sizes.png"), np.zeros((96, 120, 3), np.uint8))
    (tmp_path / "ir" / "broken.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "rgb" / "broken.png"), np.zeros((96, 128, 3), np.uint8))
    return tmp_path


def data(tmp_path, **changes):
    root = Root(name="r", ir=str(tmp_path / "ir"), rgb=str(tmp_path / "rgb"), pseudo=(str(tmp_path / "method"),))
    return Data(**({"roots": (root,), "patch_px": 64, "stride_px": 32, "min_patches": 1} | changes))


def test_good_pairs_are_cut_and_every_fault_is_counted(folders):
    index = prepare(data(folders), folders / "out")
    assert set(index.scenes) == {"r/a", "r/b", "r/c"}
    assert len(index.scenes) == 3 * 2 * 3
    assert index.methods == ["pyramid", "guided", "wavelet", "additive", "method"]
    assert index.survey.taken == {"r": 3}
    assert index.survey.refused == {NO_PARTNER: 1, UNREADABLE: 1, TWO_SIZES: 1, NO_PSEUDO: 1}
    assert index.survey.examples[UNREADABLE] == "r/broken"
    assert index.lines()[0].startswith("data: 3 pairs taken; left out: 1 × no partner of this name (e.g. r/alone), ")
    patches, pseudo = np.load(folders / "out" / "patches.npy"), np.load(folders / "out" / "pseudo.npy")
    top, left = index.places[1]
    whole = cv2.imread(str(folders / "ir" / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(patches[1, 0], whole[top : top + 64, left : left + 64])
    assert pseudo.shape == (18, 5, 64, 64)


PX = (96, 128)


def noise(shape=PX, seed=0, top=255):
    return np.random.default_rng(seed).integers(0, top, shape, np.uint16 if top > 255 else np.uint8)


def write(folder, pictures):
    for name, picture in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), picture)


def ir_and_rgb(ir_names, rgb_names):
    sides = ((f"ir/{n}", PX) for n in ir_names), ((f"rgb/{n}", (*PX, 3)) for n in rgb_names)
    return {name: noise(shape, k) for side in sides for k, (name, shape) in enumerate(side)}


def read(folder, **options):
    """Return the names of the scenes of a set, the last scene, and the survey."""
    survey, found = Survey(), []
    root = Root(name="r", ir=str(folder / "ir"), rgb=str(folder / "rgb"), **options)
    found = [scene for _, scene in scenes(Data(roots=(root,)), survey)]
    return [scene.name for scene in found], found[-1] if found else None, survey


LAYOUTS = {
    "a prefix on each side": ["IR1.png", "IR2.png", "IR3.png"], "a suffix on each side": ["a_ir.png", "b_ir.png"],
    "one folder deeper": ["day/1.png", "night/2.png"], "numbers with zeros": ["001.png", "002.png"],
}  # fmt: skip
RGB_LAYOUTS = [["VIS1.png", "VIS2.png", "VIS3.png"], ["a_rgb.jpg", "b_rgb.jpg"], ["day/1.png", "night/2.png"],
               ["1.png", "2.png"]]  # fmt: skip


@pytest.mark.parametrize(("ir", "rgb"), list(zip(LAYOUTS.values(), RGB_LAYOUTS, strict=True)), ids=LAYOUTS)
def test_pairs_are_found_however_they_lie(tmp_path, ir, rgb):
    write(tmp_path, ir_and_rgb(ir, rgb))
    names, _, survey = read(tmp_path)
    assert names == [f"r/{name.rpartition('.')[0]}" for name in rgb]
    assert survey.refused == {}


def test_fused_pictures_are_found_by_their_part_of_the_name(tmp_path):
    write(tmp_path, ir_and_rgb(LAYOUTS["a prefix on each side"], RGB_LAYOUTS[0]))
    write(tmp_path / "fused", {f"Fuse{k}.png": noise(seed=k + 9) for k in (1, 2, 3)})
    _, scene, survey = read(tmp_path, pseudo=(str(tmp_path / "fused"),))
    assert np.array_equal(scene.pseudo["fused"], noise(seed=12))
    assert survey.refused == {}


def test_thermal_of_16_bits_is_mapped_as_when_it_is_fused(tmp_path):
    write(tmp_path, ir_and_rgb([], ["a.png"]) | {"ir/a.png": noise(top=3000) + 8000})
    _, scene, _ = read(tmp_path)
    assert scene.ir.dtype == np.uint8
    assert scene.ir.std() > 40
    assert np.corrcoef(scene.ir.ravel(), noise(top=3000).ravel())[0, 1] > 0.95


def test_two_sizes_are_left_out_unless_the_recipe_says_that_they_show_the_same(tmp_path):
    small = cv2.resize(noise(), (64, 48), interpolation=cv2.INTER_AREA)
    write(tmp_path, ir_and_rgb(["b.png"], ["a.png", "b.png"]) | {"ir/a.png": small})
    names, _, survey = read(tmp_path)
    assert (names, survey.refused) == (["r/b"], {TWO_SIZES: 1})
    names, scene, survey = read(tmp_path, resize=True)
    assert (names, survey.refused) == (["r/a", "r/b"], {})
    assert scene.ir.shape == PX


def test_a_calibration_aligns_pictures_too_and_those_of_other_sizes_are_counted(tmp_path):
    write(tmp_path, ir_and_rgb(["a.png", "b.png"], ["a.png", "b.png"]) | {"ir/b.png": noise((48, 64))})
    (tmp_path / "c.yaml").write_bytes(msgspec.yaml.encode(example_calibration((128, 96))))
    names, scene, survey = read(tmp_path, calib=str(tmp_path / "c.yaml"))
    assert (names, survey.refused) == (["r/a"], {OTHER_SIZE: 1})
    assert not np.array_equal(scene.ir, noise())


def test_swapped_folders_are_noticed_by_colour_and_by_name(tmp_path):
    grey = {f"rgb/{k}.png": noise(seed=k) for k in range(6)}
    write(tmp_path, grey | {f"ir/{k}.png": noise((*PX, 3), k) for k in range(6)})
    with pytest.raises(ConfigError, match=r"ir has colour and RGB .*rgb has none: are the two swapped\?"):
        read(tmp_path)
    write(tmp_path / "both_grey", {f"visible/{k}.png": noise(seed=k) for k in range(3)} | {
        f"thermal/{k}.png": noise(seed=k + 9) for k in range(3)})  # fmt: skip
    survey = Survey()
    ir, rgb = (str(tmp_path / "both_grey" / name) for name in ("visible", "thermal"))
    assert len(list(Pairs(ir, rgb, survey=survey))) == 3
    assert "swapped?" in survey.said[0]
    assert list(Pairs(rgb, ir, survey=(survey := Survey())))
    assert not survey.said


def test_thermal_of_sixteen_bits_is_not_called_rgb(tmp_path, caplog):
    """Its colours are looked at as if it were RGB, to see whether the folders are swapped."""
    deep = {f"ir/{k}.png": noise(seed=k).astype(np.uint16) * 20 + 7000 for k in range(3)}
    write(tmp_path, deep | {f"rgb/{k}.png": noise((*PX, 3), k + 9) for k in range(3)})
    assert len(read(tmp_path)[0]) == 3
    assert "RGB image" not in caplog.text


def test_a_pair_of_one_picture_twice_is_left_out(tmp_path):
    write(tmp_path, {f"{side}/{k}.png": noise(seed=k) for side in ("ir", "rgb") for k in range(2)})
    assert read(tmp_path)[2].refused == {SAME: 2}


@pytest.mark.parametrize(
    ("name", "words"),
    [("train.h5", "holds arrays"), ("set.mat", "holds arrays"), ("MSRS.zip", "is an archive: unpack it")],
)
def test_files_in_which_data_sets_are_passed_on_are_told(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ConfigError, match=words):
        Pairs(str(tmp_path / name), str(tmp_path / name))


def test_names_in_the_split_file_that_are_those_of_no_pair_are_said(folders):
    (folders / "split.txt").write_text("r/a\nr/z\nother/y\n")
    index = prepare(data(folders, validation=str(folders / "split.txt")), folders / "out")
    assert index.lines()[1].endswith("split.txt: 1 names are those of no pair, for example r/z")


def test_the_validation_split_is_kept_out_and_too_little_data_is_an_error(folders):
    (folders / "split.txt").write_text("# held out\nr/a\nr/b\n")
    index = prepare(data(folders, validation=str(folders / "split.txt")), folders / "out")
    assert set(index.scenes) == {"r/c"}
    assert index.survey.held_out == 2
    with pytest.raises(ConfigError, match=r"18 patches of 64 px, at least 100 .* no partner of this name \(e\.g\. r"):
        prepare(data(folders, min_patches=100), folders / "out")
    with pytest.raises(SourceNotFound, match=r"absent\.txt"):
        prepare(data(folders, validation=str(folders / "absent.txt")), folders / "out")
    with pytest.raises(SourceUnreadable, match="trainer prepare"):
        Patches(folders / "nothing", seed=0)


def test_recordings_are_paired_by_time_and_aligned_by_their_calibration(tmp_path):
    slow, scene = "synthetic:?seed=2&size=128x96&duration_s=2&ir_fps=9", "synthetic:?seed=2&size=128x96&duration_s=2"
    pairs = list(Pairs(slow, scene))
    assert [p.frame_id for p in pairs] == list(range(60))  # every RGB frame, though thermal has 18
    assert len({p.ir.tobytes() for p in pairs}) == 18
    (tmp_path / "calib.yaml").write_bytes(msgspec.yaml.encode(example_calibration((128, 96))))
    plain, aligned = (
        prepare(Data(roots=(Root(name="r", ir=scene, rgb=scene, every=20, calib=calib),), patch_px=32, stride_px=16,
                     min_contrast=0, min_patches=1), tmp_path / name)
        for name, calib in (("plain", None), ("aligned", str(tmp_path / "calib.yaml")))
    )  # fmt: skip
    assert aligned.survey.refused["patch beyond the thermal picture"] == len(plain.scenes) - len(aligned.scenes) > 0
    (tmp_path / "small.yaml").write_bytes(msgspec.yaml.encode(example_calibration((64, 48))))
    with pytest.raises(CalibrationError, match="64x48"):
        next(Pairs(scene, scene, str(tmp_path / "small.yaml")))


def test_recordings_and_the_synthetic_scene_give_patches(tmp_path):
    ir = write_video(tmp_path / "ir.mp4", 20, gray=True, size_wh=(128, 96))
    rgb = write_video(tmp_path / "rgb.mp4", 20, size_wh=(128, 96))
    clip = Root(name="clip", ir=str(ir), rgb=str(rgb), every=10)
    index = prepare(Data(roots=(clip, STREET), patch_px=64, stride_px=64, min_patches=1), tmp_path / "out")
    assert {"clip/000000", "clip/000010", "street/000030"} <= set(index.scenes)


def test_patches_without_contrast_are_left_out():
    flat = np.full((64, 64), 200, np.uint8)
    assert low_contrast(flat, 0.1)
    half = flat.copy()
    half[:, :32] = 100
    assert not low_contrast(half, 0.1)


def test_batches_depend_on_seed_and_step_alone(folders):
    prepare(data(folders), folders / "out")
    first, again, other = (Patches(folders / "out", seed=s) for s in (1, 1, 2))
    epoch = [row for step in range(first.steps(4)) for row in first.rows(step, 4)]
    assert len(set(epoch)) == len(epoch) == 16
    assert first.rows(7, 4) == again.rows(7, 4)
    assert [first.rows(k, 4) for k in range(4)] != [other.rows(k, 4) for k in range(4)]
    a, b = (p.sources(p.rows(3, 4), 32, p.rng(3)) for p in (first, again))
    assert torch.equal(a[0], b[0])
    assert a[0].shape == (4, 1, 32, 32)
    fused, ir, luma = first.fused([0, 1], None, first.rng(0))
    assert fused.shape == ir.shape == luma.shape == (2, 1, 64, 64)
    with pytest.raises(ConfigError, match="'magic'; there are pyramid"):
        first.imitated([0], "magic", None, first.rng(0))


@settings(deadline=None, max_examples=25)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 60), st.integers(1, 60))))
def test_wavelets_reconstruct_an_image_fused_with_itself(image):
    assert np.abs(fuse_wavelet(image, image).astype(int) - image).max() <= 1


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_fusions_carry_both_sources(name):
    rng = np.random.default_rng(0)
    luma = np.full((96, 128), 20, np.uint8)
    luma[:, 64:] = rng.integers(60, 180, (96, 64), np.uint8)
    ir = np.full((96, 128), 30, np.uint8)
    ir[30:60, 16:40] = 220
    fused = CLASSICAL[name](ir, luma)
    assert fused.shape == ir.shape
    assert fused.dtype == np.uint8
    assert fused[35:55, 20:36].mean() > fused[70:, 4:50].mean() + 50
    assert np.corrcoef(fused[:, 70:].ravel(), luma[:, 70:].ravel())[0, 1] > 0.8
