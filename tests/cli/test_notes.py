"""Notes about settings without effect and sources that look wrong; a missing camera's error."""

from __future__ import annotations

import io
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rich.console import Console
from scenes import write_video

from rtfuse.arrays import has_colour
from rtfuse.cli.commands import _note_slow
from rtfuse.cli.notes import notes, open_rig_or_advise
from rtfuse.config import load_config
from rtfuse.errors import DeviceUnavailable, SourceNotFound

STREET = "synthetic:?size=160x120"


def said(ir=STREET, rgb=STREET, *overrides):
    config = load_config(None, overrides, {"ir.uri": str(ir), "rgb.uri": str(rgb), "fuse.fuser": "pyramid"})
    rig = open_rig_or_advise(config, None)
    try:
        return list(notes(config, rig))
    finally:
        for source in rig.sources.values():
            source.close()


def still(path, size_wh=(64, 48), colour=False, dtype=np.uint8):
    w, h = size_wh
    image = np.linspace(0, np.iinfo(dtype).max, w * h).reshape(h, w).astype(dtype)
    cv2.imwrite(str(path), cv2.applyColorMap(image, cv2.COLORMAP_INFERNO) if colour else image)
    return path


@pytest.fixture
def grey(tmp_path):
    return still(tmp_path / "grey.png")


@pytest.fixture
def colour(tmp_path):
    rng = np.random.default_rng(2)
    cv2.imwrite(str(tmp_path / "day.png"), cv2.resize(rng.integers(0, 255, (5, 7, 3), np.uint8), (64, 48)))
    return tmp_path / "day.png"


@pytest.fixture
def false(tmp_path):
    return still(tmp_path / "colour.png", colour=True)


def test_usual_sources_need_no_note(grey, colour, tmp_path):
    assert said() == []
    assert said(grey, colour) == []
    assert said(grey, still(tmp_path / "night.png")) == [], "an RGB camera at night may show no colour"
    assert said(still(tmp_path / "counts.png", dtype=np.uint16), colour) == []
    assert said(write_video(tmp_path / "a.mp4", 5, gray=True), write_video(tmp_path / "b.mp4", 5)) == []


def test_settings_that_a_source_ignores_are_said(grey, colour, tmp_path):
    (line,) = said(STREET, STREET, "rgb.size=[320, 240]")
    assert "rgb.size has no effect on the synthetic street:" in line
    assert "'synthetic:?size=320x240'" in line
    (line,) = said(STREET, STREET, "ir.fps=10", "rgb.fps=10")
    assert line == "ir.fps, rgb.fps have no effect on the synthetic street: write 'synthetic:?fps=10'"
    (line,) = said(grey, colour, "ir.format=Y16", "ir.size=[64, 48]", "ir.fps=9")
    assert "ir.size, ir.format have no effect on a file" in line
    ir, rgb = write_video(tmp_path / "a.mp4", 5, gray=True), write_video(tmp_path / "b.mp4", 5)
    (line,) = said(ir, rgb, "rgb.fps=9")
    assert "rgb.fps has no effect on a file: it is for cameras at /dev/videoN, stills and files without times" in line
    (line,) = said(ir, rgb, "ir.fps=9", "rgb.fps=9")
    assert "ir.fps, rgb.fps have no effect on a file" in line
    (line,) = said(ir, rgb, "stills.recursive=true")
    assert line == "stills.recursive has no effect: it is for stills of both streams"
    (line,) = said(f"{STREET}&duration_s=3", f"{STREET}&duration_s=3", "playback.loop=true")
    assert "--loop" in line
    assert len(said(STREET, STREET, "web.detections_keys=x", "publish.endpoint=null", "publish.keys=x")) == 2


def test_swapped_sources_and_false_colours_are_noticed(grey, colour, false, tmp_path, caplog):
    for ir, rgb in ((colour, grey), (grey, false), (colour, false)):
        (line,) = said(ir, rgb)
        assert "swapped" in line
    caplog.clear()
    for rgb in (colour, grey, still(tmp_path / "other.png", colour=True)):
        assert said(false, rgb) == []
    assert "thermal is in false colours" in caplog.records[0].getMessage()


def test_portrait_and_landscape_are_noticed(tmp_path, colour):
    (line,) = said(still(tmp_path / "up.png", (48, 64)), colour)
    assert "thermal is portrait (48x64) and RGB landscape (64x48)" in line


@pytest.mark.parametrize("quality", [30, 95])
def test_a_coded_grey_picture_has_no_colour(quality):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (120, 160), np.uint8)
    coded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    assert not has_colour(coded)
    coded[20:60, 20:80, 0] //= 2
    assert has_colour(coded)


def test_a_missing_camera_names_the_way_to_start_without_it():
    def config(*overrides):
        return load_config(None, overrides, {"ir.uri": "/dev/video97", "rgb.uri": STREET, "fuse.fuser": "pyramid"})

    with pytest.raises(DeviceUnavailable, match=r"/dev/video97.*degraded\.start=any"):
        open_rig_or_advise(config(), None)
    with pytest.raises(DeviceUnavailable) as refused:
        open_rig_or_advise(config("degraded.policy=stop"), None)
    assert "start=any" not in str(refused.value)
    with pytest.raises(SourceNotFound) as refused:
        open_rig_or_advise(load_config(None, (), {"ir.uri": "no.mp4", "rgb.uri": STREET}), None)
    assert "start=any" not in str(refused.value)


@pytest.mark.parametrize("cause", ["busy", "queue"])
def test_a_fuser_that_was_too_slow_is_noted_at_the_end_whatever_its_frames_died_of(cause):
    """Frames that wait too long for a fuser are lost by it as are those that it skips."""
    console = Console(file=io.StringIO(), width=200)
    rig = SimpleNamespace(fuser="ufuser (OpenVINO, float32, on the processor)")
    result = SimpleNamespace(drops={("rgb", cause): 300, ("rgb", "stale"): 20}, frames=8, lowered=())
    _note_slow(console, rig, result)
    assert "is too slow for these pictures: --fuser student" in console.file.getvalue()
    for more in ({"lowered": ("the fuser to pyramid",)}, {"drops": result.drops | {("rgb", "stale"): 400}}):
        other = Console(file=io.StringIO())
        _note_slow(other, rig, SimpleNamespace(**vars(result) | more))
        assert not other.file.getvalue(), "the log has told of it, or the captures lost more"
