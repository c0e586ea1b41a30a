"""Which track of a recording is thermal and which RGB, by what they show; doubt is told."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.frame import VideoFrame

from rtfuse.capture.recordings import Recording
from rtfuse.capture.settings import PictureOptions
from rtfuse.capture.tracks import pair_in
from rtfuse.errors import ConfigError
from rtfuse.thermal.likeness import in_false_colours
from rtfuse.thermal.recorded import recorded

WH = (160, 120)


def luma(k, size_wh=WH):
    """Thermal luma: a cool ground and hot spots that move."""
    rng = np.random.default_rng(7)
    image = cv2.resize(rng.uniform(0, 130, (4, 5)).astype(np.float32), size_wh, interpolation=cv2.INTER_CUBIC)
    for _ in range(9):
        x, y, reach = (int(v) for v in rng.integers(5, 110, 3))
        cv2.circle(image, (x + k, y), 5 + reach // 5, float(rng.uniform(0, 255)), -1, cv2.LINE_AA)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 1.5), 0, 255).astype(np.uint8)


def scene(k, size_wh=WH):
    """A picture of many things in many colours."""
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.uniform(30, 220, (5, 7, 3)).astype(np.float32), size_wh, interpolation=cv2.INTER_CUBIC)
    return np.clip(np.roll(image, k, axis=1) + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def grey(image):
    return np.repeat((cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image)[..., None], 3, 2)


def tinted(k, size_wh=WH):
    return (grey(scene(k, size_wh)) * np.array([1, 0.8, 0.95])).astype(np.uint8)


def with_scale(image):
    image = image.copy()
    image[10:110, -10:-2] = recorded("opencv-jet")[np.linspace(255, 0, 100).astype(np.uint8)][:, None]
    return image


SHOWS = {
    "jet": lambda k, wh: recorded("opencv-jet")[luma(k, wh)],
    "rainbow": lambda k, wh: recorded("rainbow-white")[luma(k, wh)],
    "iron": lambda k, wh: recorded("ironbow")[luma(k, wh)],
    "late iron": lambda k, wh: recorded("ironbow")[luma(k, wh)] if k > 3 else np.zeros((*wh[::-1], 3), np.uint8),
    "grey thermal": lambda k, wh: grey(luma(k, wh)),
    "counts": lambda k, wh: luma(k, wh).astype(np.uint16) * 20 + 7000,
    "day": scene,
    "night": lambda k, wh: grey(scene(k, wh)),
    "faded": lambda k, wh: cv2.addWeighted(scene(k, wh), 0.3, grey(scene(k, wh)), 0.7, 0),
    "infrared light": tinted,
    "grey with a scale": lambda k, wh: with_scale(grey(luma(k, wh))),
}


def write(path, *tracks, frames=12, titles=()):
    """Write one track for each (what it shows, width and height)."""
    with av.open(str(path), "w") as container:
        streams = []
        for k, (show, wh) in enumerate(tracks):
            deep = show == "counts"
            stream = container.add_stream("ffv1" if deep else "libx264", rate=30, options={} if deep else {"crf": "20"})
            stream.width, stream.height = wh
            stream.pix_fmt = "gray16le" if deep else "yuv420p"
            if titles and titles[k]:
                stream.metadata["title"] = titles[k]
            streams.append(stream)
        for k in range(frames):
            for stream, (show, wh) in zip(streams, tracks, strict=True):
                image = SHOWS[show](k, wh)
                container.mux(stream.encode(VideoFrame.from_ndarray(image, "gray16le" if image.ndim == 2 else "rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return str(path)


LARGE = (320, 240)
TOLD = [
    # thermal, RGB, size of RGB, a word of the line
    ("jet", "night", WH, "false colours"),
    ("rainbow", "night", LARGE, "false colours"),
    ("rainbow", "faded", WH, "false colours"),
    ("iron", "day", WH, "false colours"),
    ("late iron", "night", WH, "false colours"),
    ("iron", "infrared light", WH, "false colours"),
    ("grey thermal", "day", WH, "grey"),
    ("grey thermal", "infrared light", LARGE, "size"),
    ("grey thermal", "infrared light", WH, "not sure"),
    ("grey thermal", "night", LARGE, "size"),
    ("grey with a scale", "day", WH, "few colours"),
    ("grey with a scale", "night", LARGE, "size"),
    ("counts", "night", WH, "more than 8 bits"),
    ("counts", "jet", WH, "more than 8 bits"),
]


@pytest.mark.parametrize("first", ["thermal", "RGB"])
@pytest.mark.parametrize("case", TOLD, ids=lambda case: f"{case[0]} beside {case[1]} {case[2][0]}")
def test_tracks_are_told_apart_by_what_they_show(tmp_path, case, first):
    ir, rgb, size_wh, word = case
    tracks = [(ir, WH), (rgb, size_wh)]
    path = write(tmp_path / "two.mkv", *(tracks if first == "thermal" else tracks[::-1]))
    thermal, colour = (1, 2) if first == "thermal" else (2, 1)
    found = pair_in(path, in_false_colours)
    assert found[:2] == (f"{path}?track={thermal}", f"{path}?track={colour}"), found
    assert word in found[2]
    assert "?track=N" in found[2]
    how = PictureOptions(false_colours=in_false_colours)
    assert Recording(path, "rgb", picture=how).info.size_wh == size_wh


@pytest.mark.parametrize("tracks", [("jet", "rainbow"), ("night", "night"), ("day", "day")])
def test_tracks_that_look_alike_are_refused_with_the_option(tmp_path, tracks):
    path = write(tmp_path / "two.mkv", *((show, WH) for show in tracks))
    with pytest.raises(ConfigError, match=r"unclear.*\?track=1' '.*\?track=2'"):
        pair_in(path, in_false_colours)


@pytest.mark.parametrize("titles", [("thermal", None), (None, "visible")])
def test_the_title_of_one_track_tells_of_the_other(tmp_path, titles):
    path = write(tmp_path / "two.mkv", ("day", WH), ("grey thermal", WH), titles=titles)
    assert pair_in(path, in_false_colours)[:2] == (f"{path}?track=1", f"{path}?track=2")
