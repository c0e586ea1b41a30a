"""Who may import whom, and what importing costs: one table, held by reading the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

BASE = {"types", "errors"}
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "config": BASE | {"capture", "fuse", "publish", "sync"},
    "health": BASE,
    "logs": set(),
    "clockmap": set(),
    "stats": BASE | {"health"},
    "sync": BASE,
    "calibration": BASE,
    "structure": BASE,
    "drift": BASE | {"structure"},
    "align": BASE | {"calibration"},
    "thermal": BASE,
    "mark": BASE | {"health"},
    "steady": {"types"},
    "capture": BASE | {"clockmap"},
    "fuse": BASE | {"hints", "libraries"},
    "keys": BASE,
    "cli_keys": {"keys"},
    "proxy": BASE | {"config", "keys", "logs", "publish"},
    "cli_proxy": {"app", "proxy"},
    "cli_detect": {"app", "detect", "signals", "yolo"},
    "app": {"failures", "logs", "web"},
    "start": {"failures"},
    "failures": {"errors", "hints", "logs"},
    "hints": {"errors"},
    "libraries": set(),
    "signals": set(),
    "detect": BASE | {"publish", "reception", "subscribe"},
    "yolo": BASE | {"hints", "libraries", "publish"},
    "publish": BASE | {"keys", "logs"},
    "reception": {"types"},
    "subscribe": BASE | {"keys", "publish", "reception"},
    "messages": BASE | {"publish"},
    "supervise": BASE | {"logs"},
    "playback": BASE,
    "queues": BASE | {"supervise", "sync"},
    "parts": BASE
    | {"align", "fuse", "health", "playback", "queues", "steady", "supervise", "sync", "thermal", "trace"},
    "fusing": BASE | {"align", "fuse", "logs", "mark", "parts", "queues", "stats", "thermal"},
    "pipeline": BASE | {"fusing", "health", "logs", "parts", "playback", "queues", "stats"},
    "raw": BASE | {"logs"},
    "trace": BASE,
    "recording": BASE | {"playback", "raw"},
    "rig": BASE
    | {"align", "calibration", "capture", "config", "fuse", "health", "parts", "playback", "publish", "queues"}
    | {"raw", "steady", "supervise", "sync", "thermal"},
    "web": BASE | {"health", "logs", "publish", "stats", "thermal"},
    "status": BASE | {"health", "hints", "parts", "stats"},
    "commands": BASE
    | {"bench", "bench_engines", "config", "drift", "fuse", "pipeline", "publish", "queues", "raw", "recording", "rig"}
    | {"hints", "signals", "stats", "status", "trace", "web"},
    "probe": BASE | {"capture", "publish", "thermal"},
    "view": BASE | {"hints", "publish", "stats", "subscribe", "thermal", "view_camera", "view_pipe"},
    "view_camera": BASE | {"capture"},
    "view_pipe": BASE,
    "bench": None,
    "bench_engines": BASE | {"fuse"},
    "cli": None,
    "__init__": None,
    "__main__": {"start"},
}
"""Module or package of `rtfuse` → the others that it may import; None: any."""


def imports(path):
    """The names of our own modules that this file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "rtfuse":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {a.name for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("rtfuse.")}
    return found


def test_stages_do_not_import_each_other():
    for path in sorted((ROOT / "rtfuse").rglob("*.py")):
        relative = path.relative_to(ROOT / "rtfuse")
        unit = relative.parts[0].removesuffix(".py")
        assert unit in MAY_IMPORT, f"{relative} is not in the table"
        allowed = MAY_IMPORT[unit]
        if allowed is not None:
            assert imports(path) <= allowed | {unit}, f"{relative} imports {imports(path) - allowed - {unit}}"


def test_the_runtime_does_not_import_the_trainer_or_the_tools():
    for path in (ROOT / "rtfuse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
            assert not {n.split(".")[0] for n in names} & {"trainer", "calib", "tools", "tests"}, path


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    """A subscriber on a small machine must not pay for torch, OpenCV or FFmpeg."""
    loaded = loaded_by("import rtfuse; rtfuse.Subscriber; rtfuse.open_source; rtfuse.open_fuser")
    assert not loaded & {"torch", "cv2", "av", "typer", "rich", "pygame"}


def test_the_command_line_starts_without_torch():
    assert "torch" not in loaded_by("import rtfuse.cli, rtfuse.commands, rtfuse.detect, trainer.cli, calib.cli")
