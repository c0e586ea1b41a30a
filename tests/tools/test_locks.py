"""The locks in requirements/: complete, consistent, and within the ranges of pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
LOCKS = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "requirements").glob("*.txt")}
CUDA = re.compile(r"nvidia|cuda|triton")


def locked(name):
    """Read a lock: its entries as (requirement, hashes)."""
    lines = re.sub(r"\\\n", "", LOCKS[name]).splitlines()
    for line in lines:
        if line and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split(" --hash=")
            yield Requirement(requirement), hashes


def versions(name):
    return {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r, _ in locked(name)}


def wanted(*extras):
    """Yield the requirements of the base and of these extras, with those that an extra takes from another one."""
    for text in [*PROJECT["project"]["dependencies"], *(t for extra in extras for t in EXTRAS[extra])]:
        requirement = Requirement(text)
        if requirement.name == "rtfuse":
            yield from wanted(*requirement.extras)
        else:
            yield requirement


@pytest.mark.parametrize("name", LOCKS)
def test_every_entry_is_one_version_with_hashes(name):
    entries = list(locked(name))
    assert entries
    for requirement, hashes in entries:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest.strip()) for digest in hashes), requirement


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_and_no_machine(name):
    assert not re.search(r"https?://|file:|--(extra-)?index-url|--find-links|--trusted-host", LOCKS[name])


def test_locks_agree_on_every_version():
    everything = versions("dev")
    assert versions("demo").items() <= everything.items()
    cuda = versions("torch-cuda")
    shared = {k: v for k, v in cuda.items() if k in everything}
    assert shared.items() <= everything.items()
    cpu = {r.marker.evaluate({"sys_platform": "linux"}): str(r.specifier) for r, _ in locked("torch-cpu")}
    assert cpu == {True: f"=={cuda['torch']}+cpu", False: f"=={cuda['torch']}"}


def test_torch_and_cuda_are_in_locks_of_their_own():
    for name in ("demo", "dev"):
        assert not [package for package in versions(name) if package == "torch" or CUDA.search(package)]
    assert "torch" not in {r.name for r in wanted("view", "web")}


@pytest.mark.parametrize(("name", "extras"), [("demo", ["view", "web"]), ("dev", sorted({*EXTRAS} - {"tensorrt"}))])
def test_a_lock_has_what_pyproject_asks_for_within_its_ranges(name, extras):
    have = versions(name) | {"torch": versions("torch-cuda")["torch"]}
    builder = Requirement(*PROJECT["build-system"]["requires"])
    for requirement in [*wanted(*extras), builder]:
        assert requirement.specifier.contains(have[canonicalize_name(requirement.name)]), requirement


def test_every_range_of_the_runtime_has_both_ends():
    for requirement in wanted(*({*EXTRAS} - {"lint"})):
        kinds = {part.operator for part in requirement.specifier}
        assert ">=" in kinds, requirement
        assert "<" in kinds or requirement.name == "packaging", requirement  # packaging counts in years


@pytest.mark.parametrize(
    ("smi", "asked", "failing", "said"),
    [
        (0, [], "", "CUDA build with its libraries (gigabytes), nvidia-smi finds a GPU"),
        (1, [], "", "CPU build, nvidia-smi finds no GPU"),
        (0, ["cpu"], "", "CPU build, as asked"),
        (
            1,
            [],
            "torch-cpu",
            "CUDA build with its libraries (gigabytes), https://download.pytorch.org/whl/cpu does not",
        ),
    ],
)
def test_the_build_of_torch_that_is_taken_is_said_with_the_reason(tmp_path, smi, asked, failing, said):
    """No machine has every GPU and index: programs that stand in for pip and nvidia-smi record what they are asked."""
    programs = {
        "nvidia-smi": f"exit {smi}",
        "uname": "echo Linux",
        "python": f'echo "$@" >> {tmp_path}/calls; case "$*" in *{failing or "nothing"}.txt*) exit 1;; esac',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    command = [ROOT / "tools" / "install_torch.sh", tmp_path / "python", *asked]
    done = subprocess.run(
        command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True, check=True, timeout=60
    )
    assert said in done.stdout
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    assert "--require-hashes" in last
    assert ("torch-cuda.txt" in last) == ("CUDA build" in said)


def test_an_unknown_build_of_torch_is_an_error_that_names_the_known_ones():
    command = [ROOT / "tools" / "install_torch.sh", "python", "rocm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "install_torch.sh: there is no build 'rocm' of torch: take cpu or cuda\n"
