"""A lost source is opened again by itself, if it can, and otherwise by its settings."""

from __future__ import annotations

import pytest
from scenes import ListSource, make_frame

from rtfuse.config import Config
from rtfuse.errors import SourceLost
from rtfuse.pipeline.sources import SourceOpener


class Moved(ListSource):
    """A camera that comes back at another path."""

    def reopen(self):
        return ListSource("rgb", [make_frame("rgb", 7)], live=True)


@pytest.mark.parametrize(("kind", "opened"), [(ListSource, 2), (Moved, 1)])
def test_a_source_that_can_reopen_itself_does(kind, opened):
    count = 0

    def given():
        nonlocal count
        count += 1
        return kind("rgb", [make_frame("rgb", 1)], live=True, fail=SourceLost("unplugged"))

    opener = SourceOpener(Config(), given={"rgb": given})
    source = opener.open("rgb")
    opener.keep_open(source)
    frames = iter(source)
    next(frames)
    next(frames)
    source.close()
    assert count == opened
