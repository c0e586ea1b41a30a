"""Tell a user of settings without effect, and of sources that look wrong: one line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import islice

from rtfuse.arrays import has_colour
from rtfuse.capture import flir, is_live, open_source
from rtfuse.capture.paths import is_device, is_pipe
from rtfuse.capture.stills import is_stills
from rtfuse.capture.tracks import numbered
from rtfuse.config import Config, SourceSettings, Stills
from rtfuse.errors import DeviceUnavailable, RtfuseError, SourceLost, SourceNotFound
from rtfuse.observe.logs import silence
from rtfuse.observe.trace import Trace
from rtfuse.pipeline.build import open_rig
from rtfuse.pipeline.queues import STREAMS
from rtfuse.pipeline.rig import Rig
from rtfuse.pipeline.scenes import stills_of
from rtfuse.thermal.likeness import in_false_colours
from rtfuse.types import LABELS, Image, Stream

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
    yield from _of_stills(config, rig)
    if replay is None:
        cameras: dict[Stream, SourceSettings] = {"ir": config.ir, "rgb": config.rgb}
        ignored: dict[tuple[str, str], list[str]] = {}
        for stream, camera in cameras.items():
            names, source, instead = _ignored(stream, camera, timed=rig.sources[stream].info.time_base is not None)
            ignored.setdefault((source, instead), []).extend(names)
        yield from (_without_effect(names, *key) for key, names in ignored.items() if names)
        yield from _times(config, rig)
        yield from _doubts(config, rig)


def _unused(config: Config) -> Iterator[str]:
    """Yield a line for each option that needs another one."""
    if config.publish.keys and config.publish.endpoint is None and not config.publish.endpoints:
        yield "publish.keys (--keys) has no effect: nothing is published"
    if config.web.detections and config.web.address is None:
        yield "web.detections (--boxes) has no effect without the page: add --web"
    lonely = [name for name in ("prefix", "proxies", "embed", "link_token") if getattr(config.web, name)]
    if lonely and config.web.address is None:
        yield f"web.{lonely[0]} has no effect without the page: add --web"
    if config.web.detections_keys and not config.web.detections:
        yield "web.detections_keys (--boxes-keys) has no effect without a detector: add --boxes"
    sources = [camera.uri for camera in (config.ir, config.rgb) if camera.uri]
    ending = [uri for uri in sources if uri.startswith("synthetic:") and "duration_s" in uri]
    if config.playback.loop and sources and all(is_live(uri) or uri in ending for uri in sources):
        yield "playback.loop (--loop) has no effect: it is for recordings"


def _of_stills(config: Config, rig: Rig) -> Iterator[str]:
    """Yield lines about stills: how they are paired, and that they are read as a video."""
    if rig.chosen is None:
        for stream in STREAMS:
            if stills_of(rig, stream) is not None:
                rate = f"{rig.sources[stream].info.rate_hz:g} Hz"
                yield f"{LABELS[stream]}: the pictures are read as a video of {rate} (--fps), in natural order"
        plain = Stills()
        given = [f"stills.{f}" for f in plain.__struct_fields__ if getattr(config.stills, f) != getattr(plain, f)]
        if given:
            verb, pronoun = ("has", "it is") if len(given) == 1 else ("have", "they are")
            yield f"{', '.join(given)} {verb} no effect: {pronoun} for stills of both streams"
        return
    yield from rig.chosen.said
    same = all(a.path == b.path for a, b in zip(*rig.chosen.stills.values(), strict=False))
    if same and not flir.is_radiometric(rig.chosen.stills["ir"][0].path):
        yield "thermal and RGB are the same pictures"
    if not rig.stages.scenes and len(rig.chosen.stills["rgb"]) > 1:
        yield f"the pictures are a video of {rig.sources['rgb'].info.rate_hz:g} Hz, paired by {rig.chosen.by}"


def _times(config: Config, rig: Rig) -> Iterator[str]:
    """Yield a line about how the times of recordings are compared, and one if many RGB frames will have no partner."""
    if rig.remark:
        yield rig.remark
    rate_hz, reach_ms = rig.sources["ir"].info.rate_hz, rig.pairer.tolerance_ns / 1e6 + config.sync.max_reuse_ms
    if not rig.live and rate_hz and 1000 / rate_hz > reach_ms and config.sync.tolerance_ms is None:
        yield (
            f"thermal has {rate_hz:.3g} Hz: RGB frames more than {rig.pairer.tolerance_ns / 1e6:.0f} ms before and "
            f"{config.sync.max_reuse_ms:.0f} ms after every thermal frame are left out; "
            f"sync.tolerance_ms={500 / rate_hz:.0f} takes all"
        )


def _ignored(stream: str, camera: SourceSettings, *, timed: bool) -> tuple[list[str], str, str]:
    """Return the names of the settings that a source ignores, a name of the source, and the remedy.

    `timed`: the source stores times.
    """
    uri = camera.uri or ""
    if not uri or is_device(uri):
        return [], "", ""
    timed = timed or uri.startswith("synthetic:") or is_live(uri)
    given = {"size": camera.size, "fps": camera.fps if timed and not is_stills(uri) else None, "format": camera.format}
    names = [f"{stream}.{name}" for name, value in given.items() if value is not None]
    if camera.controls:
        names.append(f"{stream}.controls")
    users = "cameras at /dev/videoN" + (", stills and files without times" if given["fps"] is not None else "")
    if not uri.startswith("synthetic:"):
        return names, _named(uri), f"for {users}"
    wanted = [f"size={camera.size[0]}x{camera.size[1]}"] if camera.size else []
    wanted += [f"fps={camera.fps:g}"] if camera.fps else []
    return names, _named(uri), f"write 'synthetic:?{'&'.join(wanted)}'" if wanted else f"for {users}"


def _without_effect(names: Sequence[str], source: str, instead: str) -> str:
    one = len(names) == 1
    text = instead if instead.startswith("write") else f"{'it is' if one else 'they are'} {instead}"
    return f"{', '.join(names)} {'has' if one else 'have'} no effect on {source}: {text}"


def _named(uri: str) -> str:
    return "the synthetic street" if uri.startswith("synthetic:") else "a network stream" if is_live(uri) else "a file"


def _doubts(config: Config, rig: Rig) -> Iterator[str]:
    """Yield a line for pictures that stand against each other, and for swapped sources."""
    (iw, ih), (w, h) = (rig.sources[stream].info.size_wh for stream in STREAMS)
    if (iw - ih) * (w - h) < 0 and rig.aligner.stretched:
        kinds = ("landscape", "portrait")
        yield (
            f"thermal is {kinds[iw < ih]} ({iw}x{ih}) and RGB {kinds[w < h]} ({w}x{h}): one of them seems to be turned "
            "by 90 degrees, and without a calibration thermal is stretched"
        )
    if flir.is_dji(rig.chosen.stills["ir"][0].path if rig.chosen is not None else config.ir.uri or ""):
        yield (
            "thermal is a radiometric JPEG of DJI, whose counts only DJI's own library reads: the picture in it is "
            "taken; for temperatures, convert it by DJI's Thermal SDK to TIFF and give that"
        )
    grey_camera = rig.sources["rgb"].info.coding in _GREY
    if grey_camera or _seem_swapped(config, deep=rig.sources["ir"].info.dtype == "uint16"):
        yield "RGB looks like thermal (false colours or grey): are the inputs --ir and --rgb swapped?"


def _seem_swapped(config: Config, *, deep: bool) -> bool:
    """Return True if RGB is in false colours, or thermal is the one with a scene's colours; `deep`: it has counts."""
    rgb = None if deep else _first_picture(config.rgb.uri, "rgb")
    ir = None if rgb is None else _first_picture(config.ir.uri, "ir")
    if ir is None or rgb is None:
        return False
    if not has_colour(rgb):
        return has_colour(ir) and not in_false_colours(ir)
    return in_false_colours(rgb) is True and in_false_colours(ir) is not True


def _first_picture(uri: str | None, stream: Stream) -> Image | None:
    """Return the first picture of a file of a stream, in its colours.

    None for other sources, which are not opened twice.
    """
    if not uri or uri.startswith("synthetic:") or is_live(uri) or is_pipe(uri) or flir.is_radiometric(uri):
        return None
    with silence():
        try:
            source = open_source(uri if is_stills(uri) else numbered(uri, stream, in_false_colours), "rgb")
        except RtfuseError:
            return None
        with closing(source):
            frame = next(islice(source, 1), None)
    return None if frame is None else frame.image
