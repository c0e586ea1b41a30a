"""Configuration: what wins over what, and how a mistake is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import load_calibration
from rtfuse.config import Config, dump_config, load_config
from rtfuse.errors import ConfigError
from rtfuse.publish.proxy import load_proxy_config
from rtfuse.settings import read_yaml
from rtfuse.wire.addresses import check_endpoint
from trainer.recipe import load_recipe


def test_the_command_line_wins_over_overrides_over_the_file(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("rig: truck\nsync: {tolerance_ms: 5, wait_ms: 6}\npublish: {endpoint: 'ipc:///tmp/a'}\n")
    config = load_config(
        path, ["sync.tolerance_ms=7", "publish.endpoint=null"], {"sync.tolerance_ms": 8.5, "rig": None}
    )
    assert config.rig == "truck"
    assert config.sync.tolerance_ms == 8.5
    assert config.sync.wait_ms == 6
    assert config.publish.endpoint is None
    assert config.sync.policy == "lead"


def test_what_is_dumped_loads_to_the_same(tmp_path):
    config = load_config(None, ["ir.uri=synthetic:", "ir.size=[640, 512]", "playback.speed=max", "rgb.offset_ms=-3.5"])
    path = tmp_path / "c.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


def test_credentials_are_not_dumped():
    assert "secret" not in dump_config(load_config(None, ["ir.uri=rtsp://me:secret@cam/x"]))


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "c.yaml").write_text("# nothing yet\n")
    assert load_config(tmp_path / "c.yaml") == Config()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sync.tolerence_ms=3", "unknown key sync.tolerence_ms; did you mean sync.tolerance_ms"),
        ("nosuch=1", "unknown key nosuch; there are rig, ir, rgb"),
        ("sync=3", "sync: expected"),
        ("sync.policy=loose", "sync.policy: .*lead, strict"),
        ("playback.speed=fast", "playback.speed: .*max or a number"),
        ("sync.tolerance_ms=-1", r"sync.tolerance_ms: .*>= 0"),
        ("sync.tolerance_ms=soon", "sync.tolerance_ms: expected"),
        ("ir.size=[640]", r"ir.size: expected"),
        ("frames=0", "frames: .*>= 1"),
        ("rig.name=x", "rig: "),
        ("sync.tolerance_ms", "want key=value"),
        ("ir.uri={", "not valid YAML"),
    ],
)
def test_a_mistake_is_named_by_its_path(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [("sync: {tolerence_ms: 3}", "sync.tolerence_ms"), ("- a\n- b", "found list"), ("a: [", "not valid YAML")],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path, text, message):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(tmp_path / "nowhere.yaml")


CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_file_loads(path):
    if path.name.startswith(("train", "distill", "refine")):
        assert load_recipe(path).name
    elif path.name.startswith("calibration"):
        Aligner((512, 640), (480, 640), load_calibration(path))
    elif path.name == "proxy-compose.yaml":
        assert set(read_yaml(path)) == {"services"}
    elif path.name.startswith("proxy"):
        assert load_proxy_config(path, [], [], {}).rigs
    else:
        assert load_config(path).rig != "rig"


def test_files_are_shipped():
    assert len(CONFIGS) > 3


def test_endpoints_have_settings_of_their_own_and_say_what_is_wrong(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "publish:\n  jpeg_quality: 70\n  endpoints:\n    - {endpoint: 'ipc://a', planes: [fused, counts]}\n"
        "    - {endpoint: 'tcp://127.0.0.1:1', encoding: h264, h264_kbps: 900, topic: x}\n"
    )
    first, second = load_config(path).publish.endpoints
    assert (first.planes, first.encoding, first.topic) == (("fused", "counts"), None, None)
    assert (second.encoding, second.h264_kbps, second.topic) == ("h264", 900, "x")
    assert load_config(path, ["publish.endpoint=ipc://b", "publish.endpoints=[]"]).publish.endpoints == []
    endpoint = "endpoint: 'ipc://a'"
    for wrong in ("encoding: raw", f"{endpoint}, colour: 1", f"{endpoint}, encoding: bmp", f"{endpoint}, planes: [x]"):
        path.write_text(f"publish:\n  endpoints: [{{{wrong}}}]\n")
        with pytest.raises(ConfigError, match=r"publish\.endpoints"):
            load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sync: {tolerance_ms: 5}\nsync: {policy: strict}\n", "the key sync occurs twice"),
        ("fuse: {fuser: pyramid, fuser: student}\n", "the key fuser occurs twice"),
        ("sync: {tolerance_ms: .inf}\n", "sync.tolerance_ms: want a finite number"),
        ("duration_s: .nan\n", "duration_s: want a finite number"),
        ("[" * 5000, "nested too deep"),
    ],
)
def test_yaml_that_says_something_twice_or_without_end_is_refused(tmp_path, text, message):
    (tmp_path / "rig.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(tmp_path / "rig.yaml")


def test_a_hash_in_an_override_is_part_of_the_value():
    assert load_config(None, ["rig=cam #2"]).rig == "cam #2"
    with pytest.raises(ConfigError, match=r"write a list as 'publish.planes=\[one, two\]'"):
        load_config(None, ["publish.planes=fused,ir"])


@pytest.mark.parametrize("value", ["8080", "1e3", "true"])
def test_a_text_that_yaml_takes_for_a_number_is_to_be_quoted(tmp_path, value):
    """`address: 8080` is the port that the documentation allows, once it is a text."""
    (tmp_path / "rig.yaml").write_text(f"web: {{address: {value}}}")
    with pytest.raises(ConfigError, match=r"web.address: expected `str.*; put it in quotes, as YAML takes it") as e:
        load_config(tmp_path / "rig.yaml")
    assert f"`{value}`" not in str(e.value)
    assert "8080" not in str(e.value), "it may be a secret"
    (tmp_path / "rig.yaml").write_text(f"web: {{address: '{value}'}}")
    assert load_config(tmp_path / "rig.yaml").web.address == value


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_a_port_that_does_not_exist_is_refused(port):
    with pytest.raises(ConfigError, match="does not exist"):
        check_endpoint(f"tcp://127.0.0.1:{port}")


def test_a_fault_in_yaml_is_told_by_its_place_and_not_by_its_line(tmp_path):
    (tmp_path / "rig.yaml").write_text("web:\n  token: [hunter2\nrig: x\n")
    with pytest.raises(ConfigError, match=r"not valid YAML: .*line 3, column") as caught:
        load_config(tmp_path / "rig.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["duration_s=-1", "playback.speed=0"])
def test_a_number_out_of_bounds_is_named_with_its_bound(text):
    key, value = text.split("=")
    with pytest.raises(ConfigError, match=rf"{key}: expected .*, found {value}"):
        load_config(overrides=[text])
