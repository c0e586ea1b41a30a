"""From a `Config` to the opened parts of a pipeline; a wrong configuration is an error before any device is opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import rtfuse
from rtfuse.align.aligner import Aligner
from rtfuse.align.calibration import Calibration, load_calibration
from rtfuse.capture import is_live, open_source
from rtfuse.capture.pacing import Playback
from rtfuse.capture.prepared import Prepared, Step
from rtfuse.capture.reconnect import Absent, Reconnecting
from rtfuse.config import Camera, Config, Endpoint, dump_config
from rtfuse.errors import ConfigError, DeviceUnavailable, SourceLost, SourceNotFound, redact
from rtfuse.fuse import DEFAULT_FUSER, Fuser, open_fuser
from rtfuse.fuse.deflicker import Steady
from rtfuse.observe.health import Health
from rtfuse.observe.watchdog import Supervisor
from rtfuse.pipeline.parts import Order, Rig
from rtfuse.pipeline.queues import STREAMS
from rtfuse.publish.planes import Offer
from rtfuse.publish.publisher import About, Publisher
from rtfuse.record.raw import RawRecorder
from rtfuse.record.replay import Replay
from rtfuse.sync.pairer import Pairer
from rtfuse.thermal.agc import Agc
from rtfuse.thermal.cameras import camera_named
from rtfuse.thermal.preprocessing import FreezeWatch, ThermalFront
from rtfuse.types import Clock, Frame, Source, SourceInfo, Stream
from rtfuse.wire.description import CameraAbout

_MS = 1_000_000
_OPEN_S = 5.0
"""How long opening a network stream may take, for what watches over it."""
_log = logging.getLogger("rtfuse")


def open_rig(
    config: Config,
    *,
    replay: str | None = None,
    clock: Clock = time.monotonic_ns,
    sources: Mapping[Stream, Callable[[], Source]] | None = None,
) -> Rig:
    """Open calibration, fuser and sources, and fit them together; sinks are added by the caller.

    `replay` is a recording of `rtfuse record` to take the frames from, at the times at which they came then. `sources`
    open others in place of the configured ones. Raises the `RtfuseError` of whatever cannot be opened.
    """
    calibration = load_calibration(config.align.calib) if config.align.calib else None
    if calibration is not None and calibration.quality is not None and calibration.quality.verdict == "fail":
        error = f"{calibration.quality.pair_error_px:.1f} px"
        _log.warning("calibration %s is not good: %s between the pictures; see calib report", config.align.calib, error)
    opener = _Opener(config, clock, dict(sources or {}), replay)
    opener.check()
    how = config.fuse
    order: Order = "replay" if replay else "lossless" if config.playback.speed == "max" else "live"
    name = DEFAULT_FUSER if how.fuser == "auto" and order == "lossless" else how.fuser
    fuser = open_fuser(name, weights=how.weights, engine=how.engine, precision=how.precision, plan=how.plan)
    opened: dict[Stream, Source] = {}
    try:
        for stream in STREAMS:
            opened[stream] = opener.open_or_wait(stream)
        (iw, ih), (w, h) = (opened[s].info.size_wh for s in STREAMS)
        fit = partial(Aligner, calibration=calibration, seam_px=config.align.seam_px)
        aligner = fit((ih, iw), (h, w))
        times = 1.0 if config.playback.speed == "max" or replay else config.playback.speed
        _prepare(fuser, aligner, (opened["rgb"].info.rate_hz or 30) * times)
        if order == "lossless" and any(s.info.live for s in opened.values()):
            raise ConfigError("playback.speed: 'max' is for recordings; a camera gives its frames at its own pace")
    except BaseException:
        for source in opened.values():
            source.close()
        raise
    if replay:
        clock = _replayed(opened, clock, 1.0 if config.playback.speed == "max" else config.playback.speed)
    quiet_ns = _quiet_ns(config, opened)
    rig = Rig(
        sources=opened,
        pairer=_fit_pairer(config, opened, calibration, order, quiet_ns),
        aligner=aligner,
        fuser=fuser,
        agc=_agc(config),
        steady=Steady() if how.steady else None,
        playback=Playback(None if config.playback.speed == "max" else config.playback.speed, config.playback.loop),
        order=order,
        queue=config.sync.queue,
        policy=config.degraded.policy,
        limit_ns=round(max(config.ir.timeout_ms, config.rgb.timeout_ms) * _MS),
        mark=config.degraded.mark,
        reopen=opener.open,
        fit=fit,
        health={s: Health(s, quiet_ns=max(quiet_ns[s], 150 * _MS), clock=clock) for s in STREAMS},
        supervisor=Supervisor(limit_s=config.supervise.limit_s),
        clock=clock,
    )
    if config.degraded.policy != "stop":
        for stream in STREAMS:
            _make_lasting(rig, opener, stream)
    return rig


def _prepare(fuser: Fuser, aligner: Aligner, rate_hz: float) -> None:
    """Let a fuser get ready for what will come, so that the first frame does not wait."""
    fuser.aim(rate_hz)
    fuser.prepare(aligner.rgb_hw if aligner.stretched else aligner.ir_hw, aligner.rgb_hw)


@dataclass(frozen=True, slots=True)
class _Opener:
    """Opens a stream's source with everything that its frames pass through before they are paired."""

    config: Config
    clock: Clock
    given: Mapping[Stream, Callable[[], Source]]
    replay: str | None

    def check(self) -> None:
        """Raise ConfigError for what is wrong before any device is opened."""
        camera_named(self.config.thermal.camera)
        self._front(freeze=True)
        for stream in STREAMS:
            if self.replay is None and stream not in self.given and not self._camera(stream).uri:
                raise ConfigError(f"{stream}.uri: no source given; use --{stream} URI or set it in the config file")

    def open(self, stream: Stream) -> Source:
        """Return the source, opened."""
        if self.replay is not None:
            return self._prepared(stream, Replay(self.replay, stream, clock=self.clock))
        return self._prepared(stream, self.again(stream))

    def open_or_wait(self, stream: Stream) -> Source:
        """Return the source, opened; or, if the configuration says so, what stands for a camera that is not there."""
        try:
            return self.open(stream)
        except (DeviceUnavailable, SourceNotFound, SourceLost) as e:
            camera, how = self._camera(stream), self.config.degraded
            known = stream in self.given or (camera.uri is not None and is_live(camera.uri))
            if how.start == "both" or how.policy == "stop" or self.replay is not None or not known:
                raise
            size, why = camera.size or (640, 480), str(e)
            _log.warning("%s is not there yet: %s", stream, why)
            dtype = "uint16" if stream == "ir" else "uint8"
            info = SourceInfo(redact(camera.uri or stream), stream, size, dtype, live=True, rate_hz=camera.fps)
            return self._prepared(stream, Absent(info, why))

    def again(self, stream: Stream) -> Source:
        """Return the source itself, as it is now."""
        if stream in self.given:
            return self.given[stream]()
        camera, kind = self._camera(stream), camera_named(self.config.thermal.camera)
        assert camera.uri is not None
        return open_source(
            camera.uri,
            stream,
            fps=camera.fps,
            size_wh=camera.size,
            pixel_format=camera.format,
            controls=camera.controls,
            words=kind.words if kind is not None and stream == "ir" else None,
            timeout_s=camera.timeout_ms / 1000,
            transport=camera.transport,
            clock=self.clock,
        )

    def _camera(self, stream: Stream) -> Camera:
        return self.config.ir if stream == "ir" else self.config.rgb

    def _front(self, *, freeze: bool) -> ThermalFront:
        t = self.config.thermal
        return ThermalFront(
            camera=t.camera, k_per_count=t.k_per_count, polarity=t.polarity, dead_pixels=t.dead_pixels, freeze=freeze
        )

    def _prepared(self, stream: Stream, source: Source) -> Source:
        """Return the source behind its steps: times that make sense, telemetry, dead pixels, frozen pictures."""
        info, steps = source.info, list[Step]()
        freeze = self._camera(stream).freeze
        if freeze is None:  # a compressed stream, or a drawing, may repeat a picture of a scene at rest
            freeze = info.dtype == "uint16" or info.uri.startswith("/dev/")
        if stream == "rgb":
            if freeze:
                steps.append(_watched(FreezeWatch()))
            return Prepared(source, steps) if steps or info.live else source
        front = self._front(freeze=freeze)

        def described(raw: SourceInfo) -> SourceInfo:
            return replace(raw, size_wh=front.size_wh(raw.size_wh, raw.dtype))

        return Prepared(source, [*steps, front], described)


def _watched(watch: FreezeWatch) -> Step:
    def step(frame: Frame) -> Frame:
        return replace(frame, frozen=True) if watch(frame.image) else frame

    return step


def open_lasting(config: Config, stream: Stream, *, clock: Clock = time.monotonic_ns) -> Source:
    """Open a stream's source alone; a live one is opened again whenever it is lost."""
    opener = _Opener(config, clock, {}, None)
    opener.check()
    source = opener.open(stream)
    if isinstance(source, Prepared) and source.info.live:
        reopen: Callable[[], Source] = getattr(source.source, "again", None) or partial(opener.again, stream)
        source.source = Reconnecting(source.source, reopen)
    return source


def open_raw(config: Config, sources: Mapping[Stream, Source]) -> RawRecorder:
    """Open the file that both streams are recorded to, as their cameras send them, as the configuration says."""
    infos = {s: (source.source if isinstance(source, Prepared) else source).info for s, source in sources.items()}
    raw = config.raw
    assert raw.path is not None
    calib = config.align.calib
    return RawRecorder(
        raw.path,
        infos,
        rgb_codec=raw.rgb_codec,
        split_s=raw.split_s,
        split_bytes=round(raw.split_mb * 1e6) if raw.split_mb else None,
        reserve_bytes=round(raw.reserve_mb * 1e6),
        metadata={"config": dump_config(config), "calibration": Path(calib).read_text() if calib else ""},
        force=raw.force,
    )


def _make_lasting(rig: Rig, opener: _Opener, stream: Stream) -> None:
    """Make a live source one that is opened again whenever it is lost."""
    prepared = rig.sources[stream]
    if not isinstance(prepared, Prepared) or not prepared.info.live:
        return
    camera = opener._camera(stream)
    heart = rig.supervisor.heart(f"capture-{stream}", patience_s=camera.timeout_ms / 1000 + 2 * _OPEN_S)
    rig.hearts[stream] = heart
    reopen: Callable[[], Source] = getattr(prepared.source, "again", None) or partial(opener.again, stream)
    prepared.source = Reconnecting(prepared.source, reopen, watcher=rig.health[stream], alive=heart.beat)


def _quiet_ns(config: Config, sources: Mapping[Stream, Source]) -> dict[Stream, int]:
    """Return, per stream, after how long without a new picture it counts as missing."""
    if config.degraded.after_ms is not None:
        return dict.fromkeys(STREAMS, round(config.degraded.after_ms * _MS))
    rates = {s: sources[s].info.rate_hz for s in STREAMS}
    slowest = min((rate for rate in rates.values() if rate), default=None)
    quiet = {}
    for stream in STREAMS:
        rate = slowest if config.sync.policy == "strict" else rates[stream]
        quiet[stream] = max(100 * _MS, round(2e9 / rate) if rate else 0)
    return quiet


def _fit_pairer(
    config: Config,
    sources: Mapping[Stream, Source],
    calibration: Calibration | None,
    order: Order,
    quiet_ns: Mapping[Stream, int],
) -> Pairer:
    ir_offset_ms = config.ir.offset_ms + ((calibration and calibration.ir_offset_ms) or 0.0)
    tolerance_ms = config.sync.tolerance_ms
    if tolerance_ms is None:
        rates = [s.info.rate_hz for s in sources.values()]
        tolerance_ms = 500 / min(r for r in rates if r) if all(rates) else 20.0
    live = order == "replay" or any(source.info.live for source in sources.values())
    passes = live and config.degraded.policy == "passthrough"
    return Pairer(
        policy=config.sync.policy,
        tolerance_ns=round(tolerance_ms * _MS),
        max_reuse_ns=round(config.sync.max_reuse_ms * _MS),
        wait_ns=None if order == "lossless" else round(config.sync.wait_ms * _MS),
        offset_ns={"ir": round(ir_offset_ms * _MS), "rgb": round(config.rgb.offset_ms * _MS)},
        alone_after_ns=quiet_ns if passes else None,
        shutter_ns=round(config.degraded.shutter_ms * _MS) if live else 0,
    )


def _agc(config: Config) -> Agc:
    a = config.thermal.agc
    return Agc(
        method=a.method,
        tails=a.tails,
        plateau=a.plateau,
        max_gain=a.max_gain,
        midpoint=a.midpoint,
        tau_ms=a.tau_ms,
        region=a.region,
        freeze=a.freeze,
    )


def _replayed(sources: Mapping[Stream, Source], clock: Clock, speed: float) -> Clock:
    """Return a clock that now stands at the recording's first frame, and runs at this speed."""
    first_ns = min((s.info.start_ns for s in sources.values() if s.info.start_ns is not None), default=0)
    begun_ns = clock()
    return lambda: first_ns + round((clock() - begun_ns) * speed)


def open_publisher(config: Config, clock: Clock = time.monotonic_ns) -> Publisher | None:
    """Bind the ZeroMQ endpoints of the configuration, if there are any."""
    offers = _offers(config)
    if not offers:
        return None
    p = config.publish
    return Publisher(offers, rig=config.rig, allow_remote=p.insecure, keys=p.keys, clock=clock)


def _offers(config: Config) -> list[Offer]:
    """Return what each endpoint publishes."""
    p = config.publish
    listed = p.endpoints or ([Endpoint(endpoint=p.endpoint)] if p.endpoint is not None else [])
    return [
        Offer(
            e.endpoint,
            encoding=e.encoding or p.encoding,
            planes=e.planes if e.planes is not None else p.planes,
            topic=p.topic if e.topic is None else e.topic,
            jpeg_quality=e.jpeg_quality or p.jpeg_quality,
            h264_kbps=e.h264_kbps or p.h264_kbps,
            prefix=f"{config.rig}/" if p.rig_topics else "",
        )
        for e in listed
    ]


def introduce(publisher: Publisher, config: Config, rig: Rig) -> None:
    """Let the publisher say what the rig is, and what its streams are doing."""
    calibration = Path(config.align.calib).read_text(encoding="utf-8") if config.align.calib else ""
    software = rtfuse.__version__

    def camera(info: SourceInfo) -> CameraAbout:
        w, h = info.size_wh
        return CameraAbout(
            uri=info.uri,
            width=w,
            height=h,
            dtype=info.dtype,
            live=info.live,
            rate_hz=info.rate_hz,
            coding=info.coding,
        )

    def states() -> dict[str, tuple[str, str | None]]:
        conditions = {stream: rig.health[stream].condition() for stream in STREAMS}
        return {stream: (c.state.value, c.why) for stream, c in conditions.items()}

    publisher.clock = rig.clock

    def about() -> About:
        return About(software, str(rig.fuser), {s: camera(rig.sources[s].info) for s in STREAMS}, calibration)

    publisher.about = about
    publisher.states = states
