"""Renew the locks in requirements/: `make lock`. Needs uv, and reaches PyPI.

demo.txt: the packages of `make demo`; dev.txt: those of the tests and linters too; torch-cpu.txt, torch-cuda.txt: the
two builds of torch. One version of a package serves all Pythons from 3.11 and all platforms, and the lock names each of
its files by hash. At the end the tool checks that wheels exist for the Pythons and processors that the README names.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
DEMO = ("view", "web")
DEV = (*DEMO, "train", "eval", "export", "rtx", "test", "lint")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_35")
SOURCES = ("tensorrt-rtx-cu13",)  # a source package: a few lines of Python that install two wheels
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
HEADER = "# Made by `make lock` (tools/lock.py). Install with: pip install --require-hashes --no-deps -r {name}\n"


def main() -> None:
    """Renew every lock, then check that its wheels exist."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    dev = compiled("pyproject.toml", "-", extras=DEV, asked=build)
    torch = re.search(r"^torch==(\S+)", dev, re.MULTILINE)
    if torch is None:
        sys.exit("tools/lock.py: the extras of dev.txt do not bring torch, so its version is not known")
    dev = without("torch", dev)
    write("dev.txt", dev)
    write("demo.txt", compiled("pyproject.toml", "-", extras=DEMO, asked=build, constraint="dev.txt"))
    write("torch-cuda.txt", compiled("-", "--no-config", asked=[f"torch=={torch[1]}"], constraint="dev.txt"))
    lock_cpu_torch(torch[1])
    for name in ("demo.txt", "dev.txt", "torch-cuda.txt"):
        check_wheels(name)


def compiled(*sources: str, extras: tuple[str, ...] = (), asked: list[str], constraint: str | None = None) -> str:
    """Return the lock of the sources (`-`: the requirements `asked`), in the format of pip."""
    command = ["uv", "pip", "compile", *sources, "--quiet", "--no-header", "--universal", "--generate-hashes"]
    command += ["--python-version", PYTHONS[0], "--fork-strategy", "fewest", "--no-emit-index-url", "--upgrade"]
    command += [f"--extra={extra}" for extra in extras]
    command += ["--constraints", str(LOCKS / constraint)] if constraint else []
    done = subprocess.run(command, input="\n".join(asked), capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"tools/lock.py: uv found no versions for {', '.join(sources)} {extras}: {done.stderr.strip()}")
    return done.stdout


def without(package: str, lock: str) -> str:
    """Remove one package from a lock: its line, its hashes and the remark below them."""
    return re.sub(rf"^{package}==.*\n(?:[ ]+.*\n)*", "", lock, flags=re.MULTILINE)


def write(name: str, lock: str) -> None:
    """Write a lock, and say what moved since the last one."""
    path = LOCKS / name
    before = pins(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(HEADER.format(name=f"requirements/{name}") + lock, encoding="utf-8")
    after = pins(lock)
    moved = [k for k in sorted(before | after) if before.get(k) != after.get(k)]
    changes = ", ".join(f"{k} {before.get(k, '(new)')} -> {after.get(k, '(gone)')}" for k in moved)
    print(f"{name}: {len(after)} packages, {changes or 'as before'}")


def pins(lock: str) -> dict[str, str]:
    """Return the version of each package of a lock."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))


def lock_cpu_torch(version: str) -> None:
    """Lock torch without CUDA: PyTorch's own index has it for Linux, PyPI for the rest."""
    rest = compiled("-", "--no-deps", "--no-config", asked=[f"torch=={version} ; sys_platform != 'linux'"])
    linux = f"torch=={version}+cpu ; sys_platform == 'linux'"
    command = ["uv", "pip", "compile", "-", "--quiet", "--no-header", "--no-config", "--no-deps", "--universal"]
    command += ["--generate-hashes", "--python-version", PYTHONS[0], "--default-index", TORCH_INDEX]
    done = subprocess.run(command, input=linux, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        write("torch-cpu.txt", done.stdout + rest)
        return
    before = (LOCKS / "torch-cpu.txt").read_text(encoding="utf-8")
    if f"torch=={version}+cpu" not in before:
        sys.exit(f"tools/lock.py: {TORCH_INDEX} was not reached, and torch-cpu.txt has no hashes of torch {version}")
    print(f"torch-cpu.txt: kept as it is, {TORCH_INDEX} was not reached")


def check_wheels(name: str) -> None:
    """End with an error if a package of the lock has no wheel for one of `PYTHONS` and `PLATFORMS`."""
    for python in PYTHONS:
        for platform in PLATFORMS:
            command = ["uv", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--only-binary", ":all:"]
            command += [f"--no-binary={package}" for package in SOURCES]
            command += ["--python-version", python, "--python-platform", platform, "--target", "/nonexistent"]
            done = subprocess.run([*command, "-r", str(LOCKS / name)], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"tools/lock.py: {name} cannot be installed on {platform}, Python {python}: {done.stderr}")
    print(f"{name}: wheels for Python {', '.join(PYTHONS)} on {', '.join(PLATFORMS)}")


if __name__ == "__main__":
    main()
