"""The image of the Dockerfile and the services of compose.yaml, built and run by podman on a Debian made here."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from functools import partial
from itertools import chain
from pathlib import Path

import av
import pytest
import yaml
from live import free_port, wait_until

import rtfuse

ROOT = Path(__file__).parents[2]
TOOLS = ("podman", "mmdebstrap")
LIMIT_MB = 800
SYNTHETIC = "synthetic:?live=1"

pytestmark = [pytest.mark.container, pytest.mark.slow, pytest.mark.timeout(900)]


def pip_folder(folder):
    """Write what this machine's pip is told besides its index of links into a folder to mount as /etc/xdg/pip."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    told = dict(re.findall(r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE))
    lines = ["[global]"]
    for name in ("index-url", "proxy", "trusted-host", "timeout", "retries", "cert"):
        if name in told:
            if name == "cert":
                shutil.copy(told[name], folder / "cert.pem")
                told[name] = "/etc/xdg/pip/cert.pem"
            lines.append(f"{name} = {told[name]}")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")


def cannot(reason):
    """Skip the test, or fail it where the run requires containers."""
    (pytest.fail if os.environ.get("RTFUSE_REQUIRE_CONTAINER") else pytest.skip)(reason)


class Podman:
    """Podman with a storage of its own; what it starts is removed at the end."""

    def __init__(self, folder):
        runtime = shutil.which("runc")  # crun refuses mixed cgroups
        self._base = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        self._base += ["--cgroup-manager", "cgroupfs", *(["--runtime", runtime] if runtime else [])]
        # Podman asks for more than a root without CAP_SYS_RESOURCE may have; less is always allowed.
        hard = {n: resource.getrlimit(getattr(resource, f"RLIMIT_{n.upper()}"))[1] for n in ("nofile", "nproc")}
        limits = {name: 4096 if most < 0 else min(most, 4096) for name, most in hard.items()}
        self._ulimits = [f"--ulimit={name}={limit}:{limit}" for name, limit in limits.items()]

    def __call__(self, *args, timeout_s=120):
        """Run `podman ARGS…` to its end; returns what it printed, and fails with what it said if it failed."""
        done = subprocess.run([*self._base, *map(str, args)], capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0, f"{args}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def succeeds(self, *args):
        """Tell whether `podman ARGS…` ends with status 0."""
        return subprocess.run([*self._base, *map(str, args)], capture_output=True, timeout=60).returncode == 0

    def run(self, *args, **kwargs):
        return self("run", *self._ulimits, *args, **kwargs)

    def close(self):
        """Remove every container and image, and with them the mounts in the storage."""
        subprocess.run([*self._base, "rm", "--all", "--force", "--time", "1"], capture_output=True, timeout=60)
        subprocess.run([*self._base, "rmi", "--all", "--force"], capture_output=True, timeout=120)

    def waits_for(self, name, text, timeout_s=60):
        """Wait until a container has logged `text`; returns the log."""
        end = time.monotonic() + timeout_s
        while True:
            done = subprocess.run([*self._base, "logs", name], capture_output=True, text=True, timeout=30)
            if text in (log := done.stdout + done.stderr):
                return log
            assert self("inspect", name, "--format", "{{.State.Running}}") == "true\n", f"{name} has ended: {log}"
            assert time.monotonic() < end, log
            time.sleep(0.3)

    def stops(self, name):
        """Stop a container as Docker does, with SIGTERM; returns its exit status."""
        began = time.monotonic()
        self("stop", "--time", "20", name)
        assert time.monotonic() - began < 15
        return int(self("inspect", name, "--format", "{{.State.ExitCode}}"))


@pytest.fixture(scope="module")
def podman(tmp_path_factory):
    """Podman with the image `rtfuse`, built by the Dockerfile on a Debian of this machine's mirror."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        cannot(f"needs root and {', '.join(TOOLS)} (missing: {', '.join(missing) or 'root'})")
    folder = tmp_path_factory.mktemp("podman")
    podman = Podman(folder)
    try:
        dockerfile = (ROOT / "Dockerfile").read_text()
        (base,) = set(re.findall(r"^FROM (\S+/debian:\S+)", dockerfile, re.MULTILINE))
        suite = re.fullmatch(r"\S+:(\w+)-slim", base)[1]
        slim = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        debian = ["mmdebstrap", "--variant=minbase", *slim, suite, str(folder / "debian.tar")]
        subprocess.run(debian, check=True, capture_output=True, timeout=600)
        podman("import", folder / "debian.tar", base)
        (folder / "debian.tar").unlink()
        try:
            podman.run("--rm", "--network", "none", base, "true")
        except AssertionError as refused:  # inside a container that may not start others, for example
            cannot(f"podman may not run containers here: {str(refused).strip().splitlines()[-1]}")
        (folder / "pip").mkdir()
        pip_folder(folder / "pip")
        own = ["--isolation", "chroot", "--network", "host", "--pull=never", "--layers=false"]
        podman("build", *own, "-v", f"{folder}/pip:/etc/xdg/pip:ro", "-t", "rtfuse", ROOT, timeout_s=600)
        yield podman
    finally:
        podman.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def started(podman):
    """Names of containers to remove after the test."""
    names = []
    yield names
    for name in names:
        podman("rm", "--force", "--time", "1", "--ignore", name)


@pytest.fixture
def shared(tmp_path):
    """A folder of the container's user, mounted as its own."""
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chown(folder, 1000, 1000)
    return folder


def test_the_image_is_small_locked_and_without_torch_and_root(podman):
    code = """if True:
        import importlib.metadata as m, importlib.util as u, json, os, grp
        print(json.dumps({
            "user": os.getuid(), "groups": [grp.getgrgid(g).gr_name for g in os.getgroups()],
            "found": [n for n in ("torch", "pip", "setuptools", "pygame") if u.find_spec(n)],
            "versions": {d.name.lower().replace("_", "-"): d.version for d in m.distributions()},
            "writable": [p for p in ("/app", "/usr", "/etc") if os.access(p, os.W_OK)]}))"""
    said = json.loads(podman.run("--rm", "--entrypoint", "python", "rtfuse", "-c", code))
    assert said["user"] == 1000
    assert "video" in said["groups"]
    assert said["found"] == said["writable"] == []
    lock = (ROOT / "requirements" / "demo.txt").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    del said["versions"]["rtfuse"]
    assert said["versions"].items() <= locked.items()
    assert {"numpy", "openvino", "aiohttp"} <= set(said["versions"])
    size_mb = int(podman("image", "inspect", "rtfuse", "--format", "{{.Size}}")) / 1e6
    print(f"the image has {size_mb:.0f} MB")
    assert size_mb < LIMIT_MB
    assert podman.run("--rm", "rtfuse", "--version").startswith(f"rtfuse {rtfuse.__version__}")


def test_recordings_are_fused_by_the_student_without_a_network(podman, shared):
    options = ["--rm", "--network=none", "--read-only", "--cap-drop=ALL", "-v", f"{shared}:/var/lib/rtfuse"]
    street = "synthetic:?duration_s=1"
    podman.run(*options, "rtfuse", "fuse", street, street, "-o", "fused.mp4", "--fuser", "student")
    with av.open(str(shared / "fused.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == 30
    assert (shared / "fused.mp4").stat().st_uid == 1000


def test_frames_and_the_page_leave_by_published_ports(podman, started):
    frames, page = free_port(), free_port()
    started.append("published")
    ports = [f"-p=127.0.0.1:{frames}:5555", f"-p=127.0.0.1:{page}:8080"]
    outside = ["--publish", "tcp://0.0.0.0:5555", "--web", "0.0.0.0:8080", "--insecure"]
    rig = ["run", "--ir", SYNTHETIC, "--rgb", SYNTHETIC, "--fuser", "student", *outside]
    podman.run("-d", "--name", "published", *ports, "rtfuse", *rig)
    podman.waits_for("published", "publishing")
    with rtfuse.Subscriber(f"tcp://127.0.0.1:{frames}") as subscriber:
        received = [subscriber.recv(timeout_s=20) for _ in range(10)]
    assert all(frame is not None and frame.image.shape == (480, 640, 3) for frame in received)
    with urllib.request.urlopen(f"http://127.0.0.1:{page}/healthz", timeout=10) as answer:
        assert answer.status == 200
    assert podman.stops("published") == 0


def services(**environment):
    """Read compose.yaml with `${NAME:-default}` replaced, on free ports, with the synthetic street; and the ports."""
    text = (ROOT / "compose.yaml").read_text()
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda m: environment.get(m[1], m[2]), text).replace("$$", "$")
    text = re.sub(r"(--(?:ir|rgb)) /dev/video\d", rf"\1 '{SYNTHETIC}'", text)
    ports = {}
    text = re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{ports.setdefault(m[1], free_port())}", text)
    text = re.sub(r"--web(?= )", lambda _: f"--web {ports['8080']}", text)
    return yaml.safe_load(text), ports


def arguments(service):
    """Return podman's options and command for a service; a key that this does not know is an error."""
    several = {"devices": "--device", "volumes": "-v", "cap_drop": "--cap-drop", "security_opt": "--security-opt"}
    several["tmpfs"] = "--tmpfs"
    rest = dict(service)
    assert rest.pop("build") == "."
    image, command, entrypoint = rest.pop("image"), rest.pop("command"), rest.pop("entrypoint", None)
    health = rest.pop("healthcheck", {"test": []})
    options = ["--network", rest.pop("network_mode"), f"--restart={rest.pop('restart')}"]
    options += ["--read-only"] if rest.pop("read_only") else []
    options += chain.from_iterable((several[key], value) for key in list(rest) for value in rest.pop(key))
    if entrypoint:
        options += ["--entrypoint", json.dumps(entrypoint)]
    return [*options, image, *command], health["test"][1:]


def test_compose_runs_a_rig_with_its_detector(podman, started, tmp_path):
    """Both services as they stand, but for the street in place of cameras; a node of group video stands for them."""
    camera = tmp_path / "camera"
    os.mknod(camera, stat.S_IFCHR | 0o660, os.makedev(1, 3))
    os.chmod(camera, 0o660)
    os.chown(camera, 0, 44)
    compose, ports = services(IR=str(camera), RGB=str(camera))
    assert set(compose["services"]) == {"rig", "detector"}
    for name, service in compose["services"].items():
        started.append(name)
        command, health = arguments(service)
        podman.run("-d", "--name", name, *command)
        if name == "rig":
            podman.waits_for(name, "publishing")
            wait_until(partial(podman.succeeds, "exec", "rig", *health), timeout_s=30)
    can_open = "import os; os.close(os.open('/dev/video0', os.O_RDWR)); os.close(os.open('/dev/video1', os.O_RDWR))"
    podman("exec", "rig", "python", "-c", can_open)
    with rtfuse.Subscriber(f"tcp://127.0.0.1:{ports['5555']}") as frames:
        assert frames.recv(timeout_s=20) is not None
    with rtfuse.DetectionsSubscriber(f"tcp://127.0.0.1:{ports['5556']}") as boxes:
        said = boxes.recv(timeout_s=20)
    assert said is not None
    assert said.detector
    # Each service's own end, and a second start: a new recording beside the first.
    assert podman.stops("detector") == 0
    assert podman.stops("rig") == 0
    volume = Path(podman("volume", "inspect", "recordings", "--format", "{{.Mountpoint}}").strip())
    podman("start", "rig")
    with rtfuse.Subscriber(f"tcp://127.0.0.1:{ports['5555']}") as frames:
        assert frames.recv(timeout_s=30) is not None
    assert podman.stops("rig") == 0
    # While it loads, when nothing listens for signals yet, it ends as quickly.
    podman("start", "detector")
    time.sleep(0.5)
    assert podman.stops("detector") in (0, 128 + signal.SIGTERM)
    recordings = sorted(volume.glob("*Z.mkv"))
    assert len(recordings) == 2
    first = recordings[0]
    assert first.stat().st_uid == 1000
    with av.open(str(first)) as film:
        assert len(film.streams.video) == 2
        assert sum(1 for _ in film.decode(video=1)) > 10
