"""The dashboard and the page of metrics name what a rig really says, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rtfuse.config import Config, Fuse, Playback, SourceSettings, Thermal
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.run import Pipeline
from rtfuse.publish.publisher import Publisher
from rtfuse.web.metrics import exposition

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "configs" / "grafana.json").read_text())
SCENE = "synthetic:?size=160x120&duration_s=1&bits=16"


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The metrics of a run, by the names under which Prometheus stores them."""
    config = Config(
        ir=SourceSettings(uri=SCENE),
        rgb=SourceSettings(uri=SCENE),
        thermal=Thermal(k_per_count=0.01),
        fuse=Fuse(fuser="pyramid"),
        playback=Playback(speed="max"),
    )
    rig = open_rig(config)
    pipeline = Pipeline(rig)
    snapshot = pipeline.run()
    publisher = Publisher(f"ipc://{tmp_path_factory.mktemp('ipc')}/p")
    try:
        text = exposition(snapshot, {"rig": "r", "fuser": "f", "version": "v"}, publisher, 2).decode()
    finally:
        publisher.close()
    assert "rtfuse_viewers 2.0" in text
    return set(re.findall(r"^# TYPE (\w+) ", text, re.M)) | set(re.findall(r"^(\w+)[{ ]", text, re.M))


def expressions():
    return [t["expr"] for p in BOARD["panels"] for t in p.get("targets", ())]


def test_every_expression_asks_for_what_there_is(names):
    asked = {n for e in expressions() for n in re.findall(r"\b(?:rtfuse|process)_\w+", e)}
    histograms = {n.removesuffix("_bucket") for n in asked}
    assert len(expressions()) > 15
    assert histograms <= names, histograms - names


def test_the_page_lists_every_metric_and_no_other(names):
    listed = set(re.findall(r"`(rtfuse_\w+)`", (ROOT / "docs" / "metrics.md").read_text().split("## A trace")[0]))
    there = {n for n in names if n.startswith("rtfuse_") and not n.endswith(("_bucket", "_count", "_sum", "_created"))}
    assert listed - names == set()
    assert {n.removesuffix("_total") for n in there} == {n.removesuffix("_total") for n in listed}


def test_the_source_is_a_variable_and_panels_do_not_overlap():
    assert "datasource" in {v["name"] for v in BOARD["templating"]["list"]}
    assert all(p["datasource"]["uid"] == "${datasource}" for p in BOARD["panels"] if p["type"] != "row")
    taken = set()
    for p in BOARD["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken
        assert g["x"] + g["w"] <= 24
        taken |= cells
