"""Engines: every one gives the picture that torch gives, and a cache that is never trusted unseen."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtfuse.config import load_config
from rtfuse.errors import ConfigError, EngineUnavailable, WeightsMissing
from rtfuse.fuse import open_fuser
from rtfuse.fuse import openvino as engine
from rtfuse.fuse.cache import cache_folder, cached
from rtfuse.fuse.eager import EagerUFuser
from rtfuse.fuse.openvino import OpenVinoUFuser
from rtfuse.fuse.ufuser import UFuser

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
    return OpenVinoUFuser(weights, cache=cache)


@pytest.mark.parametrize("shape", [(48, 64), (37, 45), (1, 90), (8, 8), (120, 161)])
def test_openvino_gives_the_picture_of_torch(openvino, weights, shape):
    rng = np.random.default_rng(0)
    ir, luma = (rng.integers(0, 256, shape, np.uint8) for _ in range(2))
    error = np.abs(openvino(ir, luma).astype(int) - EagerUFuser(weights, "cpu")(ir, luma))
    assert error.max() <= 1
    assert (error > 0).mean() < 0.005


@pytest.mark.parametrize(("ir", "luma"), [(0, 0), (255, 255), (0, 255), (90, 90)])
def test_constant_frames(openvino, weights, ir, luma):
    frames = [np.full((48, 64), level, np.uint8) for level in (ir, luma)]
    assert np.abs(openvino(*frames).astype(int) - EagerUFuser(weights, "cpu")(*frames)).max() <= 1


def test_a_frame_s_picture_is_its_own(openvino):
    rng = np.random.default_rng(0)
    a, b, c = (rng.integers(0, 256, (48, 64), np.uint8) for _ in range(3))
    first = openvino(a, b)
    kept = first.copy()
    openvino(c, a)
    assert np.array_equal(first, kept)
    assert np.array_equal(openvino(a, b), kept)


def test_a_kept_program_is_taken_and_a_wrong_one_noticed(openvino, weights, cache, monkeypatch):
    def never(*_):
        raise AssertionError("converted again")

    with monkeypatch.context() as patch:
        patch.setattr(OpenVinoUFuser, "_convert", never)
        OpenVinoUFuser(weights, cache=cache)
    torch.manual_seed(1)
    other = engine.LumaProgram(UFuser())
    monkeypatch.setattr(engine, "LumaProgram", lambda net: other)
    with pytest.raises(EngineUnavailable, match="differs from torch by"):
        OpenVinoUFuser(weights, cache=cache)


def test_an_engine_is_chosen_and_its_absence_explained(weights, monkeypatch, caplog, tmp_path):
    assert str(open_fuser("ufuser", weights=weights, engine="eager")).startswith("ufuser (torch")
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match=r"pip install 'rtfuse\[openvino\]'"):
        open_fuser("ufuser", weights=weights, engine="openvino")
    if not torch.cuda.is_available():
        assert str(open_fuser("ufuser", weights=weights)) == "ufuser (torch)"
        assert "going on with torch" in caplog.text
    with pytest.raises(WeightsMissing):
        open_fuser("ufuser", weights=tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError, match=r"fuse\.engine.*auto, eager, openvino"):
        load_config(None, ["fuse.engine=magic"])
