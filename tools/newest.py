"""Run the demo and a short set of tests in this environment; list the packages that differ from the lock.

`make newest` calls it in an environment with the newest versions that pyproject.toml allows.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
# These use every package of rtfuse's runtime; the demo adds openvino, av and cv2.
TESTS = (
    "wire/test_wire",
    "test_config",
    "publish/test_publisher",
    "capture/test_recordings",
    "web/test_page",
    "fuse/test_student",
    "trainer/test_export",
)


def main() -> None:
    """Run all checks, list the differing packages, and fail if a check failed."""
    checks = {
        "pip check": ["-m", "pip", "check"],
        "the demo": ["-m", "rtfuse", *shlex.split(os.environ["DEMO"])],
        "the tests": ["-m", "pytest", "-n", "2", "--dist", "loadfile", "-q", *(f"tests/{t}.py" for t in TESTS)],
    }
    (ROOT / "out").mkdir(exist_ok=True)
    failed = [name for name, args in checks.items() if subprocess.run([sys.executable, *args], cwd=ROOT).returncode]
    changes = moved()
    print(f"{len(changes)} packages differ from the lock{':' if changes else ''}", *changes, sep="\n  ")
    if failed:
        sys.exit(f"tools/newest.py: with these versions {' and '.join(failed)} failed; `make demo test` has the lock's")


def moved() -> list[str]:
    """Return `name locked -> installed` for each package whose version is another than the lock's."""
    lock = "".join((ROOT / "requirements" / f"{name}.txt").read_text("utf-8") for name in ("dev", "torch-cpu"))
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))
    here = {re.sub(r"[-_.]+", "-", d.name).lower(): d.version for d in distributions()}
    here = {k: v for k, v in here.items() if k not in {"rtfuse", "pip", "wheel"}}
    return [
        f"{k} {pins.get(k, '(none)')} -> {v}" for k, v in sorted(here.items()) if _public(pins.get(k)) != _public(v)
    ]


def _public(version: str | None) -> str | None:
    """Return a version without its local part: 2.13.0 for 2.13.0+cpu."""
    return version and version.partition("+")[0]


if __name__ == "__main__":
    main()
