"""The line of `rtfuse view --stats`: ages of cameras, none of recordings."""

from __future__ import annotations

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
from live import fused
from rich.console import Console

from rtfuse.client.subscriber import Received
from rtfuse.publish.publisher import Publisher
from rtfuse.types import Stamp
from rtfuse.view.viewer import Report


@pytest.mark.parametrize("stamp", list(Stamp))
def test_the_line_has_the_age_of_cameras_only(stamp, tmp_path):
    one = fused(3)
    one = replace(one, pair=replace(one.pair, rgb=replace(one.pair.rgb, stamp=stamp)))
    publisher = Publisher(f"ipc://{tmp_path}/stats")
    try:
        received = Received(one.image, publisher.header(one), 0)
    finally:
        publisher.close()
    said = io.StringIO()
    Report(Console(file=said), SimpleNamespace(lost=0, malformed=0), every_s=0.0).show(received)
    assert "skew p50" in said.getvalue()
    assert ("age at publish p50" in said.getvalue()) is (stamp not in (Stamp.PLAYBACK, Stamp.MEDIA))
