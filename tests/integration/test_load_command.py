"""`rtfuse run` with cameras that are too fast for any machine: it steps down, and says so everywhere."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from live import programs

from rtfuse import StatisticsSubscriber

FAST = "synthetic:?live=1&size=640x480&fps=200"


@pytest.fixture
def start():
    """Start Python with arguments; what still runs at the end is killed."""
    yield from programs()


@pytest.mark.slow
@pytest.mark.parametrize(("more", "fuser"), [((), "pyramid"), (("load.step=false",), "student")])
def test_a_rig_without_enough_processor_steps_down(start, tmp_path, more, fuser):
    endpoint = f"ipc://{tmp_path}/rig"
    command = ["run", "--ir", FAST, "--rgb", FAST, "--fuser", "auto", "--publish", endpoint, "--web", "127.0.0.1:0"]
    rig = start("-m", "rtfuse", *command, "--log", "json", "--duration", "15", "sync.tolerance_ms=100", *more)
    url = next(found[0] for line in rig.stdout if (found := re.search(r"http://\S+", line)))
    lowered = [] if more else [f"the fuser to {fuser}"]
    with StatisticsSubscriber(endpoint) as told:
        statistics = next(one for one in told if one.frames > 30 and one.lowered == lowered)
    with urllib.request.urlopen(url + "/state", timeout=10) as answer:
        state = json.load(answer)
    assert state["about"]["fuser"].startswith(fuser)
    assert state["lowered"] == statistics.lowered
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        assert f"rtfuse_lowered {len(statistics.lowered)}.0" in answer.read().decode()
    _, log = rig.communicate(timeout=60)
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    said = [line["message"] for line in lines if line.get("event") == "lowered"]
    assert [text.partition("): ")[2] for text in said] == statistics.lowered
