"""The time in which tasks wait for a processor, as Linux tells it; elsewhere nothing."""

from __future__ import annotations

import pytest

from rtfuse.observe.pressure import waited_ns

SOME = "some avg10=8.51 avg60=3.32 avg300=7.56 total=28254072642\n"
FULL = "full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (SOME + FULL, 28254072642_000),
        (SOME, 28254072642_000),
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0),
        (FULL, 0),
        ("some avg10=0.00", 0),
        ("some total=x\n", 0),
        ("", 0),
    ],
)
def test_the_total_of_some(tmp_path, text, ns):
    file = tmp_path / "cpu"
    file.write_text(text)
    assert waited_ns(file) == ns


def test_a_system_that_does_not_say(tmp_path):
    assert waited_ns(tmp_path / "absent") == 0
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert waited_ns(tmp_path / "bytes") == 0
