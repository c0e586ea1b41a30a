"""`~` is the home folder wherever a path is given: words, options, `key=value`, files of settings, the API."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtfuse.capture import open_source
from rtfuse.cli.app import _completed
from rtfuse.config import load_config
from rtfuse.errors import SourceNotFound
from rtfuse.folders import expanded
from rtfuse.publish.proxy import load_proxy_config
from rtfuse.record.video import open_writer


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("~/a b.mkv", "{home}/a b.mkv"),
        ("--calib=~/c.yaml", "--calib={home}/c.yaml"),
        ("ir.uri=~/x/%04d.png", "ir.uri={home}/x/%04d.png"),
        ("truck-1=~/t.key", "truck-1={home}/t.key"),
        ("-o=~/x.mp4", "-o{home}/x.mp4"),
        ("-o~/x.mp4", "-o{home}/x.mp4"),
        ("-o=x.mp4", "-ox.mp4"),  # and not a file `=x.mp4`
        ("ipc://~/rig", "ipc://{home}/rig"),
        ("~nobody-of-this-name/x", "~nobody-of-this-name/x"),
        ("align.calib=~", "align.calib=~"),
        ("http://cam/~user/x?y=~/z", "http://cam/~user/x?y=~/z"),
        ("a~/b", "a~/b"),
    ],
)
def test_words_of_the_command_line(home, word, meant):
    assert _completed([word]) == [meant.format(home=home)]


def test_settings_from_files_and_overrides(home):
    (home / "rig.yaml").write_text(
        "ir: {uri: ~/ir.mkv}\nweb: {detections: [{endpoint: 'tcp://h:1', keys: ~/d.key}]}\nrgb: {uri: ~}\n"
    )
    config = load_config("~/rig.yaml", ["align.calib=~/c.yaml"], {"raw.path": "~/r.mkv"})
    assert config.ir.uri == f"{home}/ir.mkv"
    assert config.rgb.uri is None
    assert config.align.calib == f"{home}/c.yaml"
    assert config.raw.path == f"{home}/r.mkv"
    assert config.web.detections[0].keys == f"{home}/d.key"
    proxy = load_proxy_config(None, ["a=tcp://h:1"], ["a=~/a.key"], {"keys": "~/keys"})
    assert (proxy.rigs["a"].keys, proxy.keys) == (f"{home}/a.key", f"{home}/keys")


def test_the_library_and_a_folder_of_that_very_name(home):
    with pytest.raises(SourceNotFound, match=f"{home}/none.mkv"):
        open_source("~/none.mkv", "rgb")
    open_writer("~/o.png").abort()
    Path("~").mkdir()
    assert expanded("~/x") == "~/x"
