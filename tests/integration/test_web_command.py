"""`rtfuse run --web` as a real process: its numbers are those of the stream, and a lost camera shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from pages import ask
from prometheus_client.parser import text_string_to_metric_families

from rtfuse import StatisticsSubscriber
from rtfuse.config import load_config
from rtfuse.web.addresses import networks_of


def metrics(url):
    with urllib.request.urlopen(url + "/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_metrics_agree_with_the_statistics_on_the_stream(start, endpoint):
    live = "synthetic:?live=1"
    run = start("run", "--ir", f"{live}&drop=0.1", "--rgb", live, "--web", "127.0.0.1:0", "--publish", endpoint)
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
    live = "synthetic:?live=1"
    first = start("run", "--ir", live, "--rgb", live, "--web", "127.0.0.1:0", "--publish", "off")
    port = re.search(r"http://127.0.0.1:(\d+)", first.wait_for("answering on"))[1]
    second = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", port, "--publish", "off")
    assert second.end() == 2
    assert f"cannot listen on {port}" in second.output
    remote = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "0.0.0.0:0", "--publish", "off")
    assert remote.end() == 2
    assert "--insecure" in remote.output
    nowhere = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "nonsense", "--publish", "off")
    assert nowhere.end() == 2
    assert "'nonsense' is not an address; want for example 127.0.0.1:8080" in nowhere.output


def test_the_page_of_the_command_on_ipv6_under_a_path(start):
    live = "synthetic:?live=1"
    given = ["web.prefix=/rig1", "web.link_token=only-to-look-at", "web.token=correct-horse-battery"]
    run = start("run", "--ir", live, "--rgb", live, "--web", "[::1]:0", "--publish", "off", *given)
    url = re.search(r"http://\[::1\]:\d+", run.wait_for("answering on"))[0]
    with urllib.request.urlopen(f"{url}/rig1/stream.mjpg?token=only-to-look-at", timeout=20) as stream:
        assert stream.readline() == b"--frame\r\n"
    for query, status in {"only-to-look-at": 200, "only-to-guess-at": 401}.items():
        assert ask(SimpleNamespace(url=url), f"/rig1/state?token={query}")[0] == status
    run.signal(2)
    assert run.end(10) == 0
    assert not [secret for secret in ("only-to", "correct-horse") if secret in run.output]


def test_settings_of_a_proxy_that_make_no_sense_end_the_run_before_it_begins(start):
    run = start("run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "0", "web.proxies=[nginx]")
    assert run.end() == 2
    assert "web.proxies: 'nginx' is not an address or a network; want for example 127.0.0.1" in run.output
    assert "Traceback" not in run.output


def test_what_is_asked_for_in_vain_is_said(start, tmp_path):
    live = [
        "run",
        "--ir",
        "synthetic:",
        "--rgb",
        "synthetic:",
        "--fuser",
        "pyramid",
        "--frames",
        "1",
        "--publish",
        "off",
    ]
    run = start(*live, "--keys", str(tmp_path), "--boxes", "tcp://127.0.0.1:5999", "web.prefix=/rig1")
    assert run.end() == 0
    assert "nothing is published" in run.output
    assert "add --web" in run.output
    assert "web.prefix has no effect" in run.output


DOCS = (Path(__file__).parents[2] / "docs" / "web.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]


@pytest.mark.slow
def test_the_commands_of_the_documentation_work(start, tmp_path):
    rigs = []
    for line in (line.replace("out/", f"{tmp_path}/") for line in LINES if line.startswith("rtfuse")):
        if line.startswith("rtfuse keys"):
            assert start(*shlex.split(line)[1:]).end() == 0
            continue
        if line.startswith("rtfuse detect"):
            continue  # test_subscribing.py runs it beside a rig
        line = re.sub(r"/dev/video\d", "synthetic:?live=1", line)
        line = re.sub(r"--web( 0\.0\.0\.0:\d+)?", lambda m: "--web 0.0.0.0:0" if m[1] else "--web 127.0.0.1:0", line)
        rigs.append(start(*shlex.split(line)[1:], "--publish", "off"))
    urls = [re.search(r"http://\S+", rig.wait_for("answering on"))[0] for rig in rigs]
    assert len(rigs) == 4
    assert re.search(r"log in at http://\S+/login#\S{20,}", rigs[3].wait_for("log in at"))
    rigs[3].wait_for("nothing of it is encrypted")
    for line in (line for line in LINES if line.startswith("curl")):
        answer = subprocess.run(
            shlex.split(line.replace("http://127.0.0.1:8080", urls[0])), capture_output=True, text=True, check=True
        )
        assert '"method":"linear","plateau":2.0,"max_gain":0.5' in answer.stdout
    for rig in rigs:
        rig.signal(2)
        assert rig.end(20) == 0


def test_the_configuration_of_the_documentation_is_one(tmp_path):
    read = []
    for block in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL):
        (tmp_path / "c.yaml").write_text(block)
        read.append(load_config(tmp_path / "c.yaml").web)
    detectors, encrypted, behind, linked = read
    assert [detector.keys for detector in detectors.detections] == ["front.key", "back.key"]
    assert encrypted.cert == "/etc/rtfuse/cert.pem"
    assert [str(network) for network in networks_of(behind.proxies)] == ["127.0.0.1/32"]
    assert linked.link_token == "only-to-look-at"


def test_the_token_is_in_no_line_that_is_printed(start):
    secret = "a secret of seven words or so"
    run = start(
        "run", "--ir", "synthetic:", "--rgb", "synthetic:", "--web", "127.0.0.1:0", f"web.token='{secret}'",
        "--publish", "off",
    )  # fmt: skip
    run.wait_for("log in at")
    run.signal(2)
    assert run.end(20) == 0
    assert secret not in run.output
