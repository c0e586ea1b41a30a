"""A new user's first minute, in a terminal of 80 columns: the demo, the help, completion in bash and zsh."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from terminals import ROOT, RTFUSE

import rtfuse as library
from rtfuse.cli.demo import _settings

COMMANDS = ("", "demo", "run", "fuse", "record", "view", "detect", "probe", "proxy", "bench", "config show", "keys new")


def plain(text):
    """Return the lines that were written, without control sequences; a screen that is drawn again follows itself."""
    text = re.sub(r"\x1b\[\d*A", "\n", text)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n")


def test_the_demo_is_one_screen_and_ends_with_ctrl_c(terminal, usual_ports):
    demo = terminal(*RTFUSE, "demo", "--fuser", "pyramid")
    demo.wait_for("from capture to")
    demo.wait_for(" warm spots")
    demo.wait_for("by pyramid")
    screen = plain(demo.seen)
    page = re.search(r"page +(http://127\.0\.0\.1:\d+)", screen)[1]
    endpoint = re.search(r"rtfuse view (tcp://127\.0\.0\.1:\d+)", screen)[1]
    for words in ("Ctrl-C ends it", "frames/s by pyramid", "from capture", "dropped", "detector", endpoint):
        assert words in screen
    assert max(map(len, screen.split("\n"))) <= 80
    assert b"<html" in urllib.request.urlopen(page, timeout=20).read()
    with library.Subscriber(endpoint) as stream:
        assert stream.recv(20).header.rig == "demo"
    children = subprocess.run(["ps", "--ppid", str(demo.pid), "-o", "pid="], capture_output=True, text=True).stdout
    assert not children.split(), "it is one process: nothing of it can be left"
    begin = time.monotonic()
    demo.type("\x03")
    assert demo.end() == 0
    assert time.monotonic() - begin < 3
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", int(page.rpartition(":")[2])), 5)


def test_the_demo_takes_other_ports_and_says_so(capsys, usual_ports):
    with socket.socket() as page, socket.socket() as frames:
        for taken, port in ((page, 8080), (frames, 5555)):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
        settings = _settings("pyramid", None)
    assert settings.web.address == "127.0.0.1:8081"
    assert settings.publish.endpoint == "tcp://127.0.0.1:5556"
    assert settings.web.detections == ("tcp://127.0.0.1:5557",)
    said = capsys.readouterr().out.splitlines()
    assert said == ["port 8080 is in use: the page is on 8081", "port 5555 is in use: the fused stream is on 5556"]


WITHOUT_AIOHTTP = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "aiohttp" else found(name, *more)
sys.modules["aiohttp"] = None
sys.argv = ["rtfuse", "demo"]
from rtfuse.cli.main import main
main()
"""


def test_the_demo_without_the_packages_of_the_page_names_the_command():
    done = subprocess.run([sys.executable, "-c", WITHOUT_AIOHTTP], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "rtfuse demo needs aiohttp" in line
    assert "pip install" in line


def test_help_fits_into_80_columns():
    """In one process: each start of Python costs more than the help."""
    from typer.testing import CliRunner

    from rtfuse.cli.main import app

    env = {"COLUMNS": "80", "NO_COLOR": "1", "TERMINAL_WIDTH": "80"}
    for command in COMMANDS:
        short, long = (CliRunner().invoke(app, [*command.split(), option], env=env) for option in ("-h", "--help"))
        assert short.exit_code == 0, short.output
        assert short.stdout == long.stdout
        lines = short.stdout.splitlines()
        assert max(map(len, lines)) <= 80, command


def test_a_bare_command_prints_its_help_and_no_error():
    for command in ([], ["keys"], ["engines"], ["config"]):
        done = subprocess.run([*RTFUSE, *command], capture_output=True, text=True, timeout=60)
        assert "Usage:" in done.stdout
        assert (done.returncode, done.stderr) == (2, "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_installs_and_completes(terminal, tmp_path, shell):
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "rtfuse"
    command.write_text(f"#!{sys.executable}\nfrom rtfuse.__main__ import main\nmain()\n")
    command.chmod(0o755)
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "ZDOTDIR": str(tmp_path)}
    done = subprocess.run(
        [program, "-c", "rtfuse --install-completion; exit $?"],
        capture_output=True, text=True, timeout=60, env=os.environ | env | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "completion installed" in done.stdout
    with (tmp_path / f".{shell}rc").open("a") as rc:
        rc.write("\nPS1='ready> '\n")
    shown = terminal(program, "-i", **env)
    shown.wait_for("ready> ")
    shown.type("rtfuse eng\t")
    if shell == "zsh":  # in a new shell the first Tab loads the function, and rings
        shown.wait_for("\x07")
        shown.type("\t")
    shown.wait_for("ines")
    shown.type("\x15exit\r")  # Ctrl-U empties the line
    shown.end()
