"""Engines: every one gives the picture that torch gives, and a cache that is never trusted unseen."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, Camera
from rtfuse.bench.engines import bench_engines
from rtfuse.capture.stills import read_image
from rtfuse.config import load_config
from rtfuse.errors import ConfigError, EngineUnavailable, WeightsMissing
from rtfuse.fuse import STUDENT_WEIGHTS, UFUSER_WEIGHTS, open_fuser
from rtfuse.fuse.engines import convert
from rtfuse.fuse.engines.cache import cache_folder, cached, clear, entries
from rtfuse.fuse.engines.eager import EagerEngine
from rtfuse.fuse.engines.host import HostProgram
from rtfuse.fuse.engines.openvino import PROGRAMS, OpenVinoEngine, program_of
from rtfuse.fuse.engines.selection import open_network
from rtfuse.fuse.fallback import FallbackFuser
from rtfuse.fuse.inputs import Inputs, sample
from rtfuse.fuse.luma_fuser import LumaFuser, luma, with_luma
from rtfuse.fuse.networks.loading import load_network
from rtfuse.fuse.networks.student import Student
from rtfuse.fuse.networks.ufuser import UFuser, crop, pad_to_multiple
from rtfuse.fuse.raw_fuser import RawFuser
from rtfuse.thermal.agc import Agc, displayed
from rtfuse.types import Frame, Stamp
from rtfuse.wire.keys import key_folder

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
    monkeypatch.setattr("rtfuse.fuse.engines.cache.LIMIT_BYTES", 2 * entries(tmp_path)[0].size_bytes + 700)
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


def test_an_engine_that_cannot_be_kept_is_built_for_this_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder can be made in it")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    calls = []
    for _ in range(2):
        assert (cached(KEY, builder(calls)) / "program.bin").read_text() == "built"
    assert len(calls) == 2
    assert len(caplog.messages) == 2
    assert "cannot be kept" in caplog.messages[0]
    assert str(tmp_path / "file") in caplog.messages[0]


def test_an_engine_for_a_full_disk_is_built_elsewhere(tmp_path):
    def build(folder):
        if folder.parent == tmp_path:
            raise OSError(errno.ENOSPC, "No space left on device")
        builder([])(folder)

    assert (cached(KEY, build, folder=tmp_path) / "program.bin").exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [cache_folder, key_folder])
def test_a_user_without_a_home_is_told_which_variable_names_the_folder(folder, monkeypatch):
    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(FileNotFoundError, match="set HOME or XDG_C"):
        folder()


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
def small(tmp_path_factory):
    """Weights that are not the shipped ones: a student's, which is converted in seconds."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "s.safetensors"
    save_file(Student().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def program(small, cache):
    pytest.importorskip("openvino")
    return program_of("student", small, cache=cache)


@pytest.fixture(scope="module")
def engine():
    """U-Fuser by OpenVINO: luma to luma."""
    pytest.importorskip("openvino")
    return OpenVinoEngine(program_of("ufuser"))


@pytest.fixture(scope="module")
def openvino(engine):
    """The same as a whole program: raw bytes to fused bytes."""
    return HostProgram(LumaFuser("ufuser", engine, prepare=engine.prepare), "float32")


def exact(weights, inputs):
    """The program in eager torch, in float64."""
    return EagerEngine(weights, "cpu", torch.float64)(inputs).astype(int)


def pictures(shape, seed=0):
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.integers(0, 256, shape, np.uint8), (0, 0), 1 + k) for k in range(2)]
    return noise[0], cv2.normalize(noise[1], None, 0, 255, cv2.NORM_MINMAX)


@pytest.mark.parametrize("shape", [(48, 64), (16, 128), (80, 88)])
def test_a_program_gives_what_the_network_gives_in_float64(engine, shape):
    ir, y = pictures(shape)
    error = np.abs(engine(ir, y).astype(int) - convert.reference(load_network(UFUSER_WEIGHTS), ir, y))
    assert error.max() <= 1
    assert (error > 0).mean() < 0.005


@pytest.mark.parametrize(
    ("name", "source"),
    [("student", STUDENT_WEIGHTS), ("ufuser", UFUSER_WEIGHTS), ("ufuser-avx512", UFUSER_WEIGHTS)],
)
def test_the_shipped_programs_are_those_of_the_shipped_weights(name, source):
    pytest.importorskip("openvino")
    manifest = json.loads((PROGRAMS / f"{name}.xml.json").read_text())
    assert manifest["weights_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest["sha256"] == hashlib.sha256((PROGRAMS / f"{name}.xml").read_bytes()).hexdigest()
    ir, y = pictures((48, 64), seed=5)
    error = np.abs(
        OpenVinoEngine(PROGRAMS / f"{name}.xml")(ir, y) - convert.reference(load_network(source), ir, y).astype(int)
    )
    assert error.max() <= 1
    assert (error > 0).mean() < 0.005


@pytest.mark.parametrize("shape", [(48, 64), (37, 45), (1, 90), (8, 8), (50, 64)])
def test_a_program_takes_pictures_of_any_size(engine, shape):
    """Its border is repeated up to the next size that the network takes."""
    ir, y = pictures(shape)
    net = load_network(UFUSER_WEIGHTS).eval()
    with torch.no_grad():
        a, b = (pad_to_multiple(torch.from_numpy(x)[None, None].float() / 255) for x in (ir, y))
        want = crop(net(a, b) * 255, *shape)[0, 0].round().to(torch.uint8).numpy()
    assert np.abs(engine(ir, y).astype(int) - want).max() <= 1


@pytest.mark.parametrize("sizes", [((50, 60), (48, 64)), ((17, 33), (16, 128)), ((120, 160), (80, 88))])
def test_engines_give_the_picture_of_the_program_in_float64(openvino, sizes):
    """OpenCV around a network rounds the warped thermal and the fused luma to levels, and places pixels to 1/32.

    Where the details of both sources are equally strong, a rounding decides which one is seen.
    """
    inputs = sample(*sizes, seed=3)
    want = exact(UFUSER_WEIGHTS, inputs)
    error = np.abs(EagerEngine(UFUSER_WEIGHTS, "cpu")(inputs) - want)
    assert error.max() <= 1
    assert (error > 0).mean() < 0.005
    error = np.abs(openvino(inputs) - want)
    assert (error > 3).mean() < 0.003
    assert error.mean() < 0.6


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
def test_constant_frames(openvino, ir, rgb):
    whole = sample((48, 64), (48, 64))
    counts = np.full((1, 48, 64), ir, "<u2").view(np.uint8).reshape(1, 48, 64, 2)
    inputs = replace(whole, ir=counts, rgb=np.full_like(whole.rgb, rgb))
    want = exact(UFUSER_WEIGHTS, inputs)
    assert np.abs(openvino(inputs) - want).max() <= 2
    for dtype in (torch.bfloat16,):
        assert np.abs(EagerEngine(UFUSER_WEIGHTS, "cpu", dtype)(inputs) - want).max() <= 3


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
        fused = RawFuser("ufuser", engine)(ir, rgb, mask)
        assert fused.shape == rgb.shape
        assert np.abs(fused.astype(int) - LumaFuser("by OpenCV", luma_alone)(ir, rgb, mask)).max() <= 3


class Raw:
    """Counts as they came, and where they lie; see `ThermalPicture`."""

    def __init__(self, image, table, aligner):
        self.image, self.table, self.grid, self.valid = image, table, aligner.grid, aligner.valid

    def __call__(self):
        raise AssertionError("the program warps itself")


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
    fuser = RawFuser("ufuser", EagerEngine(weights, "cpu"))
    inside = with_luma(rgb, luma(rgb), fuser.fuse(Raw(counts, table, aligner), luma(rgb)))
    before = fuser(aligner(displayed(counts, table)), rgb, aligner.valid)
    error = np.abs(inside.astype(int) - before)
    assert error.mean() < 1
    assert error.max() <= 8  # OpenCV places pixels to 1/32


def test_converted_weights_are_kept(program, small, cache, monkeypatch):
    def never(*_):
        raise AssertionError("converted again")

    monkeypatch.setattr(convert, "convert", never)
    assert program_of("student", small, cache=cache) == program


def test_a_program_that_computes_another_picture_is_noticed(program, tmp_path):
    for suffix in (".xml", ".bin", ".npz"):
        shutil.copy(program.with_suffix(suffix), tmp_path / f"p{suffix}")
    with np.load(program.with_suffix(".npz")) as kept:
        np.savez(tmp_path / "p.npz", ir=kept["ir"], luma=kept["luma"], fused=255 - kept["fused"])
    with pytest.raises(EngineUnavailable, match="differs from the reference by up to"):
        open_fuser("ufuser", weights=tmp_path / "p.xml")
    for name in ("p.npz", "p.bin"):
        (tmp_path / name).unlink()
        with pytest.raises(WeightsMissing, match=r"p\.xml"):
            open_fuser("ufuser", weights=tmp_path / "p.xml")


def broken(error, *, on="open"):
    """A fuser that raises `error` when it is opened, made ready, or run."""

    class Broken(LumaFuser):
        def __init__(self):
            if on == "open":
                raise error
            super().__init__("broken", self.fail)

        def prepare(self, ir_hw, rgb_hw):
            if on == "prepare":
                raise error

        def fail(self, ir, y):
            raise error

    return Broken


ERRORS = [
    ImportError("no packaging"),
    RuntimeError("a\nb"),
    OSError(30, "Read-only file system"),
    MemoryError(),
    KeyError("x"),
]


@pytest.mark.parametrize("error", [*ERRORS, EngineUnavailable("engine 'x' is gone")], ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("on", ["open", "prepare", "run"])
def test_an_engine_that_fails_is_one_line_and_the_next_engine(error, on, caplog):
    pyramid = lambda: open_fuser("pyramid")  # noqa: E731
    fuser = FallbackFuser([("engine 'x'", broken(error, on=on)), ("the pyramid", pyramid)])
    fuser.prepare((48, 64), (48, 64))
    ir, y = pictures((48, 64))
    rgb = cv2.merge([y, y, y])
    assert np.array_equal(fuser(ir, rgb), pyramid()(ir, rgb))
    assert fuser.name == "pyramid"
    (line,) = [r.getMessage() for r in caplog.records]
    assert "\n" not in line
    assert line.startswith("engine 'x'")
    assert line.endswith("; trying the pyramid")


def test_when_no_engine_is_left_every_reason_is_said():
    candidates = [(f"engine {k}", broken(RuntimeError(k))) for k in "xy"]
    with pytest.raises(EngineUnavailable, match="engine x failed: RuntimeError: x; engine y failed: RuntimeError: y"):
        FallbackFuser(candidates)


def test_what_the_user_gave_wrongly_is_no_engines_fault(tmp_path):
    with pytest.raises(WeightsMissing):
        open_network("ufuser", tmp_path / "absent.safetensors", resort=True)
    fuser = open_network("student")
    with pytest.raises(ValueError, match="of one size, got thermal"):
        fuser(np.zeros((48, 64), np.uint8), np.zeros((40, 64, 3), np.uint8))
    assert str(fuser).startswith("student")


@pytest.mark.slow
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
        error = np.abs(pictures[0] - pictures[1])  # the luma that goes in and comes out is rounded to levels
        assert error.max() <= 3
        assert error.mean() < 0.6
        if half is not None:
            error = np.abs(half(ir, rgb).astype(int) - pictures[1])
            assert (error > 4).mean() < 0.001


def has_bfloat16():
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_an_engine_is_chosen_and_its_absence_explained(weights, monkeypatch, caplog, tmp_path):
    assert str(open_fuser("ufuser", weights=weights, engine="eager")).startswith("ufuser (torch")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineUnavailable, match="engine 'openvino' does not load"):
        open_fuser("student", engine="openvino")
    if not torch.cuda.is_available():
        assert str(open_fuser("student")) == "student (torch, float32)"
        assert "trying engine 'eager'" in caplog.text
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
    assert rows[0].times == 1.0
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
