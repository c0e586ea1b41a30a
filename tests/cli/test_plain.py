"""Every text on a terminal of any encoding: our signs in others of ASCII, all else escaped, no traceback."""

from __future__ import annotations

import subprocess
import sys

import pytest

SHOW = """
import sys
from rtfuse.cli.plain import fit_streams, plain
fit_streams()
print("3 × 4 ± 0.5 – done… ü✓ → 25 °C")
print(len(plain("±")))
print("5 µs ─", file=sys.stderr)
"""
PLAIN = ("3 x 4 +- 0.5 - done... \\xfcok -> 25  degC\n2\n", "5 us -\n")
UTF8 = ("3 × 4 ± 0.5 – done… ü✓ → 25 °C\n1\n", "5 µs ─\n")


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({"LC_ALL": "C"}, PLAIN),  # where Python itself would write UTF-8
        ({"LC_ALL": "POSIX"}, PLAIN),
        ({"PYTHONIOENCODING": "ascii"}, PLAIN),
        ({"LC_ALL": "C.UTF-8"}, UTF8),
        ({}, UTF8),  # a service or a container without a locale
        ({"PYTHONIOENCODING": "latin-1"}, ("3 × 4 ± 0.5 - done... üok -> 25 °C\n1\n", "5 µs -\n")),
    ],
)
def test_signs_are_written_as_the_encoding_allows(environment, shown):
    done = subprocess.run([sys.executable, "-c", SHOW], env=environment | {"PYTHONPATH": ":".join(sys.path)},
                          capture_output=True, timeout=60, check=True)  # fmt: skip
    encoding = "latin-1" if "latin-1" in environment.values() else "utf-8"
    assert (done.stdout.decode(encoding), done.stderr.decode(encoding)) == shown


@pytest.mark.parametrize("program", ["rtfuse", "trainer", "calib"])
def test_the_help_of_every_command_is_ascii_where_the_locale_is(program):
    environment = {"LC_ALL": "C", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-m", program, "--help"], env=environment, capture_output=True, check=True)
    assert done.stdout.isascii()
    assert b"+-" in done.stdout
