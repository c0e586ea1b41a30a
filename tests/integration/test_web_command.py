"""`rtfuse run --web` as a real process: its numbers are those of the stream, and a lost camera shows."""

from __future__ import annotations

import re
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from rtfuse.subscribe import StatisticsSubscriber


def metrics(url):
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_agree_with_the_statistics_on_the_stream(start, endpoint):
    run = start(
        "run", "--ir", "synthetic:?drop=0.1", "--rgb", "synthetic:", "--web", "127.0.0.1:0", "--publish", endpoint
    )
    url = re.search(r"http://\S+", run.wait_for("answering on"))[0]
    with StatisticsSubscriber(endpoint) as stream:
        said = next(s for s in stream if s.frames > 30)
        now = metrics(url)
        later = next(s for s in stream if s.frames > said.frames)
    fused = now["rtfuse_frames_total", ("mode", "fused")]
    assert said.frames <= fused <= later.frames
    assert fused <= now["rtfuse_age_seconds_count",] + 1
    assert now["rtfuse_stage_seconds_count", ("stage", "publish")] >= said.frames
    missed = "rtfuse_dropped_frames_total", ("cause", "dropped"), ("where", "ir")
    assert said.drops["ir.dropped"] <= now[missed] <= later.drops["ir.dropped"]
    assert now["rtfuse_stream_state", ("state", "live"), ("stream", "ir")] == 1
    with urllib.request.urlopen(url + "/readyz", timeout=10) as answer:
        assert answer.status == 200
    run.signal(2)
    assert run.end(10) == 0


def test_an_address_in_use_ends_the_run_before_it_begins(start, endpoint):
    first = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "127.0.0.1:0", "--publish", "off")
    port = re.search(r"http://127.0.0.1:(\d+)", first.wait_for("answering on"))[1]
    second = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", port, "--publish", "off")
    assert second.end() == 2
    assert f"cannot listen on {port}" in second.output
    remote = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "0.0.0.0:0", "--publish", "off")
    assert remote.end() == 2
    assert "--insecure" in remote.output
