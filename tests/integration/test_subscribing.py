"""docs/subscribing.md and docs/detectors.md, their examples taken from the pages and run beside a rig."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.request
from pathlib import Path

import av
import pytest
from live import free_port

ROOT = Path(__file__).parents[2]
SUBSCRIBING = (ROOT / "docs" / "subscribing.md").read_text(encoding="utf-8")
DETECTORS = (ROOT / "docs" / "detectors.md").read_text(encoding="utf-8")
ENV = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "NO_COLOR": "1"}


def code(page, kind):
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


@pytest.fixture
def place():
    """Put the pages' ports where no other test has its own."""
    ports = {port: free_port() for port in ("5555", "5556", "5557", "8080")}

    def place(text):
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda m: f"127.0.0.1:{ports.get(m[1], m[1])}", text)

    return place


def python(example, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, timeout=60, env=ENV, **kwargs
    )


@pytest.mark.slow
def test_the_examples_of_subscribing_run(start, rtfuse, place, tmp_path):
    start(
        *("run", "--ir", "synthetic:?live=1&size=160x120", "--rgb", "synthetic:?live=1&size=160x120"),
        *("--publish", place("tcp://127.0.0.1:5555")),
    ).wait_for("publishing")
    said = []
    for example in code(SUBSCRIBING, "python"):
        done = python(place(example))
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    frame, planes, seq, reception = said
    assert re.fullmatch(r"\(120, 160, 3\) \w+ 0 missed before it\n", frame)
    assert re.fullmatch(r"rgb24 \[\(120, 160, 3\)\] bt601 [\d.]+\n", planes)
    assert int(seq) >= 0
    assert re.match(r"Reception\(received=10, .*rate_hz=[\d.]+, transport_ms=Percentiles\(p50=[\d.]+", reception)
    recording = next(block for block in code(SUBSCRIBING, "sh") if "--save" in block)
    (tmp_path / "out").mkdir()
    for command in recording.splitlines():
        done = rtfuse(*shlex.split(place(command), comments=True)[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "seen").iterdir())) == 10
    with av.open(str(tmp_path / "out" / "seen.mkv")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 10


@pytest.mark.slow
def test_the_way_from_a_rig_to_boxes_on_the_page(start, place):
    rig, detector = place(code(DETECTORS, "sh")[0]).replace(" &\n", "\n").splitlines()
    page = place("127.0.0.1:8080")
    ports = f"--publish {place('tcp://127.0.0.1:5555')} --web {page}"
    start(*shlex.split(rig.replace("--web", ports).replace("live=1", "live=1&size=320x240"))[1:]).wait_for("publishing")
    command = [sys.executable, "-m", *shlex.split(detector), place("tcp://127.0.0.1:5555")]
    command += ["--publish", place("tcp://127.0.0.1:5556")]
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert any("warm" in line for line in process.stdout)
        with urllib.request.urlopen(f"http://{page}/", timeout=20) as answer:
            assert answer.status == 200
        own, receiving = (place(example) for example in code(DETECTORS, "python"))
        done = python(receiving)
        assert done.stdout.startswith("warm in frame "), done.stderr
        brightest = subprocess.Popen([sys.executable, "-c", own], env=ENV)
        try:
            done = python(receiving.replace(place("127.0.0.1:5556"), place("127.0.0.1:5557")))
            assert done.stdout.startswith("brightest in frame "), done.stderr
        finally:
            brightest.kill()
            brightest.wait(10)
    finally:
        process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("page", ["subscribing", "detectors"])
def test_links_lead_somewhere(page):
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for target in set(re.findall(r"\]\(([\w./]+?)(?:#[\w-]+)?\)", text)):
        assert (ROOT / "docs" / target).exists(), target


def test_every_option_of_the_page_is_one_of_the_tool():
    listed = subprocess.run(
        [sys.executable, "-m", "rtfuse", "detect", "--help"], capture_output=True, text=True, env=ENV, timeout=60
    ).stdout
    tool = "\n".join(line for line in DETECTORS.splitlines() if "rtfuse run" not in line)
    for option in set(re.findall(r"--[a-z][a-z-]*", tool)):
        assert option in listed
