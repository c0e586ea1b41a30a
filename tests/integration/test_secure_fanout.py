"""Keys, encrypted rigs and the proxy as processes: the commands of docs/security.md and docs/fanout.md, literally."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from live import free_port

ROOT = Path(__file__).parents[2]
READY = {"run": "publishing", "proxy": "serving"}


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)


class Shell:
    """Runs a page's commands in a folder and a home of their own, on ports that are free; what goes on is kept."""

    def __init__(self, folder):
        self.folder, self.running, self._ports = folder, [], {}
        self.env = os.environ | {"HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
        self.env.pop("XDG_CONFIG_HOME", None)

    def translated(self, text):
        """The text with the synthetic street for cameras, this machine for others, and free ports."""
        text = re.sub(r"/dev/video\d", "synthetic:?live=1", text)
        text = re.sub(r"(\d+\.){3}\d+(?=:\d)", "127.0.0.1", text)
        return re.sub(r":(5\d{3})\b", lambda m: f":{self._ports.setdefault(m[1], free_port())}", text)

    def command(self, line):
        words = shlex.split(self.translated(line).replace("~", str(self.folder)))
        assert words[0] == "rtfuse"
        fuser = ["--fuser", "pyramid"] if words[1] == "run" else []
        return [sys.executable, "-m", "rtfuse", *words[1:], *fuser]

    def __call__(self, line, *, limit=("--frames", "45", "--duration", "30")):
        """Run a command to its end (`view`: of `limit`), or until it serves; returns what it has printed."""
        command = self.command(line)
        ready = READY.get(command[3])
        if ready is None:
            if command[3] == "view":
                command += [*limit, *([] if "--stats" in command else ["--stats"])]
            done = subprocess.run(command, capture_output=True, text=True, env=self.env, cwd=self.folder, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, env=self.env, cwd=self.folder, **options)
        self.running.append(process)
        seen = ""
        for text in process.stdout:
            seen += text
            if ready in text:
                return seen
        raise AssertionError(seen)

    def python(self, code, *args, timeout_s=60):
        command = [sys.executable, "-c", self.translated(code), *args]
        return subprocess.run(command, capture_output=True, text=True, env=self.env, cwd=self.folder, timeout=timeout_s)


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    yield shell
    for process in shell.running:
        process.send_signal(signal.SIGINT)
    for process in shell.running:
        try:
            process.communicate(timeout=10)
        finally:
            process.kill()
        assert process.returncode == 0


@pytest.mark.slow
def test_the_page_on_security(shell):
    rig, room, who = ([line for line in block.splitlines() if line] for block in blocks("security.md", "sh"))
    for line in rig:
        shell(line)
    # Not on the rig's own machine, in the page: the client's file is all that is needed.
    assert re.search(r"rig: 640x480 .* malformed 0", shell(*room))
    (code,) = blocks("security.md", "python")
    assert shell.python(code).stdout == "rig\n"
    listed = shell(who[0])
    assert re.search(r"control-room .* authorised", listed)
    shell(who[1])
    assert shell(*room, limit=("--duration", "3")).endswith("0 frames received\n")
    plain = shell(room[0].split(" --keys")[0], limit=("--duration", "3"))
    assert "wants a key (--keys)" in plain
    assert plain.endswith("0 frames received\n")


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["plain", "encrypted"])
def test_the_page_on_fan_out(shell, which):
    *before, view = blocks("fanout.md", "sh")[which].splitlines()
    for line in before:
        shell(line)
    assert re.search(r"truck(-1)?: 640x480 .* malformed 0", shell(view))
    if which == 0:
        done = shell.python(blocks("fanout.md", "python")[0])
        name, rate = done.stdout.split()
        assert name == "truck-2", done.stderr
        assert float(rate) > 0


@pytest.mark.parametrize("how", ["systemd", "compose"])
def test_services_start_what_they_say(shell, how):
    """The command of the unit and of the container, with the example configuration, its keys and addresses of ours."""
    etc = shell.folder / "etc"
    etc.mkdir()
    if how == "systemd":
        unit = (ROOT / "configs" / "rtfuse-proxy.service").read_text()
        command = re.search(r"^ExecStart=\S+/(rtfuse .*)$", unit, re.MULTILINE)[1]
    else:
        service = yaml.safe_load((ROOT / "configs" / "proxy-compose.yaml").read_text())["services"]["rtfuse-proxy"]
        command = shlex.join(["rtfuse", *service["command"]])
    config = shell.translated((ROOT / "configs" / "proxy.yaml").read_text()).replace("/etc/rtfuse", str(etc))
    (etc / "proxy.yaml").write_text(config)
    shell(f"rtfuse keys new rig --dir {etc}/keys")
    for name in ("truck-1", "truck-2"):
        shell(f"rtfuse keys new rig --dir {name}")
        shell(f"rtfuse keys new client control-room --dir {name} -o {etc}/{name}.key")
    assert "serving truck-1, truck-2, mast" in shell(command.replace("/etc/rtfuse", str(etc)))


def test_the_page_shows_the_example_configuration():
    page = yaml.safe_load(blocks("fanout.md", "yaml")[0])
    file = yaml.safe_load((ROOT / "configs" / "proxy.yaml").read_text())
    assert {k: file["rigs"][k] for k in page["rigs"]} == page["rigs"]
    assert (file["bind"], file["keys"]) == (page["bind"], page["keys"])


def test_the_proxy_needs_little():
    """The package imports no dependency that the container does not install."""
    service = yaml.safe_load((ROOT / "configs" / "proxy-compose.yaml").read_text())["services"]["rtfuse-proxy"]
    installed = re.search(r"pip install --no-cache-dir ([\w ]+) &&", service["build"]["dockerfile_inline"])[1].split()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w-]+", item)[0] for item in needed}
    assert set(installed) <= names
    modules = {"opencv-python-headless": "cv2", "pyyaml": "yaml", "pyzmq": "zmq"}
    absent = {modules.get(name, name) for name in names - set(installed)}
    code = "import sys; import rtfuse.cli.main, rtfuse.cli.proxy, rtfuse.publish.proxy; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "zmq" in done.stdout.split()
    assert not absent & set(done.stdout.split())


@pytest.mark.parametrize("page", ["security.md", "fanout.md"])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([\w./-]+)\)", (ROOT / "docs" / page).read_text()):
        assert (ROOT / "docs" / target).exists(), target
