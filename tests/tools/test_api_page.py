"""docs/api.md: it is what the docstrings say now, has every public name, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rtfuse
from tools import api_page

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text():
    return api_page.page()


def test_the_page_is_not_stale(text):
    assert api_page.PAGE.read_text(encoding="utf-8") == text, "docs/api.md is stale: run make docs"


def test_every_public_name_has_a_section_with_its_docstring(text):
    for name in rtfuse.__all__:
        section = text.partition(f"\n## `rtfuse.{name}`\n")[2].partition("\n## ")[0]
        assert len(section.strip()) > 30, name
    assert "calibration: str | Path | Calibration | None = None" in text
    assert "- `recv(timeout_s: float | None = None) -> Received | None`: Return the next message" in text


def test_a_changed_docstring_makes_it_stale(text, monkeypatch):
    monkeypatch.setattr(rtfuse.Subscriber, "__doc__", "Receive something else.")
    assert api_page.page() != text
    assert api_page.main(["--check"]) == 1


def test_the_example_runs(text):
    (example,) = re.findall(r"```python\n(import rtfuse\n.*?)```", text, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["fused"].shape == (240, 320, 3)
