"""Name the command that installs a missing package; it works for every way of installing rtfuse.

rtfuse may come from a checkout, a wheel or a URL, and no index has it. An index has the packages that it needs: a hint
names the missing ones, as rtfuse's own metadata lists them, and the pip of this interpreter.
"""

from __future__ import annotations

import platform
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from importlib.util import find_spec
from pathlib import Path

from rtfuse.errors import ConfigError

_ROOT = Path(__file__).parents[1]
_CPU_TORCH = "https://download.pytorch.org/whl/cpu"
_EXTRA = re.compile(r"""\s*(?:\band\s+)?\bextra\s*==\s*['"]([\w.-]+)['"]\s*""")
_OURS = re.compile(r"rtfuse\s*\[([\w.,\s-]+)\]")
_PLATFORM = re.compile(r"""sys_platform\s*==\s*['"](\w+)""")


def install_hint(*extras: str, broken: str | None = None) -> str:
    """Return the command that installs the requirements of these extras that this environment lacks.

    If none is missing, it installs the packages of the extras again, or the `broken` one.
    """
    if missing := missing_packages(*extras):
        return pip_install(*missing)
    again = _wanted(extras) or _wanted((None,))
    one = [requirement for requirement in _wanted((None, *extras)) if _name(requirement) == broken]
    return pip_install("--force-reinstall", "--no-deps", *one or again)


def missing_packages(*extras: str) -> list[str]:
    """Return the requirements of rtfuse and of these extras that are not installed, e.g. `["aiohttp>=3.10"]`."""
    return [requirement for requirement in _wanted((None, *extras)) if not _installed(requirement)]


def pip_install(*arguments: str) -> str:
    """Return the command that installs requirements into the environment of the interpreter that runs."""
    words = [*_torch_index(arguments), *arguments]
    if find_spec("pip") is None:  # environments that uv made
        return _quoted("uv", "pip", "install", "--python", sys.executable, *words)
    found = shutil.which("python")
    python = "python" if found and Path(found).parent == Path(sys.executable).parent else sys.executable
    return _quoted(python, "-m", "pip", "install", *words)


def need(what: str, modules: tuple[str, ...], *extras: str) -> None:
    """Raise ConfigError if `what` needs top-level modules that are not installed; imports none of them."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{what} needs {', '.join(missing)}, which {are} not installed: {install_hint(*extras)}")


def _wanted(extras: tuple[str | None, ...]) -> list[str]:
    """Return the requirements of extras (None: of rtfuse itself) on this platform, each once."""
    return list(dict.fromkeys(r for extra in extras for r in _requirements(extra)))


def _requirements(extra: str | None) -> Iterator[str]:
    """Yield the requirements of an extra; an extra of rtfuse among them is replaced by its own."""
    for line in _listed():
        requirement, _, marker = line.partition(";")
        found = _EXTRA.search(marker)
        if (found[1] if found else None) != extra:
            continue
        if ours := _OURS.match(requirement):
            for other in ours[1].split(","):
                yield from _requirements(other.strip())
            continue
        platforms = _PLATFORM.findall(marker)
        if not platforms or sys.platform in platforms:  # the rest of the marker was true when rtfuse was installed
            yield requirement.strip()


def _listed() -> list[str]:
    """Return all requirements as metadata has them; of a checkout, as its pyproject.toml has them now."""
    try:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "rtfuse":
            extras = project["optional-dependencies"].items()
            return [*project["dependencies"], *(_of_extra(r, extra) for extra, listed in extras for r in listed)]
    except (OSError, ValueError, KeyError):
        pass
    try:
        return requires("rtfuse") or []
    except PackageNotFoundError:  # a copy of the package alone: nothing lists what it needs
        return []


def _of_extra(requirement: str, extra: str) -> str:
    name, _, marker = requirement.partition(";")
    return f'{name}; ({marker.strip()}) and extra == "{extra}"' if marker else f'{name}; extra == "{extra}"'


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement, maxsplit=1)[0]


def _installed(requirement: str) -> bool:
    try:
        distribution(_name(requirement))
    except PackageNotFoundError:
        return False
    return True


def _torch_index(arguments: tuple[str, ...]) -> list[str]:
    """Return the option that makes pip take the CPU build of torch, gigabytes smaller, without an NVIDIA GPU."""
    torch = any(_name(argument) == "torch" for argument in arguments)
    cpu = sys.platform == "linux" and platform.machine() == "x86_64" and not Path("/proc/driver/nvidia").exists()
    return ["--extra-index-url", _CPU_TORCH] if torch and cpu else []


def _quoted(*words: str) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
