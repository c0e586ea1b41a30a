"""From a `Config` to the opened parts of a pipeline; a wrong configuration is an error before any device is opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from rtfuse.align import Aligner
from rtfuse.calibration import Calibration, load_calibration
from rtfuse.capture import open_source
from rtfuse.config import Camera, Config
from rtfuse.errors import ConfigError
from rtfuse.fuse import RawFuser, open_fuser
from rtfuse.pipeline import Playback, Rig
from rtfuse.publish.zmq import Publisher
from rtfuse.queues import STREAMS
from rtfuse.sync import Pairer
from rtfuse.types import Clock, Source, Stream

_MS = 1_000_000
_log = logging.getLogger("rtfuse")


def open_rig(
    config: Config, *, clock: Clock = time.monotonic_ns, sources: Mapping[Stream, Source] | None = None
) -> Rig:
    """Open calibration, fuser and sources, and fit them together; sinks are added by the caller.

    `sources` takes the place of the configured ones. Raises the `RtfuseError` of whatever cannot be opened.
    """
    cameras: dict[Stream, Camera] = {"ir": config.ir, "rgb": config.rgb}
    calibration = load_calibration(config.align.calib) if config.align.calib else None
    if calibration is not None and calibration.quality is not None and calibration.quality.verdict == "fail":
        error = f"{calibration.quality.pair_error_px:.1f} px"
        _log.warning("calibration %s is not good: %s between the pictures; see calib report", config.align.calib, error)
    how = config.fuse
    fuser = open_fuser(how.fuser, weights=how.weights, engine=how.engine, precision=how.precision, plan=how.plan)
    given = dict(sources or {})
    for stream in STREAMS:
        if stream not in given and not cameras[stream].uri:
            raise ConfigError(f"{stream}.uri: no source given; use --{stream} URI or set it in the config file")

    def reopen(stream: Stream) -> Source:
        camera = cameras[stream]
        assert camera.uri is not None
        return open_source(
            camera.uri, stream, fps=camera.fps, size_wh=camera.size, pixel_format=camera.format, clock=clock
        )

    opened: dict[Stream, Source] = {}
    try:
        for stream in STREAMS:
            opened[stream] = given.get(stream) or reopen(stream)
        aligner = _fit_aligner(opened, config, calibration)
        if isinstance(fuser, RawFuser):
            fuser.prepare(aligner.rgb_hw if aligner.stretched else aligner.ir_hw, aligner.rgb_hw)
        lossless = config.playback.speed == "max"
        if lossless and any(s.info.live for s in opened.values()):
            raise ConfigError("playback.speed: 'max' is for recordings; a camera gives its frames at its own pace")
    except BaseException:
        for source in opened.values():
            source.close()
        raise
    return Rig(
        sources=opened,
        pairer=_fit_pairer(opened, config, calibration, lossless),
        aligner=aligner,
        fuser=fuser,
        playback=Playback(None if config.playback.speed == "max" else config.playback.speed, config.playback.loop),
        lossless=lossless,
        queue=config.sync.queue,
        reopen=reopen,
        clock=clock,
    )


def _fit_aligner(sources: Mapping[Stream, Source], config: Config, calibration: Calibration | None) -> Aligner:
    (iw, ih), (w, h) = (sources[s].info.size_wh for s in STREAMS)
    return Aligner((ih, iw), (h, w), calibration, seam_px=config.align.seam_px)


def _fit_pairer(
    sources: Mapping[Stream, Source], config: Config, calibration: Calibration | None, lossless: bool
) -> Pairer:
    ir_offset_ms = config.ir.offset_ms + ((calibration and calibration.ir_offset_ms) or 0.0)
    tolerance_ms = config.sync.tolerance_ms
    if tolerance_ms is None:
        rates = [s.info.rate_hz for s in sources.values()]
        tolerance_ms = 500 / min(r for r in rates if r) if all(rates) else 20.0
    return Pairer(
        policy=config.sync.policy,
        tolerance_ns=round(tolerance_ms * _MS),
        max_reuse_ns=round(config.sync.max_reuse_ms * _MS),
        wait_ns=None if lossless else round(config.sync.wait_ms * _MS),
        offset_ns={"ir": round(ir_offset_ms * _MS), "rgb": round(config.rgb.offset_ms * _MS)},
    )


def open_publisher(config: Config) -> Publisher | None:
    """Bind the ZeroMQ endpoint of the configuration, if there is one."""
    if config.publish.endpoint is None:
        return None
    return Publisher(
        config.publish.endpoint,
        topic=config.publish.topic,
        encoding=config.publish.encoding,
        jpeg_quality=config.publish.jpeg_quality,
        rig=config.rig,
        allow_remote=config.publish.insecure,
    )
