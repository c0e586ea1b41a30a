"""Put the state of a pipeline into words."""

from __future__ import annotations

from types import SimpleNamespace

from rtfuse.cli.status import drop_lines, drops_line


def test_drops_are_told_in_words_with_their_code_one_line_each():
    s = SimpleNamespace(drops={("rgb", "busy"): 12, ("page", "slow"): 3, ("ir", "other"): 1})
    assert drop_lines(s) == [
        "1 ir: other (other)",
        "3 page: the output did not keep up (slow)",
        "12 rgb: skipped for a newer one, the fuser is slow (busy)",
    ]
    assert drops_line(s) == "ir other 1, page slow 3, rgb busy 12"
    assert drop_lines(SimpleNamespace(drops={})) == ["none"]
