"""docs/tour.md: each named function exists, and one frame of the synthetic street passes them in that order."""

from __future__ import annotations

import ast
import re
import sys
import threading
import time
from pathlib import Path

import pytest

import rtfuse
from rtfuse.config import load_config
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.outputs import open_publisher
from rtfuse.pipeline.run import Pipeline

ROOT = Path(__file__).parents[1]
TOUR = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (.+?) \| \[[^\]]+\]\(\.\./(rtfuse/[\w/]+\.py)\) \| `([\w.]+)` \|", re.MULTILINE)
ROWS = ROW.findall(TOUR)
STEPS = [(int(name), file, function) for name, file, function in ROWS if name.isdigit()]


def functions(file):
    """Return the qualified names of a file's functions and methods."""
    names = set()

    def visit(node, prefix):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse((ROOT / file).read_text(encoding="utf-8")), "")
    return names


def test_the_steps_are_numbered():
    assert [number for number, _, _ in STEPS] == list(range(1, len(STEPS) + 1))
    assert len(STEPS) > 15
    assert len(ROWS) - len(STEPS) == 10


@pytest.mark.parametrize(("name", "file", "function"), ROWS, ids=[function for _, _, function in ROWS])
def test_the_function_exists(name, file, function):
    assert (ROOT / file).exists(), f"docs/tour.md, {name}: there is no {file}"
    assert function in functions(file), f"docs/tour.md, {name}: {file} has no {function}"


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """The (file, function) of every call while one frame of each stream is fused, published and received."""
    endpoint = f"ipc://{tmp_path_factory.mktemp('tour')}/s"
    scene = "synthetic:?duration_s=0.03&size=160x120"
    options = {"ir.uri": scene, "rgb.uri": scene, "fuse.fuser": "pyramid"}
    config = load_config(None, [f"publish.endpoint={endpoint}", "publish.planes=[fused, ir]"], options)
    log, paths = [], {}

    def note(frame, event, _argument):
        if event == "call":
            name = frame.f_code.co_filename
            if name not in paths:
                inside = Path(name).is_relative_to(ROOT / "rtfuse")
                paths[name] = Path(name).relative_to(ROOT).as_posix() if inside else None
            if paths[name]:
                log.append((paths[name], frame.f_code.co_qualname))

    with (
        open_rig(config) as rig,
        open_publisher(config, clock=rig.clock) as publisher,
        rtfuse.Subscriber(endpoint) as fused,
        rtfuse.Subscriber(endpoint, topic="ir") as thermal,
    ):
        deadline = time.monotonic() + 20
        while sum(publisher.subscribers().values()) < 2:
            publisher.tick()
            assert time.monotonic() < deadline, publisher.subscribers()
            time.sleep(0.01)
        pipeline = Pipeline(rig, {"publish": publisher}, age_at="publish")
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            assert pipeline.run().frames == 1
            received, aligned = fused.recv(20), thermal.recv(20)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert received.image.shape == (120, 160, 3)
    assert aligned.image.shape == (120, 160)
    return log


def first_missing(steps, calls):
    """Return the first step that is not called after the ones before it, and None if all are."""
    at = 0
    for number, file, function in steps:
        try:
            at = calls.index((file, function), at) + 1
        except ValueError:
            return number, file, function
    return None


def test_one_frame_passes_the_steps_in_order(calls):
    missing = first_missing(STEPS, calls)
    assert missing is None, (
        f"fix step {missing[0]} of docs/tour.md: {missing[1]} {missing[2]} is not called at that point"
    )


@pytest.mark.parametrize("number", [8, 10, 11, 13, 15])  # from 16 on, the second topic repeats the steps
def test_another_order_would_be_noticed(calls, number):
    wrong = [*STEPS[: number - 1], STEPS[number], STEPS[number - 1], *STEPS[number + 1 :]]
    assert first_missing(wrong, calls) is not None
