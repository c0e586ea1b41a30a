"""docs/publishing.md, followed literally, and what the command line publishes where."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from live import free_port

import rtfuse
from rtfuse import describe

PAGE = (Path(__file__).parents[2] / "docs" / "publishing.md").read_text(encoding="utf-8")
SCENE = "synthetic:?size=160x120&duration_s=120"


@pytest.fixture
def placed(tmp_path):
    """Put the page's endpoints where no other test has its own."""
    ports = {port: free_port() for port in ("5556", "5557")}

    def place(text):
        for port, ours in ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{ours}")
        return text.replace("ipc:///run/rtfuse/", f"ipc://{tmp_path}/")

    return place


def test_the_pages_examples_run_beside_the_rig_of_its_configuration(start, placed, tmp_path):
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "rig.yaml").write_text(placed(block))
    rig = start("run", "--config", str(tmp_path / "rig.yaml"), "--ir", SCENE, "--rgb", SCENE)
    rig.wait_for("publishing fused (h264)")
    assert "publishing fused, counts, mask on ipc://" in rig.output
    assert "publishing fused (nv12) on ipc://" in rig.output
    with rtfuse.Subscriber(placed("ipc:///run/rtfuse/yuv")) as encoder:
        received = encoder.recv(20)
        assert (received.picture.layout, received.image.shape) == ("nv12", (120, 160, 3))
    said = []
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        done = subprocess.run([sys.executable, "-c", placed(example)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    planes, about, states = said
    assert planes == "(120, 160, 3) thermal reaches 100%\n"
    assert about.startswith("truck pyramid ")
    assert f"ir {SCENE}.0 160x120 30.0" in about
    assert "fused rgb24 jpeg\nir gray8 jpeg\nrgb rgb24 jpeg\nno calibration" in about
    assert states == "now {'ir': 'live', 'rgb': 'live'}\n"
    with rtfuse.Subscriber(placed("tcp://127.0.0.1:5557"), latest=False) as radio:
        units = [radio.recv(20).header for _ in range(5)]
        assert units[0].key_frame
        assert [u.unit for u in units] == list(range(units[0].unit, units[0].unit + 5))


@pytest.mark.usefixtures("usual_ports")
@pytest.mark.parametrize("command", re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0].splitlines())
def test_the_pages_commands_are_understood(rtfuse, command, placed):
    words = shlex.split(placed(command.split("   #")[0]).replace("/dev/video1", SCENE).replace("/dev/video0", SCENE))
    done = rtfuse(*words[1:], "--frames", "3", timeout_s=60)
    assert done.returncode == 0, done.stderr
    endpoints = [words[k + 1] for k, word in enumerate(words) if word == "--publish"] or ["tcp://127.0.0.1:5555"]
    found = re.findall(r"publishing .* on (\S+)", done.stdout)
    assert found == ([] if endpoints == ["off"] else endpoints)


def test_a_state_is_published_the_moment_it_changes(start, endpoint):
    ir = SCENE + "&live=1&bits=16&ffc_every_s=3&ffc_s=1"
    start("run", "--ir", ir, "--rgb", SCENE + "&live=1", "--publish", endpoint).wait_for("publishing")
    with rtfuse.StateSubscriber(endpoint) as states:
        seen = []
        while seen[-2:] != [("live", "frozen"), ("frozen", "live")]:
            change = states.recv(30)
            assert change is not None, seen
            if change.stream == "ir":
                seen.append((change.before, change.streams["ir"].state))
    assert describe(endpoint).about.streams["ir"].dtype == "uint16"


def test_what_encoders_cannot_take_is_in_the_drops_and_the_statistics(start, endpoint):
    scene = "synthetic:?size=1280x960&duration_s=60&noise=8"
    run = start("run", "--ir", SCENE, "--rgb", scene, "--publish", endpoint, "--encoding", "png")
    run.wait_for("publishing")
    with (
        rtfuse.Subscriber(endpoint, latest=False) as reader,
        rtfuse.StatisticsSubscriber(endpoint) as statistics,
    ):
        assert reader.recv(60).image.shape == (960, 1280, 3)
        for told in statistics:
            dropped = told.drops.get(f"{endpoint} fused.encoder", 0)
            if dropped > 2:
                break
        while reader.lost == 0:
            assert reader.recv(20) is not None


def test_every_plane_can_be_watched(start, rtfuse, endpoint, tmp_path):
    scene = SCENE + "&bits=16"
    planes = "publish.planes=[fused, ir, counts, mask]"
    start("run", "--ir", scene, "--rgb", SCENE, "--publish", endpoint, "--encoding", "h264", planes).wait_for(
        "publishing"
    )
    for topic, colours in (("fused", True), ("ir", False), ("counts", False), ("mask", False), ("counts", True)):
        folder = tmp_path / f"{topic}{colours}"
        palette = ["--palette", "iron"] if (topic, colours) == ("counts", True) else []
        done = rtfuse("view", endpoint, "--topic", topic, "--save", folder, "--frames", 2, *palette)
        assert "2 frames received" in done.stdout, done.stderr
        image = cv2.imread(str(next(folder.iterdir())))
        assert image.shape == (120, 160, 3)
        assert bool((image.max(axis=2) != image.min(axis=2)).any()) == colours
