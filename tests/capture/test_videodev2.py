"""The kernel's V4L2 calls as we write them down, beside what C compilers make of the system's linux/videodev2.h."""

from __future__ import annotations

import ctypes
import errno
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ctypes import Structure, Union
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtfuse.capture import videodev2 as api
from rtfuse.capture.node import Node, interval_of
from rtfuse.errors import ConfigError
from rtfuse.view.camera import CameraOutput

linux = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux only")

NAMES = {name: value for name, value in vars(api).items() if name.startswith(("V4L2_", "VIDIOC_"))}
STRUCTURES = [
    kind for kind in vars(api).values() if isinstance(kind, type) and issubclass(kind, Structure) and kind != Structure
]


def members(kind: type[Structure | Union], path: str = "", base: int = 0) -> Iterator[tuple[str, int, int, type]]:
    """Yield each member that the header knows: its path, offset and size in bytes, and type, outer ones first."""
    anonymous = getattr(kind, "_anonymous_", ())
    for name, inner in kind._fields_:  # type: ignore[misc]
        offset = base + getattr(kind, name).offset
        if not name.startswith("_"):
            yield path + name, offset, ctypes.sizeof(inner), inner
        if issubclass(inner, Structure | Union):
            yield from members(inner, path if name in anonymous else f"{path}{name}.", offset)


def claims() -> Iterator[str]:
    """Yield what we say of the header, each as a condition in C."""
    for name, value in NAMES.items():
        yield f"{name} == {value}u"
    for kind in STRUCTURES:
        c = f"struct {kind.__name__}"
        yield f"sizeof({c}) == {ctypes.sizeof(kind)}"
        for path, offset, size, inner in members(kind):
            value = f"(({c} *)0)->{path}"
            yield f"__builtin_offsetof({c}, {path}) == {offset}"
            yield f"sizeof({value}) == {size}"
            if inner in (ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_long):
                below = "<" if inner(-1).value < 0 else ">"
                yield f"(__typeof__({value}))-1 {below} 0"


def compiled(compiler: str, conditions: list[str]) -> list[str]:
    """Return the conditions that do not hold where `compiler` compiles for; skips without it or its header."""
    command = shutil.which(compiler)
    if command is None:
        pytest.skip(f"no {compiler}")
    syntax = [command, "-fsyntax-only", "-fmax-errors=0", "-xc", "-"]
    header = "#include <linux/videodev2.h>\n"
    if subprocess.run(syntax, input=header, text=True, capture_output=True).returncode:
        pytest.skip(f"{compiler} finds no linux/videodev2.h")
    source = header + "".join(f'_Static_assert({c}, "claim {i}.");\n' for i, c in enumerate(conditions))
    done = subprocess.run(syntax, input=source, text=True, capture_output=True, env={"LC_ALL": "C"})
    wrong = [c for i, c in enumerate(conditions) if f'"claim {i}."' in done.stderr]
    assert done.returncode == 0 or wrong, done.stderr
    return wrong


@linux
@pytest.mark.parametrize("compiler", ["cc", "x86_64-linux-gnu-gcc", "aarch64-linux-gnu-gcc"])
def test_layouts_numbers_and_flags_are_the_headers(compiler: str) -> None:
    conditions = list(claims())
    assert len(conditions) > 300
    assert compiled(compiler, conditions) == []


@linux
def test_the_comparison_sees_a_wrong_layout_and_a_wrong_number() -> None:
    wrong = ["VIDIOC_DQBUF == 1u", "__builtin_offsetof(struct v4l2_buffer, m.offset) == 60"]
    assert compiled("cc", [*wrong, "sizeof(struct v4l2_control) == 8"]) == wrong


@linux
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_no_device_is_refused(tmp_path: Path, make: object) -> None:
    path = tmp_path / "video0"
    make(path)  # type: ignore[operator]
    with pytest.raises(OSError, match="not a V4L2 device") as refusal:
        Node(str(path))
    assert refusal.value.errno == errno.ENOTTY


@linux
@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero", __file__])
def test_no_pictures_are_written_into_what_is_no_device(path: str) -> None:
    with pytest.raises(ConfigError, match=f"--pipe {path} is not a V4L2 device; want a V4L2 output"):
        CameraOutput(path)


@linux
def test_a_call_that_fails_is_an_error_and_one_that_a_list_lacks_is_its_end() -> None:
    with open(__file__, "rb") as file:
        with pytest.raises(OSError) as refusal:
            api.ioctl(file.fileno(), api.VIDIOC_QUERYCAP, api.v4l2_capability())
        assert refusal.value.errno == errno.ENOTTY
        assert list(api.listed(file.fileno(), api.VIDIOC_ENUM_FMT, api.v4l2_fmtdesc())) == []
    with pytest.raises(OSError) as refusal:
        list(api.listed(2**31 - 1, api.VIDIOC_ENUM_FMT, api.v4l2_fmtdesc()))
    assert refusal.value.errno == errno.EBADF


@given(st.floats(0.1, 1000))
def test_a_rate_is_asked_for_as_it_is(rate_hz: float) -> None:
    interval = interval_of(rate_hz)
    assert interval.denominator / interval.numerator == pytest.approx(rate_hz, abs=1e-5)


@pytest.mark.parametrize(
    ("rate_hz", "interval"),
    [(15.0, (1, 15)), (29.97, (100, 2997)), (30000 / 1001, (1001, 30000)), (1e-9, (10_000, 1)), (1e15, (1, 40_000))],
)
def test_known_rates_and_those_beyond_every_camera(rate_hz: float, interval: tuple[int, int]) -> None:
    got = interval_of(rate_hz)
    assert (got.numerator, got.denominator) == interval
