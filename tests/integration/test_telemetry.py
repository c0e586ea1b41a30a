"""Nothing phones home: every system call that touches the network or the home folder, seen by strace.

Each command runs without the variable CI, with an empty home, in a network namespace of its own where the kernel allows
one, so that nothing gets out even if it tries.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from live import free_port

from tests.detect.test_detect import SIDE, network
from tests.trainer.test_training import RECIPE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
STREET = "synthetic:?size=160x120&duration_s=0.3"
LIVE = "synthetic:?live=1&size=160x120"
RESOLVER = re.compile(r'"(/etc/resolv\.conf|/etc/host\.conf|/etc/hosts|[^"]*(?:resolved?|Resolve)[^"]*\.socket?)"')
INTERNET = re.compile(
    r"(connect|bind|sendto|sendmsg|sendmmsg)\(.*?sa_family=AF_INET6?, sin6?_port=htons\((\d+)\).*?"
    r'(?:inet_addr\("|inet_pton\(AF_INET6, ")([^"]+)"'
)
IN_NAMESPACE = """
import fcntl, os, socket, struct, sys
with socket.socket() as s:
    fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def tracing():
    """The command that traces what follows it; in a network namespace, if the kernel allows one."""
    if shutil.which("strace") is None:
        if os.environ.get("RTFUSE_REQUIRE_STRACE"):
            pytest.fail("RTFUSE_REQUIRE_STRACE is set, but there is no strace")
        pytest.skip("needs strace")
    calls = "network,open,openat,openat2,creat"
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-s", "256", "-e", f"trace={calls}", "-e", "signal=none"]
    alone = ["unshare", "--net", "--map-root-user", sys.executable, "-c", IN_NAMESPACE]
    can = shutil.which("unshare") and subprocess.run([*alone, "true"], capture_output=True).returncode == 0
    return [*alone, *trace] if can else trace


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with an empty home in it, for all tests: what the first one leaves there is found by the last too."""
    folder = tmp_path_factory.mktemp("quiet")
    (folder / "home").mkdir()
    return folder


@pytest.fixture
def traced(tracing, place):
    """Run a Python command line traced, and return what it did on the network: (call, address, port), and resolvers."""

    def run(*args, status=0):
        log = place / "trace.txt"
        environment = {
            **{k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH", "OMP_NUM_THREADS")},
            **{"HOME": str(place / "home"), "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        }
        command = [*tracing, "-o", log, sys.executable, *args]
        done = subprocess.run(
            [str(word) for word in command], env=environment, cwd=place, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == status, done.stdout + done.stderr
        text = log.read_text(errors="replace")
        assert "openat(" in text
        seen = {(call, address, int(port)) for call, port, address in INTERNET.findall(text)}
        return seen | {("resolver", path, 53) for path in RESOLVER.findall(text)}

    return run


def at_home(place):
    """Return the files in the home folder, without rtfuse's own cache."""
    files = {str(p.relative_to(place / "home")) for p in (place / "home").rglob("*") if not p.is_dir()}
    return {name for name in files if not name.startswith(".cache/rtfuse/")}


def test_the_tracer_sees_who_looks_up_a_name_connects_and_writes(traced, tmp_path_factory, place):
    """Otherwise the tests below could not fail."""
    seen = traced("-c", "import socket; socket.getaddrinfo('example.org', 443)", status=1)
    assert any(call == "resolver" for call, _, _ in seen)
    code = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect(('192.0.2.1', 443))"
    assert ("connect", "192.0.2.1", 443) in traced("-c", code, status=1)
    traced("-c", "from pathlib import Path; (Path.home() / 'identifier').write_text('1')")
    assert at_home(place) == {"identifier"}
    (place / "home" / "identifier").unlink()


def test_fusing_recordings_is_quiet(traced, place):
    seen = traced("-m", "rtfuse", "fuse", STREET, STREET, "-o", "fused.mp4", "--fuser", "student", "--force")
    assert (seen, at_home(place)) == (set(), set())


def test_a_rig_opens_only_the_ports_that_it_was_told(traced, place):
    frames, page = free_port(), free_port()
    seen = traced(
        *("-m", "rtfuse", "run", "--ir", LIVE, "--rgb", LIVE, "--fuser", "student", "--duration", "1.5"),
        *("--publish", f"tcp://127.0.0.1:{frames}", "--web", f"127.0.0.1:{page}"),
    )
    assert {port for _, _, port in seen} >= {frames, page}
    assert {(address, port) for _, address, port in seen} <= {("127.0.0.1", frames), ("127.0.0.1", page)}
    assert at_home(place) == set()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_detector_is_quiet(traced, place, engine):
    model = network(place / "cells.onnx", "v8", side=SIDE)
    seen = traced(
        *("-m", "rtfuse", "detect", f"ipc://{place}/f", "--model", model, "--engine", engine),
        *("--publish", f"ipc://{place}/b", "--duration", "1"),
    )
    assert (seen, at_home(place)) == (set(), set())


def test_calibrating_is_quiet(traced, place):
    seen = traced("-m", "calib", "pattern", "circles:5x4:20mm", "-o", "board.pdf")
    seen |= traced("-m", "calib", "report", ROOT / "configs" / "calibration_example.yaml", "-o", "report.html")
    assert (seen, at_home(place)) == (set(), set())


def test_training_and_exporting_are_quiet(traced, place):
    fewer = {part: RECIPE[part] | {"epochs": 1} for part in ("sensing", "fusion")}
    fewer["fusion"]["warm_up_epochs"] = 0
    (place / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | fewer))
    seen = traced("-m", "trainer", "train", "--config", "recipe.yaml")
    seen |= traced(
        *("-m", "trainer", "export", "--weights", "runs/tiny/ufuser.safetensors"),
        *("--size", "64x48", "-o", "ufuser.onnx"),
    )
    assert (seen, at_home(place)) == (set(), set())
