"""Engines: every one gives the picture that torch gives, and a cache that is never trusted unseen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtfuse.align import Aligner
from rtfuse.bench_engines import bench_engines
from rtfuse.calibration import Calibration, Camera
from rtfuse.capture.images import read_image
from rtfuse.config import load_config
from rtfuse.errors import ConfigError, EngineUnavailable, WeightsMissing
from rtfuse.fuse import open_fuser
from rtfuse.fuse import openvino as module
from rtfuse.fuse.cache import cache_folder, cached, clear, entries
from rtfuse.fuse.eager import EagerEngine
from rtfuse.fuse.engines import check
from rtfuse.fuse.luma import LumaFuser
from rtfuse.fuse.network import NetworkFuser
from rtfuse.fuse.openvino import OpenVinoEngine
from rtfuse.fuse.program import Inputs, sample
from rtfuse.fuse.ufuser import UFuser, crop, pad_to_multiple
from rtfuse.thermal import Agc, displayed
from rtfuse.types import Frame, Stamp

KEY = {"weights": "abc", "engine": "test"}


def builder(calls, text="built"):
    def build(folder):
        calls.append(folder)
        (folder / "program.bin").write_text(text)

    return build


def test_an_entry_is_built_once_and_found_again(tmp_path):
    calls = []
    first, second = (cached(KEY, builder(calls), folder=tmp_path) for _ in range(2))
    assert first == second
    assert len(calls) == 1
    assert (first / "program.bin").read_text() == "built"
    other = cached(KEY | {"weights": "def"}, builder(calls), folder=tmp_path)
    assert other != first
    assert len(calls) == 2


@pytest.mark.parametrize("damage", ["content", "missing", "manifest", "key"])
def test_a_damaged_or_foreign_entry_is_built_anew(tmp_path, damage):
    calls = []
    entry = cached(KEY, builder(calls), folder=tmp_path)
    if damage == "content":
        (entry / "program.bin").write_text("built!")
    elif damage == "missing":
        (entry / "program.bin").unlink()
    elif damage == "manifest":
        (entry / "manifest.json").write_text("[]")
    else:
        manifest = json.loads((entry / "manifest.json").read_text())
        (entry / "manifest.json").write_text(json.dumps(manifest | {"key": {"weights": "other"}}))
    assert (cached(KEY, builder(calls), folder=tmp_path) / "program.bin").read_text() == "built"
    assert len(calls) == 2


def test_what_was_not_used_for_longest_goes_first(tmp_path, monkeypatch):
    kept = [cached(KEY | {"weights": str(k)}, builder([], "x" * 1000), folder=tmp_path) for k in range(3)]
    for age, entry in enumerate(kept):
        os.utime(entry, (1000 - age, 1000 - age))
    assert [e.folder for e in entries(tmp_path)] == kept
    assert entries(tmp_path)[0].key == KEY | {"weights": "0"}
    cached(KEY | {"weights": "1"}, builder([]), folder=tmp_path)  # used again
    monkeypatch.setattr("rtfuse.fuse.cache.LIMIT_BYTES", 2 * entries(tmp_path)[0].size_bytes + 700)
    newest = cached(KEY | {"weights": "9"}, builder([], "x" * 1000), folder=tmp_path)
    assert [e.folder for e in entries(tmp_path)] == [newest, kept[1]]
    assert len(clear(tmp_path)) == 2
    assert entries(tmp_path) == []


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached(KEY, fail, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_builders_at_once_end_in_one_sound_entry(tmp_path):
    together, found = threading.Barrier(2), []

    def build(folder):
        together.wait(10)
        (folder / "program.bin").write_text("built")

    threads = [threading.Thread(target=lambda: found.append(cached(KEY, build, folder=tmp_path))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    assert len(set(found)) == 1
    assert [p.name for p in tmp_path.iterdir()] == [found[0].name]
    assert (found[0] / "program.bin").read_text() == "built"


def test_the_users_cache_is_private(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rtfuse" / "engines"
    assert cache_folder().stat().st_mode & 0o777 == 0o700


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(UFuser().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def openvino(weights, cache):
    pytest.importorskip("openvino")
    return OpenVinoEngine(weights, cache=cache)


def exact(weights, inputs):
    """The program in eager torch, in float64."""
    return EagerEngine(weights, "cpu", torch.float64)(inputs).astype(int)


@pytest.mark.parametrize("sizes", [((50, 60), (48, 64)), ((17, 33), (16, 128)), ((120, 160), (80, 88))])
def test_engines_give_the_picture_of_the_program_in_float64(openvino, weights, sizes):
    inputs = sample(*sizes, seed=3)
    want = exact(weights, inputs)
    for engine in (openvino, EagerEngine(weights, "cpu")):
        error = np.abs(engine(inputs) - want)
        assert error.max() <= 1
        assert (error > 0).mean() < 0.005


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_that_picture(weights, dtype):
    inputs = sample((50, 60), (48, 64))
    error = np.abs(EagerEngine(weights, "cpu", dtype)(inputs) - exact(weights, inputs))
    assert (error > 3).mean() < 0.001


def test_a_batch_is_its_frames_each(weights):
    together, engine = sample((20, 30), (32, 40), batch=3), EagerEngine(weights, "cpu")
    fused = engine(together)
    for k in range(3):
        alone = Inputs(*(x[k : k + 1] for x in together.arrays()))
        assert np.abs(fused[k].astype(int) - engine(alone)[0]).max() <= 1


@pytest.mark.parametrize(("ir", "rgb"), [(0, 0), (255, 255), (0, 255), (90, 90), (65535, 0)])
def test_constant_frames(openvino, weights, ir, rgb):
    whole = sample((48, 64), (48, 64))
    counts = np.full((1, 48, 64), ir, "<u2").view(np.uint8).reshape(1, 48, 64, 2)
    inputs = replace(whole, ir=counts, rgb=np.full_like(whole.rgb, rgb))
    want = exact(weights, inputs)
    assert np.abs(openvino(inputs) - want).max() <= 1
    for dtype in (torch.float16, torch.bfloat16):
        assert np.abs(EagerEngine(weights, "cpu", dtype)(inputs) - want).max() <= 3


def test_a_frame_s_picture_is_its_own(openvino):
    first = openvino(sample((48, 64), (48, 64), seed=1))
    kept = first.copy()
    openvino(sample((48, 64), (48, 64), seed=2))
    assert np.array_equal(first, kept)
    assert np.array_equal(openvino(sample((48, 64), (48, 64), seed=1)), kept)


def test_beyond_thermal_the_picture_is_rgb_bit_for_bit(weights):
    inputs = sample((50, 60), (48, 64))
    outside = inputs.mask[0] == 0
    assert outside.mean() > 0.05
    assert np.array_equal(EagerEngine(weights, "cpu")(inputs)[0][outside], inputs.rgb[0][outside])


@pytest.mark.parametrize("shape", [(48, 64), (37, 45), (1, 90), (8, 8)])
def test_the_host_s_side_takes_any_size_and_equals_the_way_by_opencv(weights, shape):
    """Luma and chroma by OpenCV, whose roundings allow a grey level more."""
    rng = np.random.default_rng(0)
    ir, rgb = rng.integers(0, 256, shape, np.uint8), rng.integers(0, 256, (*shape, 3), np.uint8)
    valid = rng.choice(np.uint8([0, 100, 255]), shape)
    engine = EagerEngine(weights, "cpu")
    net = engine._program.net

    def luma_alone(ir, y):
        with torch.no_grad():
            a, b = (pad_to_multiple(torch.from_numpy(x)[None, None].float() / 255) for x in (ir, y))
            return crop(net(a, b) * 255, *y.shape)[0, 0].round().to(torch.uint8).numpy()

    for mask in (None, valid):
        fused = NetworkFuser("ufuser", engine)(ir, rgb, mask)
        assert fused.shape == rgb.shape
        assert np.abs(fused.astype(int) - LumaFuser("by OpenCV", luma_alone)(ir, rgb, mask)).max() <= 3


def test_raw_counts_warped_inside_are_the_aligned_picture(weights):
    """Gain control and warp inside the program, or by the stages before it."""
    rng = np.random.default_rng(0)
    small = cv2.GaussianBlur(rng.integers(0, 256, (60, 80), np.uint8), (0, 0), 4)
    counts = 20000 + 40 * cv2.normalize(small, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint16)
    rgb = rng.integers(0, 256, (96, 128, 3), np.uint8)
    H = ((1.7, 0.1, -4.0), (-0.05, 1.6, 3.0), (0.0001, 0.0, 1.0))
    calibration = Calibration(ir=Camera(size_wh=(80, 60)), rgb=Camera(size_wh=(128, 96)), H_rgb_from_ir=H)
    aligner, frame = Aligner((60, 80), (96, 128), calibration), Frame("ir", counts, 0, 0, Stamp.END, 0)
    table = Agc().table(frame)
    fuser = NetworkFuser("ufuser", EagerEngine(weights, "cpu"))
    inside = fuser.raw(counts, rgb, table, aligner.grid, aligner.valid)
    before = fuser(aligner(displayed(counts, table)), rgb, aligner.valid)
    error = np.abs(inside.astype(int) - before)
    assert error.mean() < 1
    assert error.max() <= 8  # OpenCV places pixels to 1/32


def test_a_kept_program_is_taken_and_a_wrong_one_noticed(openvino, weights, cache, monkeypatch):
    def never(*_):
        raise AssertionError("converted again")

    monkeypatch.setattr(module, "convert", never)
    kept = OpenVinoEngine(weights, cache=cache)
    torch.manual_seed(1)
    inputs = sample((50, 60), (48, 64))
    check("openvino", kept, EagerEngine(weights), inputs)
    with pytest.raises(EngineUnavailable, match="differs from torch by"):
        check("openvino", kept, EagerEngine(UFuser()), inputs)


@pytest.mark.parametrize("name", ["msrs", "roadscene"])
def test_engines_agree_on_real_pairs_with_the_shipped_weights(footage, name):
    folder = footage / "pairs" / name
    pytest.importorskip("openvino")
    shipped = [open_fuser(engine=e, precision="float32") for e in ("openvino", "eager")]
    half = open_fuser(engine="openvino", precision="bfloat16") if has_bfloat16() else None
    for path in sorted((folder / "ir").iterdir())[::60]:
        ir = read_image(str(path), "ir")
        rgb = read_image(str(next((folder / "rgb").glob(f"{path.stem}.*"))), "rgb")
        pictures = [fuser(ir, rgb).astype(int) for fuser in shipped]
        error = np.abs(pictures[0] - pictures[1])
        assert error.max() <= 1
        assert (error > 0).mean() < 0.005
        if half is not None:
            error = np.abs(half(ir, rgb).astype(int) - pictures[1])
            assert (error > 3).mean() < 0.001


def has_bfloat16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_an_engine_is_chosen_and_its_absence_explained(weights, monkeypatch, caplog, tmp_path):
    assert str(open_fuser("ufuser", weights=weights, engine="eager")).startswith("ufuser (torch")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'rtfuse\[openvino\]'"):
        open_fuser("ufuser", weights=weights, engine="openvino")
    if not torch.cuda.is_available():
        assert str(open_fuser("ufuser", weights=weights)) == "ufuser (torch, float32)"
        assert "trying the next fastest engine" in caplog.text
    with pytest.raises(WeightsMissing):
        open_fuser("ufuser", weights=tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError, match=r"fuse\.engine.*auto.*openvino, eager"):
        load_config(None, ["fuse.engine=magic"])


def test_the_bench_measures_engines_in_turn(weights):
    engines, sizes = ["eager", "eager:float32"], [(64, 48), (32, 32)]
    rows = bench_engines(engines, sizes, batches=(1, 2), weights=str(weights), frames=3)
    assert [(r.size_wh, r.batch) for r in rows[::2]] == [((64, 48), 1), ((64, 48), 2), ((32, 32), 1), ((32, 32), 2)]
    for row in rows:
        assert 0 < row.ms[0] <= row.ms[1] <= row.ms[2]
        assert row.frames_per_s == pytest.approx(1000 * row.batch / row.ms[0])
        assert row.share > 0
    assert rows[0].times == 1.0
    assert rows[0].gflop == pytest.approx(80.85 * 64 * 48 / (640 * 480), rel=0.01)
    for names, size, words in (
        (["magic"], (64, 48), "no engine is called 'magic'"),
        (["eager:int4"], (64, 48), "name:precision"),
        (["eager"], (60, 48), "multiples of 8"),
    ):
        with pytest.raises(ConfigError, match=words):
            bench_engines(names, [size], weights=str(weights))


def test_engines_are_listed_and_cleared_by_the_command(tmp_path):
    def rtfuse(*words):
        env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "rtfuse", "engines", *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)

    (tmp_path / "rtfuse" / "engines").mkdir(parents=True)
    cached(KEY | {"engine": "openvino"}, builder([]), folder=tmp_path / "rtfuse" / "engines")
    assert "openvino" in rtfuse("list").stdout
    assert "1 engines removed" in rtfuse("clear").stdout
    assert "no engines are kept" in rtfuse("list").stdout
    if not torch.cuda.is_available():
        refused = rtfuse("build", "--engine", "cuda")
        assert refused.returncode != 0
        assert "needs an NVIDIA GPU" in refused.stderr
