"""The commands of docs/metrics.md, as they stand but for the port."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.usefixtures("usual_ports")
def test_they_run_and_the_trace_opens(rtfuse, tmp_path):
    (tmp_path / "out").mkdir()
    assert len(COMMANDS) == 2
    for command in COMMANDS:
        words = shlex.split(command.replace("127.0.0.1:8080", "127.0.0.1:0").replace("--duration 10", "--duration 2"))
        done = rtfuse(*words[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    events = json.loads((tmp_path / "out" / "trace.json").read_text())
    assert {"capture", "pair", "publish"} <= {e["name"] for e in events}
