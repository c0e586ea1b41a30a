"""Packages import only those that one table allows; the sources are read to check it. Importing costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]

BASE = {"types", "picture", "thermal_data", "errors", "redaction"}
SERVICES = {"folders", "hints", "libraries", "observe", "outputs", "settings"}
"""Common to all packages; they import `BASE` and nothing else of ours."""
STAGES = {"capture", "sync", "thermal", "align", "fuse", "publish"}

MAY_IMPORT = {
    **dict.fromkeys(BASE, frozenset()),
    "errors": {"redaction"},
    "types": {"picture", "thermal_data", "redaction"},
    **dict.fromkeys(SERVICES, BASE),
    "settings": BASE | {"folders"},
    **dict.fromkeys(STAGES, BASE | SERVICES),
    "publish": BASE | SERVICES | {"wire"},
    "wire": BASE | {"folders"},  # what goes over the network, for both of its ends
    "client": BASE | {"wire"},
    "record": BASE | SERVICES | {"capture"},  # reads its files by the decoder of recordings, and at their pace
    "stream": BASE | SERVICES | {"capture"},  # its waits between tries, and its words for FFmpeg's errors
    "config": BASE | STAGES | {"settings", "record", "stream", "web"},  # the settings beside each stage
    "pipeline": BASE | SERVICES | STAGES | {"config", "record", "stream", "wire"},
    "detect": BASE | SERVICES | {"client", "publish", "wire"},
    "view": BASE | SERVICES | {"capture", "client", "record", "thermal", "wire"},  # of capture: the calls of V4L2
    "web": BASE | SERVICES | {"client", "thermal", "wire"},
    "bench": BASE | SERVICES | STAGES | {"client", "config", "pipeline", "wire"},
    "cli": BASE
    | SERVICES
    | STAGES
    | {"arrays", "bench", "config", "detect", "pipeline", "record", "view", "web", "wire"},
    "arrays": BASE | {"align", "config", "fuse", "pipeline", "thermal"},
    "__init__": BASE | {"arrays", "capture", "client", "fuse"},
    "__main__": {"cli"},
}
"""Module or package of `rtfuse` → the others that it may import."""


def module_of(path):
    """Return the dotted name of a file of ours."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(p): p for d in ("rtfuse", "trainer", "calib") for p in (ROOT / d).rglob("*.py")}


def imports(path):
    """Return the modules of ours that this file imports, anywhere in it, functions included."""
    named = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= inside & MODULES.keys() | ({node.module} if inside - MODULES.keys() else set())
    ours = {name for name in named if name.partition(".")[0] in ("rtfuse", "trainer", "calib")}
    assert ours <= MODULES.keys(), f"{path} imports {ours - MODULES.keys()}, which do not exist"
    return ours


def unit_of(module):
    """Return the package, or the module at the top, that a module of `rtfuse` belongs to."""
    return module.split(".")[1] if "." in module else "__init__"


def test_packages_import_what_the_table_allows():
    for module, path in MODULES.items():
        if module.partition(".")[0] == "rtfuse":
            unit = unit_of(module)
            assert unit in MAY_IMPORT, f"{module} is not in the table"
            found = {unit_of(name) for name in imports(path) if name.startswith("rtfuse.")} - {unit}
            assert found <= MAY_IMPORT[unit], f"{module} imports {found - MAY_IMPORT[unit]}"


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter({module: imports(path) for module, path in MODULES.items()}).prepare()


MODULE_LINES, FUNCTION_LINES, PARAMETERS = 350, 50, 8
COMMANDS = ("rtfuse/cli/", "calib/cli/", "trainer/cli.py", "trainer/eval_cli.py")
"""Files whose functions may have more parameters: those of a command are its options."""


def too_long(name, text):
    """Return each fault of a file's sizes."""
    lines = len(text.splitlines())
    if lines > MODULE_LINES:
        yield f"{name} has {lines} lines"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = node.end_lineno - node.lineno + 1
        listed = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
        count = len([a for a in listed if a not in ("self", "cls")])
        if length > FUNCTION_LINES:
            yield f"{name}:{node.lineno} {node.name} has {length} lines"
        if count > PARAMETERS and not name.startswith(COMMANDS):
            yield f"{name}:{node.lineno} {node.name} has {count} parameters"


def test_modules_and_functions_are_short():
    faults = [f for p in MODULES.values() for f in too_long(p.relative_to(ROOT).as_posix(), p.read_text())]
    assert faults == []


def test_the_limits_find_what_is_too_long():
    body = "    x = 1\n"
    assert list(too_long("a.py", "def f():\n" + body * 49)) == []
    assert list(too_long("a.py", "async def f():\n" + body * 50)) == ["a.py:1 f has 51 lines"]
    assert list(too_long("a.py", "x = 1\n" * 351)) == ["a.py has 351 lines"]
    many = "class A:\n    def f(self, a, b, c, d, *, e, f, g, h, i): ..."
    assert list(too_long("a.py", many)) == ["a.py:2 f has 9 parameters"]
    assert list(too_long("rtfuse/cli/a.py", many)) == []


def test_the_runtime_does_not_import_the_trainer_or_the_tools():
    """The command line alone may call `calib.register`, and loads it when it is needed."""
    for path in (ROOT / "rtfuse").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "") or ""]
            )
            if path.is_relative_to(ROOT / "rtfuse" / "cli"):
                names = [name for name in names if not name.startswith("calib.register")]
            assert not {n.split(".")[0] for n in names} & {"trainer", "calib", "tools", "tests"}, path


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    """A subscriber on a small machine must not pay for torch, OpenCV or FFmpeg."""
    loaded = loaded_by("import rtfuse; rtfuse.Subscriber; rtfuse.open_source; rtfuse.open_fuser")
    assert not loaded & {"torch", "cv2", "av", "typer", "rich", "pygame"}


def test_the_command_line_starts_without_torch():
    assert "torch" not in loaded_by(
        "import rtfuse.cli.main, rtfuse.cli.commands, rtfuse.detect.detector, trainer.cli, calib.cli.main"
    )
