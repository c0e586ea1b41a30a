"""The wheel, installed from the locks with each extra alone, and run outside the repository as a user would.

One wheel is built. Each environment is new: the base, and copies of it to which pip adds one extra. Commands run with
an empty home folder and without the variable CI.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import tomllib
import urllib.request
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from live import free_port, wait_until

ROOT = Path(__file__).parents[1]
STREET = "synthetic:?duration_s=1"
LIVE = ("--ir", "synthetic:?live=1", "--rgb", "synthetic:?live=1", "--fuser", "student")
# What tests each extra of pyproject.toml; None: the environment that runs these tests has it.
TESTED = {
    "view": "test_view_opens_its_window",
    "web": "test_web_serves_the_page",
    "openvino": "test_openvino_is_part_of_the_base",
    "torch": "test_torch_runs_the_network_that_was_published",
    "cuda": "test_names_of_one_extra_bring_the_same",
    "export": "test_export_writes_onnx",
    "train": "test_train_makes_weights_that_fuse",
    "rtx": "test_rtx_builds_an_engine_without_a_gpu",
    "tensorrt": "test_tensorrt_builds_an_engine",
    "eval": None,
    "test": None,
    "lint": None,
}

pytestmark = [pytest.mark.packaging, pytest.mark.slow, pytest.mark.timeout(600)]


class Environment:
    """A virtual environment with the wheel in it, and an empty home folder to run its commands from."""

    def __init__(self, folder: Path):
        self.folder, self.home = folder, folder.with_name(f"{folder.name}-home")
        self.python = folder / "bin" / "python"
        self.home.mkdir(exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if k not in {"CI", "PYTHONPATH", "VIRTUAL_ENV"}}
        self.env = kept | {"HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "200", "SDL_VIDEODRIVER": "dummy"}
        self.env = {k: v for k, v in self.env.items() if not k.startswith(("XDG_", "RTFUSE_", "PYTEST_"))}

    def run(self, *args, status=0, **env):
        """Run `python -m ARGS…` in the home folder; returns what it printed."""
        command = [self.python, "-m", *map(str, args)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.env | env, cwd=self.home, timeout=300, check=False
        )
        assert done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def pip(self, *args):
        """Run pip as this machine has it set up: its cache and its indexes."""
        command = [self.python, "-m", "pip", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"

    def has(self, module):
        """Tell whether a module can be imported."""
        code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
        return subprocess.run([self.python, "-c", code], env=self.env, cwd=self.home, check=False).returncode == 0

    @contextmanager
    def running(self, *args, until):
        """Run `rtfuse ARGS…` beside the test, from the line that has `until` to the end of the block."""
        command = [self.python, "-m", "rtfuse", *map(str, args)]
        rig = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.env, cwd=self.home
        )
        lines, there = [], threading.Event()

        def read():
            for line in rig.stdout:
                lines.append(line)
                if until in line:
                    there.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            assert there.wait(60), "".join(lines)
            yield
        finally:
            rig.send_signal(signal.SIGINT)
            rig.wait(30)
            reader.join(30)
        assert "Traceback" not in "".join(lines)


def listening(port):
    """Tell whether a server of this machine takes connections at a port."""
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with the wheel, and the locks' versions as constraints for pip."""
    folder = tmp_path_factory.mktemp("packaging")
    ignored = shutil.ignore_patterns(".venv*", ".git", "out", "build", "runs", "*.egg-info", ".*_cache", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run(build, cwd=folder / "source", check=True, capture_output=True)
    locks = "".join((ROOT / "requirements" / f"{n}.txt").read_text(encoding="utf-8") for n in ("dev", "torch-cpu"))
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;\\+]+)", locks, re.MULTILINE))
    (folder / "locked.txt").write_text("".join(f"{k}=={v}\n" for k, v in pins.items()), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wheel(workshop):
    """The one wheel that was built."""
    (built,) = workshop.glob("rtfuse-*.whl")
    return built


@pytest.fixture(scope="module")
def base(workshop, wheel):
    """An environment with the wheel and no extra."""
    made = Environment(workshop / "base")
    subprocess.run([sys.executable, "-m", "venv", made.folder], check=True)
    made.pip("install", "--constraint", workshop / "locked.txt", wheel)
    return made


@pytest.fixture(scope="module")
def with_extra(workshop, wheel, base):
    """A function that makes an environment with one extra, from a copy of one that is there."""

    def make(extra, *, like=base, torch=False):
        made = workshop / extra
        if not made.exists():
            subprocess.run(["cp", "-al", like.folder, made], check=True)  # the same files, by name
            if torch:
                script = ROOT / "tools" / "install_torch.sh"
                subprocess.run([script, Environment(made).python, "cpu"], check=True)
            Environment(made).pip("install", "--constraint", workshop / "locked.txt", f"{wheel}[{extra}]")
            Environment(made).pip("check")
        return Environment(made)

    return make


@pytest.fixture(scope="module")
def torch(with_extra):
    """An environment with the extra `torch`."""
    return with_extra("torch", torch=True)


def test_every_extra_is_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(TESTED) == set(project["optional-dependencies"])
    assert all(name is None or callable(globals()[name]) for name in TESTED.values())


def test_the_wheel_carries_what_is_read_at_run_time(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [
        p for folder in ("fuse/weights", "fuse/programs", "web/static") for p in (ROOT / "rtfuse" / folder).iterdir()
    ]
    missing = {str(p.relative_to(ROOT)) for p in files if p.is_file()} - names
    assert not missing
    assert {"rtfuse/py.typed", "rtfuse/detect/detector.py"} <= names
    data = f"rtfuse-{importlib.metadata.version('rtfuse')}.data/data/share/rtfuse"
    configs = {f"{data}/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*") if p.is_file()}
    assert configs
    assert configs <= names
    assert {n.rpartition("/")[2] for n in names if "/licenses/" in n} == {"LICENSE", "NOTICE"}
    assert not [n for n in names if n.startswith(("tests/", "tools/"))]


@pytest.mark.parametrize("home", ["a folder", "", None], ids=["empty folder", "empty name", "not set"])
def test_the_base_fuses_by_the_student_without_torch(base, home, tmp_path):
    assert not base.has("torch")
    base.pip("check")
    if home is None:
        command = Environment(base.folder)
        del command.env["HOME"]
        said = command.run("rtfuse", "fuse", STREET, STREET, "-o", tmp_path / "street.mp4", "--fuser", "student")
    else:
        changed = {"HOME": home} if home == "" else {}
        said = base.run(
            "rtfuse", "fuse", STREET, STREET, "-o", tmp_path / "street.mp4", "--fuser", "student", **changed
        )
    assert "fused by student (OpenVINO" in said
    assert (tmp_path / "street.mp4").stat().st_size > 10_000


def test_the_base_runs_live_and_detects(base):
    port, boxes = free_port(), free_port()
    assert "warm" in base.run("rtfuse", "detect", "--help")
    live = (*LIVE, "publish.planes=[fused,ir]", "--publish", f"tcp://127.0.0.1:{port}")
    with base.running("run", *live, until="publishing"):
        said = base.run(
            "rtfuse", "detect", f"tcp://127.0.0.1:{port}", "--publish", f"tcp://127.0.0.1:{boxes}", "--frames", "5"
        )
        assert re.search(r"\b5 frames", said)
    assert "drops" in base.run("rtfuse", "run", *LIVE, "--publish", "off", "--duration", "2")


def test_the_base_has_its_example_configs(base):
    configs = base.folder / "share" / "rtfuse" / "configs"
    said = base.run(
        "rtfuse",
        "run",
        "--config",
        configs / "recordings.yaml",
        "--fuser",
        "student",
        "--publish",
        "off",
        "--frames",
        "9",
    )
    assert "fused by student" in said


def test_openvino_is_part_of_the_base(with_extra, base):
    assert with_extra("openvino").has("openvino")
    assert base.has("openvino")


def test_web_serves_the_page(with_extra):
    web, page, port = with_extra("web"), free_port(), free_port()
    assert not web.has("pygame")
    live = (*LIVE, "--publish", f"tcp://127.0.0.1:{port}", "--web", f"127.0.0.1:{page}")
    files = [p.name for p in (ROOT / "rtfuse" / "web" / "static").iterdir() if p.suffix in {".js", ".css"}]
    assert files
    with web.running("run", *live, until="publishing"):
        wait_until(lambda: listening(page), 60)  # the page opens beside the rig, after its first line
        for path in ("healthz", "", "metrics", *(f"static/{name}" for name in files)):
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/{path}", timeout=20) as answer:
                assert answer.status == 200
                assert answer.read()


def test_view_opens_its_window(with_extra):
    view, port = with_extra("view"), free_port()
    assert not view.has("aiohttp")
    with view.running("run", *LIVE, "--publish", f"tcp://127.0.0.1:{port}", until="publishing"):
        said = view.run("rtfuse", "view", f"tcp://127.0.0.1:{port}", "--frames", "5")
    assert re.search(r"^5 frames received", said, re.MULTILINE)


def test_torch_runs_the_network_that_was_published(torch):
    said = torch.run("rtfuse", "bench", "--engines", "student/eager", "--size", "160x128", "--frames", "30")
    assert "torch, float32" in said


def test_names_of_one_extra_bring_the_same(with_extra, torch):
    def packages(made):
        return {p.name.lower() for p in made.folder.glob("lib/python*/site-packages/*.dist-info")}

    assert packages(with_extra("cuda", like=torch)) == packages(torch)


def test_export_writes_onnx(with_extra, torch):
    export = with_extra("export", like=torch)
    assert not export.has("lightning_fabric")
    weights = next(export.folder.glob("lib/python*/site-packages/rtfuse/fuse/weights/student.safetensors"))
    export.run("trainer", "export", "--weights", weights, "-o", "student.onnx", "--size", "160x128")
    code = "import onnx; onnx.checker.check_model(onnx.load('student.onnx'))"
    subprocess.run([export.python, "-c", code], cwd=export.home, check=True)


def test_train_makes_weights_that_fuse(with_extra, torch):
    train = with_extra("train", like=torch)
    assert not train.has("onnx")
    recipe = (ROOT / "configs" / "train_quick.yaml").read_text(encoding="utf-8")
    (train.home / "recipe.yaml").write_text(recipe.replace("duration_s=20", "duration_s=3"), encoding="utf-8")
    short = ("sensing.epochs=1", "fusion.warm_up_epochs=1", "fusion.epochs=2")
    train.run("trainer", "train", "--config", "recipe.yaml", "--run", "run", *short)
    # Weights of one's own are converted when they are first run, which is where openvino wants more than it requires.
    street = "synthetic:?duration_s=0.2&size=160x128"
    said = train.run("rtfuse", "fuse", street, street, "-o", "own.mp4", "fuse.weights=run/ufuser.safetensors")
    assert "(OpenVINO" in said


@pytest.mark.skipif(sys.platform != "linux", reason="TensorRT-RTX has packages for Linux on x86-64 only")
def test_rtx_builds_an_engine_without_a_gpu(with_extra, torch):
    if os.uname().machine != "x86_64":
        pytest.skip("TensorRT-RTX has packages for Linux on x86-64 only")
    rtx = with_extra("rtx", like=torch)
    weights = next(rtx.folder.glob("lib/python*/site-packages/rtfuse/fuse/weights/student.safetensors"))
    target = ("--target", "tensorrt-rtx", "--gpu", "8.6", "--size", "160x128", "-o", "student.plan")
    rtx.run("trainer", "export", "--weights", weights, *target)
    assert (rtx.home / "student.plan").stat().st_size > 1000


def test_tensorrt_builds_an_engine(with_extra, torch):
    if shutil.which("nvidia-smi") is None:
        pytest.skip("TensorRT (2 GB) builds for the GPU at hand, and nvidia-smi is not there")
    tensorrt = with_extra("tensorrt", like=torch)
    weights = next(tensorrt.folder.glob("lib/python*/site-packages/rtfuse/fuse/weights/student.safetensors"))
    tensorrt.run("trainer", "export", "--weights", weights, "--target", "tensorrt", "--size", "160x128", "-o", "s.plan")
