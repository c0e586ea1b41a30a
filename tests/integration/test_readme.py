"""The README's commands, taken from the page and run as they stand, but that a bench takes few and small frames."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    [line.split("   #")[0].strip() for line in block.splitlines() if line.startswith("rtfuse")]
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
]
COMMANDS = [command for block in BLOCKS for command in block]
CAMERAS = [c for c in COMMANDS if "/dev/" in c]
VIEWS = [c for c in COMMANDS if c.startswith("rtfuse view")]
BESIDE = [c for c in COMMANDS if c.endswith("&")]  # the way to a detector's boxes: test_subscribing.py goes it


@pytest.fixture
def here(tmp_path):
    """A folder that looks like the repository's root to the commands."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "out").mkdir()
    return tmp_path


def test_the_page_has_an_example_of_every_subcommand():
    assert {c.split()[1] for c in COMMANDS} == {"run", "record", "fuse", "view", "detect", "bench", "engines", "keys"}
    assert CAMERAS


@pytest.mark.usefixtures("usual_ports")
@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if set(b) - set(CAMERAS + VIEWS + BESIDE)], ids=lambda block: block[0]
)
def test_commands_work_one_after_the_other(rtfuse, here, block):
    for command in block:
        if command.startswith("rtfuse bench"):
            command = re.sub(r"--frames \d+", "--frames 30 --size 320x240", command)
        done = rtfuse(*shlex.split(command)[1:], cwd=here, literally=True, timeout_s=280)
        assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("usual_ports")
def test_viewing_commands_work_beside_a_running_rig(start, rtfuse, here, monkeypatch):
    start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--loop").wait_for("publishing")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    for command in VIEWS:
        arguments = shlex.split(command)[1:]
        if "--duration" not in arguments and "--frames" not in arguments:
            arguments += ["--frames", "5"]  # the window, which a person would close
        done = rtfuse(*arguments, cwd=here)
        assert done.returncode == 0, done.stderr
        assert not done.stdout.startswith("0 frames received")
    assert len(list((here / "out" / "seen").iterdir())) == 10


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w./]+)\)", README))))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_the_python_example_is_valid(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(block, "README.md", "exec")
