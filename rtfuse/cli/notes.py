"""Tell a user of settings without effect, and of sources that look wrong: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from rtfuse.arrays import has_colour
from rtfuse.capture import is_live, open_source
from rtfuse.capture.paths import is_device, is_pipe
from rtfuse.capture.stills import is_stills
from rtfuse.config import Camera, Config
from rtfuse.errors import DeviceUnavailable, RtfuseError, SourceLost, SourceNotFound
from rtfuse.observe.logs import silence
from rtfuse.observe.trace import Trace
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig

_GREY = ("GREY", "Y10", "Y12", "Y14", "Y16", "Y16-BE")
"""Pixel formats of V4L2 cameras without colour."""


def open_rig_or_advise(
    config: Config, replay: str | None, *, trace: Trace | None = None, status: Callable[[], str] | None = None
) -> Rig:
    """Open the rig; the error of a missing camera says how to start without it. See `open_rig`."""
    try:
        return open_rig(config, replay=replay, trace=trace, status=status)
    except (DeviceUnavailable, SourceNotFound, SourceLost) as e:
        live = any(camera.uri and is_live(camera.uri) for camera in (config.ir, config.rgb))
        if replay is None and live and config.degraded.start == "both" and config.degraded.policy != "stop":
            raise type(e)(f"{e}; to start without it and wait: degraded.start=any") from e
        raise


def notes(config: Config, rig: Rig, replay: str | None = None) -> Iterator[str]:
    """Yield a line for each setting without effect, and for each source that looks wrong."""
    yield from _unused(config)
    if replay is None:
        yield from _ignored("ir", config.ir)
        yield from _ignored("rgb", config.rgb)
        yield from _doubts(config, rig)


def _unused(config: Config) -> Iterator[str]:
    """Yield a line for each option that needs another one."""
    if config.publish.keys and config.publish.endpoint is None and not config.publish.endpoints:
        yield "publish.keys (--keys) has no effect: nothing is published"
    if config.web.detections and config.web.address is None:
        yield "web.detections (--boxes) has no effect without the page: add --web"
    if config.web.detections_keys and not config.web.detections:
        yield "web.detections_keys (--boxes-keys) has no effect without a detector: add --boxes"
    sources = [camera.uri for camera in (config.ir, config.rgb) if camera.uri]
    ending = [uri for uri in sources if uri.startswith("synthetic:") and "duration_s" in uri]
    if config.playback.loop and sources and all(is_live(uri) or uri in ending for uri in sources):
        yield "playback.loop (--loop) has no effect: it is for recordings"


def _ignored(stream: str, camera: Camera) -> Iterator[str]:
    """Yield a line if a source ignores settings that are for cameras."""
    uri = camera.uri or ""
    if not uri or is_device(uri):
        return
    given = {"size": camera.size, "fps": None if is_stills(uri) else camera.fps, "format": camera.format}
    names = [f"{stream}.{name}" for name, value in given.items() if value is not None]
    if camera.controls:
        names.append(f"{stream}.controls")
    if not names:
        return
    instead = "they are for cameras at /dev/videoN" if len(names) > 1 else "it is for cameras at /dev/videoN"
    if uri.startswith("synthetic:"):
        w, h = camera.size or (640, 480)
        instead = f"write 'synthetic:?size={w}x{h}{f'&fps={camera.fps:g}' if camera.fps else ''}'"
    yield f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect on {_named(uri)}: {instead}"


def _named(uri: str) -> str:
    return "the synthetic street" if uri.startswith("synthetic:") else "a network stream" if is_live(uri) else "a file"


def _doubts(config: Config, rig: Rig) -> Iterator[str]:
    """Yield a line for pictures that stand against each other, swapped sources, and thermal in false colours."""
    (iw, ih), (w, h) = (rig.sources[stream].info.size_wh for stream in STREAMS)
    if (iw - ih) * (w - h) < 0 and rig.aligner.stretched:
        kinds = ("landscape", "portrait")
        yield (
            f"thermal is {kinds[iw < ih]} ({iw}x{ih}) and RGB {kinds[w < h]} ({w}x{h}): one of them seems to be turned "
            "by 90 degrees, and without a calibration thermal is stretched"
        )
    ir_colour, rgb_colour = (_has_colour(camera.uri) for camera in (config.ir, config.rgb))
    grey_camera = rig.sources["rgb"].info.coding in _GREY
    if (ir_colour and rgb_colour is False) or grey_camera:
        yield "RGB has no colour" + (" and thermal has" if ir_colour else "") + ": are --ir and --rgb swapped?"
    elif ir_colour:
        yield (
            "thermal is in colour: its brightness alone is used, which is not its heat in false colours; "
            "record it white-hot"
        )


def _has_colour(uri: str | None) -> bool | None:
    """Return True if the first picture of a file has colour; None for other sources, which are not opened twice."""
    if not uri or uri.startswith("synthetic:") or is_live(uri) or is_pipe(uri):
        return None
    with silence():
        try:
            source = open_source(uri, "rgb")
        except RtfuseError:
            return None
        with closing(source):
            frame = next(islice(source, 1), None)
    return None if frame is None else has_colour(frame.image)
