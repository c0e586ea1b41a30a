"""The words of the command line: sources, sizes, addresses, `key=value`, and the settings that they become."""

from __future__ import annotations

import socket

import pytest
from live import free_port

from rtfuse.cli.addresses import check_web, next_free
from rtfuse.cli.app import _completed
from rtfuse.cli.arguments import override, settings_of, size_of, source_of
from rtfuse.cli.fuse import output_beside
from rtfuse.config import Web
from rtfuse.errors import ConfigError, EndpointUnavailable


def test_a_number_is_a_camera_and_synthetic_needs_no_colon(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [source_of(text) for text in ("0", "12", "synthetic", "synthetic:?seed=2", "a.mp4", "-")] == [
        "/dev/video0", "/dev/video12", "synthetic:", "synthetic:?seed=2", "a.mp4", "/dev/stdin"
    ]  # fmt: skip
    for name in ("7", "synthetic:", "synthetic"):
        (tmp_path / name).mkdir()
    assert [source_of(name) for name in ("7", "synthetic:", "synthetic")] == ["7", "./synthetic:", "synthetic"]


def test_a_file_that_begins_with_a_dash_is_no_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("-x.mp4", "-noext", "--", "-o", "--force", "--a.mp4"):
        (tmp_path / name).touch()
    given = ["fuse", "-x.mp4", "-noext", "-absent", "-o", "out.mp4", "--force", "--a.mp4", "--", "-x.mp4"]
    assert _completed(given) == ["fuse", "./-x.mp4", "./-noext", *given[3:7], "./--a.mp4", "--", "./-x.mp4"]


def settings(*overrides, **given):
    keys = {"rgb": ("rgb.uri",), "size": ("rgb.size",), "web": ("web.address",), "speed": ("playback.speed",),
            "loop": ("playback.loop",), "fps": ("ir.fps", "rgb.fps")}  # fmt: skip
    return settings_of(dict.fromkeys(keys) | {"config": None, "overrides": [*overrides]} | given, keys)


def test_options_and_overrides_mean_the_same():
    by_option = settings(rgb="1", size="320x240", web=":8083")
    assert settings("rgb.uri=1", "rgb.size=320x240", "web.address=:8083") == by_option
    assert (by_option.rgb.uri, by_option.rgb.size, by_option.web.address) == ("/dev/video1", (320, 240), "8083")
    assert settings("rgb.size=[320, 240]", "rgb.uri=null").rgb.size == (320, 240)
    assert settings(speed="2", fps=9.0, loop=True).playback.speed == 2
    assert settings("playback.loop=true", loop=False).playback.loop, "a flag that is not given changes nothing"
    assert override("sync.tolerance_ms=15") == "sync.tolerance_ms=15"


@pytest.mark.parametrize("text", ["640", "640x", "0x480", "-1x480", "640X480", "640x480x3", ""])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ConfigError, match="WIDTHxHEIGHT"):
        size_of(text)
    with pytest.raises(ConfigError):
        settings(f"rgb.size={text or 'x'}")


def test_bad_and_busy_addresses_of_the_page_are_found():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EndpointUnavailable, match="in use; choose another with --web"):
            check_web(Web(address=str(port)))
        assert next_free(port) > port
    with pytest.raises(ConfigError, match="above 65535"):
        check_web(Web(address="99999"))
    for address in ("nowhere at all", "127.0.0.1:99999", "8080x"):
        with pytest.raises(ConfigError, match=r"web\.address"):
            check_web(Web(address=address))
    with pytest.raises(ConfigError, match="not an endpoint"):
        check_web(Web(detections=("127.0.0.1:5556",)))
    port = free_port()
    for _ in range(2):  # nothing stays bound
        check_web(Web(address=str(port), detections=("tcp://127.0.0.1:5556",)))
        assert next_free(port) == port


def test_an_output_is_named_beside_the_rgb_input(tmp_path):
    (tmp_path / "frames").mkdir()
    for rgb, output in (
        ("clip.mp4", "clip-fused.mp4"),
        ("clip.MKV", "clip-fused.MKV"),
        ("clip.ts", "clip-fused.mp4"),
        ("one.jpg", "one-fused.png"),
        ("frames", "frames-fused"),
        ("frames/*.png", "frames-fused"),
        ("synthetic_rgb.mp4", "synthetic_rgb-fused.mp4"),
    ):
        assert output_beside(f"{tmp_path}/{rgb}") == tmp_path / output
